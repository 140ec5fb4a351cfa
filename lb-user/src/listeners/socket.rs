//! Safe questions to a descriptor that was taken from another process.
//!
//! None of these functions keeps the descriptor: it is held only for the system calls that use it and closed before the next await.

use std::io;
use std::os::fd::AsFd;

// sockopt_impl! calls itself and getsockopt_impl! by their bare names.
use nix::{getsockopt_impl, sockopt_impl};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::Protocol;

sockopt_impl!(
    /// `SO_BINDTOIFINDEX`: the index of the device that the socket is bound to, 0 for any. Not in nix or rustix.
    BindToIfindex,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_BINDTOIFINDEX,
    u32
);

/// What kind of socket a descriptor is, as far as Weir cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP socket in LISTEN.
    TcpListener,
    /// A UDP socket with a port of its own.
    UdpBound,
    /// Any other: another family, type or protocol (MPTCP, SCTP), a connection, a socket without a port.
    Other,
}

/// The kind of a socket, from `SO_DOMAIN`, `SO_TYPE`, `SO_PROTOCOL`, `SO_ACCEPTCONN` and `getsockname`. `ENOTSOCK` for other files.
pub fn kind(socket: impl AsFd) -> io::Result<Kind> {
    let socket = socket.as_fd();
    if !matches!(sockopt::socket_domain(socket)?, AddressFamily::INET | AddressFamily::INET6) {
        return Ok(Kind::Other);
    }
    let protocol = sockopt::socket_protocol(socket)?;
    Ok(match sockopt::socket_type(socket)? {
        SocketType::STREAM if protocol == Some(ipproto::TCP) && sockopt::socket_acceptconn(socket)? => Kind::TcpListener,
        SocketType::DGRAM if protocol == Some(ipproto::UDP) && port(socket)? != 0 => Kind::UdpBound,
        _ => Kind::Other,
    })
}

/// The protocol of a listener's descriptor; none if it is no listening TCP and no bound UDP socket.
pub fn protocol(socket: impl AsFd) -> io::Result<Option<Protocol>> {
    Ok(match kind(socket)? {
        Kind::TcpListener => Some(Protocol::Tcp),
        Kind::UdpBound => Some(Protocol::Udp),
        Kind::Other => None,
    })
}

/// The bound port in host byte order, 0 if there is none.
pub fn port(socket: impl AsFd) -> io::Result<u16> {
    let address = rustix::net::getsockname(socket)?;
    Ok(std::net::SocketAddr::try_from(address).map_or(0, |address| address.port()))
}

/// `SO_REUSEPORT`: whether the socket may share its address. `sock_diag` does not tell.
pub fn is_reuseport(socket: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_reuseport(socket)?)
}

/// `SO_ACCEPTCONN`: whether a TCP socket is in LISTEN.
pub fn is_listening(socket: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(socket)?)
}

/// `SO_COOKIE`, the same number as [`Listener::cookie`](super::Listener::cookie). Compare the two after taking a socket: an inode
/// number may have been used again, a cookie never is.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// `SO_BINDTOIFINDEX`: index of the bound device, 0 for any.
pub fn device(socket: impl AsFd) -> io::Result<u32> {
    Ok(nix::sys::socket::getsockopt(&socket.as_fd(), BindToIfindex)?)
}

/// The inode of the socket in sockfs.
pub fn inode(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn kinds_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let bound = UdpSocket::bind("[::1]:0").expect("bind");
        let unbound = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).expect("socket");
        let unix = std::os::unix::net::UnixDatagram::unbound().expect("socket");
        assert_eq!(kind(&listener).expect("ask"), Kind::TcpListener);
        assert_eq!(kind(&bound).expect("ask"), Kind::UdpBound);
        for other in [stream.as_fd(), unbound.as_fd(), unix.as_fd()] {
            assert_eq!(kind(other).expect("ask"), Kind::Other);
        }
        let file = std::fs::File::open("/dev/null").expect("open");
        assert_eq!(kind(&file).expect_err("no socket").raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn options_are_read_back() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        assert!(!is_reuseport(&listener).expect("ask"));
        sockopt::set_socket_reuseport(&listener, true).expect("set");
        assert!(is_reuseport(&listener).expect("ask"));
        assert!(is_listening(&listener).expect("ask"));
        assert_eq!(device(&listener).expect("ask"), 0);
        let other = TcpListener::bind("127.0.0.1:0").expect("listen");
        assert_ne!(cookie(&listener).expect("ask"), cookie(&other).expect("ask"));
        assert_eq!(cookie(&listener).expect("ask"), cookie(listener.try_clone().expect("dup")).expect("ask"));
        assert_eq!(port(&listener).expect("ask"), listener.local_addr().expect("address").port());
    }
}
