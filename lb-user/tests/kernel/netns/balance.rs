//! The choice itself: XDP's is the accepting socket's, and the spread is even.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use libtest_mimic::Trial;

use super::live::{MOMENT, Table, assert_no_miss, backend_of, selected, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::open_close;
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::balance::xdp_chooses_the_accepting_socket_over_ipv4", || xdp_chooses_the_accepting_socket(false)),
        trial("netns::balance::xdp_chooses_the_accepting_socket_over_ipv6", || xdp_chooses_the_accepting_socket(true)),
        trial("netns::balance::a_dual_stack_group_is_one_service", a_dual_stack_group_is_one_service),
        trial("netns::balance::four_workers_share_evenly_over_ipv4", || workers_share_evenly(false, 4, 100_000)),
        trial("netns::balance::seven_workers_share_evenly_over_ipv4", || workers_share_evenly(false, 7, 100_000)),
        trial("netns::balance::seven_workers_share_evenly_over_ipv6", || workers_share_evenly(true, 7, 100_000)),
        trial("netns::balance::weights_set_the_shares", weights_set_the_shares),
    ]
}

/// While the table stands still, each of 10,000 connections is accepted by the socket that the live table names for its 4-tuple, and
/// per backend XDP's choices, the selector's, the connections established and those that the worker accepted are the same number.
fn xdp_chooses_the_accepting_socket(v6: bool) {
    const CONNECTIONS: usize = 10_000;
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
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
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
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
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
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
    let text =
        format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\naddress = \"{}\"\nweights = [3, 1, 0]\n", target.ip());
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
