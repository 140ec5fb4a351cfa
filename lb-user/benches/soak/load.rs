//! The steady load of a round: real connections to each service, and what became of them.

use std::time::Duration;

use crate::{
    judge::Failed,
    netns::live::{Table, status},
    support::load::{Phase, Report, Steady},
    world::{GROUPS, SERVICES, World, named},
};

/// Connections a second to each service.
pub const RATES: [u32; SERVICES.len()] = [120, 120, 60, 60];
/// How many at a time.
const AT_A_TIME: usize = 6;
/// Longer than it takes to send a SYN, and a SYN-ACK, three times.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to all services.
#[derive(Debug)]
pub struct Load {
    loads: [Steady; SERVICES.len()],
    /// The tables at its start, to know whose a connection was.
    tables: [Table; SERVICES.len()],
}

impl Load {
    pub fn start(world: &World) -> Self {
        let snapshot = status(&world.weir);
        let table = |service: usize| {
            let told = named(&snapshot, service).unwrap_or_else(|problem| panic!("{problem}"));
            Table::read(&world.weir, told)
        };
        let tables = [0, 1, 2, 3].map(table);
        let start = |service: usize| {
            let plan = world.plan(service).concurrency(AT_A_TIME).timeout(PATIENCE);
            Steady::at_rate(&world.pair.client, &plan, RATES[service])
        };
        Self { loads: [0, 1, 2, 3].map(start), tables }
    }

    /// The time by the clock of a service's load.
    pub fn clock(&self, service: usize) -> Duration {
        self.loads[service].elapsed()
    }

    /// How many connections can be accepted and not answered by one process: a worker of ours has one, nginx all there are.
    pub fn under_way(service: usize) -> u64 {
        if service < GROUPS { 1 } else { AT_A_TIME as u64 }
    }

    /// Ends it: what the clients of each service say, and the connections that failed.
    pub fn stop(self, world: &World) -> ([Report; SERVICES.len()], Vec<Failed>) {
        let reports = self.loads.map(Steady::stop);
        let mut failed = Vec::new();
        for (service, report) in reports.iter().enumerate() {
            for failure in &report.failures {
                let was_connected = matches!(failure.phase, Phase::Send | Phase::Receive);
                let socket = was_connected.then(|| self.tables[service].cookie_for(failure.source, world.target(service)));
                let what = format!("{} from {} after {:.3?}: {failure}", SERVICES[service], failure.source, failure.at);
                failed.push(Failed { service, at: failure.at, was_connected, socket, what });
            }
        }
        (reports, failed)
    }
}
