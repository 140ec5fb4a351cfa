//! In lb-common: `mkdir -p fuzz/corpus/syn_ack; RUSTC_BOOTSTRAP=1 cargo fuzz run syn_ack fuzz/corpus/syn_ack fuzz/seeds/tcp_options`.
#![no_main]

#[path = "../syn_acks.rs"]
mod syn_acks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syn_acks::options(bytes));
