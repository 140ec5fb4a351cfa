//! Cookies and SYN-ACKs for any bytes. The same properties are fuzzed from lb-common/fuzz.

#[path = "../fuzz/cookies.rs"]
mod cookies;
#[path = "../fuzz/syn_acks.rs"]
mod syn_acks;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

/// The seeds of a fuzz target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    files.map(|file| fs::read(file.expect("an entry").path()).expect("a seed")).collect()
}

#[test]
fn every_seed() {
    let (cookies, options) = (seeds("cookie_check"), seeds("tcp_options"));
    assert!(cookies.len() > 2 && options.len() > 10);
    for bytes in &cookies {
        cookies::check(bytes);
    }
    for options in options {
        (0..=options.len()).for_each(|length| syn_acks::options(&options[..length]));
    }
}

/// One option, mostly a sound one that a SYN has.
fn option() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<[u8; 2]>().prop_map(|[a, b]| vec![2, 4, a, b]),
        any::<u8>().prop_map(|scale| vec![3, 3, scale]),
        Just(vec![4, 2]),
        any::<[u8; 8]>().prop_map(|values| [&[8, 10], &values[..]].concat()),
        Just(vec![1]),
        (any::<u8>(), vec![any::<u8>(); 4]).prop_map(|(kind, content)| [&[kind, 6], &content[..]].concat()),
        vec![any::<u8>(); 3],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_cookie(bytes in vec(any::<u8>(), 0..=cookies::LENGTH)) {
        cookies::check(&bytes);
    }

    #[test]
    fn any_options(bytes in vec(any::<u8>(), 0..44)) {
        syn_acks::options(&bytes);
    }

    #[test]
    fn options_of_a_syn(options in vec(option(), 0..8)) {
        syn_acks::options(&options.concat());
    }
}
