//! A token bucket: at most a burst at once, and a rate over time.
//!
//! Pure arithmetic for both sides: the time is an argument, there is no division, and nothing is wider than 64 bits, so the same code
//! runs in eBPF. Tokens are counted in billionths, so that a rate in tokens a second times nanoseconds is exact, with no rest to carry.
//!
//! A bucket is not safe against two CPUs at once. Keep one for each CPU and give each its part of the rate; a bucket that is shared
//! without a lock lets through up to one packet more for each CPU that races.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Billionths of a token in a token.
const TOKEN: u64 = 1_000_000_000;

/// How full a bucket was, and when. The value of a map: 16 bytes, no padding, numbers in the machine's byte order.
///
/// All zero is a good start: a bucket last seen empty at time 0, so it is full once the machine is up for `burst / rate` seconds.
/// Where it must be full at once, as in a slot that changes its owner, there is [`Bucket::full`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// Billionths of a token at the time of the stamp.
    tokens: u64,
    /// Nanoseconds of the clock that [`Bucket::take`] is given.
    stamp: u64,
}

const _: () = assert!(size_of::<Bucket>() == 16 && align_of::<Bucket>() == 8);

impl Bucket {
    /// A bucket with all its tokens at time `now`.
    #[inline(always)]
    #[must_use]
    pub const fn full(now: u64, burst: u32) -> Self {
        Self { tokens: burst as u64 * TOKEN, stamp: now }
    }

    /// Takes one token, if there is one.
    ///
    /// `now` is in nanoseconds of a clock that does not go back (`bpf_ktime_get_ns`); `rate` in tokens a second; `burst` is how many
    /// tokens there can be. In any time `t` at most `burst + rate * t` calls are let through. A rate of 0 never refills; a burst of 0
    /// refuses all. Both may change from call to call: tokens above a new, smaller burst are lost.
    ///
    /// A clock that jumps ahead fills the bucket, no more. One that goes back (CPUs may differ by a little) counts as standing still
    /// until it has caught up, so that no time is counted twice.
    #[inline(always)]
    #[must_use]
    pub const fn take(&mut self, now: u64, rate: u32, burst: u32) -> bool {
        self.take_many(now, rate, burst, 1)
    }

    /// Takes so many tokens at once, or none if there are fewer. A burst below the amount refuses it always.
    #[inline(always)]
    #[must_use]
    pub const fn take_many(&mut self, now: u64, rate: u32, burst: u32, amount: u32) -> bool {
        self.refill(now, rate, burst);
        let wanted = amount as u64 * TOKEN;
        if self.tokens < wanted {
            return false;
        }
        self.tokens -= wanted;
        true
    }

    /// Whether there is a token; none is taken.
    #[inline(always)]
    #[must_use]
    pub const fn has_one(&mut self, now: u64, rate: u32, burst: u32) -> bool {
        self.refill(now, rate, burst);
        self.tokens >= TOKEN
    }

    #[inline(always)]
    const fn refill(&mut self, now: u64, rate: u32, burst: u32) {
        let full = burst as u64 * TOKEN;
        let refilled = if now > self.stamp {
            let elapsed = now - self.stamp;
            self.stamp = now;
            refill(self.tokens, elapsed, rate, burst)
        } else {
            self.tokens
        };
        self.tokens = if refilled < full { refilled } else { full };
    }
}

/// The tokens after `elapsed` nanoseconds, perhaps more than a full bucket but never more than a `u64` holds.
///
/// A step of 2³⁰ ns is longer than a second, so after so many steps that `steps * rate >= burst` the bucket is full whatever was in it.
/// Else `elapsed * rate < (steps + 1) * rate * 2³⁰ < (burst + rate) * 2³⁰ < 2⁶³`, and what was in it is less than `2³² * 10⁹ < 2⁶²`
/// (or was under an older, larger burst: the same bound). The sum stays below 2⁶⁴.
#[inline(always)]
const fn refill(tokens: u64, elapsed: u64, rate: u32, burst: u32) -> u64 {
    let steps = elapsed >> 30;
    let steps = if steps < u32::MAX as u64 { steps } else { u32::MAX as u64 };
    if steps * rate as u64 >= burst as u64 { burst as u64 * TOKEN } else { tokens + elapsed * rate as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `tries` calls at one moment are let through.
    fn taken(bucket: &mut Bucket, now: u64, rate: u32, burst: u32, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(bucket.take(now, rate, burst))).sum()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::full(5 * SECOND, 10);
        assert_eq!(taken(&mut bucket, 5 * SECOND, 100, 10, 50), 10);
        assert!(!bucket.take(5 * SECOND + 9_999_999, 100, 10), "the next token is there after 10 ms, not before");
        assert!(bucket.take(5 * SECOND + 10_000_000, 100, 10));
        assert_eq!(taken(&mut bucket, 6 * SECOND, 100, 10, 50), 10, "idle time saves up a burst, no more");
    }

    #[test]
    fn a_zeroed_bucket_fills_from_boot() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(0, 100, 10));
        assert_eq!(taken(&mut bucket, SECOND / 20, 100, 10, 50), 5);
    }

    #[test]
    fn a_slow_rate_is_kept_over_long_waits() {
        let mut bucket = Bucket::full(0, 1_000);
        assert_eq!(taken(&mut bucket, 0, 1, 1_000, 2_000), 1_000);
        assert_eq!(taken(&mut bucket, 60 * SECOND, 1, 1_000, 2_000), 60);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let (rate, burst) = (u32::MAX, u32::MAX);
        for jump in [1, SECOND, (1 << 30) - 1, 1 << 30, (1 << 31) - 1, 1 << 62, u64::MAX] {
            let mut bucket = Bucket::full(0, burst);
            assert!(bucket.take(jump, rate, burst));
            assert_eq!(bucket.tokens, (u64::from(burst) - 1) * TOKEN);
            assert!(bucket.take(jump, rate, 1), "a smaller burst takes hold at once");
            assert!(!bucket.take(jump, rate, 1));
        }
    }

    #[test]
    fn nothing_of_nothing() {
        let mut bucket = Bucket::full(0, 1);
        assert!(!bucket.take(u64::MAX, u32::MAX, 0), "a burst of 0 refuses all");
        let mut bucket = Bucket::full(0, 1);
        assert!(bucket.take(0, 0, 1));
        assert!(!bucket.take(u64::MAX, 0, 1), "a rate of 0 never refills");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_twice() {
        let mut bucket = Bucket::full(10 * SECOND, 1);
        assert!(bucket.take(10 * SECOND, 1, 1));
        assert!(!bucket.take(9 * SECOND, 1, 1));
        assert!(!bucket.take(10 * SECOND, 1, 1));
        assert!(bucket.take(11 * SECOND, 1, 1));
    }

    #[test]
    fn many_are_taken_whole_or_not_at_all() {
        let mut bucket = Bucket::full(0, 1_500);
        assert!(bucket.take_many(0, 1_000, 1_500, 1_400));
        assert!(!bucket.take_many(0, 1_000, 1_500, 101));
        assert!(bucket.take_many(0, 1_000, 1_500, 100));
        assert!(!bucket.has_one(0, 1_000, 1_500) && bucket.has_one(SECOND / 1_000, 1_000, 1_500));
        assert!(!bucket.take_many(u64::MAX, 1_000, 1_500, 1_501), "above the burst");
    }

    proptest! {
        /// Also pins the arithmetic: the model has 128 bits and no shortcut.
        #[test]
        fn a_bucket_is_its_model(
            start: u64, rate: u32, burst: u32,
            waits in vec(prop_oneof![0..2_000_u64, 0..5 * SECOND, 0..=u64::MAX / 128], 1..100),
        ) {
            let mut now = start >> 1;
            let mut bucket = Bucket::full(now, burst);
            let full = u128::from(burst) * u128::from(TOKEN);
            let mut model = full;
            for wait in waits {
                now += wait;
                model = full.min(model + u128::from(wait) * u128::from(rate));
                let expected = model >= u128::from(TOKEN);
                prop_assert_eq!(bucket.take(now, rate, burst), expected);
                model -= if expected { u128::from(TOKEN) } else { 0 };
            }
        }

        #[test]
        fn never_more_than_the_burst_and_the_rate_in_any_window(
            rate in 1..=2_000_u32, burst in 1..=50_u32,
            waits in vec(prop_oneof![Just(0), 0..SECOND / 1_000, 0..SECOND / 10], 1..300),
        ) {
            let (mut bucket, mut now, mut admitted) = (Bucket::full(0, burst), 0, Vec::new());
            for wait in waits {
                now += wait;
                if bucket.take(now, rate, burst) {
                    admitted.push(now);
                }
            }
            for (first, &from) in admitted.iter().enumerate() {
                for (last, &to) in admitted.iter().enumerate().skip(first) {
                    let count = u64::try_from(last - first).unwrap() + 1;
                    prop_assert!((count - u64::from(burst).min(count)) * SECOND <= (to - from) * u64::from(rate));
                }
            }
        }

        #[test]
        fn an_empty_bucket_has_a_token_when_the_rate_says_so(now in 0..u64::MAX / 2, rate in 1..=u32::MAX, burst in 1..=u32::MAX) {
            let mut bucket = Bucket { tokens: 0, stamp: now };
            let wait = SECOND.div_ceil(rate.into());
            prop_assert!(!bucket.take(now + wait - 1, rate, burst));
            prop_assert!(bucket.take(now + wait, rate, burst));
        }

        #[test]
        fn a_bucket_is_its_bytes(tokens: u64, stamp: u64) {
            let bucket = Bucket { tokens, stamp };
            prop_assert_eq!(Bucket::read_from_bytes(bucket.as_bytes()), Ok(bucket));
        }
    }
}
