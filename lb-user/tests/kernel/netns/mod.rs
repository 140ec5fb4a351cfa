//! The daemon with real sockets: servers and clients in network namespaces, and Weir between them.

mod forward;
mod reload;
mod restart;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    [forward::tests(), reload::tests(), restart::tests()].into_iter().flatten().collect()
}
