//! What is watched: the sockets of services, what waits there, how long things take, and what the kernel drops.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::times::Times;

/// What waits at a socket that is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketQueues {
    /// The socket's cookie.
    pub cookie: u64,
    /// TCP: since when the connection at the head of the accept queue is established, in nanoseconds of CLOCK_MONOTONIC; 0 if there is
    /// none. A hint: nothing is held while it is read.
    pub head_since: u64,
    /// TCP: handshakes that the client has not completed.
    pub syn_length: u32,
    /// TCP: connections that wait to be accepted.
    pub accept_length: u32,
    /// TCP: the limit of both (listen(2)'s backlog, cut to net.core.somaxconn).
    pub accept_limit: u32,
    /// UDP: bytes that wait to be received.
    pub received: u32,
    /// UDP: the limit of those.
    pub receive_buffer: u32,
    /// How often the socket had no room for something; wraps.
    pub drops: u32,
}

/// The times of a backend, by slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendTimes {
    /// From the end of the handshake to accept(2).
    pub accept: Times,
    /// The service of the backend.
    pub service: u32,
    /// Zero.
    pub padding: u32,
}

/// The times of a service, by index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceTimes {
    /// From the SYN-ACK to the ACK.
    pub handshake: Times,
    /// Handshakes that are not among these because their SYN-ACK was sent more than once.
    pub repeated: u64,
}

/// How many of the kernel's reasons there can be: those of the network stack itself, which has 128 in Linux 6.18.
pub const DROP_REASONS: u32 = 256;

/// A row of the table of the kernel's drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropKey {
    /// The service.
    pub service: u32,
    /// The backend's slot, or [`super::NO_SLOT`] for all of the service.
    pub slot: u32,
    /// The slot's generation; 0 for all of the service.
    pub generation: u32,
    /// `enum skb_drop_reason` of the running kernel.
    pub reason: u32,
}
