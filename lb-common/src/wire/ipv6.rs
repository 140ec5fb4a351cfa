//! IPv6, RFC 8200, with a bounded walk of the extension headers.

use super::{Fragment, Network};
use crate::{Address, Reason, packet::Window};

/// The length of the fixed header.
pub const LENGTH: usize = 40;
/// How many extension headers are walked. Real packets have none or one; a chain that is longer is passed as [`Reason::TooDeep`].
pub const MAX_EXTENSION_HEADERS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads the header at `offset` and walks the extension headers behind it.
///
/// # Errors
/// [`Reason::Truncated`], [`Reason::Malformed`] or [`Reason::TooDeep`].
#[inline(always)]
pub fn parse(window: &Window<'_>, offset: usize) -> Result<Network, Reason> {
    let header = window.header::<LENGTH>(offset).ok_or(Reason::Truncated)?;
    if header.byte::<0>() >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let mut network = Network {
        source: Address::from_words(header.words::<8>()),
        destination: Address::from_words(header.words::<24>()),
        protocol: header.byte::<6>(),
        fragment: Fragment::Whole,
        payload: offset + LENGTH,
        // 0 is a jumbogram's (RFC 2675), or that of segments which a card joined to more than 65,535 bytes.
        end: match header.number16::<4>() {
            0 => usize::MAX,
            length => offset + LENGTH + usize::from(length),
        },
    };
    // On the wire an IPv4-mapped address is nobody's (RFC 4942, section 2.2), and Linux drops a packet from one; here it would be taken
    // for the IPv4 address, and the packet for one of an IPv4 service.
    if network.source.is_ipv4() || network.destination.is_ipv4() {
        return Err(Reason::Malformed);
    }
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(network.protocol) {
            break;
        }
        step(window, &mut network)?;
        // What follows a later fragment's header is a piece from the middle, not another header.
        if network.fragment == Fragment::Later {
            return Ok(network);
        }
    }
    if is_extension(network.protocol) {
        return Err(Reason::TooDeep);
    }
    Ok(network)
}

/// Steps over the one extension header that `network` stands before.
#[inline(always)]
fn step(window: &Window<'_>, network: &mut Network) -> Result<(), Reason> {
    let extension = window.header::<8>(network.payload).ok_or(Reason::Truncated)?;
    let length = usize::from(extension.byte::<1>());
    network.payload += match network.protocol {
        FRAGMENT => {
            let field = extension.number16::<2>();
            // An "atomic" fragment (offset 0, none follows) is a whole packet, RFC 6946.
            network.fragment = match (field & 0xfff8 != 0, field & 1 != 0) {
                (true, _) => Fragment::Later,
                (false, true) => Fragment::First,
                (false, false) => network.fragment,
            };
            8
        }
        // In units of 4 bytes, not counting the first 8: RFC 4302, section 2.2.
        AUTHENTICATION => (length + 2) * 4,
        // In units of 8 bytes, not counting the first 8.
        _ => (length + 1) * 8,
    };
    network.protocol = extension.byte::<0>();
    Ok(())
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet from 2001:db8::1 to 2001:db8::2 whose first header is `next` and whose bytes behind the fixed header are `rest`.
    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 64, next, 64];
        for last in [1, 2] {
            bytes.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        bytes.extend_from_slice(rest);
        bytes
    }

    fn check(next: u8, rest: &[u8], expected: Result<(u8, Fragment, usize), Reason>) {
        let bytes = packet(next, rest);
        let parsed = parse(&Window::of(&bytes), 0).map(|n| (n.protocol, n.fragment, n.payload));
        assert_eq!(parsed, expected, "{next} {rest:?}");
    }

    #[test]
    fn the_fixed_header() {
        let bytes = packet(6, &[]);
        let network = parse(&Window::of(&bytes), 0).unwrap();
        assert_eq!(network.source.to_string(), "2001:db8::1");
        assert_eq!(network.destination.to_string(), "2001:db8::2");
        check(6, &[], Ok((6, Fragment::Whole, 40)));
        for length in 0..LENGTH {
            assert_eq!(parse(&Window::of(&bytes[..length]), 0), Err(Reason::Truncated));
        }
    }

    #[test]
    fn extension_headers_are_walked() {
        check(HOP_BY_HOP, &[6, 0, 0, 0, 0, 0, 0, 0], Ok((6, Fragment::Whole, 48)));
        check(DESTINATION_OPTIONS, &[17, 1, 0, 0, 0, 0, 0, 0], Ok((17, Fragment::Whole, 56)));
        check(AUTHENTICATION, &[6, 4, 0, 0, 0, 0, 0, 0], Ok((6, Fragment::Whole, 64)));
        check(HOP_BY_HOP, &[ROUTING, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], Ok((6, Fragment::Whole, 56)));
        check(ROUTING, &[6, 0, 0], Err(Reason::Truncated));
    }

    #[test]
    fn fragments_are_told_apart() {
        check(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 0], Ok((6, Fragment::First, 48)));
        check(FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 0], Ok((6, Fragment::Later, 48)));
        check(FRAGMENT, &[6, 0, 0, 0, 0, 0, 0, 0], Ok((6, Fragment::Whole, 48)));
        // Behind a later fragment nothing is a header, whatever its number says.
        check(FRAGMENT, &[HOP_BY_HOP, 0, 0xff, 0xf8, 0, 0, 0, 0], Ok((HOP_BY_HOP, Fragment::Later, 48)));
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = |n: usize| {
            let mut bytes = vec![[HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0]; n].concat();
            bytes[(n - 1) * 8] = 6;
            bytes
        };
        check(HOP_BY_HOP, &chain(MAX_EXTENSION_HEADERS), Ok((6, Fragment::Whole, 40 + 8 * MAX_EXTENSION_HEADERS)));
        check(HOP_BY_HOP, &chain(MAX_EXTENSION_HEADERS + 1), Err(Reason::TooDeep));
    }

    #[test]
    fn mapped_addresses_are_malformed() {
        for at in [8, 24] {
            let mut bytes = packet(6, &[]);
            bytes[at..at + 16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
            assert_eq!(parse(&Window::of(&bytes), 0), Err(Reason::Malformed));
            bytes[at + 10] = 0xfe;
            assert!(parse(&Window::of(&bytes), 0).is_ok());
        }
    }

    #[test]
    fn another_version_is_malformed() {
        let mut bytes = packet(6, &[]);
        bytes[0] = 0x45;
        assert_eq!(parse(&Window::of(&bytes), 0), Err(Reason::Malformed));
    }
}
