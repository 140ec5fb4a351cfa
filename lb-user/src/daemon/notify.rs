//! What the service manager is told (sd_notify(3)): that the daemon is ready, reloads, ends, and that its loop goes on.
//!
//! Without systemd there is nobody to tell, and nothing is said about that.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The daemon balances, for the first time or after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read anew; [`ready`] follows, whether or not it was taken.
pub fn reloading() {
    // The time is what a unit of Type=notify-reload waits for; one of Type=notify passes over it.
    let now = NotifyState::monotonic_usec_now().ok();
    tell(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
}

/// The daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState]) {
    // A manager that does not listen has no use for it.
    let _ = sd_notify::notify(states);
}

/// The sign of life that the service manager waits for, if it does (`WatchdogSec=` of the unit).
#[derive(Debug)]
pub struct Watchdog {
    /// Between two signs: half of what the manager waits.
    interval: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the environment of this process asks for it.
    pub fn of_environment() -> Self {
        Self::every(sd_notify::watchdog_enabled().map(|patience| patience / 2))
    }

    fn every(interval: Option<Duration>) -> Self {
        Self { interval, next: Instant::now() }
    }

    /// When a sign is due next, if one is waited for.
    pub fn next(&self) -> Option<Instant> {
        self.interval.map(|_| self.next)
    }

    /// Gives the sign if it is due. Only the loop calls this, between two things that it does: one that hangs is started anew.
    pub fn alive(&mut self, now: Instant) {
        if self.is_due(now) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval.filter(|_| now >= self.next) else { return false };
        self.next = now + interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_due_at_once_and_then_twice_in_the_managers_patience() {
        let mut watchdog = Watchdog::every(Some(Duration::from_secs(30)));
        let now = Instant::now();
        assert!(watchdog.is_due(now));
        assert!(!watchdog.is_due(now + Duration::from_secs(29)));
        assert_eq!(watchdog.next(), Some(now + Duration::from_secs(30)));
        assert!(watchdog.is_due(now + Duration::from_secs(30)));
    }

    #[test]
    fn without_a_watchdog_nothing_is_ever_due() {
        let mut watchdog = Watchdog::every(None);
        assert_eq!(watchdog.next(), None);
        assert!(!watchdog.is_due(Instant::now() + Duration::from_secs(3_600)));
    }
}
