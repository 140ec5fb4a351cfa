//! The SYN defence: what clients' SYNs and cookies become in a flood, what is refused, and what passes.

pub mod clients;
mod cookies;
mod limits;
mod passes;
mod refusals;
mod sources;

use std::net::IpAddr;

use lb_common::{Address, FlowKey, Reason, cookie, wire::protocol::TCP};

use self::clients::Client;
use super::{Choice, Out, Row};
use crate::{
    dataplane::{
        defended::{FLOODED, KEYS, PARITY, State, WINDOW_SPACE, port},
        world::{CLIENT, CLIENT6, NEW_PORT, SERVER, SERVER6},
    },
    support::packet::{ACK, CLIENT_MAC, ECE, Packet, SERVER_MAC, SYN},
};

/// Every row.
pub fn all() -> Vec<Row> {
    [&clients::rows()[..], &cookies::rows(), refusals::ROWS, sources::ROWS, limits::ROWS, passes::ROWS].concat()
}

/// The sequence number of every SYN.
pub const SEQUENCE: u32 = 0x0102_0304;
/// The timestamp value of the segment that brings a cookie back.
const LATER: u32 = 0x0001_0333;

/// What lies around the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    V4,
    V6,
    /// IPv4 in a VLAN.
    Vlan,
}

impl Around {
    /// From the client to the server.
    fn request(self) -> Packet {
        match self {
            Self::V4 => Packet::ethernet().ipv4(CLIENT, SERVER),
            Self::V6 => Packet::ethernet().ipv6(CLIENT6, SERVER6),
            Self::Vlan => Packet::ethernet().vlan(7).ipv4(CLIENT, SERVER),
        }
    }

    /// From the server to the client, as the programs answer: identification 0, don't fragment.
    fn answer(self) -> Packet {
        let frame = Packet::ethernet_between(SERVER_MAC, CLIENT_MAC);
        match self {
            Self::V4 => frame.ipv4(SERVER, CLIENT).identification(0).dont_fragment(),
            Self::V6 => frame.ipv6(SERVER6, CLIENT6),
            Self::Vlan => frame.vlan(7).ipv4(SERVER, CLIENT).identification(0).dont_fragment(),
        }
    }

    fn is_v6(self) -> bool {
        self == Self::V6
    }

    /// The flow of the client's port to a service.
    pub fn flow(self, service: u32) -> FlowKey {
        let [client, server] = if self.is_v6() { [CLIENT6, SERVER6].map(IpAddr::V6) } else { [CLIENT, SERVER].map(IpAddr::V4) };
        FlowKey::new(Address::from(client), NEW_PORT, Address::from(server), port(service), TCP)
    }
}

/// A client's SYN to a service.
pub fn syn(around: Around, client: &Client, service: u32) -> Packet {
    let packet = around.request().tcp(NEW_PORT, port(service)).sequence(SEQUENCE).flags(SYN | client.flags);
    let packet = packet.options(&client.options(around));
    if client.data.is_empty() { packet } else { packet.payload(client.data) }
}

/// The SYN-ACK that it becomes, as a plain packet: 64 KiB of room in whole segments is its window.
pub fn syn_ack(around: Around, client: &Client, service: u32) -> Vec<u8> {
    let granted = client.granted(around);
    let (cookie, _) = cookie::make(KEYS[PARITY as usize], PARITY, &around.flow(service), SEQUENCE, &granted);
    let segment = u32::from(granted.maximum_segment_size);
    around
        .answer()
        .tcp(port(service), NEW_PORT)
        .sequence(cookie.sequence)
        .acknowledgement(SEQUENCE + 1)
        .flags(SYN | ACK | if granted.congestion_notification { ECE } else { 0 })
        .window(u16::try_from(WINDOW_SPACE - WINDOW_SPACE % segment).unwrap_or(u16::MAX))
        .options(&client.answer(cookie.timestamp))
        .bytes()
}

/// What makes an ACK's cookie wrong, or another one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Twist {
    /// It is the old key's.
    pub is_of_old_key: bool,
    /// Is turned over in the number that is acknowledged.
    pub acknowledged: u32,
    /// Is turned over in the timestamp that is echoed.
    pub echoed: u32,
    /// Is turned over in the sequence number.
    pub sequence: u32,
}

/// The segment that brings a client's cookie back, without flags and data.
pub fn cookie_ack(around: Around, client: &Client, service: u32, twist: Twist) -> Packet {
    let parity = if twist.is_of_old_key { 1 - PARITY } else { PARITY };
    let granted = client.granted(around);
    let (cookie, _) = cookie::make(KEYS[parity as usize], parity, &around.flow(service), SEQUENCE, &granted);
    let packet = around
        .request()
        .tcp(NEW_PORT, port(service))
        .sequence((SEQUENCE + 1) ^ twist.sequence)
        .acknowledgement(cookie.sequence.wrapping_add(1) ^ twist.acknowledged);
    if granted.timestamps {
        let echoed = cookie.timestamp ^ twist.echoed;
        return packet.options(&[&[1, 1, 8, 10], &LATER.to_be_bytes()[..], &echoed.to_be_bytes()].concat());
    }
    packet
}

/// A segment to [`FLOODED`] that ends with this reason.
const fn ends(name: &'static str, packet: fn() -> Packet, reason: Reason) -> Row {
    of(name, packet, FLOODED, reason)
}

/// A segment to a service that ends with this reason, or passes to no chosen worker.
const fn of(name: &'static str, packet: fn() -> Packet, service: u32, reason: Reason) -> Row {
    Row { name, packet, service, reason, choice: Choice::None, first_buffer: None, state: State::Awake, out: Out::Unchanged }
}

/// The same while the daemon says this.
const fn during(state: State, row: Row) -> Row {
    Row { state, ..row }
}
