//! The keys of cookies: which one is due when.
//!
//! A key makes cookies for one slot and is honoured for one more; two live at a time. A new key takes the place of the older one, whose
//! cookies are all expired by then, and only when it stands there is it named as the one that makes cookies. So a cookie is good for at
//! least one slot and at most two, and a reader that sees half of an update sees a key that nobody uses yet.

use std::time::Duration;

use lb_common::abi::{CookieKey, LiveState};

/// The rotation of the keys of a live-state record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The length of a slot, in nanoseconds.
    slot: u64,
}

impl Keys {
    /// Keys that make cookies for so long.
    #[must_use]
    pub fn new(lifetime: Duration) -> Self {
        Self { slot: u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX / 4) }
    }

    /// How long cookies are honoured after the last was made: a slot.
    #[must_use]
    pub fn linger(&self) -> u64 {
        self.slot
    }

    /// Whether a new key is due: there is none, the current one has had its slot, or it was made for longer slots.
    #[must_use]
    pub fn is_due(&self, live: &LiveState, now: u64) -> bool {
        let CookieKey { honoured_until, .. } = live.keys[(live.parity & 1) as usize];
        let slot_ends = honoured_until.saturating_sub(self.slot);
        now >= slot_ends || slot_ends > now.saturating_add(self.slot)
    }

    /// The record with a new key in the place of the older one, not in use yet; then with the new key in use. Each is to be written whole
    /// before the next.
    #[must_use]
    pub fn rotated(&self, live: &LiveState, now: u64, random: [u64; 2]) -> [LiveState; 2] {
        let parity = (live.parity & 1) ^ 1;
        let mut written = *live;
        written.keys[parity as usize] = CookieKey { words: random, honoured_until: now.saturating_add(2 * self.slot) };
        // The key that made cookies up to now is honoured for a slot from now on, however late this is.
        let other = &mut written.keys[(parity ^ 1) as usize];
        if other.honoured_until != 0 {
            other.honoured_until = now.saturating_add(self.slot);
        }
        [written, LiveState { parity, key_made_at: now, ..written }]
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_key_lives_for_a_slot_and_is_honoured_for_one_more() {
        let keys = Keys::new(Duration::from_secs(60));
        let empty = LiveState::new_zeroed();
        let start = 1_000 * SECOND;
        assert!(keys.is_due(&empty, start));
        let [written, first] = keys.rotated(&empty, start, [1, 2]);
        assert_eq!((written.parity, first.parity), (0, 1), "written before it is in use");
        assert_eq!(first.key(1, start + 119 * SECOND), Some([1, 2]));
        assert!(!keys.is_due(&first, start + 59 * SECOND) && keys.is_due(&first, start + 60 * SECOND));
        assert_eq!((written.key_made_at, first.key_made_at), (0, start));
        let [_, second] = keys.rotated(&first, start + 60 * SECOND, [3, 4]);
        assert_eq!([second.key(1, start + 119 * SECOND), second.key(1, start + 120 * SECOND)], [Some([1, 2]), None]);
        assert_eq!(second.key(0, start + 179 * SECOND), Some([3, 4]));
        let [written, third] = keys.rotated(&second, start + 120 * SECOND, [5, 6]);
        assert_eq!(written.key(1, start + 121 * SECOND), Some([5, 6]), "in the place of the oldest");
        assert_eq!(third.parity, 1);
    }

    #[test]
    fn a_late_rotation_loses_no_client() {
        let keys = Keys::new(Duration::from_secs(60));
        let [_, first] = keys.rotated(&LiveState::new_zeroed(), SECOND, [1, 2]);
        let late = 118 * SECOND;
        let [_, second] = keys.rotated(&first, late, [3, 4]);
        assert_eq!(second.key(first.parity, late + 59 * SECOND), Some([1, 2]), "a cookie of a moment ago");
    }

    #[test]
    fn shorter_slots_take_hold_at_once() {
        let [_, live] = Keys::new(Duration::from_secs(600)).rotated(&LiveState::new_zeroed(), SECOND, [1, 2]);
        assert!(Keys::new(Duration::from_secs(10)).is_due(&live, 2 * SECOND));
    }
}
