//! Weir disturbed for as long as one likes: `cargo xtask soak --minutes N`, as root.
//!
//! Rounds of steady load on real servers, in each of which something is done to Weir or to its workers, by chances that one seed repeats;
//! in a third of the rounds there is a flood as well. Between two rounds the load rests, so that what was counted can be held against what
//! the clients, the workers and the kernel say: to the packet, not about. In the middle third nothing ends the daemon, so that its memory
//! is seen to be flat over a life that is long.

// The tests' own modules: what is soaked is what is tested.
#[expect(dead_code, reason = "a library for the tests: the soak uses a part of it")]
#[path = "../../tests/kernel/dataplane/mod.rs"]
mod dataplane;
#[expect(dead_code, reason = "a library for the tests: the soak uses a part of it")]
#[path = "../../tests/kernel/support/mod.rs"]
mod support;

mod counts;
mod disturb;
mod holdings;
mod judge;
mod load;
mod netns;
mod options;
mod record;
mod report;
mod round;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    options::{Options, Sabotage},
    record::Record,
    round::Intent,
    support::random::Random,
    world::World,
};

/// What Ctrl-C gives a command.
const INTERRUPTED_EXIT: u8 = 130;
/// How often a summary is shown.
const SUMMARY: Duration = Duration::from_secs(10);
/// Connections that stay open do so for so many rounds.
const HELD_FOR: u64 = 10;
/// After so many faults there is nothing to learn from more.
const ENOUGH: usize = 20;
/// The round that is sabotaged.
const SABOTAGED: u64 = 2;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--role") {
        // A worker process of the load.
        return support::roles::play(words);
    }
    let options = match Options::parse(std::env::args().skip(1)).and_then(|options| support::prerequisites::check().map(|()| options)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    // The round under way ends then, and everything is taken away.
    let interrupted = support::interrupt::watch();
    support::netns::sweep();

    println!("soak for {} minutes; --seed {} repeats its chances", options.length.as_secs() / 60, options.seed);
    let mut record = Record::new();
    // What cannot be carried out panics: an invariant of its own, after which everything is taken away like otherwise.
    let ended = catch_unwind(AssertUnwindSafe(|| soak(&options, &mut record, &interrupted)));
    let interrupted = interrupted.load(Ordering::Relaxed);
    let is_whole = ended.is_ok();
    if let Err(panic) = ended
        && !interrupted
    {
        let said = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        record.broken("what was to happen did not", said.as_deref().unwrap_or("a panic without words"));
    }
    let text = report::write(
        &record,
        &options,
        match (interrupted, is_whole) {
            (true, _) => "interrupted",
            (false, true) => "to its end",
            (false, false) => "broken off",
        },
    );
    println!("{}\n\n{text}", record.summary());
    if let Some(file) = &options.report
        && let Err(error) = std::fs::write(file, text)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    match (interrupted, record.broken.is_empty()) {
        (true, _) => ExitCode::from(INTERRUPTED_EXIT),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

/// Round by round, until the time is up; then Weir is stopped, and has to leave nothing.
fn soak(options: &Options, record: &mut Record, interrupted: &AtomicBool) {
    let mut world = World::new();
    let mut random = Random::new(options.seed);
    let mut summed_up = Instant::now();
    let mut kept = None;
    record.start = Instant::now();
    while record.start.elapsed() < options.length && record.broken.len() < ENOUGH && !interrupted.load(Ordering::Relaxed) {
        let is_middle_third = (1..2).contains(&(record.start.elapsed().as_millis() * 3 / options.length.as_millis().max(1)));
        if record.rounds.is_multiple_of(HELD_FOR) {
            world.hold_anew();
        }
        let mut intent = Intent::next(&mut random, !is_middle_third);
        let sabotage = options.sabotage.filter(|_| record.rounds + 1 == SABOTAGED);
        if let Some(sabotage) = sabotage {
            intent = sabotaged(sabotage);
        }
        record.begin(intent);
        if sabotage == Some(Sabotage::HeldTable) {
            kept = holdings::keep_a_table(&world);
        }
        round::play(&mut world, intent, &mut random, record, sabotage);
        if summed_up.elapsed() >= SUMMARY {
            println!("{}", record.summary());
            summed_up = Instant::now();
        }
    }
    if interrupted.load(Ordering::Relaxed) {
        return;
    }
    if !record.broken.is_empty() {
        // Where a round panics, the log is shown as everything is taken away.
        println!("--- weir\n{}", world.weir.log());
    }
    match holdings::stop_and_look(&mut world) {
        Ok(()) => record.left_nothing = true,
        Err(problem) => record.broken("something is left", &problem),
    }
    drop(kept);
}

/// The round in which the deliberate fault shows.
fn sabotaged(sabotage: Sabotage) -> Intent {
    let disturbance = match sabotage {
        Sabotage::UnclaimedKill => disturb::Disturbance::WorkerKilled,
        // A table that is swapped would be freed, but for who keeps it.
        Sabotage::HeldTable => disturb::Disturbance::WorkerJoins,
        Sabotage::LostSyns => disturb::Disturbance::Nothing,
    };
    Intent { disturbance, flood: None }
}
