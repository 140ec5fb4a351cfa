//! Whose packets are whose: forwarded, translated and bridged traffic is left alone, and interfaces and addresses come and go.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lb_user::observe::snapshot::{Backend, Snapshot};
use libtest_mimic::Trial;

use crate::support::capture::Capture;
use crate::support::daemon::Weir;
use crate::support::load::{Plan, Report, open_close};
use crate::support::netns::{
    Entrance, Namespace, Pair, Routed,
    topology::{add_address, join},
};
use crate::support::servers::{Nginx, WorkerPlan, Workers, long_body};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("forward::forwarded_packets_pass_as_they_are", forwarded_packets_pass_as_they_are),
        trial("forward::translated_connections_reach_the_backend", translated_connections_reach_the_backend),
        trial("forward::a_bridged_interface_balances_what_is_for_the_bridge", a_bridged_interface_balances_what_is_for_the_bridge),
        trial("forward::addresses_come_and_go", addresses_come_and_go),
        trial("forward::an_interface_goes_and_comes_back", an_interface_goes_and_comes_back),
        trial("forward::generic_mode_on_a_veth", generic_mode_on_a_veth),
        trial("forward::generic_mode_on_loopback", generic_mode_on_loopback),
    ]
}

const PORT: u16 = 80;
const WORKERS: usize = 4;
const CONNECTIONS: usize = 200;
/// How soon a change of addresses takes effect.
const SOON: Duration = Duration::from_secs(1);

fn forwarded_packets_pass_as_they_are() {
    let topology = Routed::new();
    let own = Nginx::start(&topology.router, &wildcards(PORT), WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(PORT), WORKERS);
    let weir = attach(&topology.router, Routed::CLIENT_SIDE, 2 * WORKERS);

    let filter = format!("tcp dst port {PORT}");
    let sent = Capture::start(&topology.client, Routed::HOST_DEVICE, &filter);
    let forwarded = Capture::start(&topology.router, Routed::BACKEND_SIDE, &filter);
    for (client, backend) in Routed::CLIENT.into_iter().zip(Routed::BACKEND) {
        let report = get(&topology.client, client, SocketAddr::new(backend, PORT));
        assert_served_by(&report, &behind);
    }
    let (sent, forwarded) = (sent.finish(), forwarded.finish());
    assert!(sent.len() > 4 * CONNECTIONS, "{} packets for {} connections", sent.len(), 2 * CONNECTIONS);
    let (before, after) = (without_hops(&sent), without_hops(&forwarded));
    let changed: Vec<_> = before.symmetric_difference(&after).take(4).collect();
    assert!(
        changed.is_empty(),
        "of {} packets sent {} came out unchanged; some others: {changed:02x?}",
        before.len(),
        before.intersection(&after).count()
    );

    let before = status(&weir);
    assert!(packets(&before, "not_an_address") >= sent.len() as u64, "{:?}", before.passed);
    assert_eq!((packets(&before, "tcp_opened"), packets(&before, "tcp_established"), selections(&before)), (0, 0, 0));

    for (client, router) in Routed::CLIENT.into_iter().zip(Routed::ROUTER) {
        let report = get(&topology.client, client, SocketAddr::new(router, PORT));
        assert_served_by(&report, &own);
    }
    let after = status(&weir);
    assert_eq!(selections(&after), 2 * CONNECTIONS as u64, "the router's own addresses are balanced");
    assert!(backends(&after).all(|backend| selected(backend) > 0), "over all of its workers");
    assert_eq!(packets(&after, "not_an_address"), packets(&before, "not_an_address"));
}

fn translated_connections_reach_the_backend() {
    const ALSO: u16 = 8080;
    let topology = Routed::new();
    let second = IpAddr::V4(Ipv4Addr::new(10, 89, 1, 253));
    add_address(&topology.router, Routed::CLIENT_SIDE, second);
    topology.destination_nat(ALSO, PORT);
    topology.router.nft(&format!(
        "table ip weirtest_second {{ chain prerouting {{ type nat hook prerouting priority dstnat\n ip daddr {second} tcp dport {PORT} dnat to {}\n }}\n }}",
        Routed::BACKEND[0]
    ));
    let listen: Vec<_> = [wildcards(PORT), wildcards(ALSO)].concat();
    let own = Nginx::start(&topology.router, &listen, WORKERS);
    let behind = Nginx::start(&topology.backend, &wildcards(PORT), WORKERS);
    let weir = attach(&topology.router, Routed::CLIENT_SIDE, 4 * WORKERS);

    let [own_v4, own_v6] = Routed::ROUTER;
    let [v4, v6] = Routed::CLIENT;
    for (client, translated) in
        [(v4, SocketAddr::new(own_v4, ALSO)), (v6, SocketAddr::new(own_v6, ALSO)), (v4, SocketAddr::new(second, PORT))]
    {
        let report = get(&topology.client, client, translated);
        assert_served_by(&report, &behind);
    }
    assert_eq!(selections(&status(&weir)), 0, "the selector never runs for them");

    let report = get(&topology.client, v4, SocketAddr::new(own_v4, PORT));
    assert_served_by(&report, &own);
    assert_eq!(selections(&status(&weir)), CONNECTIONS as u64, "what is not translated is balanced");
}

fn a_bridged_interface_balances_what_is_for_the_bridge() {
    let pair = Pair::new();
    let (v4, v6) = (pair.server_v4[0], pair.server_v6[0]);
    let server = &pair.server;
    server.ip("link add br0 address 02:00:00:00:00:b0 type bridge");
    server.ip(&format!("address flush dev {}", Pair::SERVER_DEVICE));
    server.ip(&format!("link set {} master br0", Pair::SERVER_DEVICE));
    server.ip("link set br0 up");
    add_address(server, "br0", v4);
    add_address(server, "br0", v6);
    // A host of its own on another port of the bridge.
    let neighbour = Namespace::new("neighbour");
    join(&neighbour, "eth", server, "port");
    server.ip("link set port master br0");
    let IpAddr::V4(own) = v4 else { panic!("{v4} is of the IPv4 plan") };
    let other = IpAddr::V4(Ipv4Addr::from(u32::from(own) + 50));
    add_address(&neighbour, "eth", other);

    let nginx = Nginx::start(server, &wildcards(PORT), WORKERS);
    let behind = Nginx::start(&neighbour, &wildcards(PORT), WORKERS);
    let weir = attach(server, Pair::SERVER_DEVICE, 2 * WORKERS);
    for (client, own) in [(pair.client_v4[0], v4), (pair.client_v6[0], v6)] {
        let report = get(&pair.client, client, SocketAddr::new(own, PORT));
        assert_served_by(&report, &nginx);
    }
    let own = status(&weir);
    assert_eq!((packets(&own, "tcp_opened"), selections(&own)), (2 * CONNECTIONS as u64, 2 * CONNECTIONS as u64));
    assert_eq!(packets(&own, "other_host"), 0, "the bridge's MAC is this host's");

    let report = get(&pair.client, pair.client_v4[0], SocketAddr::new(other, PORT));
    assert_served_by(&report, &behind);
    let after = status(&weir);
    assert_eq!(selections(&after), selections(&own), "what the bridge sends on is none of ours");
    assert!(packets(&after, "not_an_address") >= packets(&own, "not_an_address") + 2 * CONNECTIONS as u64);
}

fn addresses_come_and_go() {
    let pair = Pair::new();
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)), 4);
    let weir = attach(&pair.server, Pair::SERVER_DEVICE, workers.sockets().len());
    let IpAddr::V4(own) = pair.server_v4[0] else { panic!("of the IPv4 plan") };
    let later = IpAddr::V4(Ipv4Addr::from(u32::from(own) + 50));
    let target = SocketAddr::new(later, PORT);
    let source = SocketAddr::new(pair.client_v4[0], 40_000);
    let service = || weir.cli(&["explain", "tcp", &source.to_string(), &target.to_string(), "--json"])["service"].clone();
    assert!(service().is_null(), "{}", service());

    add_address(&pair.server, Pair::SERVER_DEVICE, later);
    eventually(SOON, || if service().is_string() { Ok(()) } else { Err("the new address is no entry of the service".to_owned()) });
    let report = open_close(&pair.client, &Plan::new(target, &pair.client_v4), CONNECTIONS);
    report.assert_no_failure();
    assert_eq!(packets(&status(&weir), "tcp_opened"), CONNECTIONS as u64);

    pair.server.ip(&format!("address delete {later}/24 dev {}", Pair::SERVER_DEVICE));
    eventually(SOON, || if service().is_null() { Ok(()) } else { Err("the address is still an entry".to_owned()) });
}

fn an_interface_goes_and_comes_back() {
    let pair = Pair::new();
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)), 4);
    let weir = attach(&pair.server, Pair::SERVER_DEVICE, workers.sockets().len());
    let pid = weir.pid();
    let mode = || status(&weir).dataplane.interfaces[0].mode.clone();
    assert_eq!(mode(), "native");

    // Twice: the second time the state is one that the daemon has made itself. Each time the service is a new one.
    for _ in 0..2 {
        pair.server.ip(&format!("link delete {}", Pair::SERVER_DEVICE));
        eventually(SOON, || if mode() == "gone" { Ok(()) } else { Err(format!("mode {}", mode())) });
        assert!(weir.log().contains(&format!("{} is gone", Pair::SERVER_DEVICE)), "{}", weir.log());
        assert_eq!(status(&weir).daemon.map(|daemon| daemon.pid), Some(pid), "the daemon lives on");

        join(&pair.client, Pair::CLIENT_DEVICE, &pair.server, Pair::SERVER_DEVICE);
        add_address(&pair.client, Pair::CLIENT_DEVICE, pair.client_v4[0]);
        add_address(&pair.server, Pair::SERVER_DEVICE, pair.server_v4[0]);
        eventually(SOON, || if mode() == "native" { Ok(()) } else { Err(format!("mode {}", mode())) });
        let target = SocketAddr::new(pair.server_v4[0], PORT);
        eventually(SOON, || {
            let explained = weir.cli(&["explain", "tcp", "192.0.2.1:1", &target.to_string(), "--json"]);
            if explained["service"].is_string() { Ok(()) } else { Err(explained.to_string()) }
        });
        let report = open_close(&pair.client, &Plan::new(target, &pair.client_v4[..1]), CONNECTIONS);
        report.assert_no_failure();
        assert_eq!(packets(&status(&weir), "tcp_opened"), CONNECTIONS as u64, "seen by XDP again");
        assert_eq!(selections(&status(&weir)), CONNECTIONS as u64);
    }
}

fn generic_mode_on_a_veth() {
    let pair = Pair::new();
    let listen: Vec<_> = [pair.server_v4[0], pair.server_v6[0]].map(|address| SocketAddr::new(address, PORT)).into();
    let nginx = Nginx::start(&pair.server, &listen, WORKERS);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--mode", "generic"]);
    wait_for_backends(&weir, 2 * WORKERS);
    for (client, target) in [pair.client_v4[0], pair.client_v6[0]].into_iter().zip(listen) {
        assert_served_by(&get(&pair.client, client, target), &nginx);
    }
    assert_balanced_in_generic_mode(&weir);
}

fn generic_mode_on_loopback() {
    // Said, or found out: no driver runs XDP on loopback.
    for arguments in [&["--mode", "generic"][..], &[]] {
        let host = Namespace::new("loopback");
        let nginx = Nginx::start(&host, &wildcards(PORT), WORKERS);
        let weir = Weir::start(&host, "lo", None, arguments);
        wait_for_backends(&weir, 2 * WORKERS);
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            assert_served_by(&get(&host, address, SocketAddr::new(address, PORT)), &nginx);
        }
        assert_balanced_in_generic_mode(&weir);
    }
}

fn assert_balanced_in_generic_mode(weir: &Weir) {
    let status = status(weir);
    assert_eq!(status.dataplane.interfaces[0].mode, "generic");
    let all = 2 * CONNECTIONS as u64;
    let chosen: u64 = backends(&status).map(|backend| backend.chosen).sum();
    assert_eq!((packets(&status, "tcp_opened"), chosen, selections(&status)), (all, all, all));
    assert!(backends(&status).all(|backend| backend.chosen == selected(backend)), "XDP and the selector agree");
}

/// The wildcard of each family.
fn wildcards(port: u16) -> [SocketAddr; 2] {
    [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)]
}

/// Weir on a device, once it has found so many listening sockets in all.
fn attach(host: &Namespace, device: &str, backends: usize) -> Weir {
    let weir = Weir::start(host, device, None, &[]);
    wait_for_backends(&weir, backends);
    weir
}

fn wait_for_backends(weir: &Weir, wanted: usize) {
    eventually(Duration::from_secs(5), || {
        let found = backends(&status(weir)).count();
        if found == wanted { Ok(()) } else { Err(format!("{found} backends instead of {wanted}")) }
    });
}

/// GETs the long body so often, each time over a connection of its own.
fn get(client: &Entrance, source: IpAddr, target: SocketAddr) -> Report {
    let plan = Plan::new(target, &[source]).http("/body", Some(&long_body()));
    let report = open_close(client, &plan, CONNECTIONS);
    report.assert_no_failure();
    report
}

fn assert_served_by(report: &Report, nginx: &Nginx) {
    let workers = nginx.worker_pids();
    assert!(report.by_worker.keys().all(|pid| workers.contains(pid)), "{:?} instead of {workers:?}", report.by_worker);
}

/// The packets without their Ethernet header and what a router changes: TTL and header checksum, or the hop limit.
fn without_hops(frames: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    let packet = |frame: &Vec<u8>| {
        let mut packet = frame[14..].to_vec();
        if packet[0] >> 4 == 4 {
            (packet[8], packet[10], packet[11]) = (0, 0, 0);
        } else {
            packet[7] = 0;
        }
        packet
    };
    frames.iter().map(packet).collect()
}

fn status(weir: &Weir) -> Snapshot {
    serde_json::from_value(weir.cli(&["status", "--json"])).expect("status prints a snapshot")
}

fn backends(status: &Snapshot) -> impl Iterator<Item = &Backend> {
    status.services.iter().flat_map(|service| &service.backends)
}

/// How many SYNs the selector chose for. It runs as well for a segment that comes when its connection is closed already: that finds the
/// listener, and is counted under another cause.
fn selections(status: &Snapshot) -> u64 {
    backends(status).map(selected).sum()
}

fn selected(backend: &Backend) -> u64 {
    backend.selected["syn"]
}

fn packets(status: &Snapshot, reason: &str) -> u64 {
    let counts = status.services.iter().flat_map(|service| &service.packets).chain(&status.passed);
    counts.filter(|count| count.reason == reason).map(|count| count.packets).sum()
}
