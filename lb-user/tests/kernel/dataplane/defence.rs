//! The SYN defence, packet by packet: its rows, the same cut and split, and what several packets do to each other.

mod sequences;

use std::collections::HashSet;

use lb_common::Reason;

use super::{
    Experiment, Plane, Test,
    defended::State,
    fate, is_near_headers,
    model::{Effect, Model},
    rows::{Row, defence as rows},
    run,
    world::LOOPBACK,
};
use crate::{
    dataplane::{bpf::Run, differential},
    support::packet::Segment,
};

/// The tests, by name.
pub fn tests() -> Vec<(String, Test)> {
    let of_row = |row: Row| -> (String, Test) { (format!("row::{}", row.name), Box::new(move |plane| check(plane, &row))) };
    let others: [(&str, Test); 4] = [
        ("defence_rows_cut_at_every_length", Box::new(cut)),
        ("defence_rows_in_two_buffers", Box::new(split)),
        ("defence_rows_meet_every_reason", Box::new(reasons)),
        ("random_segments_as_the_host_says", Box::new(differential::segments)),
    ];
    let others = others.into_iter().map(|(name, test)| (name.to_owned(), test));
    rows::all().into_iter().map(of_row).chain(others).chain(sequences::tests()).collect()
}

/// One row: the verdict, the frame that comes out, its metadata and the counters are as it says, and the host's model says the same.
fn check(plane: &Plane, row: &Row) {
    let frame = row.frame();
    let (fate, effect) = (fate(plane, row, &frame), row.effect());
    if let Effect::Becomes(answer) = &effect {
        is_sound(&frame, answer);
    }
    let judged = Model::new(&plane.world).judge(&frame, &frame, LOOPBACK, row.state);
    let experiment = Experiment { run: run(&frame), state: Some(row.state), fate, effect: effect.clone() };
    plane.ground().run(|| plane.expect(&[experiment]));
    assert_eq!(judged, (fate, effect), "the host's model says otherwise");
    assert_eq!(plane.kernel.all_counts(), plane.kernel.counts(), "a counter of nobody has moved");
}

/// A SYN-ACK as a parser that knows nothing of the programs reads it, both checksums summed up.
fn is_sound(syn: &[u8], answer: &[u8]) {
    assert!(answer.len() <= syn.len(), "{} bytes answer {}", answer.len(), syn.len());
    // The parser reads no tags.
    let untagged = |frame: &[u8]| if frame[12..14] == [0x81, 0] { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() };
    let [syn, answer] = [syn, answer].map(|frame| Segment::parse(&untagged(frame)).expect("a segment"));
    assert!(answer.intact, "its checksums are wrong: {answer:?}");
    assert_eq!((answer.source, answer.destination), (syn.destination, syn.source));
    assert_eq!((answer.acknowledgement, answer.flags & 0x3f, answer.ttl), (syn.sequence.wrapping_add(1), 0x12, 64));
    assert_eq!(answer.options.len(), syn.options.len());
    assert!(answer.payload.is_empty() && answer.window > 60_000, "{answer:?}");
    for kind in [2, 3, 4, 8] {
        assert!(answer.option(kind).is_none() || syn.option(kind).is_some(), "option {kind} answers nothing");
    }
    assert_eq!(
        answer.option(8).map(|content| &content[4..]),
        syn.option(8).filter(|_| answer.option(8).is_some()).map(|content| &content[..4])
    );
    // Behind the last option there is nothing but the end of the list.
    let said: HashSet<_> = [2, 3, 4, 8].into_iter().filter(|kind| answer.option(*kind).is_some()).collect();
    let needed = if said.contains(&2) { 4 } else { 0 }
        + if said.contains(&8) {
            12
        } else if said.contains(&4) {
            4
        } else {
            0
        }
        + if said.contains(&3) { 4 } else { 0 };
    assert!(answer.options[needed..].iter().all(|byte| *byte == 0), "{:02x?}", answer.options);
}

/// Every row ends at every length.
fn cut(plane: &Plane) {
    at_every_length(plane, 14, |frame, length| (run(&frame[..length]), &frame[..length]));
}

/// Every row in two buffers: only what is in the first counts as there.
fn split(plane: &Plane) {
    if !plane.can_split {
        return println!("not run: it needs Linux 6.18");
    }
    at_every_length(plane, 0, |frame, length| (Run { first_buffer: Some(length), ..run(frame) }, frame));
}

/// Runs every row at every length from the shortest on, made by `cut` of its frame: what comes of it is what the model says.
fn at_every_length(plane: &Plane, shortest: usize, cut: impl Fn(&[u8], usize) -> (Run<'_>, &[u8])) {
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.state == State::Awake).collect();
    for frame in rows.iter().map(Row::frame) {
        let lengths = (shortest..frame.len()).filter(|length| is_near_headers(*length, frame.len()));
        let experiments = lengths.map(|length| {
            let (run, whole) = cut(&frame, length);
            let (fate, effect) = Model::new(&plane.world).judge(&frame[..length], whole, LOOPBACK, State::Awake);
            Experiment { run, state: Some(State::Awake), fate, effect }
        });
        let experiments: Vec<_> = experiments.collect();
        plane.ground().run(|| plane.expect(&experiments));
    }
}

/// There is a row for every reason that the defence can give.
fn reasons(_: &Plane) {
    let met: HashSet<_> = rows::all().iter().map(|row| row.reason).collect();
    // A test run's driver carries metadata; the limit of new connections takes more than one packet.
    let elsewhere = [Reason::NoMetadata, Reason::NewFlowsOverLimit];
    let of_defence = &Reason::ALL[Reason::CookieSent.index()..];
    let missing: Vec<_> = of_defence.iter().filter(|reason| !met.contains(reason) && !elsewhere.contains(reason)).collect();
    assert!(missing.is_empty(), "no row ends with {missing:?}");
}
