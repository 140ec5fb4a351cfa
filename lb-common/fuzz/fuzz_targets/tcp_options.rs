//! In lb-common: `mkdir -p fuzz/corpus/tcp_options; RUSTC_BOOTSTRAP=1 cargo fuzz run tcp_options fuzz/corpus/tcp_options fuzz/seeds/tcp_options`.
#![no_main]

#[expect(dead_code, reason = "it holds the other target's properties too")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::tcp_options(bytes));
