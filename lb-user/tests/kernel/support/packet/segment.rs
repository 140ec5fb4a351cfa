//! Reading back: a TCP segment as it came over the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum::{internet, of_pseudo_header, with_pseudo_header};

/// Where the network header begins: frames with VLAN tags are not read.
const NETWORK: usize = 14;
const TCP: u8 = 6;
/// Where the checksum stands in a TCP header.
const CHECKSUM: usize = 16;

/// A TCP segment directly over IPv4 or IPv6.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    /// Unscaled.
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Whether the checksums of the IPv4 header and of TCP are right.
    pub intact: bool,
    /// Where the TCP header begins in the frame.
    pub offset: usize,
}

impl Segment {
    /// Reads an Ethernet frame; `None` when it carries something else.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(NETWORK..)?;
        let (from, to, ttl, header, end, header_intact) = match frame.get(12..NETWORK)? {
            [0x08, 0x00] if *ip.get(9)? == TCP => {
                let header = usize::from(ip[0] & 15) * 4;
                let address = |at: usize| ip.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from);
                let end = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                (IpAddr::V4(address(12)?), IpAddr::V4(address(16)?), ip[8], header, end, internet(ip.get(..header)?) == 0)
            }
            [0x86, 0xdd] if *ip.get(6)? == TCP => {
                let address = |at: usize| ip.get(at..at + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(Ipv6Addr::from);
                let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                (IpAddr::V6(address(8)?), IpAddr::V6(address(24)?), *ip.get(7)?, 40, end, true)
            }
            _ => return None,
        };
        let tcp = ip.get(header..end)?;
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let options = tcp.get(20..data)?.to_vec();
        Some(Self {
            source: SocketAddr::new(from, half(0)),
            destination: SocketAddr::new(to, half(2)),
            ttl,
            sequence: word(4),
            acknowledgement: word(8),
            flags: tcp[13],
            window: half(14),
            options,
            payload: tcp[data..].to_vec(),
            intact: header_intact && with_pseudo_header(from, to, TCP, tcp) == 0,
            offset: NETWORK + header,
        })
    }

    /// The content of the first option of this kind (empty for one without content), such as 2 for the MSS.
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = self.options.as_slice();
        loop {
            match *rest {
                [] | [0, ..] => return None,
                [1, ..] => rest = &rest[1..],
                [found, length, ..] if length >= 2 && usize::from(length) <= rest.len() => {
                    let (option, after) = rest.split_at(usize::from(length));
                    if found == kind {
                        return Some(&option[2..]);
                    }
                    rest = after;
                }
                _ => return None,
            }
        }
    }

    /// How far the sequence number moves by this segment.
    pub fn length(&self) -> u32 {
        let flags = u32::from(self.flags & super::SYN != 0) + u32::from(self.flags & super::FIN != 0);
        u32::try_from(self.payload.len()).expect("a segment") + flags
    }

    /// Puts into `frame`, which is this segment's, the checksum that the kernel is to finish (the offload of Linux).
    pub fn leave_checksum_to_kernel(&self, frame: &mut [u8]) {
        let length = 20 + self.options.len() + self.payload.len();
        let sum = of_pseudo_header(self.source.ip(), self.destination.ip(), TCP, length);
        frame[self.offset + CHECKSUM..self.offset + CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What the segments of one direction say from sequence number `first` on, each byte once, up to the first gap: a segment may be there
/// twice, or be part of another, when nothing was acknowledged.
pub fn stream(first: u32, segments: &[Segment]) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        let next = first.wrapping_add(u32::try_from(said.len()).expect("less than the sequence numbers go round"));
        let more = segments.iter().find_map(|segment| {
            let known = usize::try_from(next.wrapping_sub(segment.sequence)).expect("32 bits");
            segment.payload.get(known..).filter(|rest| !rest.is_empty())
        });
        match more {
            Some(more) => said.extend(more),
            None => return said,
        }
    }
}
