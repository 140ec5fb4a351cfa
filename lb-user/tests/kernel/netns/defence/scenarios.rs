//! A server, its real clients, and a flood that they must not notice: all are served, none waits for a packet sent again, and the hundredth
//! slowest waits little longer than in calm.

use std::any::Any;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;

use super::{Aim, no_flood};
use crate::netns::live::{MOMENT, assert_no_miss, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, Report, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{HaProxy, Nginx, WorkerPlan, Workers, long_body};
use crate::support::tcp::{Negotiated, TcpInfo, negotiated};
use crate::support::trial;

/// What Weir is told.
const CONFIGURATION: &str = "";

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (name, server) in [("nginx", Server::Nginx), ("haproxy", Server::HaProxy), ("workers", Server::Workers)] {
        for v6 in [false, true] {
            let family = if v6 { "ipv6" } else { "ipv4" };
            tests.push(trial(&format!("defence::scenarios::clients_of_{name}_are_served_over_{family}"), move || {
                withstands(&Scenario { server, v6, configuration: CONFIGURATION }, no_flood);
            }));
        }
    }
    tests
}

const PORT: u16 = 80;
const BACKENDS: u32 = 4;
const CONNECTIONS: usize = 2000;
/// How often a measurement under the flood is made again at the most.
const ROUNDS: usize = 3;
/// No client waits as long as for a SYN sent again.
const LONGEST: Duration = Duration::from_secs(1);
/// What the flood may add to twice the calm's 99th percentile.
const MARGIN: Duration = Duration::from_millis(5);

/// Who serves. Over HTTP the client speaks first; our own workers do.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    Nginx,
    HaProxy,
    Workers,
}

/// Who is attacked, and what Weir is told.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub server: Server,
    pub v6: bool,
    pub configuration: &'static str,
}

/// A scenario with everything in its place: the server runs, and Weir balances it.
#[derive(Debug)]
pub struct Stage {
    // In the order in which they end.
    pub weir: Weir,
    _running: Box<dyn Any>,
    pub pair: Pair,
    pub target: SocketAddr,
    server: Server,
    plan: Plan,
    opened: usize,
}

impl Stage {
    /// Starts the server and Weir.
    pub fn set(scenario: &Scenario) -> Self {
        let pair = Pair::new();
        let (target, plan) = target(&pair, scenario.v6, PORT);
        let running: Box<dyn Any> = match scenario.server {
            Server::Nginx => Box::new(Nginx::start(&pair.server, &[target], BACKENDS as usize)),
            Server::HaProxy => Box::new(HaProxy::start(&pair.server, &[target], BACKENDS)),
            Server::Workers => Box::new(Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), BACKENDS)),
        };
        let plan = match scenario.server {
            Server::Nginx | Server::HaProxy => plan.http("/", None),
            Server::Workers => plan,
        };
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(scenario.configuration), &[]);
        service_with_ready(&weir, BACKENDS as usize);
        Self { weir, _running: running, pair, target, server: scenario.server, plan: plan.orderly_close(), opened: 0 }
    }

    /// Where a flood goes.
    pub fn aim(&self) -> Aim<'_> {
        let Self { pair, target, .. } = self;
        Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target: *target }
    }

    /// Real connections with a short answer, each from a 4-tuple that was not used before.
    pub fn connections(&mut self, count: usize) -> Report {
        self.open_close(self.plan.clone(), count)
    }

    /// Real connections with an answer of several segments (over HTTP).
    pub fn long_answers(&mut self, count: usize) -> Report {
        let plan = self.plan.clone();
        let plan = if matches!(self.server, Server::Workers) { plan } else { plan.http("/body", Some(&long_body())) };
        self.open_close(plan, count)
    }

    fn open_close(&mut self, plan: Plan, count: usize) -> Report {
        let plan = plan.starting_at_flow(self.opened);
        self.opened += count;
        open_close(&self.pair.client, &plan, count)
    }

    /// What one more connection agrees on, at the client's end and at the server's.
    pub fn agreed(&self) -> [Negotiated; 2] {
        let Self { pair, target, .. } = self;
        let stream = pair.client.run(|| TcpStream::connect_timeout(target, LONGEST)).expect("connect");
        // The server's end is made by the handshake's last segment.
        std::thread::sleep(MOMENT);
        let client = stream.local_addr().expect("a connected socket has one");
        [TcpInfo::of_socket(&stream), TcpInfo::in_namespace(&pair.server, *target, client)].map(|info| negotiated(&info))
    }
}

/// Measures in calm, starts the flood, and asks the same of the connections made under it.
///
/// Other work of the machine comes and goes, and only adds: so the calm is measured before and after, and the slower one counts; and under
/// the flood a round that waits too long is measured again. None of them may lose a connection.
pub fn withstands<G>(scenario: &Scenario, flood: impl FnOnce(&Aim<'_>) -> G) {
    let mut stage = Stage::set(scenario);
    let agreed = stage.agreed();
    let before = stage.connections(CONNECTIONS);

    let running = flood(&stage.aim());
    let mut flooded = vec![stage.connections(CONNECTIONS)];
    while flooded.len() < ROUNDS && p99(&flooded[flooded.len() - 1]) > limit(&before) {
        flooded.push(stage.connections(CONNECTIONS));
    }
    let long = stage.long_answers(CONNECTIONS / 20);
    let agreed_under_flood = stage.agreed();
    drop(running);

    let after = stage.connections(CONNECTIONS);
    assert_as_in_calm(&flooded, &[before, after]);
    long.assert_no_failure();
    assert_eq!(long.slow, 0, "the slowest of the long answers took {:?}", long.slowest);
    assert_eq!(agreed_under_flood, agreed, "the options of client and server");
    assert_no_miss(&status(&stage.weir));
}

/// Panics unless all were served, in time.
#[track_caller]
pub fn assert_as_in_calm(flooded: &[Report], calm: &[Report]) {
    for (what, reports) in [("calm", calm), ("flooded", flooded)] {
        for report in reports {
            println!("{what}: connect {}; first response {}", report.connect, report.first_response);
            report.assert_no_failure();
        }
    }
    let slowest = flooded.iter().map(|report| report.slowest).max().expect("a measurement under the flood");
    assert!(slowest < LONGEST, "the slowest took {slowest:?}");
    let limit = calm.iter().map(limit).max().expect("a measurement in calm");
    let waited: Vec<_> = flooded.iter().map(p99).collect();
    assert!(
        waited.iter().any(|waited| *waited <= limit),
        "of 100 connections one waits {waited:?} for the first response, limit {limit:?}"
    );
}

fn p99(report: &Report) -> Duration {
    report.first_response.p99()
}

/// How long the hundredth slowest may wait, by a measurement in calm.
fn limit(calm: &Report) -> Duration {
    2 * p99(calm) + MARGIN
}
