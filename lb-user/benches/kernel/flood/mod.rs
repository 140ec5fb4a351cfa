//! What a flood costs whom it meets, and what a client in the midst of it notices: the kernel's own cookies, nftables' synproxy, Weir.
//!
//! Each setting has a pair of namespaces and a SO_REUSEPORT group of its own; they take turns, round by round. The flood comes from one
//! CPU, and the server's device is polled by a kernel thread on another, whose CPU time is what the receiving costs (threaded NAPI).

mod client;
mod scene;
mod thread;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    Filter,
    report::{Table, median},
    support::{
        flood::{FloodKind, FloodPlan},
        prerequisites::raise_open_file_limit,
    },
};

use scene::{Scene, Turn};

/// Every setting has so many turns under each load.
const ROUNDS: usize = 3;
/// The longest that a turn's flood lasts: it ends when the clients, who begin nothing new after [`client::BEGIN_FOR`], are done.
const LONGEST: Duration = Duration::from_secs(5);

/// What stands before the service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Setting {
    /// The kernel's cookies: never, when the SYN queue is full, always.
    Cookies(u8),
    /// nftables' synproxy in the server's namespace.
    Synproxy,
    /// Weir, with XDP in the driver or in the kernel's generic path.
    Weir(&'static str),
    /// Nobody is served: an XDP program of two instructions that returns this for every packet. No defence on this device costs less.
    Floor(i32),
    /// The same with a program that looks for the socket of each packet first.
    FloorOfLookup,
}

const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;

const SETTINGS: &[(&str, Setting)] = &[
    ("tcp_syncookies=0", Setting::Cookies(0)),
    (REFERENCE, Setting::Cookies(1)),
    ("tcp_syncookies=2", Setting::Cookies(2)),
    ("nftables synproxy", Setting::Synproxy),
    ("Weir, native", Setting::Weir("native")),
    ("Weir, generic", Setting::Weir("generic")),
    ("(floor: XDP drops all)", Setting::Floor(XDP_DROP)),
    ("(floor: XDP sends all back)", Setting::Floor(XDP_TX)),
    ("(floor: XDP looks for a socket, drops all)", Setting::FloorOfLookup),
];

/// What every kernel does by itself: the others are told as multiples of it.
const REFERENCE: &str = "tcp_syncookies=1";

/// The floods: what, and how many a second where it is not as many as go.
///
/// At full speed the veth's ring of 256 frames overflows before any of these, and clients lose their SYNs there, as on a card that is
/// full; what the clients notice of the defence itself shows at a rate that all of them take.
const LOADS: &[(&str, FloodKind, Option<u64>)] =
    &[("SYN flood", FloodKind::Syn, None), ("SYN flood of 50,000/s", FloodKind::Syn, Some(50_000)), ("ACK flood", FloodKind::Ack, None)];

/// Measures all settings under all loads.
pub fn measure(filter: &Filter) -> Table {
    let name = |load: &str, setting: &str| format!("{load}: {setting}");
    let wanted = |setting: &str| LOADS.iter().any(|(load, ..)| filter.takes(&name(load, setting)));
    let mut table = Table {
        about: format!(
            "**Flood**: a server under packets of random sources, by XDP live frames over veth, and {} clients who connect one after \
             another meanwhile; the cost is the time of the server's NAPI thread for each packet that it takes in; by turns, medians of \
             {ROUNDS}, connect times of all rounds",
            client::CLIENTS
        ),
        columns: &[
            ("load", "load: defence"),
            ("offered_pps", "offered, packets/s"),
            ("absorbed_pps", "taken in, packets/s"),
            ("ns_per_packet", "cost, ns/packet"),
            ("ratio", "packets per CPU time, tcp_syncookies=1 is 1"),
            ("answers_pps", "answers, packets/s"),
            ("attempted", "connects"),
            ("ok_percent", "of them good, %"),
            ("p50_ms", "connect p50, ms"),
            ("p99_ms", "p99, ms"),
            ("answered_p50_ms", "answer p50, ms"),
            ("options", "options kept"),
        ],
        rows: Vec::new(),
    };
    let settings: Vec<_> = SETTINGS.iter().filter(|(setting, _)| wanted(setting)).collect();
    if settings.is_empty() {
        return table;
    }
    raise_open_file_limit();
    let scenes: Vec<_> = settings.iter().map(|(name, setting)| (*name, Scene::new(*setting))).collect();
    for (load, kind, rate) in LOADS {
        let scenes: Vec<_> = scenes.iter().filter(|(setting, _)| filter.takes(&name(load, setting))).collect();
        let mut turns: Vec<Vec<Turn>> = scenes.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for ((_, scene), turns) in scenes.iter().zip(&mut turns) {
                let plan = FloodPlan::new(*kind, scene.target(), scene.mac()).packets(u64::MAX).lasting(LONGEST);
                turns.push(scene.turn(&FloodPlan { rate: *rate, ..plan }));
            }
        }
        let cost = |turns: &[Turn]| middle(turns, |turn| turn.busy / turn.taken_in.max(1.0));
        let reference = scenes.iter().zip(&turns).find(|((setting, _), _)| *setting == REFERENCE).map(|(_, turns)| cost(turns));
        let row = |((setting, _), turns): (&&(&str, Scene), &Vec<Turn>)| row(&name(load, setting), turns, cost(turns), reference);
        table.rows.extend(scenes.iter().zip(&turns).map(row));
    }
    table
}

fn row(name: &str, turns: &[Turn], cost: f64, reference: Option<f64>) -> Vec<Value> {
    let per_second = |of: fn(&Turn) -> f64| json!(middle(turns, |turn| of(turn) / turn.seconds).round());
    let sorted = |of: fn(&Turn) -> &Vec<f64>| {
        let mut samples: Vec<f64> = turns.iter().flat_map(|turn| of(turn).iter().copied()).collect();
        samples.sort_by(f64::total_cmp);
        samples
    };
    let (connected, answered) = (sorted(|turn| &turn.connects.connected), sorted(|turn| &turn.connects.answered));
    let at = |sorted: &[f64], percent: usize| sorted.get(sorted.len() * percent / 100).map(|value| (value * 100.0).round() / 100.0);
    let attempted: usize = turns.iter().map(|turn| turn.connects.attempted).sum();
    let good = u32::try_from(connected.len() * 1000 / attempted.max(1)).expect("per mille");
    let options: Vec<&str> = turns.iter().filter_map(|turn| turn.connects.options.as_deref()).collect();
    vec![
        json!(name),
        per_second(|turn| turn.offered),
        per_second(|turn| turn.taken_in),
        json!(cost.round()),
        json!(reference.map(|reference| (reference / cost * 100.0).round() / 100.0)),
        per_second(|turn| turn.answers),
        json!(attempted),
        json!(f64::from(good) / 10.0),
        json!(at(&connected, 50)),
        json!(at(&connected, 99)),
        json!(at(&answered, 50)),
        json!(options.first().unwrap_or(&"none connected")),
    ]
}

/// The median over the turns.
fn middle(turns: &[Turn], value: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<_> = turns.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}
