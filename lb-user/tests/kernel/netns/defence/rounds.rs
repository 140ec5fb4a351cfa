//! Measuring where others use the processors too.

use std::fmt::Display;

/// How often a measurement is made at the most.
const ROUNDS: usize = 3;

/// Makes a measurement until one is clean; panics with what was wrong with each if none is.
///
/// Other work on the machine makes a client wait for its processor, and who waits for long sends something again, or overflows a ring of
/// 256 frames: that spoils a round, and hardly ever three. A fault of Weir's spoils every one. So what `round` gives back is only what
/// noise can bring about (a late client, a segment sent again); a connection that fails, an option that is lost, a cookie that is refused
/// is a panic in the first round that has one.
#[track_caller]
pub fn until_clean<E: Display>(mut round: impl FnMut() -> Result<(), E>) {
    let mut spoilt = Vec::new();
    while spoilt.len() < ROUNDS {
        match round() {
            Ok(()) => return,
            Err(how) => {
                println!("a spoilt round: {how}");
                spoilt.push(how.to_string());
            }
        }
    }
    panic!("none of {ROUNDS} rounds was clean: {spoilt:#?}");
}
