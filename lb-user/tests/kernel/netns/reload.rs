//! Reloads of nginx and of `HAProxy` under load. With Weir no connection may be lost; what becomes of them without it is measured the
//! same way, printed and written down beside it, for the README.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lb_user::observe::snapshot::{ReasonCount, Snapshot};
use libtest_mimic::Trial;
use serde::Serialize;

use crate::support::daemon::Weir;
use crate::support::load::{Plan, Report, Steady};
use crate::support::netns::Pair;
use crate::support::servers::{HaProxy, Nginx, long_body};
use crate::support::snmp::Counters;
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("reload::nginx_reloads_lose_no_connection", nginx_reloads_lose_no_connection),
        trial("reload::nginx_reloads_to_fewer_workers_lose_no_connection", nginx_reloads_to_fewer_workers_lose_no_connection),
        trial("reload::haproxy_reloads_lose_no_connection", haproxy_reloads_lose_no_connection),
    ]
}

/// How many reloads there are in a row.
const RELOADS: usize = 3;
/// Connections a second for each address family: busy, and no queue builds up.
const RATE: u32 = 200;
const PORT: u16 = 80;

fn nginx_reloads_lose_no_connection() {
    for with_weir in [false, true] {
        let pair = Pair::new();
        let nginx = Nginx::start(&pair.server, &targets(&pair), 4);
        let weir = with_weir.then(|| attach(&pair, 4));
        let load = Load::steady(&pair);
        for _ in 0..RELOADS {
            nginx.reload();
            nginx.wait_until_settled();
            load.wait_for(100);
        }
        judge("reload nginx", weir.as_ref(), &load.stop(), &[]);
    }
}

/// nginx closes two listening sockets of four, with what is queued on them: by its own rules the kernel resets those connections
/// (`net.ipv4.tcp_migrate_req` is 0), and Weir's selector moves them to the sockets that stay.
fn nginx_reloads_to_fewer_workers_lose_no_connection() {
    for with_weir in [false, true] {
        let pair = Pair::new();
        let mut nginx = Nginx::start(&pair.server, &targets(&pair), 4);
        let weir = with_weir.then(|| attach(&pair, 4));
        let load = Load::full(&pair);
        for workers in [2, 4, 2, 4, 2] {
            nginx.set_workers(workers);
            nginx.reload();
            nginx.wait_until_settled();
            load.wait_for(500);
            if let Some(weir) = &weir {
                wait_for_backends(weir, workers);
            }
        }
        judge("reload nginx from 4 workers to 2", weir.as_ref(), &load.stop(), &[]);
    }
}

/// `HAProxy` opens four new sockets and closes all four old ones a moment later. In the few milliseconds until the tables name the new
/// ones, the kernel's own hash chooses among them.
fn haproxy_reloads_lose_no_connection() {
    for with_weir in [false, true] {
        let pair = Pair::new();
        let haproxy = HaProxy::start(&pair.server, &targets(&pair), 4);
        let weir = with_weir.then(|| attach(&pair, 4));
        let load = Load::steady(&pair);
        for _ in 0..RELOADS {
            haproxy.reload();
            haproxy.wait_until_settled();
            load.wait_for(100);
        }
        judge("reload haproxy", weir.as_ref(), &load.stop(), &["no_socket"]);
    }
}

/// The same load to the IPv4 and to the IPv6 address, and the kernel's counters of the servers from before it.
struct Load<'a> {
    steady: [Steady; 2],
    pair: &'a Pair,
    before: Counters,
}

impl<'a> Load<'a> {
    /// Connections at a steady rate.
    fn steady(pair: &'a Pair) -> Self {
        Self::begin(pair, |plan| Steady::at_rate(&pair.client, &plan.concurrency(8), RATE))
    }

    /// Connections as fast as they are served, so that some are always queued.
    fn full(pair: &'a Pair) -> Self {
        Self::begin(pair, |plan| Steady::closed_loop(&pair.client, &plan.concurrency(32)))
    }

    fn begin(pair: &'a Pair, start: impl Fn(Plan) -> Steady) -> Self {
        let [v4, v6] = targets(pair);
        let body = long_body();
        let plan = |target, sources: &[IpAddr]| Plan::new(target, sources).http("/body", Some(&body)).orderly_close();
        let before = Counters::read(&pair.server);
        let load = Self { steady: [start(plan(v4, &pair.client_v4)), start(plan(v6, &pair.client_v6))], pair, before };
        load.wait_for(100);
        load
    }

    fn wait_for(&self, more: u64) {
        for load in &self.steady {
            load.wait_for(more);
        }
    }

    /// What became of the connections, and what the kernel counted meanwhile.
    fn stop(self) -> ([Report; 2], Counters) {
        (self.steady.map(Steady::stop), Counters::read(&self.pair.server).since(&self.before))
    }
}

/// Where the servers listen: one address of each family.
fn targets(pair: &Pair) -> [SocketAddr; 2] {
    [pair.server_v4[0], pair.server_v6[0]].map(|address| SocketAddr::new(address, PORT))
}

/// Weir on the server's device, once it has found both groups.
fn attach(pair: &Pair, backends: usize) -> Weir {
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    wait_for_backends(&weir, backends);
    weir
}

fn wait_for_backends(weir: &Weir, backends: usize) {
    eventually(Duration::from_secs(5), || {
        let found: Vec<usize> = status(weir).services.iter().map(|service| service.backends.len()).collect();
        if found == [backends; 2] { Ok(()) } else { Err(format!("services with {found:?} backends instead of {backends} each")) }
    });
}

fn status(weir: &Weir) -> Snapshot {
    serde_json::from_value(weir.cli(&["status", "--json"])).expect("status prints a snapshot")
}

/// One measurement, as it is written down.
#[derive(Serialize)]
struct Measured<'a> {
    what: &'a str,
    weir: bool,
    connections: u64,
    failed: u64,
    slow: u64,
    slowest_milliseconds: u128,
}

/// Writes down what became of the connections, and with Weir panics unless all were good, but for what the kernel itself loses when listeners
/// close, and all went by its selector, but for those that it left to the kernel for one of the reasons `excused`.
fn judge(what: &str, weir: Option<&Weir>, (reports, counted): &([Report; 2], Counters), excused: &[&str]) {
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let measured = Measured {
        what,
        weir: weir.is_some(),
        connections: sum(Report::attempted),
        failed: sum(|report| report.failures.len() as u64),
        slow: sum(|report| report.slow),
        slowest_milliseconds: reports.iter().map(|report| report.slowest.as_millis()).max().unwrap_or(0),
    };
    let with = if measured.weir { "with" } else { "without" };
    println!("{what} {with} weir: {} connections, {} failed, {} slow", measured.connections, measured.failed, measured.slow);
    for (kind, count) in reports.iter().flat_map(Report::failures_by_kind) {
        println!("  {count} times {kind}");
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{what} {with} weir.json").replace(' ', "-"));
    std::fs::write(file, serde_json::to_vec_pretty(&measured).expect("plain data")).expect("write the measurement");

    let Some(weir) = weir else { return };
    for report in reports {
        report.assert_failed_by_the_kernel_alone();
        report.assert_slow_by_the_kernel_alone(counted);
    }
    assert_selected_by_weir(&status(weir), measured.connections, excused);
}

/// Every connection was opened under Weir's eyes, and none was left to the kernel's own choice.
fn assert_selected_by_weir(status: &Snapshot, connections: u64, excused: &[&str]) {
    let opened: u64 = status
        .services
        .iter()
        .flat_map(|service| &service.packets)
        .filter(|count| count.reason == "tcp_opened")
        .map(|count| count.packets)
        .sum();
    assert!(opened >= connections, "{opened} SYNs for {connections} connections");
    let backends = || status.services.iter().flat_map(|service| &service.backends);
    assert!(backends().all(|backend| backend.selections() > 0), "{:?}", backends().collect::<Vec<_>>());
    let misses: Vec<_> = status.selector_misses.iter().filter(|(why, count)| **count > 0 && !excused.contains(&why.as_str())).collect();
    assert!(misses.is_empty(), "{misses:?}");
    let lost = |count: &&ReasonCount| ["no_backend", "map_miss"].contains(&count.reason.as_str()) && count.packets > 0;
    let packets = status.services.iter().flat_map(|service| &service.packets).chain(&status.passed);
    assert_eq!(packets.filter(lost).collect::<Vec<_>>(), [] as [&ReasonCount; 0]);
}
