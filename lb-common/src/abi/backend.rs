//! Backends: listening sockets, each in one slot of the socket array.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The state of a slot, indexed like the socket array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendState {
    /// Counts the sockets that have had this slot: a UDP flow that remembers another number has lost its worker.
    pub generation: u32,
    /// [`state_flags`].
    pub flags: u32,
}

/// Where in the kernel's memory a slot's socket is: for reading how much waits there. It is never followed but by a helper that fails on a
/// bad address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerAddress {
    /// The `struct sock`; 0 if it is not known.
    pub address: u64,
    /// The slot's generation when the socket was seen there.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
}

/// The flags of a [`BackendState`].
pub mod state_flags {
    /// No new flow goes to this socket: it is draining, or nobody serves it.
    pub const CLOSED_TO_NEW: u32 = 1;
}

/// Why a socket was selected: the index of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    /// A SYN.
    Syn = 0,
    /// Another TCP segment that reached the listener: the ACK of a SYN cookie.
    CookieAck = 1,
    /// A connection that another listener left behind when it closed.
    Migration = 2,
    /// A datagram of a flow that has no worker yet, by the hash.
    Udp = 3,
    /// A datagram of a flow that the flow table knows.
    UdpFlow = 4,
    /// A QUIC packet whose connection ID names the worker.
    QuicConnectionId = 5,
    /// The table named a socket that is closed, draining or unserved: this is the next one.
    Override = 6,
    /// The table named a worker that does not keep up ([`crate::relief`]): this is one that does.
    Relief = 7,
}

impl Cause {
    /// Every cause, in the order of their counters.
    pub const ALL: [Self; 8] =
        [Self::Syn, Self::CookieAck, Self::Migration, Self::Udp, Self::UdpFlow, Self::QuicConnectionId, Self::Override, Self::Relief];

    /// The name in metrics and in output for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::CookieAck => "cookie_ack",
            Self::Migration => "migration",
            Self::Udp => "udp",
            Self::UdpFlow => "udp_flow",
            Self::QuicConnectionId => "quic_connection_id",
            Self::Override => "override",
            Self::Relief => "relief",
        }
    }
}

/// One CPU's counters of one slot. They start at zero with each generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendCounters {
    /// How often the XDP program chose it for a packet that opens a flow.
    pub chosen: u64,
    /// How often the selector selected it, indexed by [`Cause`].
    pub selected: [u64; Cause::ALL.len()],
    /// How many connections were established: their handshake is done and they wait in the socket's accept queue or have left it.
    pub established: u64,
    /// How many of these have ended.
    pub closed: u64,
}

/// Why the selector left the choice to the kernel's own hash (Linux's `reuseport_select_sock_by_hash`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SelectionMiss {
    /// The group is no service (any more), and its program is about to be detached.
    NoGroup = 0,
    /// The service has no table, or the table is empty.
    NoTable = 1,
    /// The packet's headers could not be read.
    Unreadable = 2,
    /// No socket near the flow's place in the table is open to new flows.
    NoSocket = 3,
    /// A new UDP flow was not entered in the flow table because this CPU has spent its share of this second: the hash alone decided.
    FlowNotKept = 4,
}

impl SelectionMiss {
    /// Every miss, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::NoGroup, Self::NoTable, Self::Unreadable, Self::NoSocket, Self::FlowNotKept];

    /// The name in metrics and in output for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoGroup => "no_group",
            Self::NoTable => "no_table",
            Self::Unreadable => "unreadable",
            Self::NoSocket => "no_socket",
            Self::FlowNotKept => "flow_not_kept",
        }
    }
}

/// One CPU's counters of what the selector could not do, indexed by [`SelectionMiss`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SelectorCounters {
    /// Indexed by [`SelectionMiss`].
    pub missed: [u64; SelectionMiss::ALL.len()],
}

/// What hangs on each listening socket that is a backend, and is copied to each connection made from it, so that connections are
/// counted for its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketTag {
    /// The socket's slot in the socket array; in a connection's copy also, above it, the marks of what has been counted.
    pub slot: u32,
    /// The slot's generation when the socket joined.
    pub generation: u32,
}

impl SocketTag {
    /// The mark of a connection that has been counted as established, and of one that has been counted as ended. While one daemon takes
    /// over from another both have a program at the tracepoint, and both see the same connections.
    pub const ESTABLISHED: u32 = 1 << 31;
    /// See [`SocketTag::ESTABLISHED`].
    pub const ENDED: u32 = 1 << 30;

    /// Without the marks.
    #[inline(always)]
    #[must_use]
    pub const fn unmarked(self) -> Self {
        Self { slot: self.slot & !(Self::ESTABLISHED | Self::ENDED), generation: self.generation }
    }
}

/// The marks are above every slot.
const _: () = assert!(super::SOCKET_SLOTS <= SocketTag::ENDED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_no_part_of_the_slot() {
        let tag = SocketTag { slot: super::super::SOCKET_SLOTS - 1, generation: 7 };
        let marked = SocketTag { slot: tag.slot | SocketTag::ESTABLISHED | SocketTag::ENDED, ..tag };
        assert_eq!((tag.unmarked(), marked.unmarked()), (tag, tag));
    }

    #[test]
    fn the_lists_are_in_the_order_of_the_counters() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        for (index, miss) in SelectionMiss::ALL.into_iter().enumerate() {
            assert_eq!(miss as usize, index);
        }
    }
}
