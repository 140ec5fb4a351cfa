//! How long something took, many times over.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Durations, to ask for their percentiles.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many of a hundred did not exceed (the nearest rank); panics when there is none.
    #[track_caller]
    pub fn percentile(&self, percent: usize) -> Duration {
        self.per_mille(percent * 10)
    }

    /// The time that so many of a thousand did not exceed; panics when there is none.
    #[track_caller]
    pub fn per_mille(&self, part: usize) -> Duration {
        assert!(!self.0.is_empty() && (1..=1000).contains(&part), "{part} per mille of {} times", self.0.len());
        let rank = (self.0.len() * part).div_ceil(1000);
        let mut sorted = self.0.clone();
        *sorted.select_nth_unstable(rank - 1).1
    }

    /// The median.
    pub fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// What 99 of 100 did not exceed.
    pub fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// What 999 of 1000 did not exceed.
    pub fn p999(&self) -> Duration {
        self.per_mille(999)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("no times");
        }
        write!(formatter, "p50 {:.1?}, p99 {:.1?}, max {:.1?}", self.p50(), self.p99(), self.max())
    }
}

/// A stream that remembers when the first byte came.
#[derive(Debug)]
pub(super) struct Timed<S> {
    stream: S,
    first: Option<Instant>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, first: None }
    }

    /// When the first byte was read.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first
    }
}

impl<S: Read> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        if length > 0 {
            self.first.get_or_insert_with(Instant::now);
        }
        Ok(length)
    }
}

impl<S: Write> Write for Timed<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
