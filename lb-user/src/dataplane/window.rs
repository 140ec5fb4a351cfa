//! What the kernel here announces in a SYN-ACK: a SYN-ACK that XDP makes in its place has to announce the same.
//!
//! The window is computed from settings and from the listener's receive buffer, by rules that change between kernels; so one connection is
//! made over the loopback device and asked what its server announced.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use nix::sys::socket::{getsockopt, sockopt};

use super::sys;
use crate::network::sysctl;

/// What a listener's SYN-ACK announces to a client that offers everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowFacts {
    /// How many bytes its receive buffer offers at first, before the kernel rounds them down to whole segments and cuts them off at
    /// 65,535 (`tcp_select_initial_window`, net/ipv4/tcp_output.c): see [`WindowFacts::window`].
    pub space: u32,
    /// The window scale; none if scaling is switched off.
    pub window_scale: Option<u8>,
    /// Whether selective acknowledgement is agreed to.
    pub selective_acknowledgement: bool,
    /// Whether timestamps are.
    pub timestamps: bool,
    /// Whether ECN is.
    pub ecn: bool,
}

impl WindowFacts {
    /// The window for segments of this size. When the kernel makes a connection from a cookie, it takes the client's maximum segment size
    /// here, without what timestamps take of it.
    #[must_use]
    pub fn window(&self, segment: u16) -> u16 {
        let segment = u32::from(segment).max(1);
        let whole = if self.space > segment { self.space / segment * segment } else { self.space };
        u16::try_from(whole).unwrap_or(u16::MAX)
    }
}

/// Asks the kernel, in the calling thread's namespace, by a connection over its loopback device. `rcvbuf` is the receive buffer of a
/// listener that has set one, as SO_RCVBUF and inet_diag tell it; without it the listener has the default.
pub fn probe_window(rcvbuf: Option<u32>) -> io::Result<WindowFacts> {
    // The space shows rounded down to whole segments: they are to be small. `TCP_MIN_MSS`
    const SEGMENT: u32 = 88;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    sys::set_socket_option(&listener, libc::IPPROTO_TCP, libc::TCP_MAXSEG, SEGMENT)?;
    if let Some(rcvbuf) = rcvbuf {
        // The kernel doubles what is set.
        sys::set_socket_option(&listener, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, rcvbuf / 2)?;
    }
    let buffer = getsockopt(&listener, sockopt::RcvBuf)?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let information = sys::tcp_information(&client)?;
    let ecn = sysctl("net.ipv4.tcp_ecn").is_some_and(|value| value != "0");
    Ok(facts(&information, u32::try_from(buffer).unwrap_or(u32::MAX), SEGMENT, ecn))
}

/// Reads `struct tcp_info` of the client.
fn facts(information: &[u8; sys::TCP_INFORMATION], buffer: u32, segment: u32, ecn: bool) -> WindowFacts {
    const OPTIONS: usize = 5;
    const SCALES: usize = 6;
    const SEND_WINDOW: usize = 228;
    let has = |option: u8| information[OPTIONS] & option != 0;
    let [a, b, c, d] = [0, 1, 2, 3].map(|byte| information[SEND_WINDOW + byte]);
    let announced = u32::from_ne_bytes([a, b, c, d]);
    // Half of the buffer counts, the other half is for what the kernel keeps beside the data. If that explains what was announced, the
    // space is known to the byte.
    let half = buffer / 2;
    let explains = if announced == u32::from(u16::MAX) { half >= announced } else { (announced..announced + segment).contains(&half) };
    WindowFacts {
        space: if explains { half } else { announced },
        window_scale: has(4).then_some(information[SCALES] & 0xf),
        selective_acknowledgement: has(2),
        timestamps: has(1),
        ecn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn information(options: u8, scale: u8, window: u32) -> [u8; sys::TCP_INFORMATION] {
        let mut information = [0; sys::TCP_INFORMATION];
        (information[5], information[6]) = (options, 0xd0 | scale);
        information[228..232].copy_from_slice(&window.to_ne_bytes());
        information
    }

    #[test]
    fn the_space_is_half_the_buffer_where_that_explains_the_window() {
        let space = |window, buffer| facts(&information(7, 7, window), buffer, 88, false).space;
        assert_eq!(space(65_512, 131_072), 65_536, "rounded down");
        assert_eq!(space(65_535, 212_992), 106_496, "cut off");
        assert_eq!(space(65_512, 87_380), 65_512, "another rule");
        assert_eq!(space(65_535, 87_380), 65_535, "another rule, cut off");
    }

    #[test]
    fn options_are_told_one_by_one() {
        let all = facts(&information(7, 10, 1), 2, 88, true);
        assert_eq!(all, WindowFacts { space: 1, window_scale: Some(10), selective_acknowledgement: true, timestamps: true, ecn: true });
        let none = facts(&information(0, 0, 1), 2, 88, false);
        assert_eq!(none, WindowFacts { space: 1, window_scale: None, selective_acknowledgement: false, timestamps: false, ecn: false });
    }

    #[test]
    fn the_window_is_of_whole_segments_and_has_16_bits() {
        let window = |space, segment| {
            WindowFacts { space, window_scale: None, selective_acknowledgement: false, timestamps: false, ecn: false }.window(segment)
        };
        assert_eq!((window(65_536, 1460), window(65_536, 1448)), (64_240, 65_160));
        assert_eq!((window(1_000, 1460), window(1_000, 0)), (1_000, 1_000));
        assert_eq!(window(106_496, 1460), 65_535);
    }

    #[test]
    fn this_machine_says_what_it_announces() {
        // A namespace whose loopback device is down says nothing.
        let Ok(facts) = probe_window(None) else { return };
        assert!(facts.space > 0, "{facts:?}");
        let Ok(small) = probe_window(Some(8_192)) else { return };
        assert!(small.space < facts.space && small.window_scale <= facts.window_scale, "{small:?}, {facts:?}");
    }
}
