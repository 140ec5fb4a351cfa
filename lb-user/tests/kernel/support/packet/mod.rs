//! Packets for tests, layer by layer from the outside in: `Packet::ethernet().vlan(7).ipv4(a, b).tcp(1, 2).flags(SYN).bytes()`.
//!
//! Lengths, next-protocol fields and checksums are right unless a test overrides them; an override belongs to the layer added last.
//! The checksums here share no code with the program under test, on purpose.

mod build;
mod checksum;
mod layer;
mod segment;
pub mod selftest;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use layer::{Layer, Shape};
pub use segment::{Segment, stream};

/// TCP flag bits, as in the header's fourteenth byte.
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// The options of a Linux client's SYN: MSS 1460, SACK permitted, timestamps, no-operation, window scale 10.
pub const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0x8c, 0x68, 0x2b, 0x8c, 0, 0, 0, 0, 1, 3, 3, 10];

/// The receiver's MAC of [`Packet::ethernet`].
pub const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The sender's MAC of [`Packet::ethernet`].
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// A packet under construction.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    layers: Vec<Layer>,
    truncated: Option<usize>,
}

/// Adding layers.
impl Packet {
    /// An Ethernet frame from [`CLIENT_MAC`] to [`SERVER_MAC`].
    pub fn ethernet() -> Self {
        Self::ethernet_between(CLIENT_MAC, SERVER_MAC)
    }

    /// An Ethernet frame between these addresses.
    pub fn ethernet_between(source: [u8; 6], destination: [u8; 6]) -> Self {
        Self::default().layer(Shape::Ethernet { source, destination })
    }

    /// An 802.1Q tag (0x8100).
    pub fn vlan(self, id: u16) -> Self {
        self.layer(Shape::Vlan { tpid: 0x8100, tci: id })
    }

    /// An 802.1ad service tag (0x88a8): the outer one of `QinQ`.
    pub fn service_vlan(self, id: u16) -> Self {
        self.layer(Shape::Vlan { tpid: 0x88a8, tci: id })
    }

    /// An IPv4 header: TTL 64, DF clear, identification 1.
    pub fn ipv4(self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.layer(Shape::Ipv4 { source, destination, options: Vec::new(), tos: 0, identification: 1, fragment: 0, ttl: 64 })
    }

    /// An IPv6 header: hop limit 64.
    pub fn ipv6(self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        self.layer(Shape::Ipv6 { source, destination, traffic_class: 0, flow_label: 0, hop_limit: 64 })
    }

    /// The header of the addresses' family.
    pub fn ip(self, source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{source} and {destination} are of two families"),
        }
    }

    /// A hop-by-hop options header with these options, padded by the caller to 6 + 8n bytes.
    pub fn hop_by_hop(self, options: &[u8]) -> Self {
        self.options_header(0, options)
    }

    /// A destination options header with these options, padded by the caller to 6 + 8n bytes.
    pub fn destination_options(self, options: &[u8]) -> Self {
        self.options_header(60, options)
    }

    /// A routing header of `kind` with so many segments left; `data` (4 + 8n bytes) follows the fourth byte. Checksums above it take the
    /// IPv6 header's destination, which is right only with no segment left.
    pub fn routing(self, kind: u8, segments_left: u8, data: &[u8]) -> Self {
        let body = [&[kind, segments_left], data].concat();
        self.options_header(43, &body)
    }

    /// A fragment header (RFC 8200, section 4.5): the offset in units of 8 bytes.
    pub fn fragment_header(self, offset: u16, more: bool, identification: u32) -> Self {
        let field = (offset << 3) | u16::from(more);
        let body = [field.to_be_bytes().as_slice(), &identification.to_be_bytes()].concat();
        self.layer(Shape::Extension { kind: 44, length: 0, body })
    }

    /// An authentication header (RFC 4302) with a check value of 12 bytes; its length counts units of 4 bytes, less 2.
    pub fn authentication(self, spi: u32, sequence: u32) -> Self {
        let body = [&[0, 0], spi.to_be_bytes().as_slice(), &sequence.to_be_bytes(), &[0x5a; 12]].concat();
        self.layer(Shape::Extension { kind: 51, length: 4, body })
    }

    /// A TCP header: sequence number 1, acknowledgement 0, no flag, window 64,240.
    pub fn tcp(self, source: u16, destination: u16) -> Self {
        let shape =
            Shape::Tcp { source, destination, sequence: 1, acknowledgement: 0, flags: 0, window: 64_240, urgent: 0, options: Vec::new() };
        self.layer(shape)
    }

    /// A UDP header.
    pub fn udp(self, source: u16, destination: u16) -> Self {
        self.layer(Shape::Udp { source, destination })
    }

    /// An ICMP header (over IPv6 an `ICMPv6` one); `rest` is its second word: identifier and sequence, MTU, or 0.
    pub fn icmp(self, kind: u8, code: u8, rest: u32) -> Self {
        self.layer(Shape::Icmp { kind, code, rest })
    }

    /// An ICMP error that quotes `original` from its IP header on, at most so many bytes of it.
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, original: &Self, at_most: usize) -> Self {
        let mut quoted = original.ip_bytes();
        quoted.truncate(at_most);
        self.icmp(kind, code, rest).payload(&quoted)
    }

    /// Bytes as they are.
    pub fn payload(self, bytes: &[u8]) -> Self {
        self.layer(Shape::Raw(bytes.to_vec()))
    }

    /// A QUIC packet with a long header (RFC 9000, section 17.2): an Initial of this version, filled up to 1,200 bytes.
    pub fn quic_long(self, version: u32, destination_id: &[u8], source_id: &[u8]) -> Self {
        let mut bytes = vec![0xc3];
        bytes.extend(version.to_be_bytes());
        for id in [destination_id, source_id] {
            bytes.push(u8::try_from(id.len()).expect("a connection ID of at most 20 bytes"));
            bytes.extend(id);
        }
        bytes.resize(1200, 0xa5);
        self.payload(&bytes)
    }

    /// A QUIC packet with a short header (section 17.3): the connection ID, whose length is the receiver's secret, and 32 bytes more.
    pub fn quic_short(self, destination_id: &[u8]) -> Self {
        self.payload(&[&[0x43], destination_id, &[0xa5; 32]].concat())
    }

    /// A whole packet inside this one, from its IP header on: IP in IP.
    pub fn encapsulate(mut self, inner: &Self) -> Self {
        let ip = inner.layers.iter().position(|layer| layer.shape.is_ip()).expect("an IP header inside");
        self.layers.extend_from_slice(&inner.layers[ip..]);
        self
    }

    /// Keeps only the first `length` bytes of the packet (its headers still tell the full length).
    pub fn truncate(self, length: usize) -> Self {
        Self { truncated: Some(length), ..self }
    }

    fn options_header(self, kind: u8, body: &[u8]) -> Self {
        assert_eq!(body.len() % 8, 6, "an extension header is a multiple of 8 bytes, two of which come before these");
        let length = u8::try_from(body.len() / 8).expect("an extension header of at most 2,048 bytes");
        self.layer(Shape::Extension { kind, length, body: body.to_vec() })
    }

    fn layer(mut self, shape: Shape) -> Self {
        self.layers.push(Layer::new(shape));
        self
    }
}

/// The result.
impl Packet {
    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = build::bytes(&self.layers);
        bytes.truncate(self.truncated.unwrap_or(usize::MAX));
        bytes
    }

    /// The bytes from the first IP header on.
    pub fn ip_bytes(&self) -> Vec<u8> {
        let bytes = self.bytes();
        bytes[self.ip_offset().min(bytes.len())..].to_vec()
    }

    /// Where the first IP header begins: 14 bytes in, and 4 for each VLAN tag.
    pub fn ip_offset(&self) -> usize {
        self.layers.iter().take_while(|layer| !layer.shape.is_ip()).map(|layer| layer.shape.header_length()).sum()
    }
}
