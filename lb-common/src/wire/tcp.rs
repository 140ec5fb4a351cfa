//! TCP, RFC 9293, with the options that a SYN negotiates.

use crate::{Reason, packet::Window};

/// The length of the header without options.
pub const LENGTH: usize = 20;
/// The most bytes of options that a header has room for.
pub const MAX_OPTIONS: usize = 40;

/// The control bits, as they lie in the header's fourteenth byte.
pub mod flags {
    /// The sender has finished.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Hand the data to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo; in a SYN: the sender is capable of ECN (RFC 3168, section 6.1).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The control bits, see [`flags`].
    pub flags: u8,
    /// The header's length with its options, as it says itself: 0 to 60.
    pub length: usize,
}

/// Reads the header at `offset`.
///
/// A header that says it is shorter than 20 bytes is read all the same: whose packet it is decides what becomes of it.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn parse(window: &Window<'_>, offset: usize) -> Result<Tcp, Reason> {
    let header = window.header::<LENGTH>(offset).ok_or(Reason::Truncated)?;
    let length = usize::from(header.byte::<12>() >> 4) * 4;
    Ok(Tcp { source_port: header.number16::<0>(), destination_port: header.number16::<2>(), flags: header.byte::<13>(), length })
}

/// The kinds of options (IANA "TCP Option Kind Numbers").
pub mod kind {
    /// End of the list.
    pub const END: u8 = 0;
    /// One byte of padding.
    pub const NO_OPERATION: u8 = 1;
    /// Maximum segment size (RFC 9293, section 3.7.1).
    pub const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    /// Window scale (RFC 7323, section 2.2).
    pub const WINDOW_SCALE: u8 = 3;
    /// Selective acknowledgement permitted (RFC 2018, section 2).
    pub const SELECTIVE_ACKNOWLEDGEMENT: u8 = 4;
    /// Timestamps (RFC 7323, section 3.2).
    pub const TIMESTAMPS: u8 = 8;
    /// MD5 signature (RFC 2385).
    pub const MD5_SIGNATURE: u8 = 19;
    /// TCP-AO (RFC 5925).
    pub const AUTHENTICATION: u8 = 29;
    /// MPTCP (RFC 8684).
    pub const MULTIPATH: u8 = 30;
    /// Fast Open (RFC 7413).
    pub const FAST_OPEN: u8 = 34;
}

/// How many options are read, each byte of padding counted as one. Real SYNs have up to nine (macOS with MPTCP); the verifier walks the
/// loop as often as this.
pub const MAX_OPTION_STEPS: usize = 16;

/// Whether a segment with these flags opens a connection: SYN, and none of ACK, RST and FIN.
#[inline(always)]
#[must_use]
pub const fn opens(flags: u8) -> bool {
    flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
}

/// The options that a SYN offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, in bytes.
    pub maximum_segment_size: Option<u16>,
    /// Window scale: the shift, at most 14 (RFC 7323, section 2.3).
    pub window_scale: Option<u8>,
    /// Selective acknowledgement permitted (RFC 2018).
    pub selective_acknowledgement: bool,
    /// Timestamps: value and echo reply (RFC 7323, section 3.2).
    pub timestamps: Option<(u32, u32)>,
    /// An option that ties the SYN to state that only the kernel has: MD5 (19, RFC 2385), TCP-AO (29, RFC 5925), MPTCP (30, RFC 8684).
    pub needs_kernel: bool,
    /// A Fast Open cookie or the request for one (34, RFC 7413).
    pub fast_open: bool,
}

/// The largest window scale that has a meaning (RFC 7323, section 2.3): a larger one is read as this.
pub const MAX_WINDOW_SCALE: u8 = 14;

impl Options {
    /// Reads the options that lie in the window from `start` up to `end`, as in the kernel (`tcp_parse_options`, net/ipv4/tcp_input.c):
    /// reading stops at the end-of-list option and at an option whose length is wrong, what was read before stands; a known option of
    /// another length than its own is ignored.
    ///
    /// At most [`MAX_OPTION_STEPS`] options are read; what stands beyond counts as not offered.
    #[inline(always)]
    #[must_use]
    pub fn read(window: &Window<'_>, start: usize, end: usize) -> Self {
        let mut options = Self::default();
        let mut at = start;
        for _ in 0..MAX_OPTION_STEPS {
            match options.step(window, at, end) {
                Some(next) => at = next,
                None => break,
            }
        }
        options
    }

    /// Reads the option at `at` and answers where the next one starts, if there may be one.
    #[inline(always)]
    #[must_use]
    pub fn step(&mut self, window: &Window<'_>, at: usize, end: usize) -> Option<usize> {
        if at >= end {
            return None;
        }
        let kind = window.header::<1>(at)?.byte::<0>();
        if kind == kind::END {
            return None;
        }
        if kind == kind::NO_OPERATION {
            return Some(at + 1);
        }
        let length = usize::from(window.header::<2>(at)?.byte::<1>());
        // The header is at most 60 bytes long, so no option is longer: a bound that the verifier wants to see.
        if !(2..=MAX_OPTIONS).contains(&length) || at + length > end {
            return None;
        }
        match (kind, length) {
            (kind::MAXIMUM_SEGMENT_SIZE, 4) => self.maximum_segment_size = Some(window.header::<4>(at)?.number16::<2>()),
            (kind::WINDOW_SCALE, 3) => self.window_scale = Some(window.header::<3>(at)?.byte::<2>().min(MAX_WINDOW_SCALE)),
            (kind::SELECTIVE_ACKNOWLEDGEMENT, 2) => self.selective_acknowledgement = true,
            (kind::TIMESTAMPS, 10) => {
                let option = window.header::<10>(at)?;
                self.timestamps = Some((option.number32::<2>(), option.number32::<6>()));
            }
            (kind::MD5_SIGNATURE | kind::AUTHENTICATION | kind::MULTIPATH, _) => self.needs_kernel = true,
            (kind::FAST_OPEN, _) => self.fast_open = true,
            _ => {}
        }
        Some(at + length)
    }
}

/// The options of a SYN that has those of Linux, of Windows or none, in the order that these have. They start at `start`, and the TCP
/// header has `header_length` bytes. `None` says only that they have to be read one by one.
#[inline(always)]
#[must_use]
pub fn usual_options(window: &Window<'_>, start: usize, header_length: usize) -> Option<Options> {
    const SEGMENT: u16 = (kind::MAXIMUM_SEGMENT_SIZE as u16) << 8 | 4;
    const SCALE: u32 = (kind::NO_OPERATION as u32) << 16 | (kind::WINDOW_SCALE as u32) << 8 | 0x03;
    const SACK: u32 = (kind::SELECTIVE_ACKNOWLEDGEMENT as u32) << 8 | 0x02;
    const TIMESTAMPS: u32 = (kind::TIMESTAMPS as u32) << 8 | 0x0a;
    const NOPS: u32 = (kind::NO_OPERATION as u32) << 8 | kind::NO_OPERATION as u32;
    if header_length == LENGTH {
        return Some(Options::default());
    }
    let linux = header_length == LENGTH + 20;
    if !linux && header_length != LENGTH + 12 {
        return None;
    }
    let header = window.header::<12>(start)?;
    let (scaled, timestamps) = if linux {
        let rest = window.header::<20>(start)?;
        if header.number32::<4>() != SACK << 16 | TIMESTAMPS {
            return None;
        }
        (rest.number32::<16>(), Some((rest.number32::<8>(), rest.number32::<12>())))
    } else if header.number32::<8>() == NOPS << 16 | SACK {
        (header.number32::<4>(), None)
    } else {
        return None;
    };
    if header.number16::<0>() != SEGMENT || scaled >> 8 != SCALE {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the last byte")]
    let scale = (scaled as u8).min(MAX_WINDOW_SCALE);
    Some(Options {
        maximum_segment_size: Some(header.number16::<2>()),
        window_scale: Some(scale),
        selective_acknowledgement: true,
        timestamps,
        needs_kernel: false,
        fast_open: false,
    })
}

/// The timestamps (value and echo reply) of a segment whose options are the usual ones of a segment that is no SYN: two NOPs, timestamps
/// (RFC 7323, appendix A), in the window from `start` up to `end`. `None` says only that they have to be looked for.
#[inline(always)]
#[must_use]
pub fn usual_timestamps(window: &Window<'_>, start: usize, end: usize) -> Option<(u32, u32)> {
    const USUAL: u32 = (kind::NO_OPERATION as u32) << 24 | (kind::NO_OPERATION as u32) << 16 | (kind::TIMESTAMPS as u32) << 8 | 0x0a;
    let options = window.header::<12>(start)?;
    (end >= start + 12 && options.number32::<0>() == USUAL).then(|| (options.number32::<4>(), options.number32::<8>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Options {
        Options::read(&Window::of(bytes), 0, bytes.len())
    }

    fn header(offset_byte: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        bytes[..4].copy_from_slice(&[0x9c, 0x40, 0x00, 0x50]);
        bytes[12] = offset_byte;
        bytes[13] = flags;
        bytes
    }

    #[test]
    fn the_fixed_header() {
        let bytes = header(0xa0, flags::SYN);
        assert_eq!(parse(&Window::of(&bytes), 0), Ok(Tcp { source_port: 40000, destination_port: 80, flags: flags::SYN, length: 40 }));
        assert_eq!(parse(&Window::of(&header(0x4f, 0)), 0).map(|tcp| tcp.length), Ok(16), "not judged here");
        for length in 0..LENGTH {
            assert_eq!(parse(&Window::of(&bytes[..length]), 0), Err(Reason::Truncated));
        }
    }

    #[test]
    fn only_a_plain_syn_opens() {
        const ECE_CWR: u8 = 0xc0;
        assert!(opens(flags::SYN) && opens(flags::SYN | ECE_CWR));
        for flags in [0, flags::ACK, flags::SYN | flags::ACK, flags::SYN | flags::RST, flags::SYN | flags::FIN, flags::RST, flags::FIN] {
            assert!(!opens(flags), "{flags:#x}");
        }
    }

    #[test]
    fn what_linux_offers() {
        let bytes = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
        let expected = Options {
            maximum_segment_size: Some(1460),
            window_scale: Some(7),
            selective_acknowledgement: true,
            timestamps: Some((0x0001_0203, 0)),
            ..Options::default()
        };
        assert_eq!(parsed(&bytes), expected);
    }

    #[test]
    fn what_windows_offers() {
        let bytes = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
        let expected =
            Options { maximum_segment_size: Some(1460), window_scale: Some(8), selective_acknowledgement: true, ..Options::default() };
        assert_eq!(parsed(&bytes), expected);
    }

    #[test]
    fn what_only_the_kernel_can_answer() {
        for kind in [19, 29, 30] {
            assert!(parsed(&[kind, 4, 0, 0]).needs_kernel, "{kind}");
        }
        assert!(parsed(&[34, 2]).fast_open);
    }

    #[test]
    fn odd_options_end_the_reading_or_are_ignored() {
        let mss = Options { maximum_segment_size: Some(1460), ..Options::default() };
        for tail in [&[][..], &[0, 3, 3, 7], &[3], &[3, 0], &[3, 1, 7], &[3, 9, 7], &[3, 4, 7, 7], &[200, 2], &[1, 1, 1]] {
            let bytes = [&[2, 4, 5, 0xb4], tail].concat();
            assert_eq!(parsed(&bytes), mss, "{tail:?}");
        }
        assert_eq!(parsed(&[3, 3, 200]).window_scale, Some(MAX_WINDOW_SCALE));
    }
}
