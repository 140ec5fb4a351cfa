//! The files of deploy/: what Prometheus' own tool says of them, and what a real Prometheus makes of a Weir in trouble: each query of each
//! dashboard and each rule gives data, and the alerts that should fire do, those alone, and end with their cause.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::daemon::{Weir, free_port};
use crate::support::dashboards::{self, Variables, deploy, without_thresholds};
use crate::support::flood::{Flood, FloodKind, FloodPlan, ready};
use crate::support::load::{Plan, Steady};
use crate::support::netns::Pair;
use crate::support::prometheus::Prometheus;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("prometheus::the_tool_accepts_configuration_and_rules", the_tool_accepts_configuration_and_rules),
        trial("prometheus::trouble_shows_in_queries_and_alerts", trouble_shows_in_queries_and_alerts),
    ]
}

/// A worker that stands still is not relieved: its queue is to overflow.
const CONFIGURATION: &str = "[daemon]\nrescan_interval = \"1s\"\n[discovery]\ntcp = true\nudp = true\n\
     [steering]\noverfull_percent = 0\nstalled_after = \"off\"\n\
     [defence]\nflood_syns_per_second = 10000\nflood_strays_per_second = 10000\nquiet_time = \"1s\"\n";
/// How long what happened may take to show: scrapes each second, windows of five, and a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(30);
/// Alerts that say how a machine is rather than what happens to it.
const OF_THE_MACHINE: [&str; 3] = ["WeirDefenceDegraded", "WeirDefenceUnsafe", "WeirListenerEventsOff"];
/// Alerts that may fire beside those that are looked for: with a worker that stands still the others do get more than their share, and
/// clients whose last ACK meets a full queue leave handshakes open.
const CONSEQUENCES: [&str; 2] = ["WeirWorkersUneven", "WeirSynQueueFull"];

fn the_tool_accepts_configuration_and_rules() {
    let commands: [&[&str]; 3] = [
        &["check", "config", "prometheus.yml"],
        &["check", "rules", "--lint=all", "--lint-fatal", "weir.rules.yml"],
        &["test", "rules", "weir.rules.test.yml"],
    ];
    for arguments in commands {
        let output = Command::new("promtool").args(arguments).current_dir(deploy().join("prometheus")).output().expect("run promtool");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

fn trouble_shows_in_queries_and_alerts() {
    let pair = Pair::new();
    let (web, dns) = (SocketAddr::new(pair.server_v4[0], 8080), SocketAddr::new(pair.server_v4[0], 5353));
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(web).backlog(32), 2);
    let mut resolver = Workers::start(&pair.server, &WorkerPlan::udp(dns), 1);
    let mac = ready(&pair);
    let mut weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CONFIGURATION), &[]);
    let prometheus = Prometheus::start(weir.http_address(), free_port());
    let mut watch = Watch { prometheus: &prometheus, start: Instant::now(), expected: BTreeSet::new(), seen: BTreeSet::new() };
    let plan = Plan::new(web, &pair.client_v4).concurrency(40).timeout(Duration::from_millis(500));
    let clients = Steady::at_rate(&pair.client, &plan, 100);

    // Calm: connections, and nothing to say.
    watch.until(&["up == 1", "sum(service:weir_connections:rate1m) > 20"]);
    watch.fires(&[]);

    // A worker of each service stands still, and SYNs come from everywhere. Overflows end when Weir takes out the worker that nobody serves.
    workers.pause(0);
    resolver.pause(0);
    let stuck = ["WeirQueueOverflow", "WeirAcceptQueueNearlyFull", "WeirWorkerNotAccepting"];
    watch.fires(&stuck);
    let datagrams = FloodPlan::new(FloodKind::Udp, dns, mac).packets(20_000).rate(10_000).lasting(Duration::from_secs(5));
    Flood::start(&pair.client, Pair::CLIENT_DEVICE, &datagrams).finish();
    let syns = FloodPlan::new(FloodKind::Syn, web, mac).packets(u64::MAX).rate(30_000).lasting(Duration::from_secs(60));
    let flood = Flood::start(&pair.client, Pair::CLIENT_DEVICE, &syns);
    watch.fires(&["WeirFlood", "WeirReceiveQueueNearlyFull"]);
    watch.every_query_gives_data();

    // Everything goes on; a configuration is refused.
    flood.stop();
    workers.resume(0);
    resolver.resume(0);
    weir.configure("[nonsense]\n");
    weir.reload();
    watch.fires(&["WeirConfigReloadFailed", "WeirFloodOver"]);
    let end_of_flood = Instant::now();

    // The daemon is gone, and is back with what it can read. What it served before goes on.
    weir.kill9();
    watch.fires(&["WeirDown"]);
    weir.configure(CONFIGURATION);
    weir.restart();
    watch.until(&["up == 1", "weir_config_last_reload_successful == 1"]);
    watch.ends(&["WeirDown", "WeirConfigReloadFailed", "WeirFlood", "WeirReceiveQueueNearlyFull"]);
    watch.ends(&stuck);
    println!("{:?} after the flood; connections: {}", end_of_flood.elapsed(), clients.stop().attempted());
}

/// Prometheus, and what has become of its alerts.
struct Watch<'a> {
    prometheus: &'a Prometheus,
    start: Instant,
    /// Which may have fired by now.
    expected: BTreeSet<String>,
    /// Which have been seen to fire.
    seen: BTreeSet<String>,
}

impl Watch<'_> {
    /// Waits until each of these gives something.
    fn until(&self, conditions: &[&str]) {
        for condition in conditions {
            eventually(PATIENCE, || match self.prometheus.query(condition)? {
                found if found.is_empty() => Err(format!("{condition} is not so")),
                _ => Ok(()),
            });
        }
    }

    /// The alerts that fire, but for those of the machine.
    fn firing(&self) -> BTreeSet<String> {
        let mut firing = self.prometheus.firing();
        firing.retain(|alert| !OF_THE_MACHINE.contains(&alert.as_str()));
        firing
    }

    /// Waits until each of these alerts has fired, for a moment at least; fails when any other does that there was no reason for so far.
    fn fires(&mut self, alerts: &[&str]) {
        let wanted: BTreeSet<String> = alerts.iter().map(ToString::to_string).collect();
        self.expected.extend(wanted.iter().cloned());
        eventually(PATIENCE, || {
            let firing = self.firing();
            let unexpected = |alert: &&String| !self.expected.contains(*alert) && !CONSEQUENCES.contains(&alert.as_str());
            assert_eq!(firing.iter().find(unexpected), None, "of {firing:?}");
            self.seen.extend(firing);
            if self.seen.is_superset(&wanted) { Ok(()) } else { Err(format!("{:?} have fired, not yet all of {wanted:?}", self.seen)) }
        });
        println!("{:?}: {wanted:?}", self.start.elapsed());
    }

    /// Waits until none of these alerts fires.
    fn ends(&self, alerts: &[&str]) {
        eventually(PATIENCE, || {
            let firing = self.firing();
            if alerts.iter().any(|alert| firing.contains(*alert)) { Err(format!("{firing:?} fire")) } else { Ok(()) }
        });
        println!("{:?}: end of {alerts:?}", self.start.elapsed());
    }

    /// Each query of each dashboard, and what each rule compares, gives at least one number.
    fn every_query_gives_data(&self) {
        let mut queries = dashboards::queries(Variables { rate_interval: "5s", service: ".*" });
        assert!(queries.len() > 80, "{} queries in the dashboards", queries.len());
        let rules = self.prometheus.rules();
        assert!(rules.len() > 20, "{rules:?}");
        for rule in &rules {
            assert_eq!(rule.problem, "", "{}", rule.name);
            // Which host has which cookies, and with it whether there is such a series, is the machine's.
            if rule.name == "WeirDefenceDegraded" {
                continue;
            }
            if rule.is_alert {
                for (number, side) in rule.expression.split(" unless ").enumerate() {
                    // How the sides are matched is no part of what is compared.
                    let side = side.strip_prefix("on (").and_then(|rest| rest.split_once(") ")).map_or(side, |(_, side)| side);
                    queries.insert(format!("alert {}, side {number}", rule.name), without_thresholds(side));
                }
            } else {
                queries.insert(format!("rule {}", rule.name), rule.name.clone());
            }
        }
        let count = queries.len();
        eventually(PATIENCE, || {
            queries.retain(|_, query| !self.prometheus.query(query).is_ok_and(|values| values.iter().any(|value| !value.is_nan())));
            let problem = |(place, query): (&String, &String)| format!("{place}: {query}: {:?}", self.prometheus.query(query));
            if queries.is_empty() { Ok(()) } else { Err(queries.iter().map(problem).collect::<Vec<_>>().join("\n")) }
        });
        println!("{:?}: {count} queries give data", self.start.elapsed());
    }
}
