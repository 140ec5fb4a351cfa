//! Under load: tables that are swapped, workers that are drained, that leave, and that are killed.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_user::exit::Exit;
use lb_user::plan::State;
use libtest_mimic::Trial;

use super::live::{
    MOMENT, PATIENCE, Table, UNDEFENDED, assert_no_miss, backend_of, only_service, selected, service_with_ready, status, target,
};
use crate::support::daemon::Weir;
use crate::support::load::{Held, Phase, Steady, Wrk, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{Nginx, WorkerPlan, Workers};
use crate::support::snmp::Counters;
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::drain::swaps_under_load_lose_no_connection_over_ipv4", || swaps_under_load_lose_no_connection(false)),
        trial("netns::drain::swaps_under_load_lose_no_connection_over_ipv6", || swaps_under_load_lose_no_connection(true)),
        trial("netns::drain::a_killed_worker_takes_only_its_own_along", a_killed_worker_takes_only_its_own_along),
        trial("netns::drain::a_killed_nginx_worker_under_wrk", a_killed_nginx_worker_under_wrk),
        trial("netns::drain::draining_over_ipv4", || draining(false)),
        trial("netns::drain::draining_over_ipv6", || draining(true)),
    ]
}

/// Connections a second: two busy cores keep up with it.
const RATE: u32 = 1500;

/// Workers join, are drained, are given their share back and leave, 24 tables in all, while connections come in: none fails, none is slow
/// (what is lost in a swap would be sent again after a second), and the selector never gives up.
fn swaps_under_load_lose_no_connection(v6: bool) {
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let mut tables = vec![Table::read(&weir, &service_with_ready(&weir, 4))];
    let before = Counters::read(&pair.server);
    let load = Steady::at_rate(&pair.client, &plan, RATE);
    load.wait_for(200);
    for round in 0..6_usize {
        let joined = workers.add();
        let service = service_with_ready(&weir, 5);
        tables.push(Table::read(&weir, &service));
        load.wait_for(50);

        let leaving = workers.sockets()[round];
        let index = backend_of(&service, leaving.cookie).index.to_string();
        weir.cli(&["drain", &service.name, &index, "--json"]);
        tables.push(Table::read(&weir, &only_service(&weir)));
        load.wait_for(50);
        weir.cli(&["undrain", &service.name, &index, "--json"]);
        tables.push(Table::read(&weir, &service_with_ready(&weir, 5)));
        load.wait_for(50);

        workers.close(leaving.index);
        let service = service_with_ready(&weir, 4);
        assert!(service.backends.iter().all(|backend| backend.cookie != leaving.cookie));
        backend_of(&service, joined.cookie);
        tables.push(Table::read(&weir, &service));
        load.wait_for(50);
    }
    let report = load.stop();
    let swaps = tables.windows(2).filter(|pair| pair[0].entries() != pair[1].entries()).count();
    assert_eq!(swaps, 24, "each of these steps swaps the table");
    report.assert_failed_by_the_kernel_alone();
    report.assert_slow_by_the_kernel_alone(&Counters::read(&pair.server).since(&before));
    assert_eq!(report.by_worker.len(), 10, "all that were there took connections: {:?}", report.by_worker);
    assert_no_miss(&status(&weir));
}

/// Three times a worker is killed while connections come in. Of 400 connections held open exactly those of the killed worker are lost.
/// Of the short ones at most one is lost each time, the one that the worker had accepted and not answered yet: what waits in its accept
/// queue and what is still in its handshake goes to the others. No connection fails to open, before or after.
fn a_killed_worker_takes_only_its_own_along() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let mut ready = service_with_ready(&weir, 4);
    let mut held = Held::open(&pair.client, &plan, 400);
    for victim in 0..3 {
        let expected = held.held_by(victim);
        assert!(expected > 50, "worker {victim} holds {expected}");
        let cookie = workers.sockets()[0].cookie;
        let (before, counted) = (Table::read(&weir, &ready), Counters::read(&pair.server));
        let load = Steady::closed_loop(&pair.client, &plan);
        load.wait_for(1000);
        let killed_at = load.elapsed();
        workers.kill9(victim);
        load.wait_for(1000);
        let report = load.stop();

        let lost = held.check_alive();
        assert_eq!(lost.len(), expected, "lost of those held open");
        assert!(lost.iter().all(|(_, answer)| answer.worker == victim), "{lost:?}");

        println!(
            "worker {victim} killed: {} lost of {} short connections: {:?}",
            report.failures.len(),
            report.attempted(),
            report.failures
        );
        assert!(report.failures.len() <= 1, "{:?}", report.failures_by_kind());
        for failure in &report.failures {
            assert_eq!(failure.phase, Phase::Receive, "{failure:?}");
            assert_eq!(before.cookie_for(failure.source, target), cookie, "a connection of the killed worker");
            assert!(failure.at >= killed_at && failure.at < killed_at + Duration::from_secs(1), "{failure:?}, killed at {killed_at:?}");
        }
        report.assert_slow_by_the_kernel_alone(&Counters::read(&pair.server).since(&counted));
        ready = service_with_ready(&weir, 3 - victim as usize);
    }
    assert_no_miss(&status(&weir));
}

/// The same with nginx under wrk, whose 40 connections stay open and always wait for an answer: wrk reports as many broken connections
/// as the killed worker held, and none that could not be opened anew. The socket outlives the worker, for the one that nginx starts in
/// its place.
fn a_killed_nginx_worker_under_wrk() {
    let pair = Pair::new();
    let (target, _) = target(&pair, false, 80);
    let nginx = Nginx::start(&pair.server, &[target], 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let service = eventually(PATIENCE, || {
        let service = only_service(&weir);
        let served = service.backends.iter().all(|backend| backend.state == State::Ready && backend.servers.len() == 1);
        if served && service.backends.len() == 4 { Ok(service) } else { Err(format!("{:?}", service.backends)) }
    });
    let wrk = Wrk::start(&pair.client, 40, Duration::from_secs(4), false, &format!("http://{target}/body"));
    let busiest = eventually(PATIENCE, || {
        let backends = only_service(&weir).backends;
        let open: u64 = backends.iter().map(|backend| backend.open).sum();
        let busiest = backends.into_iter().max_by_key(|backend| backend.open).expect("four of them");
        if open == 40 { Ok(busiest) } else { Err(format!("{open} connections of wrk are open")) }
    });
    std::thread::sleep(Duration::from_secs(1));
    Nginx::kill9(busiest.servers[0].pid);
    let report = wrk.finish();
    println!("{} connections held by the killed worker: {report:?}", busiest.open);
    assert_eq!((report.connect_errors, report.timeouts, report.bad_status), (0, 0, 0), "{report:?}");
    assert_eq!(report.read_errors + report.write_errors, busiest.open, "{report:?}");
    assert!(nginx.worker_pids().len() == 4 && report.requests > 1000, "{report:?}");
    let snapshot = status(&weir);
    assert_eq!(snapshot.services[0].backends.len(), service.backends.len());
    let selections: u64 = snapshot.services[0].backends.iter().map(|backend| selected(backend, "syn")).sum();
    assert!(selections >= 40 + busiest.open, "wrk's connections and those it opened anew are Weir's: {selections}");
    assert_no_miss(&snapshot);
}

/// A drained worker gets nothing new and keeps what it has, nothing fails, and undrained it gets exactly the flows it had before.
fn draining(v6: bool) {
    const FLOWS: usize = 1000;
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    let service = service_with_ready(&weir, 3);
    let table = Table::read(&weir, &service);
    let sockets = workers.sockets();
    let of_worker = |worker: usize| backend_of(&service, sockets[worker].cookie).clone();
    let (drained, other) = (of_worker(1), of_worker(0));
    let flows_before = open_close(&pair.client, &plan, FLOWS);
    flows_before.assert_no_failure();
    let mut held = Held::open(&pair.client, &plan.clone().starting_at_flow(FLOWS), 300);
    assert!(held.held_by(1) > 50);

    let load = Steady::at_rate(&pair.client, &plan, RATE);
    load.wait_for(200);
    weir.cli(&["drain", &service.name, &drained.index.to_string(), "--json"]);
    // What had sent its SYN before is still that worker's.
    std::thread::sleep(MOMENT);
    let (at_drain, counted) = (workers.counts(), backend_of(&only_service(&weir), drained.cookie).clone());
    assert!(counted.state == State::Draining && counted.share <= 0.0, "{counted:?}");
    load.wait_for(1000);
    let (later, counted_later) = (workers.counts(), backend_of(&only_service(&weir), drained.cookie).clone());
    assert_eq!(later[&1], at_drain[&1], "a draining worker accepts nothing new");
    assert_eq!((counted_later.chosen, counted_later.selections()), (counted.chosen, counted.selections()), "and is not selected");
    assert!(later[&0] > at_drain[&0] && later[&2] > at_drain[&2], "the others take its share");
    assert!(held.check_alive().is_empty(), "a draining worker keeps its own");
    assert_eq!(counted_later.open, held.held_by(1) as u64);

    weir.cli(&["drain", &service.name, &other.index.to_string(), "--json"]);
    let last = of_worker(2).index.to_string();
    let refused = weir.cli_output(&["drain", &service.name, &last]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(i32::from(Exit::Usage.code())), "{message}");
    assert!(message.contains("the last"), "{message}");
    load.wait_for(200);

    for backend in [&drained, &other] {
        weir.cli(&["undrain", &service.name, &backend.index.to_string(), "--json"]);
    }
    assert_eq!(Table::read(&weir, &service_with_ready(&weir, 3)), table, "the table is the one from before");
    load.wait_for(200);
    let report = load.stop();
    report.assert_no_failure();
    assert_eq!(report.slow, 0, "the slowest took {:?}", report.slowest);
    let flows_after = open_close(&pair.client, &plan, FLOWS);
    assert_eq!(flows_after.flows, flows_before.flows, "the same flows to the same workers");
    assert!(held.check_alive().is_empty());

    let snapshot = status(&weir);
    let cookies: BTreeSet<u64> = snapshot.services[0].backends.iter().map(|backend| backend.cookie).collect();
    assert_eq!(cookies, workers.sockets().iter().map(|socket| socket.cookie).collect());
    assert_no_miss(&snapshot);
    let overridden: u64 = snapshot.services[0].backends.iter().map(|backend| selected(backend, "override")).sum();
    println!("{overridden} selections between a drain and its table");
    assert_eq!(weir.metrics().count("weir_backends", &[("state", "draining")]), 0);
}
