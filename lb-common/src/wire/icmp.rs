//! ICMP (RFC 792) and ICMPv6 (RFC 4443): only errors matter here, for the packet they quote.

use super::{Network, protocol};
use crate::{Reason, packet::Window};

/// The length of the header of an error, in both families; the quoted packet follows.
pub const LENGTH: usize = 8;

/// Where the packet that the error quotes starts.
///
/// # Errors
/// [`Reason::NotTransport`] for a message that is no error (an echo, a neighbour solicitation), [`Reason::Truncated`].
#[inline(always)]
pub fn quoted(window: &Window<'_>, network: &Network) -> Result<usize, Reason> {
    let header = window.header::<LENGTH>(network.payload).ok_or(Reason::Truncated)?;
    if !is_error(network.protocol, header.byte::<0>()) {
        return Err(Reason::NotTransport);
    }
    Ok(network.payload + LENGTH)
}

/// Whether a message of this type quotes a packet.
///
/// ICMP: destination unreachable, source quench (deprecated), redirect, time exceeded, parameter problem. ICMPv6: the types below 128
/// are the errors; 1 to 4 are those in use.
#[inline(always)]
pub(super) const fn is_error(protocol: u8, message: u8) -> bool {
    if protocol == protocol::ICMP { matches!(message, 3 | 4 | 5 | 11 | 12) } else { matches!(message, 1..=4) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, wire::Fragment};

    fn check(protocol: u8, message: u8, expected: Result<usize, Reason>) {
        let network = Network {
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            protocol,
            fragment: Fragment::Whole,
            payload: 2,
            end: 10,
        };
        let bytes = [0, 0, message, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(quoted(&Window::of(&bytes), &network), expected, "{protocol} {message}");
        assert_eq!(quoted(&Window::of(&bytes[..9]), &network), Err(Reason::Truncated));
    }

    #[test]
    fn only_errors_quote() {
        for error in [3, 4, 5, 11, 12] {
            check(protocol::ICMP, error, Ok(10));
        }
        for error in 1..=4 {
            check(protocol::ICMPV6, error, Ok(10));
        }
        for (protocol, message) in [(protocol::ICMP, 8), (protocol::ICMP, 0), (protocol::ICMPV6, 128), (protocol::ICMPV6, 135)] {
            check(protocol, message, Err(Reason::NotTransport));
        }
    }
}
