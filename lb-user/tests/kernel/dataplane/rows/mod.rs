//! The packets, a row each: its name, the packet, and what must become of it.
//!
//! What a row expects is written by hand, not computed. The benchmark measures rows of this table too, by their names.

pub mod defence;
mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod quic;
mod tcp;
mod udp;

use lb_common::{
    Reason,
    abi::{RequestAttributes, RestoreRequest},
};
use zerocopy::IntoBytes as _;

use super::{
    defended::State,
    model::Effect,
    world::{CLIENT, CLIENT6, NEW_PORT, SERVER, SERVER6},
};
use crate::support::packet::Packet;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `FAMILY: WHAT`.
    pub name: &'static str,
    /// Makes the frame.
    pub packet: fn() -> Packet,
    /// The service whose counter moves, 0 for none.
    pub service: u32,
    /// Which of its counters.
    pub reason: Reason,
    /// Whose chosen-counter moves.
    pub choice: Choice,
    /// How many bytes the first buffer holds, if not all that fit.
    pub first_buffer: Option<usize>,
    /// What the daemon says of the defence at the time.
    pub state: State,
    /// What it looks like when it leaves the program.
    pub out: Out,
}

/// What a packet looks like when it leaves the program.
#[derive(Clone, Copy, Debug)]
pub enum Out {
    /// As it came.
    Unchanged,
    /// Like this frame.
    Becomes(fn() -> Vec<u8>),
    /// As it came, with these attributes of a connection in its metadata.
    Restores(fn() -> RequestAttributes),
}

/// Which backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None: the packet opens no flow.
    None,
    /// The one that the service's table has for the flow's hash.
    ByHash,
    /// The one with this slot.
    Slot(u32),
}

impl Row {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        (self.packet)().bytes()
    }

    /// What it looks like when it leaves the program.
    pub fn effect(&self) -> Effect {
        match self.out {
            Out::Unchanged => Effect::Unchanged,
            Out::Becomes(frame) => Effect::Becomes(frame()),
            Out::Restores(attributes) => Effect::Metadata(RestoreRequest::new(attributes()).as_bytes().to_vec()),
        }
    }

    /// The same, with only so many bytes of the frame in its first buffer.
    const fn first_buffer(self, bytes: usize) -> Self {
        Self { first_buffer: Some(bytes), ..self }
    }
}

/// Every row of services without a defence.
pub fn all() -> Vec<Row> {
    [ethernet::ROWS, ipv4::ROWS, ipv6::ROWS, tcp::ROWS, udp::ROWS, quic::ROWS, icmp::ROWS].concat()
}

/// The row of this name.
pub fn by_name(name: &str) -> Row {
    all().into_iter().chain(defence::all()).find(|row| row.name == name).unwrap_or_else(|| panic!("no row is named {name:?}"))
}

/// A packet that is no service's.
const fn passed(name: &'static str, packet: fn() -> Packet, reason: Reason) -> Row {
    Row {
        name,
        packet,
        service: super::world::NONE,
        reason,
        choice: Choice::None,
        first_buffer: None,
        state: State::Awake,
        out: Out::Unchanged,
    }
}

/// A service's packet that opens no flow.
const fn of(name: &'static str, packet: fn() -> Packet, service: u32, reason: Reason) -> Row {
    Row { name, packet, service, reason, choice: Choice::None, first_buffer: None, state: State::Awake, out: Out::Unchanged }
}

/// A SYN that opens a flow.
const fn opens(name: &'static str, packet: fn() -> Packet, service: u32) -> Row {
    Row {
        name,
        packet,
        service,
        reason: Reason::TcpOpened,
        choice: Choice::ByHash,
        first_buffer: None,
        state: State::Awake,
        out: Out::Unchanged,
    }
}

/// A datagram that opens a flow.
const fn opens_udp(name: &'static str, packet: fn() -> Packet, service: u32, choice: Choice) -> Row {
    Row { name, packet, service, reason: Reason::UdpOpened, choice, first_buffer: None, state: State::Awake, out: Out::Unchanged }
}

/// From the client to the server, over IPv4.
fn v4() -> Packet {
    Packet::ethernet().ipv4(CLIENT, SERVER)
}

/// From the client to the server, over IPv6.
fn v6() -> Packet {
    Packet::ethernet().ipv6(CLIENT6, SERVER6)
}

/// A TCP header to this port, of a flow like any other.
fn tcp(ip: Packet, port: u16, flags: u8) -> Packet {
    ip.tcp(NEW_PORT, port).sequence(0x0102_0304).flags(flags)
}

/// A small DNS query.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04weir\x07example\0\0\x01\0\x01";

/// What a Linux client's SYN offers: MSS, SACK, timestamps, window scale.
pub const LINUX_SYN: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
/// Two NOPs and timestamps: what Linux puts into every other segment.
const TIMESTAMPS: &[u8] = &[1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
