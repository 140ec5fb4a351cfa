//! In lb-common: `mkdir -p fuzz/corpus/parse_packet; RUSTC_BOOTSTRAP=1 cargo fuzz run parse_packet fuzz/corpus/parse_packet fuzz/seeds/parse_packet`.
#![no_main]

#[expect(dead_code, reason = "it holds the other target's properties too")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::packet(bytes));
