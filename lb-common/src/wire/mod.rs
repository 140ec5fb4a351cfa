//! Packets as they lie on the wire: one file per protocol, each in the same order: constants, the parsed form, `parse`, tests.
//!
//! Every parser takes a [`Window`] and the position where its header starts, and answers with what the rest of Weir needs or with the
//! [`Reason`] why it cannot. [`flow`] puts them together. Nothing here keeps state, and no bytes make it read outside the window.

pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

use crate::{Address, FlowKey, Reason, packet::Window};

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// ICMP for IPv4, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
}

/// Where a packet stands in its datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// It is the whole datagram.
    Whole,
    /// It is the first piece: the transport header is there, or begins there.
    First,
    /// It is a later piece: it has no transport header.
    Later,
}

/// What an IPv4 or an IPv6 header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// The protocol of the payload, behind all extension headers.
    pub protocol: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Where the payload starts, from the start of the window.
    pub payload: usize,
    /// Where the packet ends, as its header says; `usize::MAX` if the header does not say.
    pub end: usize,
}

/// What kind of packet of a flow this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment with these flags ([`tcp::flags`]).
    Segment(u8),
    /// A UDP datagram.
    Datagram,
    /// The first fragment of either.
    FirstFragment,
    /// An ICMP error about a packet that the flow's service sent.
    Error,
}

/// A packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Whose packet it is; of an ICMP error, the flow it is about, so that the service is always the destination.
    pub key: FlowKey,
    /// What it is.
    pub kind: Kind,
    /// The MAC address that the frame is for, its first byte the most significant.
    pub destination_mac: u64,
    /// Where the IP header starts, from the start of the window; of an ICMP error, its own.
    pub network: usize,
    /// The length of a TCP header with its options, as it says itself (0 to 60); 0 of everything that is no whole segment.
    pub header_length: usize,
    /// Where the transport header starts, from the start of the window; of an ICMP error, that of the quoted packet.
    pub transport: usize,
    /// Where the packet ends, as its first IP header says; `usize::MAX` if the header does not say.
    pub end: usize,
}

/// Finds the flow of the Ethernet frame in `window`.
///
/// # Errors
/// The reason why it belongs to no flow: all of them let the packet pass.
#[inline(always)]
pub fn flow(window: &Window<'_>) -> Result<Flow, Reason> {
    let frame = ethernet::parse(window)?;
    Ok(Flow { destination_mac: frame.destination_mac, ..flow_at(window, frame.ether_type, frame.payload)? })
}

/// Finds the flow of the packet of this type at `start`, whatever stands before it.
///
/// # Errors
/// As for [`flow`].
#[inline(always)]
pub fn flow_at(window: &Window<'_>, ether_type: u16, start: usize) -> Result<Flow, Reason> {
    let network = match ether_type {
        ethernet::IPV4 => ipv4::parse(window, start)?,
        ethernet::IPV6 => ipv6::parse(window, start)?,
        _ => return Err(Reason::NotIp),
    };
    if network.fragment == Fragment::Later {
        return Err(Reason::LaterFragment);
    }
    let mut header_length = 0;
    let (key, kind, transport) = match network.protocol {
        protocol::TCP | protocol::UDP if network.fragment == Fragment::First => {
            let (source, destination) = ports(window, network.payload)?;
            (key(&network, source, destination), Kind::FirstFragment, network.payload)
        }
        protocol::TCP => {
            let segment = tcp::parse(window, network.payload)?;
            header_length = segment.length;
            (key(&network, segment.source_port, segment.destination_port), Kind::Segment(segment.flags), network.payload)
        }
        protocol::UDP => {
            let datagram = udp::parse(window, network.payload)?;
            (key(&network, datagram.source_port, datagram.destination_port), Kind::Datagram, network.payload)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let quoted = quoted(window, &network)?;
            let (source, destination) = ports(window, quoted.payload)?;
            (key(&quoted, source, destination).reversed(), Kind::Error, quoted.payload)
        }
        _ => return Err(Reason::NotTransport),
    };
    Ok(Flow { key, kind, destination_mac: 0, network: start, header_length, transport, end: network.end })
}

/// The flow of the ports between the network header's addresses.
#[inline(always)]
fn key(network: &Network, source_port: u16, destination_port: u16) -> FlowKey {
    FlowKey::new(network.source, source_port, network.destination, destination_port, network.protocol)
}

/// The network header of the packet that an ICMP error quotes, if it is an error about TCP or UDP.
#[inline(always)]
fn quoted(window: &Window<'_>, network: &Network) -> Result<Network, Reason> {
    let start = icmp::quoted(window, network)?;
    let quoted = if network.protocol == protocol::ICMP { ipv4::parse(window, start)? } else { ipv6::parse(window, start)? };
    if quoted.fragment == Fragment::Later {
        return Err(Reason::LaterFragment);
    }
    if !matches!(quoted.protocol, protocol::TCP | protocol::UDP) {
        return Err(Reason::NotTransport);
    }
    Ok(quoted)
}

/// Source and destination port: the first four bytes of both TCP and UDP. More of the header need not be there in a fragment or in a
/// quoted packet, of which only 8 bytes are sure (RFC 792).
#[inline(always)]
fn ports(window: &Window<'_>, offset: usize) -> Result<(u16, u16), Reason> {
    let header = window.header::<4>(offset).ok_or(Reason::Truncated)?;
    Ok((header.number16::<0>(), header.number16::<2>()))
}
