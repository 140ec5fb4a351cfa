//! Connections that fail while the number of workers changes under load.

use serde_json::json;

use super::{SETTINGS, by_turns, scene::Scene};
use crate::{
    Filter,
    report::Table,
    support::load::{Report, Steady},
};

/// From four workers to these, one after another.
const STEPS: [usize; 3] = [2, 4, 2];
/// Clients who open one connection after another, so that some always wait to be accepted.
const CLIENTS: usize = 64;
/// Connections between two steps.
const BETWEEN: u64 = 500;

/// Measures all balancers.
pub fn measure(filter: &Filter) -> Table {
    let turns = by_turns(filter, SETTINGS, turn);
    Table {
        about: format!(
            "**Reloads**: from four workers to two, to four and to two again, under {CLIENTS} clients who open one connection after another; \
             the one nginx is reloaded, the proxy is reloaded and the ruleset replaced before the servers that are too many are told to \
             quit; the sum of {} turns",
            super::ROUNDS
        ),
        columns: &[
            ("balancer", "balancer"),
            ("connections", "connections"),
            ("failed", "failed"),
            ("slow", "slow (a packet lost)"),
            ("causes", "how they failed"),
        ],
        rows: turns
            .iter()
            .map(|(name, turns)| {
                let sum = |of: fn(&Report) -> u64| turns.iter().map(of).sum::<u64>();
                let mut causes: Vec<_> = turns.iter().flat_map(Report::failures_by_kind).map(|(kind, _)| kind).collect();
                causes.sort();
                causes.dedup();
                let failed = sum(|report| report.failures.len() as u64);
                vec![json!(name), json!(sum(Report::attempted)), json!(failed), json!(sum(|report| report.slow)), json!(causes.join(", "))]
            })
            .collect(),
    }
}

fn turn(scene: &mut Scene, _round: u64) -> Report {
    let load = Steady::closed_loop(scene.client(), &scene.plan().concurrency(CLIENTS));
    load.wait_for(BETWEEN);
    for workers in STEPS {
        scene.resize(workers);
        load.wait_for(BETWEEN);
    }
    load.stop()
}
