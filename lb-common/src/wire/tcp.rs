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
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
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
    /// The header's length with its options: 20 to 60.
    pub length: usize,
}

/// Reads the header at `offset`.
///
/// # Errors
/// [`Reason::Truncated`], or [`Reason::Malformed`] for a data offset below 5.
#[inline(always)]
pub fn parse(window: &Window<'_>, offset: usize) -> Result<Tcp, Reason> {
    let header = window.header::<LENGTH>(offset).ok_or(Reason::Truncated)?;
    let length = usize::from(header.byte::<12>() >> 4) * 4;
    if length < LENGTH {
        return Err(Reason::Malformed);
    }
    Ok(Tcp { source_port: header.number16::<0>(), destination_port: header.number16::<2>(), flags: header.byte::<13>(), length })
}

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
    /// Reads the bytes between the fixed header and the payload.
    ///
    /// As in the kernel (`tcp_parse_options`, net/ipv4/tcp_input.c): reading stops at the end-of-list option and at an option whose
    /// length is wrong, what was read before stands; a known option of another length than its own is ignored.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            bytes = match *bytes {
                [1, ref rest @ ..] => rest,
                [] | [0, ..] | [_] => return options,
                [kind, length, ..] => {
                    let Some((option, rest)) = bytes.split_at_checked(usize::from(length).max(2)) else { return options };
                    if length < 2 {
                        return options;
                    }
                    options.take(kind, &option[2..]);
                    rest
                }
            };
        }
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (2, &[high, low]) => self.maximum_segment_size = Some(u16::from_be_bytes([high, low])),
            (3, &[shift]) => self.window_scale = Some(shift.min(MAX_WINDOW_SCALE)),
            (4, []) => self.selective_acknowledgement = true,
            (8, &[a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            }
            (19 | 29 | 30, _) => self.needs_kernel = true,
            (34, _) => self.fast_open = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(parse(&Window::of(&header(0x4f, 0)), 0), Err(Reason::Malformed));
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
        assert_eq!(Options::parse(&bytes), expected);
    }

    #[test]
    fn what_windows_offers() {
        let bytes = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
        let expected =
            Options { maximum_segment_size: Some(1460), window_scale: Some(8), selective_acknowledgement: true, ..Options::default() };
        assert_eq!(Options::parse(&bytes), expected);
    }

    #[test]
    fn what_only_the_kernel_can_answer() {
        for kind in [19, 29, 30] {
            assert!(Options::parse(&[kind, 4, 0, 0]).needs_kernel, "{kind}");
        }
        assert!(Options::parse(&[34, 2]).fast_open);
    }

    #[test]
    fn odd_options_end_the_reading_or_are_ignored() {
        let mss = Options { maximum_segment_size: Some(1460), ..Options::default() };
        for tail in [&[][..], &[0, 3, 3, 7], &[3], &[3, 0], &[3, 1, 7], &[3, 9, 7], &[3, 4, 7, 7], &[200, 2], &[1, 1, 1]] {
            let bytes = [&[2, 4, 5, 0xb4], tail].concat();
            assert_eq!(Options::parse(&bytes), mss, "{tail:?}");
        }
        assert_eq!(Options::parse(&[3, 3, 200]).window_scale, Some(MAX_WINDOW_SCALE));
    }
}
