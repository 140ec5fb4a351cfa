//! The SYN defence with real sockets: what it must never harm, and what it must hold back.
//!
//! Every scene is written for a flood that it is given: a function that starts one at an [`Aim`] and returns what ends it when dropped.
//!
//! The rates are chosen for two processors that the flood, the clients, the server and whatever else the machine does share; what is
//! measured there is measured again where that may have been to blame ([`rounds::until_clean`]). A veth takes 256 frames at a time; the
//! generator's that come on top are lost before any program sees them, as a card's would be, while a client's wait in the queue of its
//! device ([`crate::support::netns::topology::join`]). What a client loses is then Weir's doing: a handshake's last ACK above all, which no
//! client sends again, and without which a server that speaks first never says a word.

mod books;
mod calm;
mod caps;
pub mod floods;
mod ground;
mod handshake;
mod harmless;
mod host;
mod kernel;
mod orders;
mod passage;
mod queue;
mod rounds;
mod scenarios;
mod sleep;
mod strays;

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::support::netns::Namespace;

/// Set to anything, it adds the tests that take minutes each.
const LONG: &str = "WEIR_LONG";

pub fn tests() -> Vec<Trial> {
    let long = std::env::var_os(LONG).map(|_| kernel::long_tests()).unwrap_or_default();
    [
        ground::tests(),
        calm::tests(),
        caps::tests(),
        handshake::tests(),
        harmless::tests(),
        host::tests(),
        kernel::tests(),
        orders::tests(),
        passage::tests(),
        queue::tests(),
        scenarios::tests(),
        sleep::tests(),
        strays::tests(),
        long,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where a flood comes from and whom it is for.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// Where the frames leave: a namespace and its device.
    pub from: (&'a Namespace, &'static str),
    /// Where they arrive: the device with Weir on it, whose MAC they are sent to.
    pub to: (&'a Namespace, &'static str),
    /// The service.
    pub target: SocketAddr,
}
