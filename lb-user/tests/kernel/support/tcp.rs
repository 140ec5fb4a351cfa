//! What two ends of a connection have agreed on, as the kernel tells it: of our own sockets, and of another process' by `ss`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::netns::Entrance;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TcpInfo {
    /// What this end puts into a segment at most, options taken off.
    pub send_mss: u32,
    /// What this end has announced that it takes.
    pub advertised_mss: u32,
    /// The shifts of the windows that the other end and this end announce; none when there is no such option.
    pub send_window_scale: Option<u8>,
    pub receive_window_scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
    pub ecn: bool,
    pub retransmission_timeout: Duration,
    /// Segments sent again since the connection was opened.
    pub retransmissions: u32,
}

/// What the handshake settles: of two connections over the same path, the same in every field when the same was agreed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Negotiated {
    pub send_mss: u32,
    pub advertised_mss: u32,
    pub send_window_scale: Option<u8>,
    pub receive_window_scale: Option<u8>,
    pub sack: bool,
    pub timestamps: bool,
    pub ecn: bool,
}

/// The part of the picture that the handshake settles.
pub fn negotiated(info: &TcpInfo) -> Negotiated {
    let TcpInfo { send_mss, advertised_mss, send_window_scale, receive_window_scale, sack, timestamps, ecn, .. } = *info;
    Negotiated { send_mss, advertised_mss, send_window_scale, receive_window_scale, sack, timestamps, ecn }
}

impl TcpInfo {
    /// Of a connected socket of this process (`TCP_INFO`).
    pub fn of_socket(socket: &impl AsRawFd) -> Self {
        const TIMESTAMPS: u8 = 1;
        const SACK: u8 = 2;
        const WINDOW_SCALE: u8 = 4;
        const ECN: u8 = 8;
        // SAFETY: a structure of plain numbers, for which zeros are as good as any.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("about a hundred");
        // SAFETY: the kernel writes at most `length` bytes, which is what there is of `info`.
        let result =
            unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
        assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
        let has = |option| info.tcpi_options & option != 0;
        // A byte of two fields, the low bits first on little-endian machines: what the other end announced.
        let scale = |shift: u8| has(WINDOW_SCALE).then_some((info.tcpi_snd_rcv_wscale >> shift) & 15);
        Self {
            send_mss: info.tcpi_snd_mss,
            advertised_mss: info.tcpi_advmss,
            send_window_scale: scale(0),
            receive_window_scale: scale(4),
            sack: has(SACK),
            timestamps: has(TIMESTAMPS),
            ecn: has(ECN),
            retransmission_timeout: Duration::from_micros(info.tcpi_rto.into()),
            retransmissions: info.tcpi_total_retrans,
        }
    }

    /// Of the connection between these two addresses, as the namespace of `local` has it; panics when it has none.
    pub fn in_namespace(entrance: &Entrance, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::find_in_namespace(entrance, local, remote).unwrap_or_else(|| panic!("no connection between {local} and {remote}"))
    }

    /// The same; none where there is no such connection (yet).
    pub fn find_in_namespace(entrance: &Entrance, local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        // Without `e` it says nothing of timestamps, SACK and ECN.
        let shown = entrance.tool("ss", &["-tineOH", "src", &local.to_string(), "dst", &remote.to_string()]);
        assert!(shown.lines().count() <= 1, "one connection between {local} and {remote}: {shown:?}");
        if shown.is_empty() {
            return None;
        }
        Some(Self::parse(&shown).unwrap_or_else(|| panic!("ss tells of no connection what it should: {shown}")))
    }

    /// Reads the line of `ss -tineO`: `ts sack ecn cubic wscale:7,10 rto:204 mss:1448 .. advmss:1448 .. retrans:0/2`.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
        let scales = value("wscale").and_then(|text| text.split_once(','));
        let milliseconds: f64 = value("rto")?.parse().ok()?;
        Some(Self {
            send_mss: value("mss")?.parse().ok()?,
            advertised_mss: value("advmss")?.parse().ok()?,
            send_window_scale: scales.and_then(|(send, _)| send.parse().ok()),
            receive_window_scale: scales.and_then(|(_, receive)| receive.parse().ok()),
            sack: words.contains(&"sack"),
            timestamps: words.contains(&"ts"),
            ecn: words.contains(&"ecn"),
            retransmission_timeout: Duration::from_secs_f64(milliseconds / 1000.0),
            // Not shown when there was none.
            retransmissions: value("retrans").map_or(Some(0), |text| text.split_once('/')?.1.parse().ok())?,
        })
    }
}
