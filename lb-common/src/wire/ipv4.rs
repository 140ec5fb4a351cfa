//! IPv4, RFC 791, with options.

use super::{Fragment, Network};
use crate::{Address, Reason, packet::Window};

/// The length of the header without options.
pub const LENGTH: usize = 20;
/// In the fragment field: more fragments follow.
pub(super) const MORE_FRAGMENTS: u16 = 0x2000;
/// In the fragment field: the offset in units of 8 bytes.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the header at `offset`; options are stepped over.
///
/// The header's checksum is left to the kernel, which sees every packet that Weir passes.
///
/// # Errors
/// [`Reason::Truncated`] or [`Reason::Malformed`].
#[inline(always)]
pub fn parse(window: &Window<'_>, offset: usize) -> Result<Network, Reason> {
    let header = window.header::<LENGTH>(offset).ok_or(Reason::Truncated)?;
    let first = header.byte::<0>();
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < LENGTH || usize::from(header.number16::<2>()) < length {
        return Err(Reason::Malformed);
    }
    let fragment = match header.number16::<6>() {
        field if field & FRAGMENT_OFFSET != 0 => Fragment::Later,
        field if field & MORE_FRAGMENTS != 0 => Fragment::First,
        _ => Fragment::Whole,
    };
    Ok(Network {
        source: Address::from_ipv4_network(header.word::<12>()),
        destination: Address::from_ipv4_network(header.word::<16>()),
        protocol: header.byte::<9>(),
        fragment,
        payload: offset + length,
        end: offset + usize::from(header.number16::<2>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 192.0.2.1 to 198.51.100.2, TCP, don't fragment, 40 bytes in all.
    const HEADER: [u8; 20] = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];

    fn with(index: usize, value: u8) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes[index] = value;
        bytes.extend_from_slice(&[1; 40]);
        bytes
    }

    fn parsed(bytes: &[u8]) -> Result<Network, Reason> {
        parse(&Window::of(bytes), 0)
    }

    #[test]
    fn a_plain_header() {
        let network = parsed(&HEADER).unwrap();
        assert_eq!(network.source.to_string(), "192.0.2.1");
        assert_eq!(network.destination.to_string(), "198.51.100.2");
        assert_eq!((network.protocol, network.fragment, network.payload), (6, Fragment::Whole, 20));
    }

    #[test]
    fn options_are_stepped_over() {
        assert_eq!(parsed(&with(0, 0x4a)).map(|n| n.payload), Ok(40));
    }

    #[test]
    fn fragments_are_told_apart() {
        assert_eq!(parsed(&with(6, 0x20)).map(|n| n.fragment), Ok(Fragment::First));
        assert_eq!(parsed(&with(7, 0x01)).map(|n| n.fragment), Ok(Fragment::Later));
        assert_eq!(parsed(&with(6, 0x1f)).map(|n| n.fragment), Ok(Fragment::Later));
    }

    #[test]
    fn contradictions_are_malformed() {
        for bytes in [with(0, 0x44), with(0, 0x65), with(0, 0x40), with(3, 19), with(0, 0x4b)] {
            assert_eq!(parsed(&bytes), Err(Reason::Malformed), "{:x?}", &bytes[..4]);
        }
    }

    #[test]
    fn every_shorter_header_is_truncated() {
        for length in 0..LENGTH {
            assert_eq!(parsed(&HEADER[..length]), Err(Reason::Truncated));
        }
    }
}
