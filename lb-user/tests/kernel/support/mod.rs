//! What the tests stand on: packets, namespaces, the daemon, servers, load.
//!
//! Everything here panics with a sentence when it cannot do its part: a test that cannot be set up has failed.

pub mod browser;
pub mod capture;
pub mod confined_role;
pub mod counters;
pub mod cpu;
pub mod daemon;
pub mod dashboards;
pub mod demo_role;
pub mod flood;
pub mod http;
pub mod interrupt;
pub mod load;
pub mod metrics;
pub mod netns;
pub mod packet;
pub mod prerequisites;
pub mod prometheus;
pub mod random;
pub mod raw;
pub mod replay;
pub mod roles;
pub mod screen_role;
mod selftest;
pub mod servers;
pub mod snmp;
pub mod tcp;
pub mod terminal;
pub mod wait;
pub mod wire;

use libtest_mimic::Trial;

/// The tests of this support library itself, none of which needs Weir.
pub fn tests() -> Vec<Trial> {
    [selftest::tests(), packet::selftest::tests(), flood::selftest::tests()].into_iter().flatten().collect()
}

/// A test by the name of its function's module and itself, which fails by panicking.
pub fn trial(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}
