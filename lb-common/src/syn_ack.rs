//! The SYN-ACK that a SYN becomes, in the SYN's own bytes.
//!
//! It is never longer than the SYN that asks for it: its TCP header is as long as the SYN's, and everything it has to say fits there,
//! since each option answers one that the SYN has, and takes no more room padded than the client's did (every 4 bytes begun by the
//! client's options are 4 whole ones of ours). What is left over is filled with the end of the option list. Data of the SYN is cut off by the caller.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    abi::Case,
    checksum::Sum,
    cookie::{Agreement, Cookie},
    packet::WindowMut,
    wire::{
        ethernet, ipv4, ipv6,
        protocol::TCP,
        tcp::{self, flags, kind},
    },
};

/// How far a SYN-ACK may go, as the kernel's do (net.ipv4.ip_default_ttl, net.ipv6.conf.*.hop_limit).
const HOPS: u8 = 64;

/// What the SYN-ACK says: plain numbers without padding, as for [`Case`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SynAck {
    /// Its sequence number, and its timestamp value if timestamps are granted.
    pub cookie: Cookie,
    /// The SYN's sequence number.
    pub sequence: u32,
    /// The SYN's timestamp value, to be echoed.
    pub echo: u32,
    /// The MSS that the server announces; 0 if the SYN has no MSS: then there may be no room.
    pub maximum_segment_size: u16,
    /// The window that the server announces.
    pub window: u16,
    /// The server's window scale, said if window scale is granted.
    pub window_scale: u8,
    /// [`granted`].
    pub granted: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// What a [`SynAck`] grants, a bit each.
pub mod granted {
    use super::Agreement;

    /// Window scale.
    pub const WINDOW_SCALE: u8 = 1;
    /// Selective acknowledgement.
    pub const SELECTIVE_ACKNOWLEDGEMENT: u8 = 2;
    /// Timestamps.
    pub const TIMESTAMPS: u8 = 4;
    /// Explicit congestion notification.
    pub const CONGESTION_NOTIFICATION: u8 = 8;

    /// The bits of an agreement.
    #[inline(always)]
    #[must_use]
    pub const fn bits(agreement: &Agreement) -> u8 {
        (agreement.window_scale.is_some() as u8 * WINDOW_SCALE)
            | (agreement.selective_acknowledgement as u8 * SELECTIVE_ACKNOWLEDGEMENT)
            | (agreement.timestamps as u8 * TIMESTAMPS)
            | (agreement.congestion_notification as u8 * CONGESTION_NOTIFICATION)
    }
}

impl SynAck {
    /// Writes it over the SYN of this case: a plain segment ([`Case::is_plain`]) of sound length.
    ///
    /// `None` if the packet ends before its headers do; part of it may be written then.
    #[inline(always)]
    pub fn write(&self, packet: &mut WindowMut<'_>, case: &Case) -> Option<()> {
        swap_macs(packet)?;
        write_network(packet, case)?;
        self.write_transport(packet, case)
    }

    #[inline(always)]
    const fn grants(&self, what: u8) -> bool {
        self.granted & what != 0
    }

    #[inline(always)]
    fn write_transport(&self, packet: &mut WindowMut<'_>, case: &Case) -> Option<()> {
        let sum = self.write_options(packet, case.options(), case.data())?;
        let key = &case.key;
        #[expect(clippy::cast_possible_truncation, reason = "a header's length is at most 60")]
        let length = case.header_length as u16;
        let congestion = if self.grants(granted::CONGESTION_NOTIFICATION) { flags::ECE } else { 0 };
        let offset_and_flags = length << 10 | u16::from(flags::SYN | flags::ACK | congestion);
        let acknowledged = self.sequence.wrapping_add(1);
        let sum = addresses(sum, case)
            .add_word(u16::from(TCP))
            .add_word(length)
            .add_word(key.source_port)
            .add_word(key.destination_port)
            .add_number32(self.cookie.sequence)
            .add_number32(acknowledged)
            .add_word(offset_and_flags)
            .add_word(self.window);
        let mut header = packet.header::<{ tcp::LENGTH }>(case.transport as usize)?;
        header.set_number16::<0>(key.destination_port);
        header.set_number16::<2>(key.source_port);
        header.set_number32::<4>(self.cookie.sequence);
        header.set_number32::<8>(acknowledged);
        header.set_number16::<12>(offset_and_flags);
        header.set_number16::<14>(self.window);
        header.set_number16::<16>(sum.checksum());
        header.set_number16::<18>(0);
        Some(())
    }

    /// Writes the options from `start` on and fills up to `end`. Answers with their sum.
    ///
    /// In the order that Linux has: MSS, SACK and timestamps in one, window scale; each group in whole words.
    #[inline(always)]
    fn write_options(&self, packet: &mut WindowMut<'_>, start: usize, end: usize) -> Option<Sum> {
        const NOP: u32 = kind::NO_OPERATION as u32;
        const NOPS: u32 = NOP << 24 | NOP << 16;
        const TIMESTAMPS: u32 = (kind::TIMESTAMPS as u32) << 8 | 0x0a;
        const SACK: u32 = (kind::SELECTIVE_ACKNOWLEDGEMENT as u32) << 8 | 0x02;
        let mut words = Words { packet, at: start, end, sum: Sum::ZERO };
        if self.maximum_segment_size != 0 {
            words.put(u32::from(kind::MAXIMUM_SEGMENT_SIZE) << 24 | 0x04 << 16 | u32::from(self.maximum_segment_size))?;
        }
        match (self.grants(granted::TIMESTAMPS), self.grants(granted::SELECTIVE_ACKNOWLEDGEMENT)) {
            (true, sack) => {
                words.put(if sack { SACK << 16 } else { NOPS } | TIMESTAMPS)?;
                words.put(self.cookie.timestamp)?;
                words.put(self.echo)?;
            }
            (false, true) => words.put(NOPS | SACK)?,
            (false, false) => {}
        }
        if self.grants(granted::WINDOW_SCALE) {
            words.put(NOP << 24 | u32::from(kind::WINDOW_SCALE) << 16 | 0x03 << 8 | u32::from(self.window_scale))?;
        }
        for _ in 0..tcp::MAX_OPTIONS / 4 {
            if words.at >= words.end {
                break;
            }
            words.put(0)?;
        }
        Some(words.sum)
    }
}

/// The words of options as they are written, one behind the other.
struct Words<'a, 'b> {
    packet: &'a mut WindowMut<'b>,
    at: usize,
    end: usize,
    sum: Sum,
}

impl Words<'_, '_> {
    #[inline(always)]
    fn put(&mut self, word: u32) -> Option<()> {
        if self.at >= self.end {
            return None;
        }
        self.packet.header::<4>(self.at)?.set_number32::<0>(word);
        self.sum = self.sum.add_number32(word);
        self.at += 4;
        Some(())
    }
}

#[inline(always)]
fn swap_macs(packet: &mut WindowMut<'_>) -> Option<()> {
    let mut frame = packet.header::<{ ethernet::LENGTH }>(0)?;
    let (destination, source) = (frame.read().number48::<0, 4>(), frame.read().number48::<6, 10>());
    frame.set_number48::<0, 4>(source);
    frame.set_number48::<6, 10>(destination);
    Some(())
}

/// Writes the IP header anew: nothing of the SYN's own type of service, flow label or identification goes back.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a header's length is at most 60")]
fn write_network(packet: &mut WindowMut<'_>, case: &Case) -> Option<()> {
    const VERSION_6: u32 = 6 << 28;
    const DONT_FRAGMENT: u16 = 0x4000;
    let key = &case.key;
    if let (Some(source), Some(destination)) = (key.source.ipv4_network(), key.destination.ipv4_network()) {
        let length = (ipv4::LENGTH as u32 + case.header_length) as u16;
        let (version, hops) = (0x4500, u16::from(HOPS) << 8 | u16::from(TCP));
        let sum = addresses(Sum::ZERO, case).add_word(version).add_word(length).add_word(DONT_FRAGMENT).add_word(hops);
        let mut header = packet.header::<{ ipv4::LENGTH }>(case.network as usize)?;
        header.set_number16::<0>(version);
        header.set_number16::<2>(length);
        header.set_number16::<4>(0);
        header.set_number16::<6>(DONT_FRAGMENT);
        header.set_number16::<8>(hops);
        header.set_number16::<10>(sum.checksum());
        header.set_word::<12>(destination);
        header.set_word::<16>(source);
    } else {
        let mut header = packet.header::<{ ipv6::LENGTH }>(case.network as usize)?;
        header.set_number32::<0>(VERSION_6);
        header.set_number16::<4>(case.header_length as u16);
        header.set_byte::<6>(TCP);
        header.set_byte::<7>(HOPS);
        header.set_words::<8>(key.destination.words());
        header.set_words::<24>(key.source.words());
    }
    Some(())
}

/// The sum of both addresses: the part of the checksums that does not care who is who.
#[inline(always)]
fn addresses(sum: Sum, case: &Case) -> Sum {
    let key = &case.key;
    if let (Some(source), Some(destination)) = (key.source.ipv4_network(), key.destination.ipv4_network()) {
        return sum.add_number32(u32::from_be(source)).add_number32(u32::from_be(destination));
    }
    let [a, b, c, d] = key.source.network_words();
    let [e, f, g, h] = key.destination.network_words();
    [a, b, c, d, e, f, g, h].iter().fold(sum, |sum, word| sum.add_number32(u32::from_be(*word)))
}
