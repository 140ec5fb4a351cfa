//! The choice itself: XDP's is the accepting socket's, the spread is even, and services, interfaces and devices are told apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_user::observe::snapshot::Snapshot;
use libtest_mimic::Trial;

use super::live::{MOMENT, PATIENCE, Table, UNDEFENDED, assert_no_miss, backend_of, selected, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Pair, topology::join};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::balance::xdp_chooses_the_accepting_socket_over_ipv4", || xdp_chooses_the_accepting_socket(false)),
        trial("netns::balance::xdp_chooses_the_accepting_socket_over_ipv6", || xdp_chooses_the_accepting_socket(true)),
        trial("netns::balance::a_dual_stack_group_is_one_service", a_dual_stack_group_is_one_service),
        trial("netns::balance::four_workers_share_evenly_over_ipv4", || workers_share_evenly(false, 4, 100_000)),
        trial("netns::balance::seven_workers_share_evenly_over_ipv4", || workers_share_evenly(false, 7, 100_000)),
        trial("netns::balance::seven_workers_share_evenly_over_ipv6", || workers_share_evenly(true, 7, 100_000)),
        trial("netns::balance::weights_set_the_shares", weights_set_the_shares),
        trial("netns::balance::services_are_counted_apart", services_are_counted_apart),
        trial("netns::balance::two_interfaces_and_a_bound_device", two_interfaces_and_a_bound_device),
    ]
}

/// While the table stands still, each of 10,000 connections is accepted by the socket that the live table names for its 4-tuple, and
/// per backend XDP's choices, the selector's, the connections established and those that the worker accepted are the same number.
fn xdp_chooses_the_accepting_socket(v6: bool) {
    const CONNECTIONS: usize = 10_000;
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    let table = Table::read(&weir, &service_with_ready(&weir, 4));

    // A connection that the client resets may have its worker's FIN answered by one more reset, which reaches the listener as well.
    let report = open_close(&pair.client, &plan.orderly_close(), CONNECTIONS);
    report.assert_no_failure();
    assert_eq!((report.ok, report.slow), (CONNECTIONS as u64, 0), "the slowest took {:?}", report.slowest);
    let elsewhere: Vec<_> = report.flows.iter().filter(|(source, answer)| table.cookie_for(*source, target) != answer.cookie).collect();
    assert!(elsewhere.is_empty(), "{} flows went elsewhere than the table says, the first: {:?}", elsewhere.len(), elsewhere[0]);

    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    let service = &snapshot.services[0];
    assert_eq!(Table::read(&weir, service), table, "the table stood still");
    let accepted = workers.counts();
    for socket in workers.sockets() {
        let backend = backend_of(service, socket.cookie);
        let counted = [backend.chosen, selected(backend, "syn"), backend.selections(), backend.established];
        assert_eq!(counted, [accepted[&socket.index]; 4], "chosen, selected for a SYN, selected at all, established: {backend:?}");
    }
    assert_no_miss(&snapshot);
    let metrics = weir.metrics();
    let name = [("service", service.name.as_str())];
    assert_eq!(metrics.count("weir_packets_total", &[name[0], ("reason", "tcp_opened")]), CONNECTIONS as u64);
    assert_eq!(metrics.count("weir_backend_connections_total", &name), CONNECTIONS as u64);
    assert_eq!(metrics.count("weir_backend_selections_total", &[name[0], ("cause", "syn")]), CONNECTIONS as u64);
}

/// Workers on `[::]` serve both families: one group, one service, and for IPv4 clients too the table names the worker.
fn a_dual_stack_group_is_one_service() {
    let pair = Pair::new();
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 8080)), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    let table = Table::read(&weir, &service_with_ready(&weir, 3));
    for v6 in [false, true] {
        let (target, plan) = target(&pair, v6, 8080);
        let report = open_close(&pair.client, &plan, 1000);
        report.assert_no_failure();
        assert!(report.flows.iter().all(|(source, answer)| table.cookie_for(*source, target) == answer.cookie), "IPv6: {v6}");
    }
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    let backends = workers.sockets().into_iter().map(|socket| backend_of(&snapshot.services[0], socket.cookie).clone());
    let (chosen, taken): (Vec<_>, Vec<_>) = backends.map(|backend| (backend.chosen, selected(&backend, "syn"))).unzip();
    assert_eq!((chosen.iter().sum::<u64>(), &taken), (2000, &chosen));
    assert_no_miss(&snapshot);
}

/// Each worker gets its share of so many 4-tuples, within 5 %, and the selector gave it every one of them.
fn workers_share_evenly(v6: bool, count: u32, flows: usize) {
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), count);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    service_with_ready(&weir, count as usize);
    let report = open_close(&pair.client, &plan, flows);
    report.assert_no_failure();
    assert_eq!(report.by_worker, workers.counts());
    assert_spread(&report.by_worker, &vec![1.0 / f64::from(count); count as usize]);
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    for socket in workers.sockets() {
        assert_eq!(selected(backend_of(&snapshot.services[0], socket.cookie), "syn"), report.by_worker[&socket.index]);
    }
    assert_no_miss(&snapshot);
}

/// Weights are shares: of 3, 1 and 0 the first gets three quarters, the last nothing.
fn weights_set_the_shares() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    let text = format!(
        "[[service]]\nsyn_defence = \"off\"\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\naddress = \"{}\"\nweights = [3, 1, 0]\n",
        target.ip()
    );
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&text), &[]);
    let service = service_with_ready(&weir, 3);
    let report = open_close(&pair.client, &plan, 20_000);
    report.assert_no_failure();
    // Weights go by the backend's index; the workers' own numbers may be others.
    let by_backend: BTreeMap<u32, u64> = workers
        .sockets()
        .iter()
        .map(|socket| (backend_of(&service, socket.cookie).index, report.by_worker.get(&socket.index).copied().unwrap_or(0)))
        .collect();
    assert_spread(&by_backend, &[0.75, 0.25, 0.0]);
    assert_no_miss(&status(&weir));
}

/// Panics unless each has its share of the whole, within 5 % of that share.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
fn assert_spread(counts: &BTreeMap<u32, u64>, shares: &[f64]) {
    assert_eq!(counts.len(), shares.len(), "{counts:?}");
    let sum: u64 = counts.values().sum();
    let worst =
        counts.values().zip(shares).map(|(count, share)| (*count as f64 - share * sum as f64).abs() / (share * sum as f64).max(1.0));
    let worst = worst.fold(0.0, f64::max);
    println!("{counts:?} of {sum}: at most {:.2} % from the expected share", worst * 100.0);
    assert!(worst <= 0.05, "{counts:?} of {sum}: {:.1} % from the expected share", worst * 100.0);
}

/// TCP and UDP workers on one address and port, and TCP workers on another port: three services, each with its own counters.
fn services_are_counted_apart() {
    let pair = Pair::new();
    let (web, to_web) = target(&pair, false, 8080);
    let (admin, to_admin) = target(&pair, false, 8081);
    let mut groups = [Workers::start(&pair.server, &WorkerPlan::tcp(web), 3), Workers::start(&pair.server, &WorkerPlan::tcp(admin), 2)];
    let _datagrams = Workers::start(&pair.server, &WorkerPlan::udp(web), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--discover", "udp"]);
    wait_for_services(&weir, &[3, 2, 2]);
    for (plan, count) in [(&to_web, 300), (&to_admin, 200)] {
        open_close(&pair.client, plan, count).assert_no_failure();
    }
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    assert_counted(&snapshot, &mut groups);
    let opened = weir.metrics().counts_by("weir_packets_total", "service", &[("reason", "tcp_opened")]);
    let of = |service: &str| opened.get(service).copied().unwrap_or(0);
    assert_eq!([of(&format!("tcp/{web}")), of(&format!("tcp/{admin}")), of(&format!("udp/{web}"))], [300, 200, 0]);
    assert_no_miss(&snapshot);
}

/// Wildcard workers are one service on both interfaces, and workers of the same port bound to one of them get what comes in by it.
fn two_interfaces_and_a_bound_device() {
    const SECOND: &str = "toclient2";
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 90, 0, 1));
    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 90, 0, 101));
    let pair = Pair::new();
    join(&pair.client, "toserver2", &pair.server, SECOND);
    pair.client.ip(&format!("address add {CLIENT}/24 dev toserver2"));
    pair.server.ip(&format!("address add {SERVER}/24 dev {SECOND}"));
    let wildcard = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8080);
    let by_first = target(&pair, false, 8080).1;
    let by_second = Plan::new(SocketAddr::new(SERVER, 8080), &[CLIENT]);
    let mut groups = vec![Workers::start(&pair.server, &WorkerPlan::tcp(wildcard), 3)];
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &["--iface", SECOND]);
    wait_for_services(&weir, &[3]);
    for plan in [&by_first, &by_second] {
        open_close(&pair.client, plan, 200).assert_no_failure();
    }
    std::thread::sleep(MOMENT);
    assert_counted(&status(&weir), &mut groups);
    assert_eq!(weir.metrics().count("weir_packets_total", &[("reason", "tcp_opened")]), 400, "both interfaces are seen");

    groups.push(Workers::start(&pair.server, &WorkerPlan::tcp(wildcard).device(SECOND), 2));
    wait_for_services(&weir, &[3, 2]);
    for (plan, count) in [(&by_first, 150), (&by_second, 100)] {
        open_close(&pair.client, &plan.clone().starting_at_flow(1000), count).assert_no_failure();
    }
    let taken: Vec<u64> = groups.iter_mut().map(|group| group.counts().values().sum()).collect();
    assert_eq!(taken, [550, 100], "what comes in by the device is the bound workers'");
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    assert_counted(&snapshot, &mut groups);
    assert_no_miss(&snapshot);
}

/// Waits until there are services with so many backends, in any order.
#[track_caller]
fn wait_for_services(weir: &Weir, backends: &[usize]) {
    let mut wanted = backends.to_vec();
    wanted.sort_unstable();
    eventually(PATIENCE, || {
        let mut found: Vec<_> = status(weir).services.iter().map(|service| service.backends.len()).collect();
        found.sort_unstable();
        if found == wanted { Ok(()) } else { Err(format!("services with {found:?} backends")) }
    });
}

/// Panics unless XDP's choices, the selector's and the connections established are what each worker accepted.
#[track_caller]
fn assert_counted(snapshot: &Snapshot, groups: &mut [Workers]) {
    for group in groups {
        let counts = group.counts();
        let sockets = group.sockets();
        let service = snapshot.services.iter().find(|service| service.backends.iter().any(|backend| backend.cookie == sockets[0].cookie));
        let service = service.expect("a service for each group");
        for socket in sockets {
            let backend = backend_of(service, socket.cookie);
            assert_eq!([backend.chosen, selected(backend, "syn"), backend.established], [counts[&socket.index]; 3], "{backend:?}");
        }
    }
}
