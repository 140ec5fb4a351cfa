//! A round: steady load, something that is done to it, perhaps a flood on top, and then rest, in which everything has to add up.

use std::{fmt, time::Duration};

use crate::{
    counts::Counts,
    disturb::{Disturbance, Outcome},
    judge::{self, Delays, Holdings},
    load::Load,
    options::Sabotage,
    record::{Flooded, Record, Round},
    support::{
        flood::{Flood, FloodKind, FloodPlan},
        load::Report,
        netns::Pair,
        random::Random,
    },
    world::{GROUPS, SERVICES, World},
};

/// How often a round has a flood, in percent.
const FLOODS: u64 = 35;
/// Packets a second of a flood: twice what counts as one, and a tenth of what one processor does.
const FLOOD_RATE: u64 = 20_000;
/// No flood lasts longer, whatever becomes of its round.
const LONGEST_FLOOD: Duration = Duration::from_secs(40);
/// What the last segments, and the kernel's freeing of what nobody uses, need.
const MOMENT: Duration = Duration::from_millis(150);
/// How long descriptors and maps of what is over may last.
const LINGERING: Duration = Duration::from_secs(10);

/// What a flood consists of: of SYNs more often than of anything else.
const KINDS: [FloodKind; 6] = [FloodKind::Syn, FloodKind::Syn, FloodKind::Ack, FloodKind::SynAck, FloodKind::Rst, FloodKind::Fin];

/// What a round is going to be.
#[derive(Clone, Copy, Debug)]
pub struct Intent {
    pub disturbance: Disturbance,
    /// Kind and target.
    pub flood: Option<(FloodKind, usize)>,
}

impl Intent {
    /// Another one by chance; the daemon is to live on where it is told so.
    pub fn next(random: &mut Random, may_end_the_daemon: bool) -> Self {
        let possible: Vec<Disturbance> = Disturbance::ALL.into_iter().filter(|one| may_end_the_daemon || !one.ends_the_daemon()).collect();
        let disturbance = random.one_of(&possible).copied().unwrap_or(Disturbance::Nothing);
        let has_flood = random.percent(FLOODS) && disturbance.bears_a_flood();
        let kind = random.one_of(&KINDS).copied().unwrap_or(FloodKind::Syn);
        let target = random.index(SERVICES.len());
        Self { disturbance, flood: has_flood.then_some((kind, target)) }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.disturbance.label())?;
        match self.flood {
            Some((kind, target)) => write!(formatter, ", in a flood of {} on {}", name(kind), SERVICES[target]),
            None => Ok(()),
        }
    }
}

/// A flood's kind in words.
pub fn name(kind: FloodKind) -> &'static str {
    match kind {
        FloodKind::Syn => "SYNs",
        FloodKind::Ack => "ACKs",
        FloodKind::SynAck => "SYN-ACKs",
        FloodKind::Rst => "RSTs",
        FloodKind::Fin => "FINs",
        FloodKind::Flags(_) | FloodKind::Udp => "others",
    }
}

/// Plays one round, and writes down what was found wrong. What cannot be carried out at all panics.
pub fn play(world: &mut World, intent: Intent, random: &mut Random, record: &mut Record, sabotage: Option<Sabotage>) {
    let before = Counts::read(world);
    let load = Load::start(world);
    std::thread::sleep(random.milliseconds(300, 1200));
    if sabotage == Some(Sabotage::LostSyns) {
        world.pair.server.nft(
            "table ip sabotage {\n chain input {\n type filter hook input priority 0\n tcp flags syn limit rate 3/second drop\n }\n }",
        );
    }
    let flood = intent.flood.map(|(kind, target)| {
        let plan = FloodPlan::new(kind, world.target(target), world.mac).packets(u64::MAX).lasting(LONGEST_FLOOD).rate(FLOOD_RATE);
        let flood = Flood::start(&world.pair.client, Pair::CLIENT_DEVICE, &plan);
        std::thread::sleep(random.milliseconds(100, 1500));
        (kind, flood)
    });
    let mut outcome = intent.disturbance.disturb(world, &load, random);
    outcome.excuses.flood = flood.is_some();
    if sabotage == Some(Sabotage::UnclaimedKill) {
        outcome.excuses.killed.clear();
        outcome.lost_worker = None;
    }
    std::thread::sleep(random.milliseconds(300, 2000));
    // The flood ends first, or the load.
    let ((reports, failed), flooded) = if random.percent(50) {
        let flooded = flood.map(Flooded::stop);
        std::thread::sleep(random.milliseconds(100, 1000));
        (load.stop(world), flooded)
    } else {
        (load.stop(world), flood.map(Flooded::stop))
    };
    if sabotage == Some(Sabotage::LostSyns) {
        world.pair.server.nft("delete table ip sabotage");
    }
    record.add(&Round { done: outcome.done, flooded, reports: &reports });

    let losses = judge::losses(&failed, &outcome.excuses);
    record.lost_with_workers += losses.of_killed_workers;
    record.unexplained += losses.unexplained.len() as u64;
    losses.unexplained.into_iter().for_each(|problem| record.broken("a connection was lost", &problem));
    check_held(world, &outcome, record);
    if outcome.data_plane_began {
        // It has not seen the connections from before it was there, and does not count them as open.
        world.hold_anew();
    }
    std::thread::sleep(MOMENT);
    world.wait_until_right();
    let strays = intent.flood.is_some_and(|(kind, _)| kind != FloodKind::Syn);
    settle(world, &before, &reports, &outcome, strays, record);
}

/// Of the connections that stay open, those of a killed worker are lost, and no others.
fn check_held(world: &mut World, outcome: &Outcome, record: &mut Record) {
    for (group, name) in SERVICES.into_iter().enumerate().take(GROUPS) {
        let Some(held) = &mut world.groups[group].held else { continue };
        let lost_worker = outcome.lost_worker.filter(|(of, _)| *of == group).map(|(_, worker)| worker);
        let expected = lost_worker.map_or(0, |worker| held.held_by(worker));
        record.held_checks += held.flows().len() as u64;
        let lost = held.check_alive();
        record.held_lost += lost.len() as u64;
        let others: Vec<_> = lost.iter().filter(|(_, answer)| Some(answer.worker) != lost_worker).collect();
        if !others.is_empty() || lost.len() != expected {
            record.unexplained += others.len() as u64;
            record.broken(
                "an open connection was lost",
                &format!("{}: {} lost, {expected} were of the killed worker; the others: {others:?}", name, lost.len()),
            );
        }
    }
}

/// All that has come to rest: what was late, what was counted, what is held.
fn settle(world: &mut World, before: &Counts, reports: &[Report; SERVICES.len()], outcome: &Outcome, strays: bool, record: &mut Record) {
    let after = Counts::read(world);
    let (syns_again, timeouts) = after.sent_again(before);
    let delays = Delays {
        connections: reports.iter().map(Report::attempted).sum(),
        slow: reports.iter().map(|report| report.slow).sum(),
        syns_again,
        timeouts,
    };
    let lateness = judge::lateness(delays, &outcome.excuses);
    record.late(&lateness, delays);

    if !outcome.data_plane_began {
        let mut books = after.since(before, reports);
        books.calm &= !outcome.excuses.flood;
        books.strays = strays;
        books.worker_killed = !outcome.excuses.killed.is_empty();
        for (number, result) in judge::equations(&books) {
            record.equation(number);
            if let Err(problem) = result {
                record.broken("counters do not add up", &format!("{}: {problem}; {books:?}", judge::EQUATIONS[number].0));
            }
        }
    }
    record.key(after.key_age());
    record.memory(world.weir.pid());
    if let Err(problem) = eventually_held(world, record.holdings.as_ref()) {
        record.broken("something is held that was not", &problem);
    }
    if record.holdings.is_none() {
        record.holdings = Some(Holdings::read(world));
    }
}

fn eventually_held(world: &World, at_start: Option<&Holdings>) -> Result<(), String> {
    let Some(at_start) = at_start else { return Ok(()) };
    let start = std::time::Instant::now();
    loop {
        match judge::leaks(&Holdings::read(world), at_start) {
            Err(_) if start.elapsed() < LINGERING => std::thread::sleep(MOMENT),
            result => return result,
        }
    }
}
