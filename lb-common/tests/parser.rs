//! The parsers on any bytes, which end where readable memory ends. The same properties are fuzzed from lb-common/fuzz.

#[path = "../fuzz/properties.rs"]
mod properties;

mod guard;

use std::{cell::RefCell, fs, path::Path, sync::LazyLock};

use guard::Guarded;
use proptest::{collection::vec, prelude::*, sample::Index};

/// The longest packet that is tried: longer than the farthest header.
const LONGEST: usize = 3_000;

thread_local! {
    static GUARDED: RefCell<Guarded> = RefCell::new(Guarded::new(LONGEST));
}

/// Runs a property on bytes behind which nothing may be read.
fn guarded(bytes: &[u8], property: fn(&[u8])) {
    GUARDED.with_borrow_mut(|guarded| property(guarded.place(bytes)));
}

/// The seeds of a fuzz target, which are real packets or options.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

static PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| seeds("parse_packet"));
static OPTIONS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| seeds("tcp_options"));

/// A seed with some bytes replaced, mostly near its start, and cut somewhere.
fn mutated(seeds: &'static [Vec<u8>]) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<bool>(), any::<u8>()), 0..6);
    (any::<Index>(), changes, proptest::option::of(any::<Index>())).prop_map(|(seed, changes, cut)| {
        let mut bytes = seed.get(seeds).clone();
        for (at, is_near, byte) in changes {
            let range = if is_near { bytes.len().min(64) } else { bytes.len() };
            bytes[at.index(range)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes
    })
}

#[test]
fn reading_behind_the_bytes_is_noticed() {
    let mut memory = Guarded::new(LONGEST);
    for length in [0, 1, 14, 60, LONGEST] {
        assert!(guard::kills_who_reads_behind(memory.place(&vec![1; length])), "{length}");
    }
}

#[test]
fn every_seed_cut_at_every_length() {
    for packet in &*PACKETS {
        for length in 0..=packet.len() {
            guarded(&packet[..length], properties::packet);
        }
    }
    for options in &*OPTIONS {
        for length in 0..=options.len() {
            guarded(&options[..length], properties::tcp_options);
        }
    }
}

/// Without this the seeds might all be refused at their first byte.
#[test]
fn most_seeds_have_a_flow() {
    let flows = PACKETS.iter().filter(|packet| lb_common::wire::flow(&lb_common::packet::Window::of(packet)).is_ok()).count();
    assert!(2 * flows > PACKETS.len(), "{flows} of {}", PACKETS.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        guarded(&bytes, properties::packet);
    }

    #[test]
    fn real_packets_with_changed_bytes(bytes in mutated(&PACKETS)) {
        guarded(&bytes, properties::packet);
    }

    #[test]
    fn any_options(bytes in vec(prop_oneof![0..10_u8, any::<u8>()], 0..60)) {
        guarded(&bytes, properties::tcp_options);
    }

    #[test]
    fn real_options_with_changed_bytes(bytes in mutated(&OPTIONS)) {
        guarded(&bytes, properties::tcp_options);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Long enough for extension headers that lead behind the farthest position which is read.
    #[test]
    fn long_chains_of_extension_headers(lengths in vec(any::<u8>(), 1..8), last in any::<u8>(), tail in vec(any::<u8>(), 0..60)) {
        let mut bytes = PACKETS.iter().find(|packet| packet[12..14] == [0x86, 0xdd]).expect("a packet over IPv6")[..54].to_vec();
        bytes[20] = 60;
        for (place, units) in lengths.iter().enumerate() {
            let next = if place + 1 == lengths.len() { last } else { 60 };
            bytes.extend([next, *units]);
            bytes.resize(bytes.len() + 6 + 8 * usize::from(*units), 0);
        }
        bytes.extend(tail);
        bytes.truncate(LONGEST);
        guarded(&bytes, properties::packet);
    }
}
