//! The daemon with real sockets: servers and clients in network namespaces, and Weir between them.

mod balance;
mod drain;
mod listeners;
mod live;
mod moves;
mod timing;
mod udp;

use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    [balance::tests(), drain::tests(), listeners::tests(), moves::tests(), timing::tests(), udp::tests()].into_iter().flatten().collect()
}
