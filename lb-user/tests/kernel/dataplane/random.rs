//! Random frames: rows with bits flipped, fields exchanged, ends cut and pieces swapped, through the kernel and through the model.

use lb_common::Reason;

use super::{Experiment, Plane, XDP_PASS, bpf::Run, harness::Counts, model::Model, rows, world::LOOPBACK};
use crate::support::random::Random;

/// How many frames.
const FRAMES: usize = 20_000;
/// After how many frames the counters are read and compared.
const BATCH: usize = 50;
/// The shortest frame of a test run.
const SHORTEST: usize = 14;
/// No row's headers reach farther.
const LONGEST: usize = 400;

/// What the kernel's counters say of random frames is what the model says. `WEIR_SEED` repeats a run.
pub fn frames(plane: &Plane) {
    let seed = match std::env::var("WEIR_SEED") {
        Ok(text) => text.parse().expect("WEIR_SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs(),
    };
    println!("random frames of WEIR_SEED={seed}");
    let mut random = Random::new(seed);
    let mut model = Model::new(&plane.world);
    let rows: Vec<_> = rows::all().iter().map(|row| cut(row.frame())).collect();
    let mut all = Counts::default();

    for _ in 0..FRAMES / BATCH {
        let frames: Vec<_> = (0..BATCH).map(|_| random.frame(&rows)).collect();
        let before = plane.kernel.counts();
        let mut expected = Counts::default();
        for frame in &frames {
            let fate = model.fate(frame, LOOPBACK);
            expected.add(&fate, frame.len());
            all.add(&fate, frame.len());
            let outcome = plane.kernel.run(&Run { frame, first_buffer: None, interface: None, repeat: 1 });
            assert_eq!(outcome.verdict, XDP_PASS, "WEIR_SEED={seed}, {frame:x?}");
            assert!(outcome.frame == *frame, "WEIR_SEED={seed}, {frame:x?} came out as {:x?}", outcome.frame);
        }
        if plane.kernel.counts().since(&before) != expected {
            eprintln!("WEIR_SEED={seed}: the kernel and the model differ on one of these {BATCH} frames");
            for frame in &frames {
                eprintln!("{frame:02x?}");
                plane.expect(&[Experiment::undefended(super::run(frame), model.fate(frame, LOOPBACK))]);
            }
            panic!("WEIR_SEED={seed}: they differ only on all of them together");
        }
    }
    // Frames that all end early would compare nothing.
    let reasons: std::collections::BTreeSet<_> = all.packets.keys().map(|(_, reason)| *reason).collect();
    let without_defence = &Reason::ALL[..=Reason::MapMiss.index()];
    let missing: Vec<_> = without_defence.iter().map(|reason| reason.label()).filter(|label| !reasons.contains(label)).collect();
    assert_eq!(missing, ["map_miss"], "WEIR_SEED={seed}: no frame met these ends");
    assert!(all.chosen.len() > 20, "WEIR_SEED={seed}: only {} slots were chosen", all.chosen.len());
}

fn cut(mut frame: Vec<u8>) -> Vec<u8> {
    frame.truncate(LONGEST);
    frame
}

impl Random {
    fn frame(&mut self, rows: &[Vec<u8>]) -> Vec<u8> {
        let mut frame = rows[self.index(rows.len())].clone();
        for _ in 0..self.index(4) {
            self.mutate(&mut frame, rows);
        }
        frame.resize(frame.len().max(SHORTEST), 0);
        frame
    }

    fn mutate(&mut self, frame: &mut Vec<u8>, rows: &[Vec<u8>]) {
        let length = frame.len();
        if length < SHORTEST {
            return;
        }
        match self.index(8) {
            0 => frame[self.index(length)] ^= 1 << self.index(8),
            // Where the headers are, a changed byte changes more.
            1 => frame[self.index(length.min(64))] = self.byte(),
            2 => frame.truncate(SHORTEST + self.index(length - SHORTEST + 1)),
            3 => {
                let (a, b) = (self.index(length - 1), self.index(length - 1));
                let pair = [frame[a], frame[a + 1]];
                frame.copy_within(b..b + 2, a);
                frame[b..b + 2].copy_from_slice(&pair);
            }
            // The head of one row on the tail of another.
            4 => {
                let other = &rows[self.index(rows.len())];
                let at = self.index(length.min(other.len()));
                frame.truncate(at);
                frame.extend_from_slice(&other[at..]);
            }
            5 => {
                let at = 12 + 2 * self.index((length - 12) / 2);
                frame.splice(at..at, [0x81, 0x00, 0x00, 0x07]);
            }
            // A client's port, mostly: other flows fall on other slots.
            6 => {
                let at = 34 + self.index(2);
                if at < length {
                    frame[at] = self.byte();
                }
            }
            _ => {
                let from = self.index(length);
                let to = from + self.index(length - from) + 1;
                let byte = self.byte();
                frame[from..to.min(from + 8)].fill(byte);
            }
        }
        frame.truncate(2 * LONGEST);
    }
}
