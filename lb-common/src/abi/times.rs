//! How long things take: counts in buckets whose bounds are powers of two of seconds, as those of Prometheus' native histograms are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bucket holds what took at most this power of two of seconds: 61 microseconds.
const FIRST: i32 = -14;
/// The last bound: 16 seconds.
const LAST: i32 = 4;

/// How many bounds there are.
pub const TIME_BOUNDS: usize = (LAST - FIRST + 1) as usize;

/// How often something took how long. Plain sums: the programs add to them by atomic operations, at most once for each connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Times {
    /// One for each bound, and one for what took longer. Not cumulative.
    pub counts: [u64; TIME_BOUNDS + 1],
    /// All times together, in nanoseconds.
    pub sum: u64,
}

/// The bounds in seconds, each inclusive.
#[must_use]
pub fn time_bounds() -> [f64; TIME_BOUNDS] {
    core::array::from_fn(|index| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a few")]
        let exponent = FIRST + index as i32;
        if exponent < 0 { 1.0 / f64::from(1_u32 << -exponent) } else { f64::from(1_u32 << exponent) }
    })
}

/// The index of the bucket for a time in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn time_bucket(nanoseconds: u64) -> usize {
    /// Longer than any bound, and small enough to be shifted.
    const LONG: u64 = 1 << 40;
    const SECOND: u64 = 1_000_000_000;
    let nanoseconds = if nanoseconds > LONG { LONG } else { nanoseconds };
    // In units of the first bound, rounded up: what is a hair above a bound belongs to the next bucket.
    let units = (nanoseconds << -FIRST).div_ceil(SECOND);
    // The smallest power of two that is not below: by comparisons, since the programs' instruction set counts no zeros.
    let mut index = 0;
    while index < TIME_BOUNDS && units > 1 << index {
        index += 1;
    }
    index
}

impl Times {
    /// Counts a time in nanoseconds.
    pub const fn add(&mut self, nanoseconds: u64) {
        self.counts[time_bucket(nanoseconds)] += 1;
        self.sum += nanoseconds;
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        let bounds = time_bounds();
        assert_eq!((bounds[0], bounds[14], bounds[TIME_BOUNDS - 1]), (1.0 / 16384.0, 1.0, 16.0));
        for (index, bound) in bounds.into_iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole nanoseconds at or below the bound")]
            let below = (bound * 1e9).floor() as u64;
            assert_eq!(time_bucket(below), index, "{bound} s");
            assert_eq!(time_bucket(below + 1), index + 1, "just above {bound} s");
        }
        assert_eq!((time_bucket(0), time_bucket(u64::MAX)), (0, TIME_BOUNDS));
    }

    #[test]
    fn times_add_up() {
        let mut times = Times::default();
        for nanoseconds in [0, 1_000_000, 2_000_000, u64::from(u32::MAX) * 8] {
            times.add(nanoseconds);
        }
        let mut twice = times;
        twice.merge(&times);
        assert_eq!(times.counts.iter().sum::<u64>(), 4);
        assert_eq!((twice.sum, twice.counts[TIME_BOUNDS]), (2 * times.sum, 2));
    }
}
