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

/// What [`flow`] finds of a usual packet, in fewer steps: an untagged frame, an IPv4 header without options or an IPv6 header without
/// extension headers, a whole segment or datagram; and of what most often is none: other protocols, ICMP that is no error, the middle of
/// a datagram. `None` says only that [`flow`] has to look.
#[inline(always)]
pub fn usual(window: &Window<'_>) -> Option<Result<Flow, Reason>> {
    const V4: usize = ethernet::LENGTH + ipv4::LENGTH;
    const V6: usize = ethernet::LENGTH + ipv6::LENGTH;
    let frame = window.header::<V4>(0)?;
    match frame.number16::<12>() {
        ethernet::IPV4 => {
            let length = usize::from(frame.number16::<16>());
            if frame.byte::<14>() != 0x45 || length < ipv4::LENGTH {
                return None;
            }
            match frame.number16::<20>() & (ipv4::FRAGMENT_OFFSET | ipv4::MORE_FRAGMENTS) {
                0 => {}
                field if field & ipv4::FRAGMENT_OFFSET != 0 => return Some(Err(Reason::LaterFragment)),
                _ => return None,
            }
            usual_transport::<V4>(window, frame.byte::<23>(), ethernet::LENGTH + length, || {
                (Address::from_ipv4_network(frame.word::<26>()), Address::from_ipv4_network(frame.word::<30>()))
            })
        }
        ethernet::IPV6 => {
            let frame = window.header::<V6>(0)?;
            let (source, destination) = (Address::from_words(frame.words::<22>()), Address::from_words(frame.words::<38>()));
            let length = usize::from(frame.number16::<18>());
            if frame.byte::<14>() >> 4 != 6 || length == 0 || source.is_ipv4() || destination.is_ipv4() {
                return None;
            }
            usual_transport::<V6>(window, frame.byte::<20>(), V6 + length, || (source, destination))
        }
        ethernet::CUSTOMER_TAG | ethernet::SERVICE_TAG => None,
        _ => Some(Err(Reason::NotIp)),
    }
}

/// The flow of the segment or datagram at the constant position `AT` of an untagged frame.
#[inline(always)]
fn usual_transport<const AT: usize>(
    window: &Window<'_>,
    protocol: u8,
    end: usize,
    addresses: impl FnOnce() -> (Address, Address),
) -> Option<Result<Flow, Reason>> {
    let (source_port, destination_port, kind, header_length) = match protocol {
        protocol::TCP => {
            let segment = tcp::parse(window, AT).ok()?;
            (segment.source_port, segment.destination_port, Kind::Segment(segment.flags), segment.length)
        }
        protocol::UDP => {
            let datagram = udp::parse(window, AT).ok()?;
            (datagram.source_port, datagram.destination_port, Kind::Datagram, 0)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let header = window.header::<{ icmp::LENGTH }>(AT)?;
            return (!icmp::is_error(protocol, header.byte::<0>())).then_some(Err(Reason::NotTransport));
        }
        _ => return None,
    };
    let destination_mac = window.header::<{ ethernet::LENGTH }>(0)?.leading48();
    let (source, destination) = addresses();
    let key = FlowKey::new(source, source_port, destination, destination_port, protocol);
    Some(Ok(Flow { key, kind, destination_mac, network: ethernet::LENGTH, header_length, transport: AT, end }))
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
