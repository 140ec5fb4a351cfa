//! One request to the kernel, one reply. The kernel puts the reply into the socket before it returns from the sending, so nothing here
//! waits, and no runtime is needed.

use std::{io, time::Duration};

use netlink_packet_core::{NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::Error;

/// `sizeof(struct nlmsghdr)`.
pub(super) const HEADER_BYTES: usize = 16;
/// The largest replies that are asked for have about 4 KiB: the features of a device with their names, and a device with all it has.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Only keeps a fault from hanging the caller.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a socket of a netlink protocol in the network namespace of the calling thread.
pub(super) fn open(protocol: isize) -> Result<Socket, Error> {
    let error = |action| move |source| Error::Socket { action, source };
    let socket = Socket::new(protocol).map_err(error("open a netlink socket"))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(error("connect to the kernel"))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))
        .map_err(|errno| Error::Socket { action: "set a timeout", source: errno.into() })?;
    Ok(socket)
}

/// Sends a whole message and returns the payload of the reply; `family` is who is asked, for errors.
pub(super) fn exchange(socket: &Socket, message: &[u8], family: &'static str) -> Result<Vec<u8>, Error> {
    let malformed = || Error::Malformed { family };
    socket.send(message, 0).map_err(|source| Error::Socket { action: "send a request", source })?;
    let mut reply = Vec::with_capacity(RECEIVE_BYTES);
    while let Err(source) = socket.recv(&mut reply, 0) {
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(Error::Socket { action: "read a reply", source });
        }
    }
    let header = NetlinkBuffer::new_checked(reply.as_slice()).map_err(|_| malformed())?;
    let payload = reply.get(HEADER_BYTES..header.length() as usize).ok_or_else(malformed)?;
    if header.message_type() == NLMSG_ERROR {
        let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code)).ok_or_else(malformed)?;
        return Err(Error::Refused { family, source: io::Error::from_raw_os_error(code.saturating_neg()) });
    }
    Ok(payload.to_vec())
}
