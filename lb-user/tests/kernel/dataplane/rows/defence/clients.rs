//! The SYNs that clients send, as captures show their options, and the options that go back.

use lb_common::{Reason, cookie::Agreement};

use super::{Around, syn, syn_ack};
use crate::{
    dataplane::{
        defended::FLOODED,
        defended::State,
        rows::{Choice, Out, Row},
    },
    support::packet::{CWR, ECE},
};

/// A client.
#[derive(Debug)]
pub struct Client {
    options: &'static [u8],
    /// Flags of its SYN besides SYN.
    pub flags: u8,
    pub data: &'static [u8],
    /// The MSS that is granted: over IPv4, over IPv6.
    segment: [u16; 2],
    scale: Option<u8>,
    has_sack: bool,
    has_timestamps: bool,
    /// The answer's options, its timestamp value zero; the end of the list follows.
    answer: &'static [u8],
}

/// An MSS of 1,460, which over IPv6 is 1,440.
const MSS: [u8; 4] = [2, 4, 5, 0xb4];

impl Client {
    /// What its SYN offers.
    pub fn options(&self, around: Around) -> Vec<u8> {
        let mut options = self.options.to_vec();
        if around.is_v6()
            && let Some(at) = options.windows(4).position(|option| option == MSS)
        {
            options[at + 3] = 0xa0;
        }
        options
    }

    /// What is granted it.
    pub fn granted(&self, around: Around) -> Agreement {
        Agreement {
            maximum_segment_size: self.segment[usize::from(around.is_v6())],
            window_scale: self.scale,
            selective_acknowledgement: self.has_sack,
            // Without timestamps a cookie has room for it beside a scale of 8 alone.
            congestion_notification: self.flags == ECE | CWR && (self.has_timestamps || self.scale == Some(8)),
            timestamps: self.has_timestamps,
        }
    }

    /// The options of the answer with this timestamp value.
    pub fn answer(&self, timestamp: u32) -> Vec<u8> {
        let mut answer = self.answer.to_vec();
        if let Some(at) = answer.windows(2).position(|option| option == [8, 10]) {
            answer[at + 2..at + 6].copy_from_slice(&timestamp.to_be_bytes());
        }
        answer.resize(self.options.len(), 0);
        answer
    }
}

/// The rows of a client: its SYN over IPv4, over IPv6, and in a VLAN.
macro_rules! rows_of {
    ($($name:literal, $client:ident;)*) => {
        [$(
            row(concat!("defence: SYN of ", $name), || syn(Around::V4, &$client, FLOODED), || syn_ack(Around::V4, &$client, FLOODED)),
            row(concat!("defence: SYN of ", $name, ", IPv6"), || syn(Around::V6, &$client, FLOODED), || syn_ack(Around::V6, &$client, FLOODED)),
            row(concat!("defence: SYN of ", $name, ", VLAN"), || syn(Around::Vlan, &$client, FLOODED), || syn_ack(Around::Vlan, &$client, FLOODED)),
        )*]
    };
}

pub fn rows() -> [Row; 69] {
    rows_of! {
        "Linux", LINUX;
        "Linux with ECN", LINUX_ECN;
        "Linux without timestamps", LINUX_PLAIN;
        "Linux without SACK", LINUX_NO_SACK;
        "Windows 10", WINDOWS;
        "Windows Server with ECN", WINDOWS_ECN;
        "Windows 7", WINDOWS_7;
        "Windows XP", WINDOWS_XP;
        "macOS", MACOS;
        "iOS with ECN", IOS;
        "Android", ANDROID;
        "FreeBSD", FREEBSD;
        "OpenBSD", OPENBSD;
        "NetBSD", NETBSD;
        "Solaris 10", SOLARIS_10;
        "Solaris 11", SOLARIS;
        "lwIP", LWIP;
        "lwIP with all options", LWIP_ALL;
        "an MSS alone", SMALL;
        "no options", BARE;
        "Linux asking for a Fast Open cookie", FAST_OPEN_REQUEST;
        "Linux with a Fast Open cookie and data", FAST_OPEN_DATA;
        "timestamps and a scale and nothing else", ODD;
    }
}

const fn row(name: &'static str, packet: fn() -> crate::support::packet::Packet, answer: fn() -> Vec<u8>) -> Row {
    let (service, reason, state) = (FLOODED, Reason::CookieSent, State::Awake);
    Row { name, packet, service, reason, choice: Choice::None, first_buffer: None, state, out: Out::Becomes(answer) }
}

/// MSS, SACK, timestamps, NOP, window scale.
pub const LINUX: Client = Client {
    options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7],
    flags: 0,
    data: &[],
    segment: [1460, 1440],
    scale: Some(7),
    has_sack: true,
    has_timestamps: true,
    answer: ALL,
};
/// The answer to who offers everything.
const ALL: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 1, 2, 3, 1, 3, 3, 9];
const LINUX_ECN: Client = Client { flags: ECE | CWR, ..LINUX };
/// net.ipv4.tcp_timestamps is 0: its scale of 10 is rounded down to one that the codebook has.
const LINUX_PLAIN: Client = Client {
    options: &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 10],
    scale: Some(8),
    has_timestamps: false,
    answer: &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 9],
    ..LINUX
};
/// net.ipv4.tcp_sack is 0.
const LINUX_NO_SACK: Client = Client {
    options: &[2, 4, 5, 0xb4, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7],
    has_sack: false,
    answer: &[2, 4, 5, 0xb4, 1, 1, 8, 10, 0, 0, 0, 0, 0, 1, 2, 3, 1, 3, 3, 9],
    ..LINUX
};
pub const WINDOWS: Client = Client {
    options: &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2],
    flags: 0,
    data: &[],
    segment: [1460, 1440],
    scale: Some(8),
    has_sack: true,
    has_timestamps: false,
    answer: &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 9],
};
const WINDOWS_ECN: Client = Client { flags: ECE | CWR, ..WINDOWS };
const WINDOWS_7: Client = Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 2, 1, 1, 4, 2], scale: Some(2), ..WINDOWS };
const WINDOWS_XP: Client = Client { options: &[2, 4, 5, 0xb4, 1, 1, 4, 2], scale: None, answer: &[2, 4, 5, 0xb4, 1, 1, 4, 2], ..WINDOWS };
/// MSS, NOP, window scale, NOP, NOP, timestamps, SACK, end of list.
const MACOS: Client =
    Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 4, 2, 0, 0], scale: Some(6), ..LINUX };
const IOS: Client = Client { flags: ECE | CWR, ..MACOS };
/// As Linux, behind a carrier's smaller MTU.
const ANDROID: Client = Client {
    options: &[2, 4, 0x05, 0x50, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 9],
    segment: [1360, 1360],
    scale: Some(9),
    ..LINUX
};
const FREEBSD: Client = Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0], scale: Some(6), ..LINUX };
const OPENBSD: Client =
    Client { options: &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 6, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0], scale: Some(6), ..LINUX };
const NETBSD: Client =
    Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 3, 4, 2, 1, 1, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0], scale: Some(3), ..LINUX };
const SOLARIS_10: Client =
    Client { options: &[1, 3, 3, 0, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 1, 4, 2, 2, 4, 5, 0xb4], scale: Some(0), ..LINUX };
const SOLARIS: Client = Client { options: &[4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 2, 4, 5, 0xb4, 1, 3, 3, 5], scale: Some(5), ..LINUX };
const LWIP: Client =
    Client { options: &[2, 4, 5, 0xb4], scale: None, has_sack: false, has_timestamps: false, answer: &[2, 4, 5, 0xb4], ..LINUX };
/// MSS, window scale, timestamps, SACK, each padded in front.
const LWIP_ALL: Client =
    Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 2, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 1, 4, 2], scale: Some(2), ..LINUX };
/// 1,400 bytes, which the codebook rounds down.
const SMALL: Client = Client { options: &[2, 4, 0x05, 0x78], segment: [1300, 1360], ..LWIP };
pub const BARE: Client = Client { options: &[], segment: [536, 1220], answer: &[], ..LWIP };
const FAST_OPEN_REQUEST: Client =
    Client { options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7, 34, 2, 1, 1], ..LINUX };
pub const FAST_OPEN_DATA: Client = Client {
    options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1],
    data: b"GET / HTTP/1.1\r\n\r\n",
    ..LINUX
};
/// Without padding between them: 13 bytes and the end of the list, of which the answer needs every one.
const ODD: Client = Client {
    options: &[8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 3, 3, 14, 0, 0, 0],
    segment: [536, 1220],
    scale: Some(14),
    has_sack: false,
    answer: &[1, 1, 8, 10, 0, 0, 0, 0, 0, 1, 2, 3, 1, 3, 3, 9],
    ..LINUX
};
