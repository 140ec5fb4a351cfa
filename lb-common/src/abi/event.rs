//! What the programs tell the daemon.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A record of the ring buffer: a listener began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// The socket's cookie, as `SO_COOKIE` and sock_diag tell it.
    pub cookie: u64,
    /// [`EventKind`] as a number.
    pub kind: u32,
    /// The process that did it.
    pub pid: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A TCP socket begins to listen.
    ListenStart = 1,
    /// A TCP socket stopped listening.
    ListenStop = 2,
    /// A flood on a service begins, as a CPU sees it: `cookie` is the service's index, `pid` 0 for SYNs and 1 for segments of no connection.
    FloodStart = 3,
}

impl EventKind {
    /// The kind of a record's number.
    #[must_use]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::ListenStart),
            2 => Some(Self::ListenStop),
            3 => Some(Self::FloodStart),
            _ => None,
        }
    }
}

/// What the iterator over a process's files finds out about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketFacts {
    /// The socket's cookie, 0 if nobody has asked for it yet.
    pub cookie: u64,
    /// The descriptor's number in the process.
    pub descriptor: u32,
    /// 1 if the group has a program, whoever's, else 0.
    pub has_program: u32,
    /// The ID of the group's program; 0 with a program means a classic one (SO_ATTACH_REUSEPORT_CBPF).
    pub program: u32,
    /// Zero.
    pub padding: u32,
}
