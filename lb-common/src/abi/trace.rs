//! `weir trace`: which packets it wants to see, and what it gets of each.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, limiter::Bucket};

/// How many bytes of a frame a record has: all headers, and the start of what follows.
pub const TRACE_BYTES: usize = 192;

/// What is wanted. All zero: nothing, and that is what the programs look for at each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TraceFilter {
    /// Until when: nanoseconds of CLOCK_MONOTONIC. Whoever traces moves it on each second, so that a trace ends when its reader does.
    pub until: u64,
    /// A bit for each reason that is wanted, by [`crate::Reason::index`].
    pub reasons: u64,
    /// The client's address, where [`TraceFilter::mask`] has a one.
    pub address: Address,
    /// Which bits of the client's address count.
    pub mask: Address,
    /// The service, or [`TraceFilter::ANY`].
    pub service: u32,
    /// The most records a second from one CPU, and at once.
    pub rate: u32,
}

impl TraceFilter {
    /// Any service, and packets of none.
    pub const ANY: u32 = u32::MAX;

    /// Nothing.
    pub const OFF: Self = Self { until: 0, reasons: 0, address: Address::UNSPECIFIED, mask: Address::UNSPECIFIED, service: 0, rate: 0 };

    /// Whether packets with this verdict are wanted, whoever they are from. The reason is its index.
    #[inline(always)]
    #[must_use]
    pub const fn wants(&self, service: u32, reason: u32, now: u64) -> bool {
        now < self.until && (self.service == Self::ANY || self.service == service) && self.reasons >> (reason & 63) & 1 == 1
    }

    /// Whether packets of this client are wanted.
    #[inline(always)]
    #[must_use]
    pub const fn wants_client(&self, client: Address) -> bool {
        let ([a, b], [c, d], [e, f]) = (client.words(), self.address.words(), self.mask.words());
        (a ^ c) & e == 0 && (b ^ d) & f == 0
    }

    /// Whether an address counts at all.
    #[inline(always)]
    #[must_use]
    pub const fn names_client(&self) -> bool {
        let [a, b] = self.mask.words();
        a | b != 0
    }
}

/// The client of a packet that has been given its verdict: an answer has been written over its SYN by then.
#[inline(always)]
#[must_use]
pub const fn client(source: Address, destination: Address, is_answer: bool) -> Address {
    if is_answer { destination } else { source }
}

/// One packet, as its verdict left it: an answer in place of the SYN that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TraceRecord {
    /// When: nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Its service; 0 for none.
    pub service: u32,
    /// [`crate::Reason::index`].
    pub reason: u32,
    /// The interface it came in by.
    pub interface: u32,
    /// How many bytes the frame has.
    pub length: u32,
    /// How many of them are in [`TraceRecord::bytes`].
    pub captured: u32,
    /// Zero.
    pub padding: u32,
    /// The frame's start; zeros behind it.
    pub bytes: [u8; TRACE_BYTES],
}

/// What a CPU knows of the trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TraceState {
    /// How many records it may still write.
    pub bucket: Bucket,
    /// Packets that were wanted and above the rate.
    pub above_rate: u64,
    /// Packets that were wanted and for which the ring had no room.
    pub no_room: u64,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::Reason;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn index(reason: Reason) -> u32 {
        reason as u32
    }

    #[test]
    fn nothing_is_wanted_unless_said() {
        for reason in Reason::ALL {
            assert!(!TraceFilter::OFF.wants(0, index(reason), 0) && !TraceFilter::OFF.wants(1, index(reason), u64::MAX));
        }
        let all = TraceFilter { until: 10, reasons: u64::MAX, service: TraceFilter::ANY, ..TraceFilter::OFF };
        for reason in Reason::ALL {
            assert!(all.wants(0, index(reason), 9) && all.wants(7, index(reason), 9));
            assert!(!all.wants(7, index(reason), 10), "the reader is gone");
            let one = TraceFilter { reasons: 1 << reason.index(), service: 7, ..all };
            assert!(one.wants(7, index(reason), 0) && !one.wants(6, index(reason), 0));
            assert!(Reason::ALL.into_iter().filter(|other| one.wants(7, index(*other), 0)).eq([reason]));
        }
    }

    #[test]
    fn a_prefix_is_compared_bit_by_bit() {
        let none = TraceFilter::OFF;
        assert!(!none.names_client() && none.wants_client(address("192.0.2.1")) && none.wants_client(address("2001:db8::1")));
        let network = TraceFilter {
            address: address("192.0.2.0"),
            mask: Address::from_bytes([[0xff; 15].as_slice(), &[0]].concat().try_into().unwrap()),
            ..none
        };
        assert!(network.names_client());
        assert!(network.wants_client(address("192.0.2.0")) && network.wants_client(address("192.0.2.255")));
        assert!(!network.wants_client(address("192.0.3.0")) && !network.wants_client(address("2001:db8::1")));
    }

    #[test]
    fn the_client_of_an_answer_is_whom_it_goes_to() {
        let (source, destination) = (address("192.0.2.1"), address("198.51.100.1"));
        assert_eq!(client(source, destination, false), source);
        assert_eq!(client(source, destination, true), destination);
    }
}
