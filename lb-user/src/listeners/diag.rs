//! The sockets of the current network namespace, asked from the kernel through `sock_diag`.
//!
//! The request is built with netlink-packet-sock-diag. The replies are read by this file: the crate's `InetResponse` makes a box and a
//! vector of parsed attributes for each socket, and of the attributes only `INET_DIAG_SKV6ONLY` and `INET_DIAG_SKMEMINFO` matter here. Layouts:
//! `struct inet_diag_msg` and `struct inet_diag_sockid` in `include/uapi/linux/inet_diag.h`; integers are in host byte order except the
//! port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, INET_DIAG_SKMEMINFO, INET_DIAG_SKV6ONLY, IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::{AcceptQueue, Listener, Protocol};

/// The kernel fills at most 32 KiB of one datagram of a dump (`netlink_dump` in `net/netlink/af_netlink.c`), and only when the reader
/// offers that much: fewer datagrams mean that a long hash chain is walked fewer times.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that was disturbed or lost is asked again this often before the caller is told.
const ATTEMPTS: u32 = 5;
/// The kernel answers in microseconds; this only keeps a fault from hanging the daemon.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// `sizeof(struct nlmsghdr)`.
const HEADER_BYTES: usize = 16;
/// `sizeof(struct inet_diag_msg)`.
const MESSAGE_BYTES: usize = 72;

/// Where `INET_DIAG_SKMEMINFO` has `SK_MEMINFO_RCVBUF`, the second of its words (`include/uapi/linux/sock_diag.h`).
const RECEIVE_BUFFER: usize = 4;

/// Why the sockets could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be opened, written or read.
    #[error("sock_diag: cannot {action}: {source}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel refused the request. `ENOENT` means that it has no `tcp_diag` or `udp_diag` module.
    #[error("sock_diag: the kernel refused to list {protocol:?} sockets: {source}")]
    Refused {
        /// What was asked for.
        protocol: Protocol,
        /// The kernel's error.
        source: io::Error,
    },
    /// A reply does not have the layout of `struct inet_diag_msg`.
    #[error("sock_diag: malformed reply: {0}")]
    Malformed(&'static str),
    /// Every attempt was disturbed by changes or lost messages.
    #[error("sock_diag: the list changed or overflowed during each of {ATTEMPTS} attempts")]
    Unstable,
}

/// An open `sock_diag` socket. It belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Diag {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// How one dump ended.
enum Dump {
    Complete,
    Disturbed,
}

impl Diag {
    /// Opens a `sock_diag` socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        let netlink = |action| move |source| Error::Netlink { action, source };
        let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(netlink("open a socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(netlink("connect to the kernel"))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))
            .map_err(|errno| Error::Netlink { action: "set a timeout", source: errno.into() })?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// All listeners of one protocol, IPv4 and IPv6, in no particular order.
    ///
    /// A socket that comes or goes while the kernel walks its tables may be missed; the caller's next scan repairs that.
    pub fn listeners(&mut self, protocol: Protocol) -> Result<Vec<Listener>, Error> {
        self.on_port(protocol, 0)
    }

    /// The listeners of one protocol on one port; port 0 is every port. The kernel walks its tables all the same but copies only these.
    pub fn on_port(&mut self, protocol: Protocol, port: u16) -> Result<Vec<Listener>, Error> {
        let mut found = Vec::new();
        self.family(protocol, &SocketId { source_port: port, ..SocketId::new_v4() }, AF_INET, &mut found)?;
        self.family(protocol, &SocketId { source_port: port, ..SocketId::new_v6() }, AF_INET6, &mut found)?;
        Ok(found)
    }

    /// One listener by its cookie; none if it is gone.
    ///
    /// This is a filtered dump: the kernel's exact query looks up by address, which in a `SO_REUSEPORT` group finds any member, and
    /// then fails with `ESTALE` because the cookie is another's.
    pub fn one(&mut self, protocol: Protocol, port: u16, cookie: u64) -> Result<Option<Listener>, Error> {
        Ok(self.on_port(protocol, port)?.into_iter().find(|listener| listener.cookie == cookie))
    }

    fn family(&mut self, protocol: Protocol, socket_id: &SocketId, family: u8, found: &mut Vec<Listener>) -> Result<(), Error> {
        let kept = found.len();
        for _ in 0..ATTEMPTS {
            found.truncate(kept);
            self.request(protocol, socket_id.clone(), family)?;
            match self.replies(protocol, found) {
                Ok(Dump::Complete) => return Ok(()),
                Ok(Dump::Disturbed) => {}
                // The kernel dropped a reply: what is left of this dump is skipped by its sequence number.
                Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unstable)
    }

    fn request(&mut self, protocol: Protocol, socket_id: SocketId, family: u8) -> Result<(), Error> {
        let (number, states, extensions) = match protocol {
            Protocol::Tcp => (IPPROTO_TCP, StateFlags::LISTEN, ExtensionFlags::SKMEMINFO),
            // A UDP socket that is not connected is in TCP_CLOSE; the kernel lists only bound ones.
            Protocol::Udp => (IPPROTO_UDP, StateFlags::CLOSE, ExtensionFlags::empty()),
        };
        let request = InetRequest { family, protocol: number, extensions, states, socket_id };
        let mut header = NetlinkHeader::default();
        self.sequence = self.sequence.wrapping_add(1);
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(SockDiagMessage::InetRequest(request)));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        match self.socket.send(&bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Netlink { action: "send a request", source }),
        }
    }

    fn replies(&mut self, protocol: Protocol, found: &mut Vec<Listener>) -> Result<Dump, Error> {
        let mut disturbed = false;
        loop {
            self.buffer.clear();
            // MSG_TRUNC makes the kernel tell the datagram's true length, even if the buffer was too small for it.
            let length = match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|source| Error::Netlink { action: "read a reply", source })?,
            };
            if length > self.buffer.len() {
                return Err(Error::Malformed("a datagram larger than the kernel makes"));
            }
            let mut rest = self.buffer.as_slice();
            while rest.len() >= HEADER_BYTES {
                let message = NetlinkBuffer::new_checked(rest).map_err(|_| Error::Malformed("message header"))?;
                let bytes = message.length() as usize;
                let payload = rest.get(HEADER_BYTES..bytes).ok_or(Error::Malformed("message length"))?;
                let (kind, flags, sequence) = (message.message_type(), message.flags(), message.sequence_number());
                rest = rest.get(bytes.next_multiple_of(4)..).unwrap_or_default();
                if sequence != self.sequence {
                    continue;
                }
                disturbed |= flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    SOCK_DIAG_BY_FAMILY => found.extend(listener(protocol, payload)?),
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return match code {
                            0 if disturbed => Ok(Dump::Disturbed),
                            0 => Ok(Dump::Complete),
                            code => Err(Error::Refused { protocol, source: io::Error::from_raw_os_error(code.saturating_neg()) }),
                        };
                    }
                    NLMSG_OVERRUN => disturbed = true,
                    NLMSG_NOOP => {}
                    _ => return Err(Error::Malformed("message of an unknown type")),
                }
            }
        }
    }
}

/// Reads one `struct inet_diag_msg` with its attributes. None for a socket without an inode: one that is being closed.
fn listener(protocol: Protocol, message: &[u8]) -> Result<Option<Listener>, Error> {
    let Some((fixed, attributes)) = message.split_first_chunk::<MESSAGE_BYTES>() else {
        return Err(Error::Malformed("socket message too short"));
    };
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[8..24]);
    let address = match fixed[0] {
        AF_INET => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(octets)),
        _ => return Err(Error::Malformed("address family")),
    };
    let (received, limit, inode) = (word(56), word(60), word(68));
    let (mut v6only, mut receive_buffer) = (false, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|_| Error::Malformed("attribute"))?;
        match attribute.kind() {
            INET_DIAG_SKV6ONLY => v6only = attribute.value().first().is_some_and(|&value| value != 0),
            INET_DIAG_SKMEMINFO => receive_buffer = attribute.value().get(RECEIVE_BUFFER..).and_then(|rest| rest.first_chunk().copied()),
            _ => {}
        }
    }
    Ok((inode != 0).then_some(Listener {
        protocol,
        address,
        port: u16::from_be_bytes([fixed[4], fixed[5]]),
        v6only,
        device: word(40),
        inode,
        // idiag_cookie is two words, the low one first (sock_diag_save_cookie).
        cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
        uid: word(64),
        queue: (protocol == Protocol::Tcp).then_some(AcceptQueue { length: received, limit }),
        receive_buffer: receive_buffer.map(u32::from_ne_bytes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Instant;

    use crate::listeners::socket;
    use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};
    use rustix::process::{Resource, Rlimit};

    fn tcp(family: AddressFamily, address: std::net::SocketAddr, v6only: bool, backlog: i32) -> OwnedFd {
        let made = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("socket");
        sockopt::set_socket_reuseport(&made, true).expect("reuseport");
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&made, v6only).expect("v6only");
        }
        rustix::net::bind(&made, &SocketAddrAny::from(address)).expect("bind");
        rustix::net::listen(&made, backlog).expect("listen");
        made
    }

    fn find(listeners: &[Listener], descriptor: impl AsFd) -> Option<Listener> {
        let cookie = socket::cookie(&descriptor).expect("cookie");
        let found = listeners.iter().find(|listener| listener.cookie == cookie).copied();
        if let Some(found) = found {
            assert_eq!(u64::from(found.inode), socket::inode(&descriptor).expect("inode"));
        }
        found
    }

    #[test]
    fn tcp_listeners_of_both_families_are_read_with_every_field() {
        let v4 = tcp(AddressFamily::INET, "127.0.0.1:0".parse().expect("address"), false, 7);
        sockopt::set_socket_recv_buffer_size(&v4, 8_192).expect("SO_RCVBUF");
        let port = socket::port(&v4).expect("port");
        let any = tcp(AddressFamily::INET6, format!("[::]:{port}").parse().expect("address"), true, 9);
        let dual = tcp(AddressFamily::INET6, "[::]:0".parse().expect("address"), false, 11);
        let waiting =
            [TcpStream::connect(("127.0.0.1", port)).expect("connect"), TcpStream::connect(("127.0.0.1", port)).expect("connect")];

        let all = Diag::open().expect("open").listeners(Protocol::Tcp).expect("dump");
        let v4 = find(&all, &v4).expect("the IPv4 listener is listed");
        assert_eq!((v4.address, v4.port, v4.v6only, v4.device), (IpAddr::V4(Ipv4Addr::LOCALHOST), port, false, 0));
        assert_eq!(v4.queue, Some(AcceptQueue { length: 2, limit: 7 }));
        assert_eq!(v4.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(v4.receive_buffer, Some(16_384), "twice what was set");
        let any = find(&all, &any).expect("the IPv6 listener is listed");
        assert_eq!((any.address, any.port, any.v6only), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), port, true));
        assert_eq!(any.queue, Some(AcceptQueue { length: 0, limit: 9 }));
        assert!(any.receive_buffer > v4.receive_buffer, "{any:?}");
        let dual = find(&all, &dual).expect("the dual-stack listener is listed");
        assert_eq!((dual.address, dual.v6only), (IpAddr::V6(Ipv6Addr::UNSPECIFIED), false));
        assert!(find(&all, &waiting[0]).is_none(), "a connection is no listener");
    }

    #[test]
    fn bound_udp_sockets_are_read_and_connected_ones_are_not() {
        let v4 = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let v6 = UdpSocket::bind("[::1]:0").expect("bind");
        let connected = UdpSocket::bind("127.0.0.1:0").expect("bind");
        connected.connect(v4.local_addr().expect("address")).expect("connect");

        let all = Diag::open().expect("open").listeners(Protocol::Udp).expect("dump");
        let v4 = find(&all, &v4).expect("the IPv4 socket is listed");
        assert_eq!((v4.protocol, v4.address, v4.queue), (Protocol::Udp, IpAddr::V4(Ipv4Addr::LOCALHOST), None));
        assert_eq!(find(&all, &v6).expect("the IPv6 socket is listed").address, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert!(find(&all, &connected).is_none());
    }

    #[test]
    fn one_is_found_among_the_members_of_its_group_and_not_after_it_closed() {
        let _alone = crate::listeners::no_forks();
        let first = tcp(AddressFamily::INET, "127.0.0.1:0".parse().expect("address"), false, 1);
        let port = socket::port(&first).expect("port");
        let second = tcp(AddressFamily::INET, format!("127.0.0.1:{port}").parse().expect("address"), false, 2);
        let elsewhere = tcp(AddressFamily::INET, "127.0.0.1:0".parse().expect("address"), false, 3);
        let mut diag = Diag::open().expect("open");
        let cookie = socket::cookie(&second).expect("cookie");
        let found = diag.one(Protocol::Tcp, port, cookie).expect("dump").expect("found");
        assert_eq!((found.cookie, found.port, found.queue.map(|queue| queue.limit)), (cookie, port, Some(2)));
        assert_eq!(diag.on_port(Protocol::Tcp, port).expect("dump").len(), 2);
        assert_eq!(diag.one(Protocol::Tcp, port, socket::cookie(&elsewhere).expect("cookie")).expect("dump"), None);
        drop(second);
        assert_eq!(diag.one(Protocol::Tcp, port, cookie).expect("dump"), None);
    }

    #[test]
    fn ten_thousand_listeners_are_listed_quickly() {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("raise the limit");
        let wanted = hard.map_or(10_000, |hard| hard.saturating_sub(200).min(10_000));
        // The hard case: one group, so one hash chain, which the kernel walks again from its head for every datagram.
        let first = tcp(AddressFamily::INET, "127.0.0.9:0".parse().expect("address"), false, 1);
        let port = socket::port(&first).expect("port");
        let mut made = vec![first];
        while (made.len() as u64) < wanted {
            made.push(tcp(AddressFamily::INET, format!("127.0.0.9:{port}").parse().expect("address"), false, 1));
        }
        let mut diag = Diag::open().expect("open");
        let started = Instant::now();
        let all = diag.listeners(Protocol::Tcp).expect("dump");
        let taken = started.elapsed();
        println!("{} listeners, {wanted} of them in one group, listed in {taken:?}", all.len());
        let cookies: HashSet<u64> = all.iter().map(|listener| listener.cookie).collect();
        assert!(made.iter().all(|descriptor| cookies.contains(&socket::cookie(descriptor).expect("cookie"))));
        assert!(taken < Duration::from_secs(1), "{taken:?} is far above the 50 ms that were promised");
    }

    #[test]
    fn malformed_replies_are_refused() {
        let mut message = [0_u8; MESSAGE_BYTES + 8];
        message[0] = AF_INET6;
        message[68] = 1;
        message[MESSAGE_BYTES..].copy_from_slice(&[5, 0, 11, 0, 1, 0, 0, 0]);
        let read = listener(Protocol::Tcp, &message).expect("parse").expect("has an inode");
        assert!(read.v6only);
        assert_eq!(
            listener(Protocol::Tcp, &{
                let mut closing = message;
                closing[68] = 0;
                closing
            })
            .expect("parse"),
            None
        );
        for short in 0..MESSAGE_BYTES {
            assert!(listener(Protocol::Tcp, &message[..short]).is_err(), "{short} bytes");
        }
        assert!(listener(Protocol::Tcp, &message[..MESSAGE_BYTES + 3]).is_err(), "half an attribute header");
        message[0] = 99;
        assert!(listener(Protocol::Tcp, &message).is_err(), "unknown family");
    }
}
