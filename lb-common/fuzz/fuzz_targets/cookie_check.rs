//! In lb-common: `mkdir -p fuzz/corpus/cookie_check; RUSTC_BOOTSTRAP=1 cargo fuzz run cookie_check fuzz/corpus/cookie_check fuzz/seeds/cookie_check`.
#![no_main]

#[path = "../cookies.rs"]
mod cookies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cookies::check(bytes));
