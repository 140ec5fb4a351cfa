//! Hosts on which a connection is more than a listener's business: they forward, translate or filter by connection state. Clients are
//! served on each as if Weir were not there, also while the listener's port is under attack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, wait_for_mode};
use super::{Aim, floods::at_rate};
use crate::netns::live::{PATIENCE, status};
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Namespace, Pair, Routed};
use crate::support::packet::ACK;
use crate::support::raw::RawClient;
use crate::support::servers::{Nginx, long_body};
use crate::support::trial;
use crate::support::wait::eventually;

/// What Weir is told.
const CONFIGURATION: &str = "[defence]\nflood_syns_per_second = 4000";

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::harmless::a_router_forwards_the_port_it_listens_on", a_router_forwards_the_port_it_listens_on),
        trial("defence::harmless::a_translated_port_has_a_listener_too", a_translated_port_has_a_listener_too),
        trial("defence::harmless::others_addresses_are_translated", others_addresses_are_translated),
        trial("defence::harmless::a_filter_wants_connections_to_begin_with_a_syn", a_filter_wants_connections_to_begin_with_a_syn),
        trial("defence::harmless::a_filter_tracks_connections_strictly", a_filter_tracks_connections_strictly),
    ]
}

const PORT: u16 = 80;
const WORKERS: usize = 4;
const CONNECTIONS: usize = 200;
/// SYNs a second: three times what begins a flood.
const MODERATE: u64 = 12_000;
/// As many as two more hosts can forward and answer on the same processors. It would begin a flood if it were the router's own.
const FORWARDED: u64 = 6_000;
/// How long a flood goes on before anybody is asked about it: longer than the daemon's second.
const WHILE: Duration = Duration::from_millis(1_500);

/// What goes to another host's port 80 is forwarded, a flood too, whatever happens to the router's own.
fn a_router_forwards_the_port_it_listens_on() {
    let topology = routed();
    let own = Nginx::start(&topology.router, &wildcards(), WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(), WORKERS);
    let weir = attach(&topology.router, Routed::CLIENT_SIDE);
    for (family, client) in Routed::CLIENT.into_iter().enumerate() {
        let [router, backend] = [Routed::ROUTER[family], Routed::BACKEND[family]].map(|address| SocketAddr::new(address, PORT));
        let served = || {
            assert_served(&topology.client, client, backend, &behind);
            assert_served(&topology.client, client, router, &own);
        };
        let books = Books::read(&weir, &topology.router);
        let flood = at_rate(&towards_router(&topology, backend), FORWARDED);
        std::thread::sleep(WHILE);
        served();
        drop(flood);
        let books = books.until_now(&weir, &topology.router);
        println!("for the backend: {:?}", books.moved());
        // The clients are quick enough to be taken for a flood themselves.
        assert!(books.reason("cookie_sent") <= 4 * CONNECTIONS as u64, "{:?}", books.moved());
        assert!(books.reason("not_an_address") > FORWARDED, "{:?}", books.moved());
    }
    for (family, client) in Routed::CLIENT.into_iter().enumerate() {
        let [router, backend] = [Routed::ROUTER[family], Routed::BACKEND[family]].map(|address| SocketAddr::new(address, PORT));
        let books = Books::read(&weir, &topology.router);
        let _flood = at_rate(&towards_router(&topology, router), MODERATE);
        wait_for_mode(&weir, "flood");
        assert_served(&topology.client, client, backend, &behind);
        assert_served(&topology.client, client, router, &own);
        let books = books.until_now(&weir, &topology.router);
        println!("for the router: {:?}", books.moved());
        assert!(books.reason("cookie_sent") > 200, "{:?}", books.moved());
    }
}

/// As Docker publishes a port: a rule sends it to a container, and a listener of the host's own holds the port on every address. The
/// listener gets nothing from outside.
fn a_translated_port_has_a_listener_too() {
    let topology = routed();
    topology.destination_nat(PORT, PORT);
    let _own = Nginx::start(&topology.router, &wildcards(), WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(), WORKERS);
    let weir = attach(&topology.router, Routed::CLIENT_SIDE);
    for (client, router) in Routed::CLIENT.into_iter().zip(Routed::ROUTER) {
        let published = SocketAddr::new(router, PORT);
        let books = Books::read(&weir, &topology.router);
        let _flood = at_rate(&towards_router(&topology, published), FORWARDED);
        std::thread::sleep(WHILE);
        assert_served(&topology.client, client, published, &behind);
        let books = books.until_now(&weir, &topology.router);
        println!("{published}: {:?}", books.moved());
        assert_eq!(books.reason("cookie_sent"), 0, "{:?}", books.moved());
    }
}

/// The same rule for another port, as on any host with containers. The kernel loses what it is told of a connection there (Linux 6.18,
/// IPv4), but honours its own cookies: those are sent, once a client has shown that the listener is reached.
fn others_addresses_are_translated() {
    let topology = routed();
    topology.destination_nat(9_999, PORT);
    let own = Nginx::start(&topology.router, &wildcards(), WORKERS);
    let weir = attach(&topology.router, Routed::CLIENT_SIDE);
    for (client, router) in Routed::CLIENT.into_iter().zip(Routed::ROUTER) {
        let target = SocketAddr::new(router, PORT);
        let unsafe_ones = || weir.metrics().sum("weir_defence_unsafe", &[]);
        assert!(unsafe_ones() >= 1.0, "nobody has come yet");
        assert_served(&topology.client, client, target, &own);
        let before = unsafe_ones();
        eventually(PATIENCE, || {
            let now = unsafe_ones();
            if now < 2.0 { Ok(()) } else { Err(format!("{now} services are unsafe, before {before}")) }
        });
        let books = Books::read(&weir, &topology.router);
        let _flood = at_rate(&towards_router(&topology, target), MODERATE);
        wait_for_mode(&weir, "flood");
        std::thread::sleep(WHILE);
        assert_served(&topology.client, client, target, &own);
        let books = books.until_now(&weir, &topology.router);
        println!("{target}: {:?}", books.moved());
        assert!(books.reason("cookie_sent") > 200, "{:?}", books.moved());
    }
    let log = weir.log();
    assert!(log.contains("net.ipv4.tcp_syncookies is 2 instead of 1"), "{log}");
}

/// A rule that many firewalls begin with: a connection that conntrack has not seen begin with a SYN is dropped.
fn a_filter_wants_connections_to_begin_with_a_syn() {
    let pair = Pair::new();
    input_rule(&pair.server, "tcp flags & syn != syn ct state new");
    assert_served_behind_filter(&pair);
}

/// conntrack takes up no connection in its middle (`nf_conntrack_tcp_loose`), and what it does not know is dropped.
fn a_filter_tracks_connections_strictly() {
    let pair = Pair::new();
    input_rule(&pair.server, "ct state invalid");
    pair.server.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0");
    assert_served_behind_filter(&pair);
}

/// Weir has found out that a cookie's connection would be lost, says so, and leaves the SYNs to the kernel.
fn assert_served_behind_filter(pair: &Pair) {
    ready(pair);
    let nginx = Nginx::start(&pair.server, &wildcards(), WORKERS);
    for (v6, client, server) in [(false, pair.client_v4[0], pair.server_v4[0]), (true, pair.client_v6[0], pair.server_v6[0])] {
        // The filter is there: without it, the listener resets a segment of no connection.
        let stranger = RawClient::new(pair, v6, 0);
        stranger.send(&[stranger.tcp(40_000, PORT).flags(ACK)]);
        assert_eq!(stranger.receive_all(Duration::from_millis(100)), []);

        let weir = attach(&pair.server, Pair::SERVER_DEVICE);
        let target = SocketAddr::new(server, PORT);
        let books = Books::read(&weir, &pair.server);
        let aim = Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target };
        let _flood = at_rate(&aim, MODERATE);
        std::thread::sleep(WHILE);
        assert_served(&pair.client, client, target, &nginx);
        let books = books.until_now(&weir, &pair.server);
        println!("{target}: {:?}", books.moved());
        assert!(weir.metrics().sum("weir_defence_unsafe", &[]) >= 1.0);
        assert!(weir.log().contains("would be lost in this host's packet filter"));
        assert_eq!(books.reason("cookie_sent"), 0, "{:?}", books.moved());
        assert!(books.reason("defence_asleep") > 2_000, "{:?}", books.moved());
    }
}

/// The topology with a way back to whomever a flood claims to come from.
fn routed() -> Routed {
    let topology = Routed::new();
    for client in Routed::CLIENT {
        topology.router.tool("ip", &["route", "add", "default", "via", &client.to_string()]);
    }
    topology
}

/// Drops what comes in for this host and matches.
fn input_rule(host: &Namespace, matches: &str) {
    host.nft(&format!("table inet weirtest {{ chain input {{ type filter hook input priority filter\n {matches} drop\n }}\n }}"));
}

fn towards_router(topology: &Routed, target: SocketAddr) -> Aim<'_> {
    Aim { from: (&topology.client, Routed::HOST_DEVICE), to: (&topology.router, Routed::CLIENT_SIDE), target }
}

/// The wildcard of each family.
fn wildcards() -> [SocketAddr; 2] {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|address| SocketAddr::new(address, PORT))
}

/// Weir on a device, once it has found the listeners of both families.
fn attach(host: &Namespace, device: &str) -> Weir {
    let weir = Weir::start(host, device, Some(CONFIGURATION), &[]);
    eventually(PATIENCE, || {
        let found: usize = status(&weir).services.iter().map(|service| service.backends.len()).sum();
        if found == 2 * WORKERS { Ok(()) } else { Err(format!("{found} backends")) }
    });
    weir
}

/// GETs the long body so often, each time over a connection of its own, from this server, and none waits for a lost packet.
///
/// The kernel answers this flood itself, on processors that it shares with everybody: now and then a veth's ring overflows and a client's
/// packet is lost there. So the clients may try again; what Weir loses, it loses each time.
#[track_caller]
fn assert_served(client: &Namespace, source: IpAddr, target: SocketAddr, by: &Nginx) {
    const ROUNDS: usize = 4;
    // A client's port of before may be in TIME_WAIT still.
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let mut slow = Vec::new();
    while slow.len() < ROUNDS {
        let first = OPENED.fetch_add(CONNECTIONS, Ordering::Relaxed);
        let plan = Plan::new(target, &[source]).http("/body", Some(&long_body())).orderly_close().starting_at_flow(first);
        let report = open_close(client, &plan, CONNECTIONS);
        report.assert_no_failure();
        println!("{target}: first response {}, {} slow", report.first_response, report.slow);
        assert_eq!(report.ok, CONNECTIONS as u64);
        let workers = by.worker_pids();
        assert!(report.by_worker.keys().all(|pid| workers.contains(pid)), "{:?} instead of {workers:?}", report.by_worker);
        if report.slow == 0 {
            return;
        }
        slow.push((report.slow, report.slowest));
    }
    panic!("clients waited for lost packets each time: {slow:?}");
}
