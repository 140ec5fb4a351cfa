//! SYN cookies: what a SYN offered, kept in the numbers of the answer instead of in memory, and proven by a keyed hash.
//!
//! The layout, most significant bit first. `h` is SipHash-1-3 over the flow, the client's initial sequence number and the options:
//!
//! | | with timestamps | without |
//! |---|---|---|
//! | sequence number | parity 1, `h` 31 | parity 1, code 5, `h` 26 |
//! | timestamp value | options 20, `h` 12 | none |
//! | bits an attacker has to guess | 43 | 26 |
//!
//! - **parity** says which of the two living keys made it. A key lives for one slot and is honoured for one more, so a cookie's age needs
//!   no field, and one hash decides.
//! - **options** hold what was agreed, whole: MSS 14 bits, window scale 4 (15: none), SACK 1, ECN 1. The client's own timestamp value comes
//!   back with its ACK.
//! - **code** names an entry of a [codebook](Agreement::code): a client without timestamps (Windows, small stacks) gets the nearest that it
//!   can be given, never more than it offered.
//!
//! SipHash-1-3 and not 2-4: 43 or 26 of its 64 bits are shown, under a key that lives two minutes; no attack on either is known, and the
//! five rounds less are a fifth of what an answer costs. In BPF a round is about 32 instructions. An IPv4 flow and the sequence number
//! fill two words, IPv6 takes five; the options ride in the tail of the length word, so they cost no round.
//!
//! Source of the idea: D. J. Bernstein, "SYN cookies" (1996); RFC 4987, section 3.6; Linux' net/ipv4/syncookies.c for the timestamp.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{FlowKey, siphash, wire::tcp};

/// The bits of a cookie without timestamps that come from the hash.
pub const HASH_BITS: u32 = 26;
/// The bits of a cookie with timestamps that come from the hash.
pub const HASH_BITS_WITH_TIMESTAMPS: u32 = 31 + 12;

/// The largest MSS that a cookie with timestamps holds; a larger one is taken for this.
const LARGEST_SEGMENT: u16 = (1 << 14) - 1;
/// Stands for "no window scale".
const NO_SCALE: u32 = 15;
/// What a client that names no MSS gets, and the least that the kernel restores a request with: RFC 9293, section 3.7.1, and
/// `bpf_sk_assign_tcp_reqsk` in net/core/filter.c (IPv6: the least MTU less both headers).
const LEAST_SEGMENT: [u16; 2] = [536, 1220];
/// The MSS values of the codebook: the kernel's own for IPv4 (`msstab`, net/ipv4/syncookies.c), for IPv6 those of its family.
const SEGMENTS: [[u16; 4]; 2] = [[536, 1300, 1440, 1460], [1220, 1360, 1420, 1440]];
/// The other options of the codebook: SACK, window scale, ECN. Windows offers SACK and a scale of 8 and no timestamps, a Linux whose
/// timestamps are off 7 or more; small stacks offer nothing, or SACK. The scale is rounded down: a window that looks smaller than it is
/// slows, one that looks larger loses segments.
const FEATURES: [Features; 8] = [
    Features { sack: false, scale: None, ecn: false },
    Features { sack: true, scale: None, ecn: false },
    Features { sack: false, scale: Some(0), ecn: false },
    Features { sack: true, scale: Some(0), ecn: false },
    Features { sack: true, scale: Some(2), ecn: false },
    Features { sack: true, scale: Some(7), ecn: false },
    Features { sack: true, scale: Some(8), ecn: false },
    Features { sack: true, scale: Some(8), ecn: true },
];

#[derive(Clone, Copy)]
struct Features {
    sack: bool,
    scale: Option<u8>,
    ecn: bool,
}

/// What client and server agree on for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The client's maximum segment size, in bytes.
    pub maximum_segment_size: u16,
    /// The client's window scale; none if windows are not scaled.
    pub window_scale: Option<u8>,
    /// Selective acknowledgement.
    pub selective_acknowledgement: bool,
    /// Explicit congestion notification.
    pub congestion_notification: bool,
    /// Timestamps.
    pub timestamps: bool,
}

/// What the server's host is willing to use, as its sysctls say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four switches of the host, each on or off by itself")]
pub struct Willing {
    /// net.ipv4.tcp_window_scaling
    pub window_scale: bool,
    /// net.ipv4.tcp_sack
    pub selective_acknowledgement: bool,
    /// net.ipv4.tcp_ecn
    pub congestion_notification: bool,
    /// net.ipv4.tcp_timestamps
    pub timestamps: bool,
}

impl Agreement {
    /// What comes of a SYN with these options and flags. `None` if its MSS is below what the kernel can restore: only the kernel itself
    /// can answer that.
    #[inline(always)]
    #[must_use]
    pub fn of(options: &tcp::Options, flags: u8, is_ipv4: bool, willing: Willing) -> Option<Self> {
        let least = LEAST_SEGMENT[usize::from(!is_ipv4)];
        let segment = options.maximum_segment_size.unwrap_or(least);
        if segment < least {
            return None;
        }
        let offers_ecn = flags & (tcp::flags::ECE | tcp::flags::CWR) == tcp::flags::ECE | tcp::flags::CWR;
        Some(Self {
            maximum_segment_size: if segment < LARGEST_SEGMENT { segment } else { LARGEST_SEGMENT },
            window_scale: if willing.window_scale { options.window_scale } else { None },
            selective_acknowledgement: options.selective_acknowledgement && willing.selective_acknowledgement,
            congestion_notification: offers_ecn && willing.congestion_notification,
            timestamps: options.timestamps.is_some() && willing.timestamps,
        })
    }

    /// The nearest entry of the codebook that gives no more than this, and its number.
    #[inline(always)]
    fn code(self, is_ipv4: bool) -> (u32, Self) {
        let segments = &SEGMENTS[usize::from(!is_ipv4)];
        let segment = match self.maximum_segment_size {
            size if size >= segments[3] => 3,
            size if size >= segments[2] => 2,
            size if size >= segments[1] => 1,
            _ => 0,
        };
        let features = match (self.selective_acknowledgement, self.window_scale) {
            (false, None) => 0,
            (true, None) => 1,
            (false, Some(_)) => 2,
            (true, Some(0..=1)) => 3,
            (true, Some(2..=6)) => 4,
            (true, Some(7)) => 5,
            (true, Some(_)) if !self.congestion_notification => 6,
            (true, Some(_)) => 7,
        };
        (segment << 3 | features, Self::of_code(segment << 3 | features, is_ipv4))
    }

    /// The entry of the codebook with this number, of which the lowest five bits count.
    #[inline(always)]
    fn of_code(code: u32, is_ipv4: bool) -> Self {
        let Features { sack, scale, ecn } = FEATURES[(code & 7) as usize];
        Self {
            maximum_segment_size: SEGMENTS[usize::from(!is_ipv4)][(code >> 3 & 3) as usize],
            window_scale: scale,
            selective_acknowledgement: sack,
            congestion_notification: ecn,
            timestamps: false,
        }
    }

    /// The 20 bits of options of a cookie with timestamps.
    #[inline(always)]
    fn bits(self) -> u32 {
        let scale = match self.window_scale {
            Some(scale) => u32::from(scale),
            None => NO_SCALE,
        };
        let flags = u32::from(self.selective_acknowledgement) << 1 | u32::from(self.congestion_notification);
        u32::from(self.maximum_segment_size) << 6 | scale << 2 | flags
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "14 and 4 bits")]
    fn of_bits(bits: u32) -> Self {
        let scale = bits >> 2 & 15;
        Self {
            maximum_segment_size: (bits >> 6) as u16 & LARGEST_SEGMENT,
            window_scale: if scale == NO_SCALE { None } else { Some(scale as u8) },
            selective_acknowledgement: bits & 2 != 0,
            congestion_notification: bits & 1 != 0,
            timestamps: true,
        }
    }
}

/// A cookie: what a SYN-ACK carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cookie {
    /// Its sequence number.
    pub sequence: u32,
    /// Its timestamp value; meaningless unless timestamps are agreed on.
    pub timestamp: u32,
}

/// Makes the cookie for a SYN of this flow with this sequence number. `parity` says which key it is: 0 or 1.
///
/// Answers with what is granted, which without timestamps may be less than what was agreed: the SYN-ACK has to say that.
#[inline(always)]
#[must_use]
pub fn make(key: [u64; 2], parity: u32, flow: &FlowKey, sequence: u32, agreement: &Agreement) -> (Cookie, Agreement) {
    make_with(|options| hash(key, flow, sequence, options), parity, flow.source.is_ipv4(), agreement)
}

/// [`make`] for who has the hash elsewhere: `hash` is [`hash()`] of the flow and the sequence number with the options that it is given.
#[inline(always)]
#[must_use]
pub fn make_with(hash: impl FnOnce(u32) -> u64, parity: u32, is_ipv4: bool, agreement: &Agreement) -> (Cookie, Agreement) {
    let (bits, granted) = if agreement.timestamps { (TIMESTAMPS | agreement.bits(), *agreement) } else { agreement.code(is_ipv4) };
    let hash = hash(bits);
    if agreement.timestamps {
        return (with_timestamps(hash, parity, bits & !TIMESTAMPS), granted);
    }
    (Cookie { sequence: without_timestamps(hash, parity, bits), timestamp: 0 }, granted)
}

/// Reads the cookie that a client acknowledged: `acknowledged` is the sequence number of the SYN-ACK, `echoed` its timestamp value if the
/// segment has timestamps, `sequence` the one of the SYN. `key` is that of the [`parity`]. `None`: we did not make it.
#[inline(always)]
#[must_use]
pub fn check(key: [u64; 2], flow: &FlowKey, sequence: u32, acknowledged: u32, echoed: Option<u32>) -> Option<Agreement> {
    check_with(|options| hash(key, flow, sequence, options), flow.source.is_ipv4(), acknowledged, echoed)
}

/// [`check`] for who has the hash elsewhere, as in [`make_with`].
#[inline(always)]
#[must_use]
pub fn check_with(hash: impl FnOnce(u32) -> u64, is_ipv4: bool, acknowledged: u32, echoed: Option<u32>) -> Option<Agreement> {
    let bits = echoed.map_or(acknowledged >> HASH_BITS & 31, |echoed| TIMESTAMPS | echoed >> 12);
    let (hash, parity) = (hash(bits), parity(acknowledged));
    if let Some(echoed) = echoed {
        let made = with_timestamps(hash, parity, bits & !TIMESTAMPS);
        return (made == Cookie { sequence: acknowledged, timestamp: echoed }).then(|| Agreement::of_bits(bits & !TIMESTAMPS));
    }
    (without_timestamps(hash, parity, bits) == acknowledged).then(|| Agreement::of_code(bits, is_ipv4))
}

/// Which key made the cookie of this sequence number: 0 or 1.
#[inline(always)]
#[must_use]
pub const fn parity(sequence: u32) -> u32 {
    sequence >> 31
}

/// In the tail of the hashed message: the options are those of a cookie with timestamps.
const TIMESTAMPS: u32 = 1 << 31;

/// What proves a cookie: the keyed hash of the flow, the client's sequence number and the cookie's options.
#[inline(always)]
#[must_use]
pub fn hash(key: [u64; 2], flow: &FlowKey, sequence: u32, options: u32) -> u64 {
    let last = u64::from(flow.source_port) | u64::from(flow.destination_port) << 16 | u64::from(sequence) << 32;
    if let (Some(source), Some(destination)) = (flow.source.ipv4_network(), flow.destination.ipv4_network()) {
        let addresses = u64::from(source.to_le()) | u64::from(destination.to_le()) << 32;
        return siphash::sip13_with_tail(key, [addresses, last], u64::from(options));
    }
    let [s0, s1] = flow.source.hash_words();
    let [d0, d1] = flow.destination.hash_words();
    siphash::sip13_with_tail(key, [s0, s1, d0, d1, last], u64::from(options))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "31 and 12 bits of the hash are what is wanted")]
const fn with_timestamps(hash: u64, parity: u32, bits: u32) -> Cookie {
    Cookie { sequence: parity << 31 | (hash as u32 & (u32::MAX >> 1)), timestamp: bits << 12 | (hash >> 32) as u32 & 0xfff }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "26 bits of the hash are what is wanted")]
const fn without_timestamps(hash: u64, parity: u32, code: u32) -> u32 {
    parity << 31 | code << HASH_BITS | hash as u32 & ((1 << HASH_BITS) - 1)
}

#[cfg(test)]
mod tests;
