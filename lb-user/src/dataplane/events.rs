//! The ring buffers, as something to wait for: listener events, and what the programs log.

use std::io;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use lb_common::abi::Event;
use log::Log;
use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::FromBytes as _;

/// Listeners that begin and end.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring buffer owns its map's descriptor and keeps it as long as it lives, which is as long as the `AsyncFd`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self { ring })
    }

    /// The next event. Records that are no event are stepped over.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            if let Some(record) = guard.get_inner_mut().next() {
                if let Ok(event) = Event::read_from_bytes(&record) {
                    return Ok(event);
                }
                continue;
            }
            guard.clear_ready();
        }
    }
}

/// What the programs log, for tracing: under the target of the program's module, at debug level.
pub struct KernelLog {
    ring: AsyncFd<EbpfLogger<&'static dyn Log>>,
}

impl KernelLog {
    pub(super) fn new(logger: EbpfLogger<&'static dyn Log>) -> io::Result<Self> {
        // SAFETY: as for the events: the logger owns its map's descriptor.
        let ring = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
        Ok(Self { ring })
    }

    /// Hands over what is there, whenever there is something.
    pub async fn forward(mut self) -> io::Result<()> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
