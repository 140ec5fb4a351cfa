//! `weir trace`'s end of the trace: what is wanted, and what comes.

use std::{io, time::Duration};

use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use lb_common::abi::{TraceFilter, TraceRecord, TraceState};
use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::FromBytes as _;

use super::{
    Error, Pins,
    maps::{Plain, open},
    monotonic_time,
};

/// The trace of an instance. At its end, nothing is wanted any more.
pub struct Trace {
    filter: Array<MapData, Plain<TraceFilter>>,
    state: PerCpuArray<MapData, Plain<TraceState>>,
    ring: AsyncFd<RingBuf<MapData>>,
    missed_before: (u64, u64),
}

impl Trace {
    /// How long the programs go on after the last [`Trace::want`].
    pub const LASTS: Duration = Duration::from_secs(3);

    /// Opens the pinned maps of a version. What was traced before and nobody has read is dropped. Needs a tokio runtime.
    pub fn open(pins: &Pins, version: u32) -> Result<Self, Error> {
        let mut ring: RingBuf<MapData> = open((pins, version, "TRACED"))?;
        while ring.next().is_some() {}
        // SAFETY: the ring buffer owns its map's descriptor and keeps it as long as it lives, which is as long as the `AsyncFd`.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|refused| Error::call("wait for a ring buffer")(refused.into()))?;
        let mut trace =
            Self { filter: open((pins, version, "TRACE"))?, state: open((pins, version, "TRACE_STATE"))?, ring, missed_before: (0, 0) };
        trace.missed_before = trace.totals()?;
        Ok(trace)
    }

    /// Asks for packets until [`Trace::LASTS`] from now.
    pub fn want(&mut self, filter: TraceFilter) -> Result<(), Error> {
        let lasts = u64::try_from(Self::LASTS.as_nanos()).unwrap_or(u64::MAX);
        self.set(TraceFilter { until: monotonic_time().saturating_add(lasts), ..filter })
    }

    fn set(&mut self, filter: TraceFilter) -> Result<(), Error> {
        self.filter.set(0, Plain(filter), 0).map_err(Error::map("TRACE"))
    }

    /// The next record. Records that are none are stepped over.
    pub async fn next(&mut self) -> io::Result<TraceRecord> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            if let Some(record) = guard.get_inner_mut().next() {
                if let Ok(record) = TraceRecord::read_from_bytes(&record) {
                    return Ok(record);
                }
                continue;
            }
            guard.clear_ready();
        }
    }

    /// Packets that were wanted since the trace was opened and are not among the records: above the rate, and for want of room.
    pub fn missed(&self) -> Result<(u64, u64), Error> {
        let (above_rate, no_room) = self.totals()?;
        Ok((above_rate.saturating_sub(self.missed_before.0), no_room.saturating_sub(self.missed_before.1)))
    }

    fn totals(&self) -> Result<(u64, u64), Error> {
        let values = self.state.get(&0, 0).map_err(Error::map("TRACE_STATE"))?;
        Ok(values.iter().fold((0, 0), |(above, room), Plain(state)| (above + state.above_rate, room + state.no_room)))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Err(error) = self.set(TraceFilter::OFF) {
            tracing::warn!("{:#}; the trace ends by itself within {} s", anyhow::Error::from(error), Self::LASTS.as_secs());
        }
    }
}
