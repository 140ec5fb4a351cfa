//! Waiting for something to become true, with a deadline.

use std::time::{Duration, Instant};

/// Calls `attempt` every few milliseconds until it succeeds, and returns what it gave; panics with its last reason after `deadline`.
#[track_caller]
pub fn eventually<T>(deadline: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if start.elapsed() >= deadline => panic!("not within {deadline:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
