//! When a service is under a flood: counting in windows on each CPU, and a mode that is a function of two times.
//!
//! Each CPU counts, for itself, what speaks for a flood (SYNs, and segments that belong to no connection) in windows of 10 ms. When its
//! own count reaches its share of the threshold it adds up what all CPUs have counted, and if that is enough it writes down the time. So
//! a flood shows within a window, a busy CPU alone does not pass for one, and no counter is shared.
//!
//! What is written down are three times ([`FloodState`]); the [`Mode`] follows from them and the clock. Nobody has to end a flood: it is over
//! when the clock says so, whether or not anybody looks.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC, which stands still while the machine sleeps: after a suspend everything is as it was.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The length of a window, in nanoseconds: 10 ms.
pub const WINDOW: u64 = 10_000_000;
/// How many windows make a second.
pub const WINDOWS_PER_SECOND: u32 = 100;
/// In calm, one of so many segments is looked up; if it belongs to no connection it counts for all of them.
pub const SAMPLE: u32 = 32;

/// What one CPU has counted for one service in the window that began last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FloodWindow {
    /// When it began.
    pub began: u64,
    /// How many SYNs.
    pub syns: u32,
    /// How many segments of no connection.
    pub strays: u32,
    /// How many segments since ever, for [`SAMPLE`].
    pub segments: u32,
    /// Zero.
    pub padding: u32,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A SYN.
    Syn,
    /// So many segments of no connection.
    Strays(u32),
}

impl FloodWindow {
    /// Counts, in a new window if the last one is over. Answers the count of its kind in this window.
    #[inline(always)]
    #[must_use]
    pub const fn count(&mut self, now: u64, sign: Sign) -> u32 {
        if now.wrapping_sub(self.began) >= WINDOW {
            (self.began, self.syns, self.strays) = (now, 0, 0);
        }
        match sign {
            Sign::Syn => {
                self.syns = self.syns.saturating_add(1);
                self.syns
            }
            Sign::Strays(number) => {
                self.strays = self.strays.saturating_add(number);
                self.strays
            }
        }
    }

    /// Counts a segment; whether it is one of those that are looked up.
    #[inline(always)]
    #[must_use]
    pub const fn is_sample(&mut self) -> bool {
        self.segments = self.segments.wrapping_add(1);
        self.segments.is_multiple_of(SAMPLE)
    }

    /// What it adds to the count of all CPUs: nothing if it began too long ago.
    #[inline(always)]
    #[must_use]
    pub const fn fresh(&self, now: u64, sign: Sign) -> u32 {
        // CPUs' clocks may differ by a little: a window that seems to begin in the future is fresh.
        if now > self.began && now - self.began >= WINDOW {
            return 0;
        }
        match sign {
            Sign::Syn => self.syns,
            Sign::Strays(_) => self.strays,
        }
    }
}

/// When a service's flood began and when it last showed; all zero in calm.
///
/// A flood of segments alone leaves SYNs to the kernel: a connection that it has a request for survives the loss of its last ACK, since
/// the SYN-ACK is sent again, and one that began with a cookie does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FloodState {
    /// When it began; 0 if there is none.
    pub entered: u64,
    /// When a rate was last high: that of SYNs or that of segments of no connection.
    pub hot: u64,
    /// When the rate of SYNs was last high in this flood; 0 if it never was.
    pub syns: u64,
}

/// How a flood is told, per service. Counts are per window, of all CPUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Thresholds {
    /// So many SYNs begin a flood; half as many keep it going.
    pub syns: u32,
    /// So many segments of no connection begin a flood; half as many keep it going.
    pub strays: u32,
    /// How long the rate must have been low, in nanoseconds.
    pub quiet: u64,
    /// How long a flood lasts at the least, in nanoseconds.
    pub minimum: u64,
    /// How long cookies are honoured after it: until the last that was sent is too old, in nanoseconds.
    pub linger: u64,
}

/// What the defence does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Mode {
    /// Nothing: SYNs go to the kernel as they came.
    Calm = 0,
    /// Segments of no connection are refused; SYNs are answered with cookies, if it is they that come in a flood
    /// ([`FloodState::answers_syns`]).
    Flood = 1,
    /// SYNs go to the kernel, and cookies that were sent are still honoured.
    Lingering = 2,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Flood, Self::Lingering];

    /// The name in metrics and in output for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Flood => "flood",
            Self::Lingering => "lingering",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::Calm => "no flood: SYNs pass to the kernel, and only what can never be right is refused",
            Self::Flood => "segments of no flow are refused, and if it is a flood of SYNs, those are answered in XDP with cookies",
            Self::Lingering => "the flood is over: SYNs pass to the kernel, and cookies that were sent before are still honoured",
        }
    }
}

impl Thresholds {
    /// How many of a sign in a window speak for a flood: to begin one, or (half as many) to keep one of that sign going.
    #[inline(always)]
    #[must_use]
    pub const fn enough(&self, sign: Sign, is_on: bool) -> u32 {
        let begin = match sign {
            Sign::Syn => self.syns,
            Sign::Strays(_) => self.strays,
        };
        if is_on { begin / 2 } else { begin }
    }

    /// Whether a CPU whose own count has come to `count` should add up those of all: at its share of the threshold, and at every eighth of
    /// that again, since the others' counts grow too.
    #[inline(always)]
    #[must_use]
    pub const fn should_add_up(&self, count: u32, sign: Sign, is_on: bool, cpus: u32) -> bool {
        // A division by a variable would cost as much as the rest: the daemon gives the CPUs as a power of two, rounded up.
        let share = self.enough(sign, is_on) >> cpus.trailing_zeros();
        if count < share {
            return false;
        }
        let step = share >> 3;
        // A step that is a power of two: the largest that is not above an eighth of the share.
        let mask = if step == 0 { 0 } else { (1 << step.ilog2()) - 1 };
        count == share || count & mask == 0
    }
}

impl FloodState {
    /// The mode at a time.
    #[inline(always)]
    #[must_use]
    pub const fn mode(&self, thresholds: &Thresholds, now: u64) -> Mode {
        if self.entered == 0 {
            return Mode::Calm;
        }
        let over = self.over(thresholds, self.hot);
        if now < over {
            Mode::Flood
        } else if now < over.saturating_add(thresholds.linger) {
            Mode::Lingering
        } else {
            Mode::Calm
        }
    }

    /// Whether it is SYNs that come in a flood. Then the mode is [`Mode::Flood`].
    #[inline(always)]
    #[must_use]
    pub const fn answers_syns(&self, thresholds: &Thresholds, now: u64) -> bool {
        self.syns != 0 && now < self.over(thresholds, self.syns)
    }

    /// When a flood is over whose rate was last high at `hot`.
    #[inline(always)]
    const fn over(&self, thresholds: &Thresholds, hot: u64) -> u64 {
        let (least, quiet) = (self.entered.saturating_add(thresholds.minimum), hot.saturating_add(thresholds.quiet));
        if least > quiet { least } else { quiet }
    }

    /// Whether there is a flood of this sign.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self, thresholds: &Thresholds, sign: Sign, now: u64) -> bool {
        match sign {
            Sign::Syn => self.answers_syns(thresholds, now),
            Sign::Strays(_) => matches!(self.mode(thresholds, now), Mode::Flood),
        }
    }

    /// The state after `total` of a sign were counted in the window that ends now; `None` if nothing changes.
    #[inline(always)]
    #[must_use]
    pub const fn after(&self, thresholds: &Thresholds, sign: Sign, total: u32, now: u64) -> Option<Self> {
        if total < thresholds.enough(sign, self.is_on(thresholds, sign, now)) {
            return None;
        }
        let is_syn = matches!(sign, Sign::Syn);
        let last = if is_syn { self.syns } else { self.hot };
        match self.mode(thresholds, now) {
            // A flood that goes on is written down at most once a millisecond: the record is shared.
            Mode::Flood if now.saturating_sub(last) < WINDOW / 10 => None,
            Mode::Flood => Some(Self { entered: self.entered, hot: now, syns: if is_syn { now } else { self.syns } }),
            Mode::Calm | Mode::Lingering => Some(Self { entered: now, hot: now, syns: if is_syn { now } else { 0 } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const THRESHOLDS: Thresholds = Thresholds { syns: 100, strays: 200, quiet: 10 * SECOND, minimum: 30 * SECOND, linger: 120 * SECOND };

    #[test]
    fn a_window_counts_and_ends() {
        let mut window = FloodWindow::default();
        let start = 77 * SECOND;
        assert_eq!(window.count(start, Sign::Syn), 1);
        assert_eq!(window.count(start + WINDOW - 1, Sign::Syn), 2);
        assert_eq!(window.count(start + WINDOW - 1, Sign::Strays(32)), 32);
        assert_eq!((window.fresh(start + WINDOW - 1, Sign::Syn), window.fresh(start + WINDOW, Sign::Syn)), (2, 0));
        assert_eq!(window.fresh(start - 5, Sign::Strays(1)), 32, "another CPU's clock is behind");
        assert_eq!(window.count(start + WINDOW, Sign::Syn), 1);
        assert_eq!(window.strays, 0);
    }

    #[test]
    fn one_in_32_is_a_sample() {
        let mut window = FloodWindow { segments: u32::MAX - 40, ..FloodWindow::default() };
        let samples = (0..3200).filter(|_| window.is_sample()).count();
        assert_eq!(samples, 100);
    }

    #[test]
    fn a_flood_begins_goes_on_lingers_and_ends() {
        let calm = FloodState::default();
        let begin = 1_000 * SECOND;
        assert_eq!(calm.after(&THRESHOLDS, Sign::Syn, 99, begin), None);
        let flood = calm.after(&THRESHOLDS, Sign::Syn, 100, begin).unwrap();
        assert_eq!(flood, FloodState { entered: begin, hot: begin, syns: begin });
        assert_eq!(flood.after(&THRESHOLDS, Sign::Syn, 49, begin + SECOND), None);
        assert_eq!(flood.after(&THRESHOLDS, Sign::Syn, 50, begin + 1), None, "just written");
        let later = flood.after(&THRESHOLDS, Sign::Syn, 50, begin + 25 * SECOND).unwrap();
        assert_eq!(later, FloodState { entered: begin, hot: begin + 25 * SECOND, syns: begin + 25 * SECOND });
        let answers = |state: FloodState, after: u64| state.answers_syns(&THRESHOLDS, begin + after);
        assert!(answers(flood, 30 * SECOND - 1) && !answers(flood, 30 * SECOND));
        assert!(answers(later, 35 * SECOND - 1) && !answers(later, 35 * SECOND));
        let mode = |state: FloodState, after: u64| state.mode(&THRESHOLDS, begin + after);
        assert_eq!(mode(flood, 30 * SECOND - 1), Mode::Flood, "the least time");
        assert_eq!(mode(flood, 30 * SECOND), Mode::Lingering);
        assert_eq!(mode(later, 35 * SECOND - 1), Mode::Flood, "quiet since");
        assert_eq!(mode(later, 35 * SECOND), Mode::Lingering);
        assert_eq!(mode(later, 155 * SECOND - 1), Mode::Lingering);
        assert_eq!(mode(later, 155 * SECOND), Mode::Calm);
    }

    #[test]
    fn a_flood_while_lingering_is_a_new_one() {
        let state = FloodState { entered: SECOND, hot: SECOND, syns: SECOND };
        let now = 40 * SECOND;
        assert_eq!(state.after(&THRESHOLDS, Sign::Strays(32), 100, now), None, "lingering takes the full rate again");
        assert_eq!(state.after(&THRESHOLDS, Sign::Strays(32), 200, now), Some(FloodState { entered: now, hot: now, syns: 0 }));
    }

    #[test]
    fn a_flood_of_segments_leaves_syns_to_the_kernel_until_they_flood_as_well() {
        let begin = 1_000 * SECOND;
        let strays = FloodState::default().after(&THRESHOLDS, Sign::Strays(1), 200, begin).unwrap();
        let now = begin + SECOND;
        assert_eq!((strays.mode(&THRESHOLDS, now), strays.answers_syns(&THRESHOLDS, now)), (Mode::Flood, false));
        assert_eq!(strays.after(&THRESHOLDS, Sign::Syn, 99, now), None, "the whole rate begins a flood of SYNs, whatever else goes on");
        let both = strays.after(&THRESHOLDS, Sign::Syn, 100, now).unwrap();
        assert_eq!(both, FloodState { entered: begin, hot: now, syns: now });
        assert!(both.answers_syns(&THRESHOLDS, now));
        // The segments go on and on; the SYNs have stopped.
        let alone = both.after(&THRESHOLDS, Sign::Strays(1), 200, now + 60 * SECOND);
        assert_eq!(alone, Some(FloodState { entered: now + 60 * SECOND, hot: now + 60 * SECOND, syns: 0 }), "it had been over");
        let (mut state, mut time) = (both, now);
        for _ in 0..60 {
            time += SECOND;
            state = state.after(&THRESHOLDS, Sign::Strays(1), 100, time).unwrap();
        }
        assert_eq!((state.mode(&THRESHOLDS, time), state.answers_syns(&THRESHOLDS, time)), (Mode::Flood, false));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let state = FloodState { entered: u64::MAX - 5, hot: u64::MAX - 5, syns: u64::MAX - 5 };
        assert_eq!(state.mode(&THRESHOLDS, u64::MAX - 1), Mode::Flood);
        let mut window = FloodWindow { began: u64::MAX - 5, ..FloodWindow::default() };
        assert_eq!(window.count(3, Sign::Syn), 1);
        assert_eq!(window.count(WINDOW - 7, Sign::Syn), 2, "a clock that wrapped");
    }

    proptest! {
        /// However a flood is dealt over the CPUs, one of them notices when the threshold is passed, at the latest an eighth above it.
        #[test]
        fn some_cpu_adds_up_in_time(shift in 0..8_u32, syns in 1..5_000_u32, shares in prop::collection::vec(1..100_u32, 128)) {
            let cpus = 1 << shift;
            let thresholds = Thresholds { syns, ..THRESHOLDS };
            let weights = &shares[..cpus as usize];
            let sum: u32 = weights.iter().sum();
            let (mut counts, mut total, mut noticed) = (vec![0_u32; cpus as usize], 0_u32, None);
            // Deal out one by one, always to who is farthest behind its share.
            while total < syns * 2 + 2 * cpus && noticed.is_none() {
                let next = (0..counts.len()).max_by_key(|&cpu| i64::from(weights[cpu]) * i64::from(total + 1) - i64::from(counts[cpu]) * i64::from(sum)).unwrap();
                counts[next] += 1;
                total += 1;
                if thresholds.should_add_up(counts[next], Sign::Syn, false, cpus) && total >= syns {
                    noticed = Some(total);
                }
            }
            prop_assert!(noticed.is_some_and(|at| at <= syns + syns / 8 + cpus), "{noticed:?} of {syns} on {cpus}");
        }
    }
}
