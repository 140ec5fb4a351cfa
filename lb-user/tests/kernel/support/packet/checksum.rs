//! The Internet checksum (RFC 1071), plain and slow.

use std::net::IpAddr;

/// The ones' complement of the ones' complement sum of the 16-bit words; an odd last byte is the high half of a word.
pub(super) fn internet(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for (place, byte) in bytes.iter().enumerate() {
        sum += if place % 2 == 0 { u64::from(*byte) * 256 } else { u64::from(*byte) };
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

/// The checksum of an upper layer with its pseudo-header (RFC 793, RFC 8200 section 8.1).
pub(super) fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, upper: &[u8]) -> u16 {
    internet(&[&pseudo_header(source, destination, protocol, upper.len()), upper].concat())
}

/// The sum of the pseudo-header alone: what stands in the field while the checksum is still to be computed.
pub(super) fn of_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u16 {
    !internet(&pseudo_header(source, destination, protocol, length))
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(u32::try_from(length).expect("a packet").to_be_bytes());
    bytes.extend(u32::from(protocol).to_be_bytes());
    bytes
}
