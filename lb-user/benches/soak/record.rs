//! What has happened in all rounds so far.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    disturb::Disturbance,
    holdings,
    judge::{self, Delays, EQUATIONS, Holdings, Lateness},
    round::{Intent, name},
    support::{
        flood::{Flood, FloodKind},
        load::Report,
    },
    world::SERVICES,
};

/// How long a daemon warms up before its memory is held against it.
const WARM_UP: Duration = Duration::from_secs(30);

/// A flood that is over.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    pub kind: FloodKind,
    pub packets: u64,
}

impl Flooded {
    pub fn stop((kind, flood): (FloodKind, Flood)) -> Self {
        Self { kind, packets: flood.stop().sent }
    }
}

/// What a round was.
#[derive(Debug)]
pub struct Round<'a> {
    pub done: Disturbance,
    pub flooded: Option<Flooded>,
    pub reports: &'a [Report; SERVICES.len()],
}

/// The life of one daemon: its process, since when it is watched, and its memory in KiB after each round, with the time.
#[derive(Debug)]
pub struct Life {
    pid: u32,
    since: Instant,
    samples: Vec<(Duration, u64)>,
}

impl Life {
    /// From the first look to the last.
    pub fn length(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// What counts: after the warm-up.
    pub fn warm(&self) -> Vec<u64> {
        self.samples.iter().filter(|(at, _)| *at >= WARM_UP).map(|(_, memory)| *memory).collect()
    }
}

/// An invariant that broke.
#[derive(Debug)]
pub struct Broken {
    pub at: Duration,
    pub round: u64,
    pub after: String,
    pub what: String,
}

/// Everything.
#[derive(Debug)]
pub struct Record {
    pub start: Instant,
    pub rounds: u64,
    pub disturbances: BTreeMap<Disturbance, u64>,
    pub floods: BTreeMap<&'static str, (u64, u64)>,
    pub attempted: [u64; SERVICES.len()],
    pub completed: [u64; SERVICES.len()],
    pub lost_with_workers: u64,
    pub unexplained: u64,
    pub held_checks: u64,
    pub held_lost: u64,
    pub late: Lateness,
    pub slow: u64,
    pub slowest_calm: Duration,
    pub slowest_flood: Duration,
    pub rotations: u64,
    key_age: Option<f64>,
    pub equations: [u64; EQUATIONS.len()],
    pub lives: Vec<Life>,
    pub holdings: Option<Holdings>,
    pub broken: Vec<Broken>,
    /// Whether Weir was stopped at the end, and left nothing.
    pub left_nothing: bool,
    intent: String,
}

impl Record {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            rounds: 0,
            disturbances: BTreeMap::new(),
            floods: BTreeMap::new(),
            attempted: [0; SERVICES.len()],
            completed: [0; SERVICES.len()],
            lost_with_workers: 0,
            unexplained: 0,
            held_checks: 0,
            held_lost: 0,
            late: Lateness::default(),
            slow: 0,
            slowest_calm: Duration::ZERO,
            slowest_flood: Duration::ZERO,
            rotations: 0,
            key_age: None,
            equations: [0; EQUATIONS.len()],
            lives: Vec::new(),
            holdings: None,
            broken: Vec::new(),
            left_nothing: false,
            intent: String::new(),
        }
    }

    /// A round begins.
    pub fn begin(&mut self, intent: Intent) {
        self.rounds += 1;
        self.intent = intent.to_string();
        println!("{:>7.1} s  round {}: {}", self.start.elapsed().as_secs_f64(), self.rounds, self.intent);
    }

    /// What was done, what its clients say, and its flood.
    pub fn add(&mut self, round: &Round<'_>) {
        *self.disturbances.entry(round.done).or_default() += 1;
        if let Some(flooded) = round.flooded {
            let (floods, packets) = self.floods.entry(name(flooded.kind)).or_default();
            *floods += 1;
            *packets += flooded.packets;
        }
        let slowest = if round.flooded.is_some() { &mut self.slowest_flood } else { &mut self.slowest_calm };
        for (service, report) in round.reports.iter().enumerate() {
            *slowest = (*slowest).max(report.slowest);
            self.attempted[service] += report.attempted();
            self.completed[service] += report.ok;
        }
    }

    pub fn late(&mut self, found: &Lateness, delays: Delays) {
        let Lateness { by_closing, by_flood, by_machine, unexplained } = found;
        self.late.by_closing += by_closing;
        self.late.by_flood += by_flood;
        self.late.by_machine += by_machine;
        self.slow += delays.slow;
        if delays.slow > 0 || delays.syns_again > 0 {
            println!("           {} slow, {} SYNs sent again, {} timeouts", delays.slow, delays.syns_again, delays.timeouts);
        }
        for problem in unexplained {
            self.broken("a packet was lost", problem);
        }
    }

    /// One of the equations was checked.
    pub fn equation(&mut self, number: usize) {
        self.equations[number] += 1;
    }

    /// A key that is younger than the one before is another one.
    pub fn key(&mut self, age: Option<f64>) {
        if let (Some(now), Some(before)) = (age, self.key_age)
            && now < before
        {
            self.rotations += 1;
        }
        self.key_age = age;
    }

    pub fn memory(&mut self, pid: u32) {
        if self.lives.last().is_none_or(|life| life.pid != pid) {
            self.lives.push(Life { pid, since: Instant::now(), samples: Vec::new() });
        }
        if let Some(life) = self.lives.last_mut() {
            life.samples.push((life.since.elapsed(), holdings::memory(pid)));
        }
        let warm = self.lives.last().map(Life::warm).unwrap_or_default();
        if let Err(problem) = judge::flat(&warm) {
            self.broken("memory is not flat", &problem);
        }
    }

    /// The daemon's memory at the first look, at that in the middle, and at the last.
    pub fn memories(&self) -> [u64; 3] {
        let all: Vec<u64> = self.lives.iter().flat_map(|life| &life.samples).map(|(_, memory)| *memory).collect();
        [0, all.len() / 2, all.len().saturating_sub(1)].map(|at| all.get(at).copied().unwrap_or(0))
    }

    /// The daemon that was watched longest.
    pub fn longest_life(&self) -> Option<&Life> {
        self.lives.iter().max_by_key(|life| life.length())
    }

    /// Writes down an invariant that broke, and says so.
    pub fn broken(&mut self, what: &str, how: &str) {
        let broken = Broken { at: self.start.elapsed(), round: self.rounds, after: self.intent.clone(), what: format!("{what}: {how}") };
        println!("BROKEN at {:.1} s, round {}, after: {}\n       {}", broken.at.as_secs_f64(), broken.round, broken.after, broken.what);
        self.broken.push(broken);
    }

    /// A line for whoever waits.
    pub fn summary(&self) -> String {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        format!(
            "{:>7.1} s  == {} rounds, {} connections, {} completed, {} lost with killed workers, {} unexplained; {} KiB; {} broken",
            self.start.elapsed().as_secs_f64(),
            self.rounds,
            sum(&self.attempted),
            sum(&self.completed),
            self.lost_with_workers,
            self.unexplained,
            self.memories()[2],
            self.broken.len()
        )
    }
}
