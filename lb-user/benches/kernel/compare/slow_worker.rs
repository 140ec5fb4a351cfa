//! What clients notice when one worker of the group stalls now and then.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    REFERENCE, SETTINGS, Setting, by_turns, hundredths, middle,
    scene::Scene,
    stalls::{self, Stalls},
};
use crate::{
    Filter,
    report::Table,
    support::load::{Report, Steady},
};

/// Connections a second, whatever becomes of those before: clients who wait for each other would spare the worker that stalls themselves.
const RATE: u32 = 1000;
/// Threads that open them: a stall of 200 ms keeps a quarter of what comes in that time waiting, and these are enough even for all of it.
const CLIENTS: usize = 256;
const LASTING: Duration = Duration::from_secs(4);
/// The most that Weir's p99 may be of the hash's.
const AT_MOST: f64 = 0.5;

/// Beside the others, Weir as its documentation has it for workers that accept nothing for a while.
const RELIEVING: (&str, Setting) = ("Weir, stalled_after = \"20ms\"", Setting::Weir("steering.stalled_after = \"20ms\"\n"));

/// Measures all balancers.
pub fn measure(filter: &Filter) -> Table {
    let turns = by_turns(filter, &[SETTINGS, &[RELIEVING]].concat(), turn);
    let p99 = |turns: &[Report]| middle(turns, |report| milliseconds(report.first_response.p99()));
    let reference = turns.iter().find(|(name, _)| *name == REFERENCE).map(|(_, turns)| p99(turns));
    let [least, most] = stalls::PAUSES;
    Table {
        about: format!(
            "**A slow worker**: one of the four is stopped for {} ms at random times, {} to {} ms apart; {RATE} connections a second, each \
             when it is due, whatever becomes of the others; the time is from the beginning of connect to the first byte of the response; \
             by turns of {} s, medians of {}",
            stalls::LASTING.as_millis(),
            least.as_millis(),
            most.as_millis(),
            LASTING.as_secs(),
            super::ROUNDS
        ),
        columns: &[
            ("balancer", "balancer"),
            ("p50_ms", "p50, ms"),
            ("p99_ms", "p99, ms"),
            ("p999_ms", "p99.9, ms"),
            ("ratio", "p99, the hash is 1"),
            ("at_most", "to reach"),
            ("reached", ""),
            ("connections", "connections"),
            ("failed", "failed"),
        ],
        rows: turns.iter().map(|(name, turns)| row(name, turns, reference.map(|reference| p99(turns) / reference))).collect(),
    }
}

fn row(name: &str, turns: &[Report], ratio: Option<f64>) -> Vec<Value> {
    let time = |of: fn(&Report) -> Duration| hundredths(middle(turns, |report| milliseconds(of(report))));
    let at_most = (name == RELIEVING.0).then_some(AT_MOST);
    vec![
        json!(name),
        time(|report| report.first_response.p50()),
        time(|report| report.first_response.p99()),
        time(|report| report.first_response.p999()),
        json!(ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0)),
        json!(at_most),
        json!(at_most.zip(ratio).map(|(limit, ratio)| ratio <= limit)),
        json!(turns.iter().map(Report::attempted).sum::<u64>()),
        json!(turns.iter().map(|report| report.failures.len()).sum::<usize>()),
    ]
}

/// The same times of stalling for every balancer, others in each round.
fn turn(scene: &mut Scene, round: u64) -> Report {
    let load = Steady::at_rate(scene.client(), &scene.plan().concurrency(CLIENTS), RATE);
    let stalls = Stalls::of(scene.workers()[0], round);
    std::thread::sleep(LASTING);
    stalls.end();
    load.stop()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
