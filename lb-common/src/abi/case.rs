//! What one function of a program hands another that the verifier looks at by itself.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::RequestAttributes;
use crate::{
    FlowKey,
    syn_ack::SynAck,
    wire::{self, Kind, ipv4, ipv6, tcp},
};

/// What the headers of a packet say, and what the stages find out about it: plain numbers without padding, since the verifier wants every
/// byte that is handed over to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Case {
    /// Whose packet it is; see [`wire::Flow::key`].
    pub key: FlowKey,
    /// The MAC address that the frame is for, its first byte the most significant.
    pub destination_mac: u64,
    /// How many bytes the frame has.
    pub length: u64,
    /// Where the IP header starts, in bytes from the start of the frame, as all positions here.
    pub network: u32,
    /// Where the transport header starts.
    pub transport: u32,
    /// The length of the TCP header as it says itself; 0 of everything that is no whole segment.
    pub header_length: u32,
    /// Where the packet ends, as its IP header says; `u32::MAX` if the header does not say.
    pub end: u32,
    /// The TCP flags of a segment, or one of the numbers from [`Case::DATAGRAM`] on.
    kind: u32,
    /// The service's index; 0 until it is found.
    pub service: u32,
    /// The MSS that this host announces to the client.
    pub maximum_segment_size: u32,
    /// Zero.
    pub padding: u32,
}

impl Case {
    /// The kind of a datagram.
    const DATAGRAM: u32 = 256;
    /// The kind of a first fragment.
    const FIRST_FRAGMENT: u32 = 257;
    /// The kind of an ICMP error.
    const ERROR: u32 = 258;

    /// The case of a packet whose service is not known yet.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "positions are below FARTHEST, and the end is cut to 32 bits")]
    pub const fn new(flow: &wire::Flow, length: u64) -> Self {
        Self {
            key: flow.key,
            destination_mac: flow.destination_mac,
            length,
            network: flow.network as u32,
            transport: flow.transport as u32,
            header_length: flow.header_length as u32,
            end: if flow.end < u32::MAX as usize { flow.end as u32 } else { u32::MAX },
            kind: match flow.kind {
                Kind::Segment(bits) => bits as u32,
                Kind::Datagram => Self::DATAGRAM,
                Kind::FirstFragment => Self::FIRST_FRAGMENT,
                Kind::Error => Self::ERROR,
            },
            service: 0,
            maximum_segment_size: 0,
            padding: 0,
        }
    }

    /// What kind of packet it is.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "flags are below 256")]
    pub const fn kind(&self) -> Kind {
        match self.kind {
            Self::DATAGRAM => Kind::Datagram,
            Self::FIRST_FRAGMENT => Kind::FirstFragment,
            Self::ERROR => Kind::Error,
            bits => Kind::Segment(bits as u8),
        }
    }

    /// The flags of a segment; none of anything else.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "flags are below 256")]
    pub const fn flags(&self) -> Option<u8> {
        if self.kind < Self::DATAGRAM { Some(self.kind as u8) } else { None }
    }

    /// Where the options of the TCP header start.
    #[inline(always)]
    #[must_use]
    pub const fn options(&self) -> usize {
        self.transport as usize + tcp::LENGTH
    }

    /// Where the data of the segment starts.
    #[inline(always)]
    #[must_use]
    pub const fn data(&self) -> usize {
        self.transport as usize + self.header_length as usize
    }

    /// Whether the transport header follows the IP header at once: no IP options, no extension headers.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.transport as usize == self.network as usize + if self.key.source.is_ipv4() { ipv4::LENGTH } else { ipv6::LENGTH }
    }
}

/// The options of a segment, as numbers: what [`tcp::Options`] is to one function that the verifier looks at, and hands to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Offered {
    /// Bits 0 to 15: the MSS; 16 to 23: the window scale; from 24 on, one bit for each: an MSS, a window scale, SACK, timestamps, an option
    /// that only the kernel understands, Fast Open.
    bits: u32,
    /// The timestamp value.
    value: u32,
    /// The timestamp that is echoed.
    echoed: u32,
    /// Zero.
    padding: u32,
}

impl From<tcp::Options> for Offered {
    #[inline(always)]
    fn from(options: tcp::Options) -> Self {
        let tcp::Options { maximum_segment_size, window_scale, selective_acknowledgement, timestamps, needs_kernel, fast_open } = options;
        let bit = |is: bool, at: u32| u32::from(is) << at;
        let (value, echoed) = timestamps.unwrap_or_default();
        let bits = u32::from(maximum_segment_size.unwrap_or(0))
            | u32::from(window_scale.unwrap_or(0)) << 16
            | bit(maximum_segment_size.is_some(), 24)
            | bit(window_scale.is_some(), 25)
            | bit(selective_acknowledgement, 26)
            | bit(timestamps.is_some(), 27)
            | bit(needs_kernel, 28)
            | bit(fast_open, 29);
        Self { bits, value, echoed, padding: 0 }
    }
}

impl From<Offered> for tcp::Options {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 and 8 bits")]
    fn from(Offered { bits, value, echoed, .. }: Offered) -> Self {
        let has = |at: u32| bits >> at & 1 != 0;
        Self {
            maximum_segment_size: has(24).then_some(bits as u16),
            window_scale: has(25).then_some((bits >> 16) as u8),
            selective_acknowledgement: has(26),
            timestamps: has(27).then_some((value, echoed)),
            needs_kernel: has(28),
            fast_open: has(29),
        }
    }
}

/// What a program needs memory for that its functions hand each other, one for each CPU: their stacks have 512 bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scratch {
    /// The packet.
    pub case: Case,
    /// The options of the connection whose cookie came back.
    pub attributes: RequestAttributes,
    /// The options of the segment.
    pub offered: Offered,
    /// The answer to a SYN.
    pub reply: SynAck,
    /// Zero.
    pub padding: u32,
    /// The TCP header of a SYN.
    pub segment: Segment,
}

/// A TCP header, for a helper that reads it whole. The mask of its length that the verifier sees makes 83 bytes of the 60 that it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// The bytes as they lie in the packet.
    pub words: [u64; 11],
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn options_survive_as_numbers(
            maximum_segment_size: Option<u16>,
            window_scale in prop::option::of(0..=14_u8),
            timestamps: Option<(u32, u32)>,
            flags: [bool; 3],
        ) {
            let [selective_acknowledgement, needs_kernel, fast_open] = flags;
            let options =
                tcp::Options { maximum_segment_size, window_scale, selective_acknowledgement, timestamps, needs_kernel, fast_open };
            prop_assert_eq!(tcp::Options::from(Offered::from(options)), options);
        }
    }
}
