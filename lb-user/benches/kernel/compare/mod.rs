//! What a user would pick instead, at the same work: the kernel's own hash, nginx's one socket, HAProxy in front, nftables, Weir.
//!
//! Each has four nginx workers to spread connections over, and the same clients. They take turns, round by round, each in namespaces of its
//! own that end with the turn: the programs of Weir that watch all sockets of the machine are no burden to the others.

pub mod reload;
mod scene;
pub mod slow_worker;
pub mod spread;
mod stalls;

use serde_json::{Value, json};

use crate::{Filter, report::median, support::prerequisites::raise_open_file_limit};

use scene::Scene;

/// Every balancer has so many turns.
const ROUNDS: usize = 3;

/// What spreads the connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Setting {
    /// A socket for each worker (nginx `reuseport`), and the kernel's hash.
    Hash,
    /// One socket, at which all workers wait: nginx as it is by itself.
    OneSocket,
    /// HAProxy before a server for each worker, by this algorithm.
    Proxy(&'static str),
    /// nftables translates the destination to a server for each worker, by this expression.
    Translation(&'static str),
    /// As the first, with an XDP program on the server's device that passes everything: what no program on veth costs less than.
    PassingProgram,
    /// A socket for each worker, and Weir with this configuration beside what it does by itself.
    Weir(&'static str),
}

/// What every kernel does by itself: the others are compared with it.
const REFERENCE: &str = "SO_REUSEPORT, the kernel's hash";

const SETTINGS: &[(&str, Setting)] = &[
    (REFERENCE, Setting::Hash),
    ("nginx, one socket", Setting::OneSocket),
    ("HAProxy, roundrobin", Setting::Proxy("roundrobin")),
    ("HAProxy, leastconn", Setting::Proxy("leastconn")),
    ("nftables, numgen random", Setting::Translation("numgen random")),
    ("nftables, jhash", Setting::Translation("jhash ip saddr . tcp sport")),
    ("Weir", Setting::Weir("")),
];

/// Gives each of the settings that the filter takes its turns, in alternation, and makes a row of what each has given.
fn by_turns<Turn>(
    filter: &Filter,
    settings: &[(&'static str, Setting)],
    turn: impl Fn(&mut Scene, u64) -> Turn,
) -> Vec<(&'static str, Vec<Turn>)> {
    let mut turns: Vec<_> = settings.iter().filter(|(name, _)| filter.takes(name)).map(|setting| (*setting, Vec::new())).collect();
    if !turns.is_empty() {
        raise_open_file_limit();
    }
    for round in 1..=ROUNDS as u64 {
        for ((name, setting), turns) in &mut turns {
            let mut scene = Scene::new(*setting);
            turns.push(turn(&mut scene, round));
            if scene.has_seen_a_flood() {
                eprintln!("{name}, round {round}: the load was taken for a flood");
            }
        }
    }
    turns.into_iter().map(|((name, _), turns)| (name, turns)).collect()
}

/// The median over the turns.
fn middle<Turn>(turns: &[Turn], value: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<_> = turns.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// A figure with two decimals.
fn hundredths(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
