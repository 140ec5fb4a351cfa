//! The daemon with real sockets: servers and clients in network namespaces, and Weir between them.

mod cli;
mod faults;
mod limits;
mod metrics;
mod notes;
mod programs;
mod upsets;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    [cli::tests(), faults::tests(), limits::tests(), metrics::tests(), notes::tests(), upsets::tests()].into_iter().flatten().collect()
}
