//! The floods of the scenes, each until it is dropped.

use std::any::Any;
use std::time::Duration;

use super::Aim;
use crate::support::flood::{Flood, FloodKind, FloodPlan, hping3, mac_of, trafgen};

/// Lines of `[defence]`: a flood begins at 10,000 packets a second, for two processors are soon busy with those of a real one.
pub const EARLY: &str = "flood_syns_per_second = 10000\nflood_strays_per_second = 10000\n";
/// A configuration with these lines of `[defence]` besides.
pub fn defence(more: &str) -> String {
    format!("[defence]\n{EARLY}{more}\n")
}

/// SYNs a second of the generator and of trafgen: twice that, and a tenth of what one processor does. A flood that takes all there is
/// measures who gets the processor.
pub const RATE: u64 = 20_000;
/// No flood of a test lasts longer.
pub const LONGEST: Duration = Duration::from_secs(60);

/// hping3 at about that rate: SYNs without options from anywhere. IPv4 only.
pub fn by_hping3(aim: &Aim<'_>) -> Box<dyn Any> {
    /// It is late by more than as much again.
    const PAUSE: Duration = Duration::from_micros(20);
    Box::new(hping3(aim.from.0, aim.target, Some(PAUSE), LONGEST))
}

/// trafgen: the same at a rate. IPv4 only.
pub fn by_trafgen(aim: &Aim<'_>) -> Box<dyn Any> {
    let packets = RATE * LONGEST.as_secs();
    Box::new(trafgen(aim.from.0, aim.from.1, aim.target, mac_of(aim.to.0, aim.to.1), packets, Some(RATE), LONGEST))
}

/// The generator: SYNs with the options of real clients in turn.
pub fn by_generator(aim: &Aim<'_>) -> Box<dyn Any> {
    Box::new(generated(aim, &plan(aim, FloodKind::Syn)))
}

/// The generator at another rate: one that the kernel alone bears as well, beside clients, on two processors.
pub fn at_rate(aim: &Aim<'_>, rate: u64) -> Flood {
    generated(aim, &plan(aim, FloodKind::Syn).rate(rate))
}

/// A plan of the generator's at [`RATE`], for as long as a flood may last.
pub fn plan(aim: &Aim<'_>, kind: FloodKind) -> FloodPlan {
    let mac = mac_of(aim.to.0, aim.to.1);
    FloodPlan::new(kind, aim.target, mac).packets(u64::MAX).lasting(LONGEST).rate(RATE)
}

/// Starts the generator.
pub fn generated(aim: &Aim<'_>, plan: &FloodPlan) -> Flood {
    Flood::start(aim.from.0, aim.from.1, plan)
}
