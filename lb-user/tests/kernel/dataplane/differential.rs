//! Random segments of defended services, the same through the program and through the host's model: verdict, reason, metadata, and the
//! SYN-ACK byte for byte.
//!
//! Sources, ports and numbers are from small sets, so that flows meet again, cookies are right or nearly right, and known flows are known.

mod generator;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use lb_common::{Reason, abi::DefencePolicy};

use self::generator::Generator;
use super::{
    Experiment, Plane,
    defended::{CALM, State},
    harness::Counts,
    model::Model,
    run,
    world::LOOPBACK,
};

/// How many segments.
const SEGMENTS: usize = 1_000_000;
/// How many in one state: a hundredth of a second, far less than a known flow's life, also where the machine has other work.
const BATCH: usize = 1_000;
/// No run is longer, whatever the machine is doing besides.
const LONGEST: Duration = Duration::from_secs(55);

/// `WEIR_SEED` repeats a run, `WEIR_SEGMENTS` makes it longer or shorter.
pub fn segments(plane: &Plane) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")));
    let seed = number("WEIR_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs());
    let wanted = number("WEIR_SEGMENTS").map_or(SEGMENTS, |wanted| usize::try_from(wanted).expect("a number of segments"));
    println!("random segments of WEIR_SEED={seed}");
    plane.ground().run(|| {
        // What limits take and what begins a flood hangs on the time; their tests are others.
        let mut world = plane.world.clone();
        for (service, policy) in &mut world.policies {
            let thresholds = plane.world.policies[&CALM].thresholds;
            *policy = DefencePolicy { thresholds, new_connections: 0, datagrams: 0, datagram_bytes: 0, ..*policy };
            plane.kernel.defend(*service, policy);
        }
        let met = compare(plane, &mut Model::new(&world), &mut Generator::new(seed), wanted);
        for (service, policy) in &plane.world.policies {
            plane.kernel.defend(*service, policy);
        }
        println!("WEIR_SEED={seed}: {met:?}");
        let others = [Reason::NoMetadata, Reason::NewFlowsOverLimit, Reason::DatagramsOverLimit];
        let of_defence = &Reason::ALL[Reason::CookieSent.index()..];
        let missing: Vec<_> = of_defence.iter().filter(|reason| !met.contains_key(reason.label()) && !others.contains(reason)).collect();
        assert!(missing.is_empty() || wanted < SEGMENTS, "WEIR_SEED={seed}: no segment met {missing:?}");
    });
}

/// Runs the segments; how often each reason was met.
fn compare(plane: &Plane, model: &mut Model<'_>, generator: &mut Generator, wanted: usize) -> BTreeMap<&'static str, usize> {
    let mut met = BTreeMap::new();
    let (start, mut done) = (Instant::now(), 0);
    let mut counted: HashMap<(u32, Reason), u64> = HashMap::new();
    for state in State::ALL.into_iter().chain([State::Awake; 5]).cycle() {
        if done >= wanted {
            break;
        }
        assert!(start.elapsed() < LONGEST, "{done} of {wanted} segments in {LONGEST:?}");
        generator.flows().iter().for_each(|flow| plane.kernel.forget(flow));
        plane.kernel.prepare(&plane.world, state);
        model.forget();
        let before = plane.kernel.counts();
        let mut expected = Counts::default();
        for _ in 0..BATCH {
            let frame = generator.frame();
            let (fate, effect) = model.judge(&frame, &frame, LOOPBACK, state);
            *met.entry(fate.reason.label()).or_default() += 1;
            expected.add(&fate, frame.len());
            // What the counter of its reason has come to, which no other segment moved.
            let tally = counted.entry((fate.service, fate.reason));
            let packets = tally.or_insert_with(|| plane.kernel.counter(fate.service, fate.reason));
            *packets += 1;
            let outcome = plane.kernel.run(&run(&frame));
            if plane.kernel.counter(fate.service, fate.reason) != *packets {
                let seen = plane.kernel.counts().since(&before).packets;
                panic!("WEIR_SEED={}, {state:?}: not {fate:?} for {frame:02x?}; its batch so far: {seen:?}", generator.seed);
            }
            Experiment { run: run(&frame), state: None, fate, effect }.check(&outcome);
        }
        assert_eq!(plane.kernel.counts().since(&before), expected, "WEIR_SEED={}, {state:?}", generator.seed);
        done += BATCH;
    }
    println!("{done} segments in {:.1} s", start.elapsed().as_secs_f64());
    met
}
