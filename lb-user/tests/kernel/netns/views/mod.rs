//! The page, `weir top` and Grafana, of the same instant: all of them show one snapshot type, so all of them show the same.
//!
//! Two snapshots are taken, seconds apart, of a daemon whose services are flooded, stuck and calm. They are shown again ([`Replay`]) to a
//! browser and to `weir top` on a pseudo-terminal, and given as two scrapes to Prometheus, which answers the queries of the dashboards.
//! What each shows is read as numbers by name ([`figures::Figures`]), and compared to the last digit that is shown.

mod figures;
mod grafana;
mod page;
mod top;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lb_user::observe::prometheus::render;
use lb_user::observe::snapshot::Snapshot;
use libtest_mimic::Trial;

use self::figures::disagreements;
use super::live::status;
use crate::support::daemon::{Weir, free_port};
use crate::support::flood::{Flood, FloodKind, FloodPlan, ready};
use crate::support::load::{Plan, Steady};
use crate::support::netns::Pair;
use crate::support::prometheus::{Prometheus, Scrape};
use crate::support::replay::Replay;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![trial("views::show_the_same_of_one_instant", show_the_same_of_one_instant)]
}

/// The services of the scene: flooded, with a worker that stands still; calm, with workers too slow for their clients; and of datagrams that
/// find no room.
const SERVICES: [&str; 3] = ["web", "api", "dns"];
/// How many datagrams of a flow that is known come between the two snapshots.
const KNOWN: usize = 600;
/// How far the two snapshots are apart.
const SPAN: Duration = Duration::from_secs(3);
/// What is to be seen everywhere, whatever else is.
const EVERYWHERE: [&str; 25] = [
    "web: flood",
    "web: new/s",
    "web: seen/s",
    "web: dropped/s",
    "web: drops, weir cookie_refused",
    "web: drops, kernel netfilter_drop",
    "web worker 0: new/s",
    "web worker 1: accept queue",
    "web worker 1: SYN queue",
    "web worker 1: open",
    "api: flood",
    "api: new/s",
    "api: dropped/s",
    "api: overflows/s",
    "api worker 0: accept queue",
    "api: handshake p50",
    "api: handshake p99",
    "api: drops, kernel netfilter_drop",
    "api worker 1: new/s",
    "api worker 1: share",
    "dns: seen/s",
    "dns: new/s",
    "dns: drops, kernel socket_rcvbuff",
    "dns worker 0: new/s",
    "dns worker 0: receive queue",
];

fn show_the_same_of_one_instant() {
    let [before, after] = recorded();
    let replay = Replay::start(&[before.clone(), after.clone()]);
    let [page, drawn] = page::shown(&replay);
    let top = top::shown(&replay);

    // In whole milliseconds, as Prometheus counts; its windows reach exactly from one to the other.
    let at = milliseconds(after.taken_at);
    let window = milliseconds(after.dataplane.uptime - before.dataplane.uptime);
    let texts = [&before, &after].map(|snapshot| render(snapshot).expect("the metrics"));
    let scrapes = [Scrape { text: &texts[0], at: at - window }, Scrape { text: &texts[1], at }];
    let window = format!("{window}ms");
    let prometheus = Prometheus::holding(&scrapes, &window, free_port());
    let grafana = grafana::shown(&prometheus, at, &window);

    let views = [&page, &drawn, &top, &grafana];
    println!("{}", figures::table(&views));
    for view in [&page, &top, &grafana] {
        let missing: Vec<_> = EVERYWHERE.into_iter().filter(|name| view.get(name).is_none()).collect();
        assert!(missing.is_empty(), "{} does not show {missing:?}", view.view);
    }
    let wrong = disagreements(&views);
    assert!(wrong.is_empty(), "{} figures differ:\n{}", wrong.len(), wrong.join("\n"));
    // So much for there being something to compare.
    for name in
        ["web: new/s", "web: dropped/s", "api: overflows/s", "web worker 1: accept queue", "dns: new/s", "dns worker 0: receive queue"]
    {
        assert!(page.get(name).is_some_and(|shown| shown.value > 0.0), "{name} is zero");
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this century")]
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

/// Two snapshots of one daemon in trouble.
fn recorded() -> [Snapshot; 2] {
    let pair = Pair::new();
    let at = |port| SocketAddr::new(pair.server_v4[0], port);
    let (web, api, dns) = (at(8080), at(9090), at(5353));
    let mut of_web = Workers::start(&pair.server, &WorkerPlan::tcp(web).backlog(32), 2);
    let _of_api = Workers::start(&pair.server, &WorkerPlan::tcp(api).backlog(4).delay(Duration::from_millis(50)), 2);
    let mut of_dns = Workers::start(&pair.server, &WorkerPlan::udp(dns), 1);
    // One client in so many is refused by the packet filter, behind XDP.
    let refused = pair.client_v4[1];
    pair.server.nft(&format!(
        "table inet filter {{ chain input {{ type filter hook input priority 0; ip saddr {refused} tcp dport {{ 8080, 9090 }} drop; }}; }}"
    ));
    let mac = ready(&pair);
    let service = |name: &str, protocol: &str, at: SocketAddr, more: &str| {
        format!("[[service]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\naddress = \"{}\"\nport = {}\n{more}", at.ip(), at.port())
    };
    // A worker that stands still is not taken out while it is looked at, nor relieved.
    let configuration = [
        "[daemon]\nrescan_interval = \"60s\"\n[steering]\noverfull_percent = 0\nstalled_after = \"off\"\n".to_owned(),
        "[defence]\nflood_syns_per_second = 10000\nflood_strays_per_second = 10000\n".to_owned(),
        service("web", "tcp", web, ""),
        service("api", "tcp", api, "syn_defence = \"off\"\n"),
        service("dns", "udp", dns, ""),
    ];
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration.concat()), &[]);

    let client = |target, rate| {
        let plan = Plan::new(target, &pair.client_v4).concurrency(20).timeout(Duration::from_millis(300));
        Steady::at_rate(&pair.client, &plan, rate)
    };
    let _clients = [client(web, 200), client(api, 100)];
    // A flow that has its worker: what comes later on it is seen, and is no new flow.
    let known = pair.client.run(|| {
        let socket = UdpSocket::bind((pair.client_v4[0], 0)).expect("a socket");
        socket.connect(dns).expect("connect");
        socket
    });
    known.send(b"first").expect("send");
    of_web.pause(1);
    of_dns.pause(0);
    let flood = |kind, target, rate| {
        let plan = FloodPlan::new(kind, target, mac).packets(u64::MAX).rate(rate).lasting(Duration::from_secs(60));
        Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan)
    };
    let _floods = [flood(FloodKind::Syn, web, 20_000), flood(FloodKind::Ack, web, 3_000), flood(FloodKind::Udp, dns, 1_000)];

    // All of it has begun, and no reason of the kernel's is new in the second: Prometheus knows no rate of a series that just appeared.
    let reasons = |snapshot: &Snapshot| -> Vec<BTreeSet<String>> {
        let of = |name: &str| snapshot.service(name).into_iter().flat_map(|service| &service.kernel_drops);
        SERVICES.map(|name| of(name).map(|dropped| dropped.reason.clone()).collect()).into()
    };
    eventually(Duration::from_secs(40), || {
        let before = status(&weir);
        for _ in 0..KNOWN {
            known.send(b"more").expect("send");
        }
        std::thread::sleep(SPAN);
        let after = status(&weir);
        let web = before.service("web").ok_or("no service")?;
        let flooded = web.defence.as_ref().is_some_and(|defence| defence.mode == "flood");
        let has = |index: usize, reason: &str| reasons(&before)[index].contains(reason);
        let dropped = has(0, "netfilter_drop") && has(1, "netfilter_drop") && has(2, "socket_rcvbuff");
        let full = web.backends[1].queues.accept_queue.is_some_and(|queue| queue.length > queue.limit);
        if flooded && dropped && full && reasons(&before) == reasons(&after) {
            Ok([before, after])
        } else {
            Err(format!("flooded: {flooded}, full: {full}, dropped: {:?} .. {:?}", reasons(&before), reasons(&after)))
        }
    })
}
