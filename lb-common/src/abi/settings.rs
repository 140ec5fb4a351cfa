//! What the programs need to know as a whole, and the UDP flow table.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one record of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// The key of the flow hash, from the operating system's random numbers. It lives as long as the data plane, so that flows keep
    /// their backend across a restart of the daemon.
    pub flow_hash_key: [u64; 2],
    /// [`super::ABI_VERSION`] of the daemon that made the maps.
    pub abi_version: u32,
    /// How many new UDP flows a CPU may enter in the flow table in a second.
    pub udp_new_flows_per_second: u32,
    /// When the data plane was attached, in nanoseconds of CLOCK_BOOTTIME.
    pub attached_at: u64,
    /// A digest of the object whose programs are attached: the same object needs no replacing.
    pub object_digest: u64,
}

/// Which backend a UDP flow has. The key is a [`crate::FlowKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpFlow {
    /// Its slot in the socket array.
    pub slot: u32,
    /// The slot's generation when the flow was entered.
    pub generation: u32,
}

/// One CPU's budget of new UDP flows, refilled at the start of each second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InsertBudget {
    /// When the current second began, in nanoseconds of `bpf_ktime_get_ns`.
    pub since: u64,
    /// How many flows were entered in it.
    pub spent: u64,
}

impl InsertBudget {
    /// Takes one from the budget if there is one left.
    #[inline(always)]
    pub fn take(&mut self, now: u64, per_second: u32) -> bool {
        if now.wrapping_sub(self.since) >= 1_000_000_000 {
            self.since = now;
            self.spent = 0;
        }
        if self.spent >= u64::from(per_second) {
            return false;
        }
        self.spent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_budget_and_no_more() {
        let mut budget = InsertBudget::default();
        let start = 5_000_000_000;
        assert_eq!((0..10).filter(|n| budget.take(start + n, 3)).count(), 3);
        assert!(!budget.take(start + 999_999_999, 3));
        assert!(budget.take(start + 1_000_000_000, 3));
        assert_eq!((0..10).filter(|n| budget.take(start + 1_000_000_001 + n, 3)).count(), 2);
        assert!(!budget.take(start + 1_500_000_000, 0));
    }

    #[test]
    fn a_clock_that_goes_back_refills_and_does_not_stick() {
        let mut budget = InsertBudget { since: 9_000_000_000, spent: 3 };
        assert!(budget.take(1_000, 3));
    }
}
