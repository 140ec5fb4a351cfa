//! A server, its real clients, and a flood that they must not notice: all are served, none waits for a packet sent again, and the hundredth
//! slowest waits little longer than in calm.

use std::any::Any;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, wait_for_mode};
use super::{Aim, floods};
use crate::netns::live::{MOMENT, assert_no_miss, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::{Plan, Report, Times, Wrk, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{HaProxy, Nginx, WorkerPlan, Workers, long_body};
use crate::support::tcp::{Negotiated, TcpInfo, negotiated};
use crate::support::trial;

/// A flood that begins when it is called.
type Begin = fn(&Aim<'_>) -> Box<dyn Any>;

pub fn tests() -> Vec<Trial> {
    use Server::{HaProxy, Nginx, Workers};
    // Each server, each family and each tool, not each with each.
    let scenes: [(&str, Server, bool, &[&str], Begin); 7] = [
        ("clients_of_nginx_notice_no_hping3", Nginx, false, &[], floods::by_hping3),
        ("clients_of_nginx_notice_no_flood_over_ipv6", Nginx, true, &[], floods::by_generator),
        ("clients_of_haproxy_notice_no_trafgen", HaProxy, false, &[], floods::by_trafgen),
        ("clients_of_haproxy_notice_no_flood_over_ipv6", HaProxy, true, &[], floods::by_generator),
        ("clients_of_workers_notice_no_flood", Workers, false, &[], floods::by_generator),
        ("clients_of_workers_notice_no_flood_over_ipv6", Workers, true, &[], floods::by_generator),
        ("clients_of_workers_notice_no_flood_in_generic_mode", Workers, false, &["--mode", "generic"], floods::by_generator),
    ];
    let mut tests: Vec<_> = scenes
        .into_iter()
        .map(|(name, server, v6, options, flood)| {
            trial(&format!("defence::scenarios::{name}"), move || {
                withstands(&Scenario { server, v6, configuration: "", options }, flood);
            })
        })
        .collect();
    tests.push(trial("defence::scenarios::curl_and_wrk_notice_no_flood", curl_and_wrk_notice_no_flood));
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
    /// Lines of `[defence]` besides [`floods::EARLY`].
    pub configuration: &'static str,
    /// Arguments of the daemon.
    pub options: &'static [&'static str],
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
        ready(&pair);
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
        let configuration = floods::defence(scenario.configuration);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), scenario.options);
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
pub fn withstands(scenario: &Scenario, flood: impl FnOnce(&Aim<'_>) -> Box<dyn Any>) {
    let mut stage = Stage::set(scenario);
    let agreed = stage.agreed();
    let before = stage.connections(CONNECTIONS);

    let running = flood(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let mut flooded = vec![stage.connections(CONNECTIONS)];
    while flooded.len() < ROUNDS && !is_within(&flooded[flooded.len() - 1], &before) {
        flooded.push(stage.connections(CONNECTIONS));
    }
    let long = stage.long_answers(CONNECTIONS / 20);
    let agreed_under_flood = stage.agreed();
    let books = books.until_now(&stage.weir, &stage.pair.server);
    drop(running);

    let after = stage.connections(CONNECTIONS);
    println!("{:?}, {} frames lost before any program; the kernel: {:?}", books.moved(), books.device.dropped, books.kernel.moved());
    assert_as_in_calm(&flooded, &[before, after]);
    assert_answered_in_xdp(&books, (flooded.len() * CONNECTIONS + CONNECTIONS / 20 + 1) as u64);
    long.assert_no_failure();
    assert_eq!(long.slow, 0, "the slowest of the long answers took {:?}", long.slowest);
    assert_eq!(agreed_under_flood, agreed, "the options of client and server");
    assert_no_miss(&status(&stage.weir));
}

/// Panics unless so many connections began with a cookie of Weir's own, and none with one of the kernel's.
#[track_caller]
pub fn assert_answered_in_xdp(books: &Books, connections: u64) {
    assert!(books.reason("cookie_sent") >= 5 * connections, "a flood and its clients: {:?}", books.moved());
    // The SYN of a client whose port's last connection is in TIME_WAIT is the kernel's.
    let begun = books.reason("cookie_accepted") + books.reason("flood_syn");
    assert!(begun >= connections, "{begun} of {connections}: {:?}", books.moved());
    // An ACK that came twice is one more of each.
    assert!(books.restored("restored") + books.reason("flood_syn") >= connections, "{books:?}");
    for (group, name) in [("TcpExt", "SyncookiesSent"), ("TcpExt", "ListenDrops"), ("TcpExt", "ListenOverflows")] {
        assert_eq!(books.kernel.get(group, name), 0, "{name}: {:?}", books.kernel.moved());
    }
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
    let is_good = |flooded: &Report| calm.iter().any(|calm| is_within(flooded, calm));
    assert!(flooded.iter().any(is_good), "of 100 connections one waits too long: twice that of calm and {MARGIN:?} more are allowed");
}

/// Whether the hundredth slowest waits hardly longer than in calm: for the connection, and for the first response.
fn is_within(flooded: &Report, calm: &Report) -> bool {
    let within = |flooded: &Times, calm: &Times| flooded.p99() <= 2 * calm.p99() + MARGIN;
    within(&flooded.connect, &calm.connect) && within(&flooded.first_response, &calm.first_response)
}

/// Clients that are not ours.
fn curl_and_wrk_notice_no_flood() {
    const REQUESTS: usize = 300;
    let stage = Stage::set(&Scenario { server: Server::Nginx, v6: false, configuration: "", options: &[] });
    let _flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let url = format!("http://{}/body", stage.target);
    // A connection for each: curl closes it when it is told so.
    let many = format!("{url}?[1-{REQUESTS}]");
    let format = r"%{http_code} %{size_download} %{time_connect}\n";
    let said = stage.pair.client.tool("curl", &["-sS", "-H", "Connection: close", "-o", "/dev/null", "-w", format, &many]);
    let expected = format!("200 {} ", long_body().len());
    assert_eq!(said.lines().filter(|line| line.starts_with(&expected)).count(), REQUESTS, "{said}");
    let slowest = said.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()).fold(0.0, f64::max);
    assert!(slowest < 0.9, "a SYN was lost: {slowest} s");
    let wrk = Wrk::start(&stage.pair.client, 16, Duration::from_secs(2), true, &format!("http://{}/", stage.target)).finish();
    let books = books.until_now(&stage.weir, &stage.pair.server);
    println!("curl: slowest connect {slowest} s; wrk: {wrk:?}; {:?}", books.moved());
    assert!(wrk.errors() == 0 && wrk.requests > 500, "{wrk:?}");
    assert_answered_in_xdp(&books, REQUESTS as u64 + wrk.requests);
}
