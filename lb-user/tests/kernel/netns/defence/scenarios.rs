//! A server, its real clients, and a flood that they must not notice: all are served, none waits for a packet sent again, and the hundredth
//! slowest waits little longer than in calm.

use std::any::Any;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, mode, wait_for_mode};
use super::rounds::until_clean;
use super::{Aim, floods};
use crate::netns::live::{assert_no_miss, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::{Plan, Report, SLOW, Times, Wrk, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{HaProxy, Nginx, WorkerPlan, Workers, long_body};
use crate::support::tcp::{Negotiated, TcpInfo, negotiated};
use crate::support::trial;
use crate::support::wait::eventually;

/// A flood that begins when it is called.
type Begin = fn(&Aim<'_>) -> Box<dyn Any>;

pub fn tests() -> Vec<Trial> {
    use Server::{HaProxy, Nginx, Workers};
    // Each server, each family and each tool, not each with each.
    let scenes: [(&str, Server, bool, &'static [&'static str], Begin); 7] = [
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
/// What each of the 16 clients waits for between two connections: 2,000 a second are no flood.
const PACE: Duration = Duration::from_millis(8);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of `[defence]`: a flood is over soon, so that the next round begins in calm.
const SHORT: &str = "quiet_time = \"2s\"\nminimum_time = \"2s\"\n";
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
        let configuration = floods::defence(&format!("{SHORT}{}", scenario.configuration));
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), scenario.options);
        service_with_ready(&weir, BACKENDS as usize);
        Self { weir, _running: running, pair, target, server: scenario.server, plan: plan.orderly_close().pace(PACE), opened: 0 }
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
        let stream = pair.client.run(|| TcpStream::connect_timeout(target, PATIENCE)).expect("connect");
        // The server's end is made by the handshake's last segment, which may be on its way still.
        let client = stream.local_addr().expect("a connected socket has one");
        let server = || TcpInfo::find_in_namespace(&pair.server, *target, client).ok_or_else(|| "no connection".to_owned());
        [TcpInfo::of_socket(&stream), eventually(PATIENCE, server)].map(|info| negotiated(&info))
    }
}

/// Measures in calm, starts the flood, and asks the same of the connections made under it, in rounds: see [`until_clean`].
pub fn withstands(scenario: &Scenario, flood: impl Fn(&Aim<'_>) -> Box<dyn Any>) {
    let mut stage = Stage::set(scenario);
    let agreed = stage.agreed();
    until_clean(|| {
        // That of the round before is over soon: SHORT says so.
        wait_until_over(&stage.weir);
        let books = Books::read(&stage.weir, &stage.pair.server);
        let calm = stage.connections(CONNECTIONS);
        let books = books.until_now(&stage.weir, &stage.pair.server);
        calm.assert_no_failure();
        if books.reason("cookie_sent") > 0 {
            return Err(format!("the clients came fast enough for a flood of their own: {:?}", books.moved()));
        }

        let running = flood(&stage.aim());
        wait_for_mode(&stage.weir, "flood");
        let books = Books::read(&stage.weir, &stage.pair.server);
        let flooded = stage.connections(CONNECTIONS);
        let long = stage.long_answers(CONNECTIONS / 20);
        let agreed_under_flood = stage.agreed();
        let books = books.until_now(&stage.weir, &stage.pair.server);
        drop(running);
        println!("calm: connect {}; first response {}", calm.connect, calm.first_response);
        println!("flood: connect {}; first response {}", flooded.connect, flooded.first_response);
        println!("{:?}, {} frames lost before any program; the kernel: {:?}", books.moved(), books.device.dropped, books.kernel.moved());
        flooded.assert_no_failure();
        long.assert_no_failure();
        assert_eq!(agreed_under_flood, agreed, "the options of client and server");
        assert_answered_in_xdp(&books, (CONNECTIONS + CONNECTIONS / 20 + 1) as u64);
        in_time(&flooded, &calm)?;
        if long.slow > 0 { Err(format!("a long answer took {:?}", long.slowest)) } else { Ok(()) }
    });
    assert_no_miss(&status(&stage.weir));
}

/// Waits until SYNs pass to the kernel.
#[track_caller]
fn wait_until_over(weir: &Weir) {
    eventually(PATIENCE, || if mode(weir) == "flood" { Err("a flood goes on".to_owned()) } else { Ok(()) });
}

/// Panics unless so many connections began with a cookie of Weir's own, and none with one of the kernel's.
#[track_caller]
pub fn assert_answered_in_xdp(books: &Books, connections: u64) {
    // The SYN of a client whose port's last connection is in TIME_WAIT is the kernel's.
    let accepted = books.reason("cookie_accepted");
    assert!(books.reason("cookie_sent") > accepted + 1_000, "a flood and its clients: {:?}", books.moved());
    let begun = accepted + books.reason("flood_syn");
    assert!(begun >= connections, "{begun} of {connections}: {:?}", books.moved());
    // An ACK that came twice is one more of each.
    assert!(books.restored("restored") + books.reason("flood_syn") >= connections, "{books:?}");
    for (group, name) in [("TcpExt", "SyncookiesSent"), ("TcpExt", "ListenDrops"), ("TcpExt", "ListenOverflows")] {
        assert_eq!(books.kernel.get(group, name), 0, "{name}: {:?}", books.kernel.moved());
    }
}

/// Whether none had to send anything again, and the hundredth slowest waits hardly longer than in calm: for the connection, and for the
/// first response.
fn in_time(flooded: &Report, calm: &Report) -> Result<(), String> {
    if flooded.slow > 0 {
        return Err(format!("{} of {CONNECTIONS} lost a packet: the slowest took {:?}", flooded.slow, flooded.slowest));
    }
    let within = |flooded: &Times, calm: &Times| flooded.p99() <= 2 * calm.p99() + MARGIN;
    if within(&flooded.connect, &calm.connect) && within(&flooded.first_response, &calm.first_response) {
        return Ok(());
    }
    let told = |report: &Report| format!("connect {}, first response {}", report.connect, report.first_response);
    Err(format!(
        "of 100 connections one waits too long (twice as long and {MARGIN:?} more are allowed): calm {}; flood {}",
        told(calm),
        told(flooded)
    ))
}

/// Clients that are not ours.
fn curl_and_wrk_notice_no_flood() {
    const REQUESTS: usize = 300;
    let stage = Stage::set(&Scenario { server: Server::Nginx, v6: false, configuration: "", options: &[] });
    let _flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let url = format!("http://{}/body", stage.target);
    // A connection for each: curl closes it when it is told so.
    let many = format!("{url}?[1-{REQUESTS}]");
    let expected = format!("200 {} ", long_body().len());
    until_clean(|| {
        let books = Books::read(&stage.weir, &stage.pair.server);
        let format = r"%{http_code} %{size_download} %{time_connect}\n";
        let said = stage
            .pair
            .client
            .tool("curl", &["-sS", "--connect-timeout", "5", "-H", "Connection: close", "-o", "/dev/null", "-w", format, &many]);
        let wrk = Wrk::start(&stage.pair.client, 16, Duration::from_secs(2), true, &format!("http://{}/", stage.target)).finish();
        let books = books.until_now(&stage.weir, &stage.pair.server);
        assert_eq!(said.lines().filter(|line| line.starts_with(&expected)).count(), REQUESTS, "{said}");
        let slowest = said.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()).fold(0.0, f64::max);
        println!("curl: slowest connect {slowest} s; wrk: {wrk:?}; {:?}", books.moved());
        // Few where the processors are busy; what it takes is that they were served.
        assert!(wrk.errors() == 0 && wrk.requests > 50, "{wrk:?}");
        assert_answered_in_xdp(&books, REQUESTS as u64 + wrk.requests);
        if slowest < SLOW.as_secs_f64() { Ok(()) } else { Err(format!("curl lost a SYN: {slowest} s")) }
    });
}
