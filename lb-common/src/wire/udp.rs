//! UDP, RFC 768.

use crate::{Reason, packet::Window};

/// The length of the header.
pub const LENGTH: usize = 8;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

/// Reads the header at `offset`.
///
/// # Errors
/// [`Reason::Truncated`], or [`Reason::Malformed`] for a length below the header's own. Length 0 is a jumbogram's (RFC 2675) or a
/// card's that joined datagrams, and stands.
#[inline(always)]
pub fn parse(window: &Window<'_>, offset: usize) -> Result<Udp, Reason> {
    let header = window.header::<LENGTH>(offset).ok_or(Reason::Truncated)?;
    let length = usize::from(header.number16::<4>());
    if length != 0 && length < LENGTH {
        return Err(Reason::Malformed);
    }
    Ok(Udp { source_port: header.number16::<0>(), destination_port: header.number16::<2>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_length() {
        let bytes = [0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0];
        assert_eq!(parse(&Window::of(&bytes), 0), Ok(Udp { source_port: 40000, destination_port: 443 }));
        assert_eq!(parse(&Window::of(&[0x9c, 0x40, 0x01, 0xbb, 0, 7, 0, 0]), 0), Err(Reason::Malformed));
        assert!(parse(&Window::of(&[0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 0]), 0).is_ok());
        for length in 0..LENGTH {
            assert_eq!(parse(&Window::of(&bytes[..length]), 0), Err(Reason::Truncated));
        }
    }
}
