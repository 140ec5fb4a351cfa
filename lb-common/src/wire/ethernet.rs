//! Ethernet II, with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use crate::{Reason, packet::Window};

/// The length of the two MAC addresses and the type.
pub const LENGTH: usize = 14;
/// The length of a VLAN tag.
pub const TAG_LENGTH: usize = 4;
/// How many tags are walked: a service tag and a customer tag. A frame with more is passed as [`Reason::TooDeep`].
pub const MAX_TAGS: usize = 2;
/// IPv4.
pub const IPV4: u16 = 0x0800;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// A customer VLAN tag.
pub const CUSTOMER_TAG: u16 = 0x8100;
/// A service VLAN tag ("QinQ").
pub const SERVICE_TAG: u16 = 0x88a8;

/// What the frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// The MAC address that the frame is for, its first byte the most significant of 48 bits.
    pub destination_mac: u64,
    /// The type of the payload, behind all tags.
    pub ether_type: u16,
    /// Where the payload starts.
    pub payload: usize,
}

/// Reads the frame at the start of the window.
///
/// # Errors
/// [`Reason::Truncated`] or [`Reason::TooDeep`].
#[inline(always)]
pub fn parse(window: &Window<'_>) -> Result<Ethernet, Reason> {
    let header = window.header::<LENGTH>(0).ok_or(Reason::Truncated)?;
    let destination_mac = header.number48::<0, 4>();
    let mut ether_type = header.number16::<12>();
    let mut payload = LENGTH;
    for _ in 0..MAX_TAGS {
        if !is_tag(ether_type) {
            break;
        }
        let tag = window.header::<TAG_LENGTH>(payload).ok_or(Reason::Truncated)?;
        ether_type = tag.number16::<2>();
        payload += TAG_LENGTH;
    }
    if is_tag(ether_type) {
        return Err(Reason::TooDeep);
    }
    Ok(Ethernet { destination_mac, ether_type, payload })
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, CUSTOMER_TAG | SERVICE_TAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (index, ether_type) in types.iter().enumerate() {
            if index > 0 {
                bytes.extend_from_slice(&[0x20, 0x64]);
            }
            bytes.extend_from_slice(&ether_type.to_be_bytes());
        }
        bytes
    }

    fn check(types: &[u16], expected: Result<(u16, usize), Reason>) {
        let bytes = frame(types);
        let parsed = parse(&Window::of(&bytes)).map(|frame| (frame.ether_type, frame.payload));
        assert_eq!(parsed, expected, "{types:x?}");
    }

    #[test]
    fn tags_are_walked_up_to_two() {
        check(&[IPV4], Ok((IPV4, 14)));
        check(&[CUSTOMER_TAG, IPV6], Ok((IPV6, 18)));
        check(&[SERVICE_TAG, CUSTOMER_TAG, IPV4], Ok((IPV4, 22)));
        check(&[SERVICE_TAG, SERVICE_TAG, CUSTOMER_TAG, IPV4], Err(Reason::TooDeep));
    }

    #[test]
    fn every_shorter_frame_is_truncated() {
        let bytes = frame(&[SERVICE_TAG, CUSTOMER_TAG, IPV4]);
        for length in 0..bytes.len() {
            assert_eq!(parse(&Window::of(&bytes[..length])), Err(Reason::Truncated), "{length}");
        }
    }

    #[test]
    fn the_destination_is_a_number() {
        assert_eq!(parse(&Window::of(&frame(&[IPV4]))).unwrap().destination_mac, 0x0200_0000_0001);
    }
}
