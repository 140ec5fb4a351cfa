//! The daemon's end of the socket pair: one call at a time, with a deadline.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, sockopt};

use super::wire::{self, Kind, Packet, REPLY_WORDS};
use super::{CallError, Refusal};

#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    request: u32,
    /// Whether the helper has been waited for: its pid may be another process's by now.
    pub(super) reaped: bool,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, request: 0, reaped: false }
    }

    /// Sends a request and puts its answer together; a descriptor may come with any packet of it.
    pub(super) fn call(&mut self, kind: Kind, body: &[u32], timeout: Duration) -> Result<Packet, CallError> {
        let deadline = Instant::now() + timeout;
        self.discard_late_answers();
        self.request = self.request.wrapping_add(1);
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, Some(timeout))
            .map_err(|errno| failure(&errno.into(), timeout))?;
        wire::send(self.socket.as_fd(), kind, self.request, body).map_err(|error| failure(&error, timeout))?;
        let mut words = Vec::new();
        let mut descriptor = None;
        loop {
            let mut packet = self.receive(deadline, timeout)?;
            // The end of an answer to a call that gave up: dropping the packet closes its descriptor.
            if packet.request != self.request {
                continue;
            }
            if packet.kind == Kind::Refused {
                return Err(Refusal::from_words(&packet.body).map_or(CallError::Malformed("refusal"), CallError::Refused));
            }
            words.append(&mut packet.body);
            if words.len() > REPLY_WORDS {
                return Err(CallError::Malformed("an answer above the limit"));
            }
            descriptor = packet.descriptor.take().or(descriptor);
            if !packet.more {
                packet.body = words;
                packet.descriptor = descriptor;
                return Ok(packet);
            }
        }
    }

    pub(super) fn receive(&mut self, deadline: Instant, timeout: Duration) -> Result<Packet, CallError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A socket timeout of 0 would mean for ever.
            if left < Duration::from_micros(1) {
                return Err(CallError::Timeout(timeout));
            }
            sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(left))
                .map_err(|errno| failure(&errno.into(), timeout))?;
            return match wire::receive(self.socket.as_fd(), RecvFlags::empty()) {
                Ok(Some(packet)) => Ok(packet),
                Ok(None) => Err(CallError::Gone),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(failure(&error, timeout)),
            };
        }
    }

    fn discard_late_answers(&mut self) {
        while let Ok(Some(_)) = wire::receive(self.socket.as_fd(), RecvFlags::DONTWAIT) {}
    }
}

fn failure(error: &io::Error, timeout: Duration) -> CallError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => CallError::Gone,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::Timeout(timeout),
        io::ErrorKind::InvalidData => CallError::Malformed("packet"),
        kind => CallError::Channel(error.raw_os_error().map_or_else(|| kind.into(), io::Error::from_raw_os_error)),
    }
}
