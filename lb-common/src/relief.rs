//! When new connections are kept from a worker that does not keep up, and who gets them instead.
//!
//! A worker's accept queue is where connections wait for it. The kernel drops those that find it full, and all that are in it wait as long
//! as the worker does something else.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What [`AcceptQueue::share`] is of a queue that is as full as it is to be.
pub const FULL: u32 = 1024;

/// From when on a worker gets no new connection, as long as it has not caught up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Relief {
    /// How long the first connection of its queue has waited, in nanoseconds; 0 is never.
    pub stalled_after: u64,
    /// How full its queue is, of [`FULL`]; 0 is never.
    pub overfull: u32,
    /// Zero.
    pub reserved: u32,
}

/// What waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many connections.
    pub length: u32,
    /// How many there may be: the kernel drops the one that finds more than that.
    pub limit: u32,
    /// When the first of them was established, in nanoseconds of CLOCK_MONOTONIC; 0 if that is not known.
    pub head_since: u64,
}

impl Relief {
    /// Whether any worker is ever relieved.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.stalled_after != 0 || self.overfull != 0
    }

    /// Whether the worker with this queue gets no new connection now.
    ///
    /// `now` is the same clock as [`AcceptQueue::head_since`], and may be some milliseconds behind.
    #[inline(always)]
    #[must_use]
    pub const fn is_due(&self, queue: &AcceptQueue, now: u64) -> bool {
        if queue.length == 0 {
            return false;
        }
        let is_overfull = self.overfull != 0 && queue.share() >= self.overfull;
        let has_waited = now.saturating_sub(queue.head_since) >= self.stalled_after;
        is_overfull || (self.stalled_after != 0 && queue.head_since != 0 && has_waited)
    }
}

impl AcceptQueue {
    /// How full it is, of [`FULL`]; more than that when it is over its limit.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the larger ones are cut off before")]
    pub const fn share(&self) -> u32 {
        // A listener that asked for a queue of none has one of one (`sk_acceptq_is_full` of Linux compares by `>`).
        let limit = if self.limit == 0 { 1 } else { self.limit };
        let share = self.length as u64 * FULL as u64 / limit as u64;
        if share > u32::MAX as u64 { u32::MAX } else { share as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const fn queue(length: u32, limit: u32, head_since: u64) -> AcceptQueue {
        AcceptQueue { length, limit, head_since }
    }

    #[test]
    fn a_worker_is_relieved_by_either_sign_and_by_none_that_is_off() {
        let share = Relief { overfull: FULL / 2, ..Relief::default() };
        let wait = Relief { stalled_after: SECOND, ..Relief::default() };
        let both = Relief { stalled_after: SECOND, ..share };
        let now = 10 * SECOND;
        let rows = [
            ("nothing waits", queue(0, 100, 0), [false, false, false]),
            ("an old time of a connection that has gone", queue(0, 100, SECOND), [false, false, false]),
            ("below half", queue(49, 100, now), [false, false, false]),
            ("half", queue(50, 100, now), [true, false, true]),
            ("over its limit", queue(101, 100, now), [true, false, true]),
            ("one has waited a second", queue(1, 100, now - SECOND), [false, true, true]),
            ("one has waited less", queue(1, 100, now - SECOND + 1), [false, false, false]),
            ("one that came after the last tick of the clock", queue(1, 100, now + 1), [false, false, false]),
            ("nobody knows since when", queue(1, 100, 0), [false, false, false]),
            ("a queue of one", queue(1, 0, now), [true, false, true]),
        ];
        for (name, queue, expected) in rows {
            assert_eq!([share, wait, both].map(|relief| relief.is_due(&queue, now)), expected, "{name}");
            assert!(!Relief::default().is_due(&queue, now), "{name}");
        }
        assert_eq!([share, wait, both, Relief::default()].map(|relief| relief.is_on()), [true, true, true, false]);
    }

    #[test]
    fn a_share_has_no_largest_queue() {
        assert_eq!(queue(u32::MAX, u32::MAX, 0).share(), FULL);
        assert_eq!(queue(u32::MAX, 1, 0).share(), u32::MAX);
    }
}
