//! The SYN defence with real sockets: what it must never harm, and what it must hold back.
//!
//! Every scene is written for a flood that it is given: a function that starts one at an [`Aim`] and returns what ends it when dropped.
//! With [`no_flood`] the scene shows that it is sound by itself.

mod ground;
mod harmless;
mod host;
mod scenarios;

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::support::netns::Namespace;

pub fn tests() -> Vec<Trial> {
    [ground::tests(), harmless::tests(), host::tests(), scenarios::tests()].into_iter().flatten().collect()
}

/// Where a flood comes from and whom it is for.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "for floods to read, of which there is none yet")]
pub struct Aim<'a> {
    /// Where the frames leave: a namespace and its device.
    pub from: (&'a Namespace, &'static str),
    /// Where they arrive: the device with Weir on it, whose MAC they are sent to.
    pub to: (&'a Namespace, &'static str),
    /// The service.
    pub target: SocketAddr,
}

/// A flood of nothing.
pub fn no_flood(_: &Aim<'_>) {}
