//! News of changes to the devices and addresses of a network namespace.

use std::{fmt, io};

use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::constants::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK};

use super::Error;

/// Of a message only the fact that it came matters; the rest of it is cut off by the kernel.
const RECEIVE_BYTES: usize = 64;
/// One call takes at most this many messages that wait already, so that a storm of them cannot hold up the caller's other events.
const MOST_AT_ONCE: usize = 1024;

/// An open subscription. It belongs to the network namespace in which it was opened.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

/// Subscribes to changes of devices, IPv4 addresses and IPv6 addresses in the network namespace of the calling thread. Needs a tokio
/// runtime with I/O. What changes from now on is reported, so open it before the first [`read`](super::Network::read).
pub fn watch() -> Result<Watch, Error> {
    let error = |action| move |source| Error::Socket { action, source };
    let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(error("open an rtnetlink socket"))?;
    let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    socket.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(error("subscribe to changes"))?;
    Ok(Watch { socket, buffer: Vec::with_capacity(RECEIVE_BYTES) })
}

impl Watch {
    /// Waits until something changed since the last call. All that is known by then counts as one change. Messages that the kernel had
    /// to drop are a change too. An error means that the subscription is of no more use. Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        expect_message(self.socket.recv(&mut self.buffer).await)?;
        for _ in 0..MOST_AT_ONCE {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                other => expect_message(other.map(drop))?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

fn expect_message(received: io::Result<()>) -> Result<(), Error> {
    match received {
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) || error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.map_err(|source| Error::Socket { action: "read a change", source }),
    }
}
