//! Hosts on which a connection is more than a listener's business: they forward, translate or filter by connection state. Clients are
//! served on each as if Weir were not there, also while the listener's port is under attack.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;

use super::{Aim, floods::by_generator};
use crate::netns::live::{PATIENCE, status};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Namespace, Pair, Routed};
use crate::support::packet::ACK;
use crate::support::raw::RawClient;
use crate::support::servers::{Nginx, long_body};
use crate::support::trial;
use crate::support::wait::eventually;

/// What Weir is told.
const CONFIGURATION: &str = "";

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::harmless::a_router_forwards_the_port_it_listens_on", || a_router_forwards_the_port_it_listens_on(by_generator)),
        trial("defence::harmless::a_translated_port_has_a_listener_too", || a_translated_port_has_a_listener_too(by_generator)),
        trial("defence::harmless::a_filter_wants_connections_to_begin_with_a_syn", || {
            a_filter_wants_connections_to_begin_with_a_syn(by_generator);
        }),
        trial("defence::harmless::a_filter_tracks_connections_strictly", || a_filter_tracks_connections_strictly(by_generator)),
    ]
}

const PORT: u16 = 80;
const WORKERS: usize = 4;
const CONNECTIONS: usize = 200;

/// What goes to another host's port 80 is forwarded, whatever happens to the router's own.
fn a_router_forwards_the_port_it_listens_on<G>(flood: impl Fn(&Aim<'_>) -> G) {
    let topology = Routed::new();
    let own = Nginx::start(&topology.router, &wildcards(), WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(), WORKERS);
    let _weir = attach(&topology.router, Routed::CLIENT_SIDE);
    for (family, client) in Routed::CLIENT.into_iter().enumerate() {
        let [router, backend] = [Routed::ROUTER[family], Routed::BACKEND[family]].map(|address| SocketAddr::new(address, PORT));
        let _flood = flood(&towards_router(&topology, router));
        assert_served(&topology.client, client, backend, &behind);
        assert_served(&topology.client, client, router, &own);
    }
}

/// As Docker publishes a port: a rule sends it to a container, and a listener of the host's own holds the port on every address. The
/// listener gets nothing from outside.
fn a_translated_port_has_a_listener_too<G>(flood: impl Fn(&Aim<'_>) -> G) {
    let topology = Routed::new();
    topology.destination_nat(PORT, PORT);
    let _own = Nginx::start(&topology.router, &wildcards(), WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(), WORKERS);
    let _weir = attach(&topology.router, Routed::CLIENT_SIDE);
    for (client, router) in Routed::CLIENT.into_iter().zip(Routed::ROUTER) {
        let published = SocketAddr::new(router, PORT);
        let _flood = flood(&towards_router(&topology, published));
        assert_served(&topology.client, client, published, &behind);
    }
}

/// A rule that many firewalls begin with: a connection that conntrack has not seen begin with a SYN is dropped.
fn a_filter_wants_connections_to_begin_with_a_syn<G>(flood: impl Fn(&Aim<'_>) -> G) {
    let pair = Pair::new();
    input_rule(&pair.server, "tcp flags & syn != syn ct state new");
    assert_served_behind_filter(&pair, flood);
}

/// conntrack takes up no connection in its middle (`nf_conntrack_tcp_loose`), and what it does not know is dropped.
fn a_filter_tracks_connections_strictly<G>(flood: impl Fn(&Aim<'_>) -> G) {
    let pair = Pair::new();
    input_rule(&pair.server, "ct state invalid");
    pair.server.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0");
    assert_served_behind_filter(&pair, flood);
}

fn assert_served_behind_filter<G>(pair: &Pair, flood: impl Fn(&Aim<'_>) -> G) {
    let nginx = Nginx::start(&pair.server, &wildcards(), WORKERS);
    for (v6, client, server) in [(false, pair.client_v4[0], pair.server_v4[0]), (true, pair.client_v6[0], pair.server_v6[0])] {
        // The filter is there: without it, the listener resets a segment of no connection.
        let stranger = RawClient::new(pair, v6, 0);
        stranger.send(&[stranger.tcp(40_000, PORT).flags(ACK)]);
        assert_eq!(stranger.receive_all(Duration::from_millis(100)), []);

        let _weir = attach(&pair.server, Pair::SERVER_DEVICE);
        let target = SocketAddr::new(server, PORT);
        let _flood = flood(&Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target });
        assert_served(&pair.client, client, target, &nginx);
    }
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
#[track_caller]
fn assert_served(client: &Namespace, source: IpAddr, target: SocketAddr, by: &Nginx) {
    // A client's port of before may be in TIME_WAIT still.
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let first = OPENED.fetch_add(CONNECTIONS, Ordering::Relaxed);
    let plan = Plan::new(target, &[source]).http("/body", Some(&long_body())).orderly_close().starting_at_flow(first);
    let report = open_close(client, &plan, CONNECTIONS);
    report.assert_no_failure();
    println!("{target}: first response {}", report.first_response);
    assert_eq!((report.ok, report.slow), (CONNECTIONS as u64, 0), "the slowest took {:?}", report.slowest);
    let workers = by.worker_pids();
    assert!(report.by_worker.keys().all(|pid| workers.contains(pid)), "{:?} instead of {workers:?}", report.by_worker);
}
