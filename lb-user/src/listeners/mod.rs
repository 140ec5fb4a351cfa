//! Which `SO_REUSEPORT` sockets exist, whose they are, and how to take a descriptor of one.
//!
//! [`diag`] asks the kernel for the sockets of the current network namespace (no privilege needed). [`helper`] is the small privileged
//! process that knows whose they are and hands over a descriptor. [`socket`] asks a descriptor that was taken the questions that
//! `sock_diag` does not answer. [`group`] and [`serving`] are pure: they order the sockets of a group and judge who serves each.

pub mod diag;
pub mod group;
pub mod helper;
pub mod serving;
pub mod socket;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use crate::config::Protocol;

/// The accept queue of a listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted. A full queue shows `limit + 1`, because the kernel compares with "greater than".
    pub length: u32,
    /// The backlog of `listen(2)`, cut to `net.core.somaxconn`.
    pub limit: u32,
}

/// A TCP socket in LISTEN, or a bound UDP socket that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The bound address. The family is the socket's own: `0.0.0.0` and `::` are different groups, and a v6 socket that is bound to a
    /// v4-mapped address stays v6.
    pub address: IpAddr,
    /// The bound port, in host byte order.
    pub port: u16,
    /// `IPV6_V6ONLY`: takes no IPv4. Always false for an IPv4 socket.
    pub v6only: bool,
    /// Index of the device that the socket is bound to (`SO_BINDTODEVICE`); 0 is any.
    pub device: u32,
    /// Inode of the socket in sockfs, the N of `socket:[N]`. The kernel gives 32 bits, which wrap: only the cookie names a socket for ever.
    pub inode: u32,
    /// `SO_COOKIE`: unique in the network namespace from boot on, never used again.
    pub cookie: u64,
    /// The user that made the socket.
    pub uid: u32,
    /// The accept queue; none for UDP.
    pub queue: Option<AcceptQueue>,
    /// Its receive buffer in bytes, from which the window of its SYN-ACKs comes; none for UDP, where nobody asks.
    pub receive_buffer: Option<u32>,
}

/// One descriptor of a socket in one process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The descriptor's number in that process.
    pub fd: i32,
    /// The process's command name (`/proc/PID/comm`, at most 15 bytes; bytes that are no UTF-8 are replaced).
    pub command: String,
}

/// Keeps tests that fork apart from tests that expect a socket to be closed: a forked child holds every descriptor of the process until
/// it has closed its own.
#[cfg(test)]
pub(crate) fn no_forks() -> std::sync::MutexGuard<'static, ()> {
    static FORKS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A test that failed while it held the lock has nothing to say to the others.
    FORKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
