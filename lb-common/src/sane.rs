//! Segments that no connection can come of, and that no established one ever has: what is refused without looking anything up.
//!
//! Each of these the kernel drops too, or answers to the attacker's liking; none of them is sent by a stack that works. So refusing them
//! harms no connection, whatever its state.

use crate::{
    Reason,
    abi::Case,
    wire::{
        Kind, protocol,
        tcp::{self, flags},
    },
};

/// Refuses a packet that makes no sense. `is_loopback`: it came in by a loopback device, where this host's addresses are real sources.
///
/// # Errors
/// The reason why it is dropped.
#[inline(always)]
pub fn check(case: &Case, is_loopback: bool) -> Result<(), Reason> {
    let key = &case.key;
    match case.kind() {
        Kind::Segment(bits) => {
            combination(bits)?;
            if (case.header_length as usize) < tcp::LENGTH || case.data() > case.end as usize {
                return Err(Reason::BadDataOffset);
            }
        }
        // Nobody needs to cut a segment inside its header: the least MTU has room for the largest (RFC 1858, section 3).
        Kind::FirstFragment if key.protocol_number() == protocol::TCP && (case.end as usize) < case.options() => {
            return Err(Reason::TinyFragment);
        }
        Kind::FirstFragment | Kind::Datagram | Kind::Error => {}
    }
    if is_loopback {
        return Ok(());
    }
    if key.source == key.destination {
        return Err(Reason::Land);
    }
    if key.source.is_impossible_source() {
        return Err(Reason::ImpossibleSource);
    }
    Ok(())
}

#[inline(always)]
const fn combination(bits: u8) -> Result<(), Reason> {
    // Nearly every segment has ACK and none of SYN, FIN and RST.
    if bits & (flags::SYN | flags::RST | flags::ACK | flags::FIN) == flags::ACK {
        return Ok(());
    }
    if bits & flags::SYN != 0 {
        return if bits & flags::FIN != 0 {
            Err(Reason::SynFinFlags)
        } else if bits & flags::RST != 0 {
            Err(Reason::SynResetFlags)
        } else {
            Ok(())
        };
    }
    if bits & (flags::RST | flags::ACK) != 0 {
        return Ok(());
    }
    if bits & (flags::FIN | flags::PSH | flags::URG) == 0 { Err(Reason::NullFlags) } else { Err(Reason::XmasFlags) }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::{Address, FlowKey, wire::Flow};

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn flow(source: &str, kind: Kind) -> Flow {
        let key = FlowKey::new(address(source), 40_000, address("192.0.2.1"), 80, 6);
        Flow { key, kind, destination_mac: 0, network: 14, header_length: 20, transport: 34, end: 54 }
    }

    fn check(flow: &Flow, is_loopback: bool) -> Result<(), Reason> {
        super::check(&Case::new(flow, 60), is_loopback)
    }

    fn checked(bits: u8) -> Result<(), Reason> {
        check(&flow("198.51.100.7", Kind::Segment(bits)), false)
    }

    #[test]
    fn combinations_that_no_stack_sends() {
        const ECE_CWR: u8 = flags::ECE | flags::CWR;
        for bits in [0, ECE_CWR] {
            assert_eq!(checked(bits), Err(Reason::NullFlags), "{bits:#x}");
        }
        for bits in [flags::FIN, flags::FIN | flags::PSH | flags::URG, flags::PSH, flags::URG] {
            assert_eq!(checked(bits), Err(Reason::XmasFlags), "{bits:#x}");
        }
        for bits in [flags::SYN | flags::FIN, flags::SYN | flags::FIN | flags::ACK, 0xff] {
            assert_eq!(checked(bits), Err(Reason::SynFinFlags), "{bits:#x}");
        }
        assert_eq!(checked(flags::SYN | flags::RST), Err(Reason::SynResetFlags));
        assert_eq!(checked(flags::SYN | flags::RST | flags::ACK), Err(Reason::SynResetFlags));
        let sound = [
            flags::SYN,
            flags::SYN | ECE_CWR,
            flags::SYN | flags::ACK,
            flags::SYN | flags::PSH | flags::URG,
            flags::ACK,
            flags::ACK | flags::PSH,
            flags::ACK | flags::FIN,
            flags::ACK | flags::FIN | flags::PSH | flags::URG,
            flags::RST,
            flags::RST | flags::ACK,
        ];
        for bits in sound {
            assert_eq!(checked(bits), Ok(()), "{bits:#x}");
        }
    }

    #[test]
    fn headers_that_lie_about_their_length() {
        let segment = flow("198.51.100.7", Kind::Segment(flags::ACK));
        let with = |header_length, end| check(&Flow { header_length, end, ..segment }, false);
        assert_eq!([with(16, 54), with(0, 54), with(24, 54), with(20, 53)], [Err(Reason::BadDataOffset); 4]);
        assert_eq!([with(24, 58), with(60, usize::MAX)], [Ok(()); 2]);
    }

    #[test]
    fn a_first_fragment_holds_the_tcp_header() {
        let fragment = flow("198.51.100.7", Kind::FirstFragment);
        assert_eq!(check(&Flow { end: 53, ..fragment }, false), Err(Reason::TinyFragment));
        assert_eq!(check(&fragment, false), Ok(()));
    }

    #[test]
    fn sources() {
        let syn = |source| flow(source, Kind::Segment(flags::SYN));
        assert_eq!(check(&syn("192.0.2.1"), false), Err(Reason::Land));
        for source in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(check(&syn(source), false), Err(Reason::ImpossibleSource), "{source}");
        }
        assert_eq!([check(&syn("127.0.0.1"), true), check(&syn("192.0.2.1"), true)], [Ok(()); 2], "on a loopback device");
    }
}
