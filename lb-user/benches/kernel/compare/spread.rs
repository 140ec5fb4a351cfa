//! What it costs to spread short connections over workers, how evenly they are spread, and how long they take.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use super::{REFERENCE, SETTINGS, Setting, by_turns, hundredths, middle, scene::Scene};
use crate::{
    Filter,
    report::Table,
    support::{
        cpu,
        load::{Report, Steady, Wrk},
    },
};

/// Connections that wrk has open at a time.
const CONNECTIONS: u32 = 64;
/// How long it has them.
const FULL_SPEED: Duration = Duration::from_secs(2);
/// Connections a second at which the processors' time is taken: all balancers reach it, so that none saves by doing less.
const RATE: u32 = 2000;
/// For how long.
const PACED: Duration = Duration::from_secs(2);
/// Threads of the paced client.
const CLIENTS: usize = 32;

/// Beside them, what of Weir's cost is that of any program there.
const FLOOR: (&str, Setting) = ("(floor: the hash, XDP passes all)", Setting::PassingProgram);

/// What one turn gave.
struct Turn {
    per_second: f64,
    /// Milliseconds: p50, p99, p99.9.
    latency: [f64; 3],
    /// Connections of the worker that had most, by the mean: at full speed, and at [`RATE`].
    most: [f64; 2],
    /// Microseconds of a processor for each connection.
    cost: f64,
    failed: u64,
}

/// Measures all balancers.
pub fn measure(filter: &Filter) -> Table {
    let turns = by_turns(filter, &[SETTINGS, &[FLOOR]].concat(), |scene, _| turn(scene));
    let cost = |turns: &[Turn]| middle(turns, |turn| turn.cost);
    let reference = turns.iter().find(|(name, _)| *name == REFERENCE).map(|(_, turns)| cost(turns));
    Table {
        about: format!(
            "**Spreading**: HTTP over veth, one short request for each connection, to four nginx workers; wrk with {CONNECTIONS} \
             connections at full speed gives the rate, the latency (from the request to the end of its response) and the evenness; CPU is \
             the time of all that takes part in a connection, the client and the kernel included, at {RATE} connections a second; by \
             turns, medians of {}",
            super::ROUNDS
        ),
        columns: &[
            ("balancer", "balancer"),
            ("per_second", "connections/s"),
            ("cpu_us", "CPU, µs/connection"),
            ("cpu_ratio", "CPU, the hash is 1"),
            ("p50_ms", "p50, ms"),
            ("p99_ms", "p99, ms"),
            ("p999_ms", "p99.9, ms"),
            ("most", "busiest worker at full speed, the mean is 1"),
            ("most_paced", "at that rate"),
            ("failed", "failed"),
        ],
        rows: turns.iter().map(|(name, turns)| row(name, turns, cost(turns), reference)).collect(),
    }
}

fn row(name: &str, turns: &[Turn], cost: f64, reference: Option<f64>) -> Vec<Value> {
    let latency = |which: usize| hundredths(middle(turns, |turn| turn.latency[which]));
    vec![
        json!(name),
        json!(middle(turns, |turn| turn.per_second).round()),
        json!(cost.round()),
        json!(reference.map(|reference| hundredths(cost / reference))),
        latency(0),
        latency(1),
        latency(2),
        hundredths(middle(turns, |turn| turn.most[0])),
        hundredths(middle(turns, |turn| turn.most[1])),
        json!(turns.iter().map(|turn| turn.failed).sum::<u64>()),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "counts of connections, and microseconds, far below 2^53")]
fn turn(scene: &Scene) -> Turn {
    let workers = scene.workers();
    let answers = || workers.iter().map(|worker| answers(*worker)).collect::<Vec<_>>();
    let before = answers();
    let report = Wrk::start(scene.client(), CONNECTIONS, FULL_SPEED, true, &scene.url()).finish();
    let answered: Vec<_> = answers().iter().zip(&before).map(|(now, then)| now - then).collect();

    let (cost, paced) = paced(scene);
    let answered_then: Vec<_> = workers.iter().map(|worker| paced.by_worker.get(worker).copied().unwrap_or_default()).collect();
    Turn {
        per_second: report.requests as f64 / FULL_SPEED.as_secs_f64(),
        latency: report.latency.map(|microseconds| microseconds as f64 / 1e3),
        most: [most(&answered), most(&answered_then)],
        cost,
        failed: report.errors() + paced.failures.len() as u64,
    }
}

/// The largest by the mean.
#[expect(clippy::cast_precision_loss, reason = "counts of connections, far below 2^53")]
fn most(counts: &[u64]) -> f64 {
    let (largest, sum) = (counts.iter().copied().max().unwrap_or_default(), counts.iter().sum::<u64>());
    largest as f64 * counts.len() as f64 / sum as f64
}

/// Connections at a rate that leaves the processors time: how long they run for each, in microseconds, and what became of them.
///
/// The time of those who take part is summed up, so that nobody else's is among it: nothing on a veth comes by an interrupt, and what a
/// packet does on arrival runs in the time of its sender, or of the kernel's thread for soft interrupts.
#[expect(clippy::cast_precision_loss, reason = "counts of connections, far below 2^53")]
fn paced(scene: &Scene) -> (f64, Report) {
    let load = Steady::at_rate(scene.client(), &scene.plan().concurrency(CLIENTS), RATE);
    load.wait_for(u64::from(RATE) / 10);
    let taking_part: Vec<_> =
        [scene.processes(), cpu::processes_named("ksoftirqd/").into_iter().collect(), vec![std::process::id()]].concat();
    let spent = || taking_part.iter().map(|process| cpu::run_time(*process)).sum::<Duration>();
    let (before, completed) = (spent(), load.completed());
    std::thread::sleep(PACED);
    let (spent, completed) = (spent().saturating_sub(before), load.completed() - completed);
    (spent.as_secs_f64() * 1e6 / completed as f64, load.stop())
}

/// How often a worker of nginx has written so far, which is once for each response: it keeps no count of its own, and one of the kernel's
/// costs it nothing.
fn answers(worker: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{worker}/io")).expect("the workers live as long as the turn");
    let writes = text.lines().find_map(|line| line.strip_prefix("syscw: "));
    writes.and_then(|count| count.parse().ok()).expect("the kernel counts system calls that write")
}
