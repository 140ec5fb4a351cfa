//! What goes elsewhere than it was: queued connections, the flows of a socket that nobody serves, and what `weir explain` foresees.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_user::plan::State;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::live::{PATIENCE, Table, UNDEFENDED, assert_no_miss, backend_of, only_service, selected, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Report, Steady, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{Nginx, WorkerPlan, Workers, signal};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::moves::queued_connections_move_to_the_other_listener_over_ipv4", || queued_connections_move(false)),
        trial("netns::moves::queued_connections_move_to_the_other_listener_over_ipv6", || queued_connections_move(true)),
        trial("netns::moves::a_socket_that_nobody_serves_is_taken_out", a_socket_that_nobody_serves_is_taken_out),
        trial("netns::moves::explain_is_right_about_now_and_without", explain_is_right_about_now_and_without),
    ]
}

/// Two listeners, neither of which accepts yet, and 200 connections in their queues. One ends: with Weir all 200 end up at the other,
/// although `tcp_migrate_req` is off; without Weir about half are reset.
fn queued_connections_move(v6: bool) {
    let (report, queued) = close_one_of_two(v6, true);
    report.assert_no_failure();
    assert_eq!(report.by_worker, [(1, CLIENTS)].into());
    println!("{queued} of {CLIENTS} moved");
    let (report, queued) = close_one_of_two(v6, false);
    assert_eq!(report.failures.len() as u64, queued, "without Weir each of the {queued} is lost: {:?}", report.failures_by_kind());
}

const CLIENTS: u64 = 200;

/// Answers with what became of the clients, and how many were queued at the listener that ended.
fn close_one_of_two(v6: bool, with_weir: bool) -> (Report, u64) {
    let pair = Pair::new();
    assert_eq!(pair.server.sysctl("net.ipv4.tcp_migrate_req"), "0");
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).without_accepting(), 2);
    let sockets = workers.sockets();
    let weir = with_weir.then(|| Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]));
    if let Some(weir) = &weir {
        service_with_ready(weir, 2);
    }
    let plan = plan.concurrency(usize::try_from(CLIENTS).expect("small"));
    let entrance = pair.client.entrance();
    let clients = std::thread::spawn(move || open_close(&entrance, &plan, usize::try_from(CLIENTS).expect("small")));
    let queued = eventually(PATIENCE, || {
        let lengths = queues(&pair);
        let sum: u64 = lengths.iter().map(|(_, length)| length).sum();
        if sum == CLIENTS { Ok(lengths) } else { Err(format!("queued: {lengths:?}")) }
    });
    let of = |cookie: u64| queued.iter().find(|(own, _)| *own == cookie).expect("it listens").1;
    let moved = of(sockets[0].cookie);
    assert!(moved > 50 && moved < 150, "{queued:?}");
    workers.kill9(0);
    eventually(PATIENCE, || match queues(&pair)[..] {
        [(_, length)] if !with_weir || length == CLIENTS => Ok(()),
        ref other => Err(format!("queued: {other:?}")),
    });
    if let Some(weir) = &weir {
        let snapshot = status(weir);
        let backend = backend_of(&snapshot.services[0], sockets[1].cookie);
        let counted = (selected(backend, "syn"), selected(backend, "migration"), backend.selections());
        assert_eq!(counted, (CLIENTS - moved, moved, CLIENTS), "{backend:?}");
        assert_no_miss(&snapshot);
    }
    workers.resume(1);
    (clients.join().expect("the clients end"), moved)
}

/// The accept queues in the server's namespace: cookie and length.
fn queues(pair: &Pair) -> Vec<(u64, u64)> {
    use lb_user::listeners::{Protocol, diag::Diag};
    let listeners = pair.server.run(|| Diag::open().and_then(|mut diag| diag.on_port(Protocol::Tcp, 8080))).expect("list the listeners");
    listeners.iter().map(|listener| (listener.cookie, listener.queue.map_or(0, |queue| u64::from(queue.length)))).collect()
}

/// nginx keeps a dead worker's socket open. While its master cannot start another worker, connections that go there hang. Weir takes
/// the socket out after a second without anybody who polls it, says so, and takes it back when it is served again.
fn a_socket_that_nobody_serves_is_taken_out() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 80);
    let nginx = Nginx::start(&pair.server, &[target], 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    let service = eventually(PATIENCE, || {
        let service = only_service(&weir);
        let served = service.backends.iter().filter(|backend| backend.servers.len() == 1 && backend.state == State::Ready).count();
        if served == 4 { Ok(service) } else { Err(format!("{:?}", service.backends)) }
    });
    let victim = &service.backends[2];
    let plan = plan.http("/", None).timeout(Duration::from_secs(10));
    open_close(&pair.client, &plan, 500).assert_no_failure();

    signal(nginx.master(), Signal::SIGSTOP);
    Nginx::kill9(victim.servers[0].pid);
    let killed = Instant::now();
    let load = Steady::closed_loop(&pair.client, &plan.clone().timeout(Duration::from_secs(1)));
    let unserved = eventually(PATIENCE, || {
        let snapshot = status(&weir);
        let state = backend_of(&snapshot.services[0], victim.cookie).state;
        if state == State::Unserved { Ok(snapshot) } else { Err(format!("it is {state:?}")) }
    });
    let taken_out = killed.elapsed();
    println!("unserved after {taken_out:?}");
    assert!(backend_of(&unserved.services[0], victim.cookie).share <= 0.0);
    // At most a second until the daemon looks, a second of doubt, and as long again for a machine that has other things to do.
    assert!(taken_out < Duration::from_secs(4), "{taken_out:?}");
    assert_eq!(weir.metrics().count("weir_backends", &[("state", "unserved")]), 1);
    drop(load.stop());
    let counted = |weir: &Weir| backend_of(&only_service(weir), victim.cookie).selections();
    let before = counted(&weir);
    let report = open_close(&pair.client, &plan.clone().starting_at_flow(1000), 1000);
    report.assert_no_failure();
    assert_eq!(report.by_pid.len(), 3, "the three that live: {:?}", report.by_pid);
    assert_eq!(counted(&weir), before, "nothing new goes to a socket that nobody serves");

    signal(nginx.master(), Signal::SIGCONT);
    let continued = Instant::now();
    // While a socket has no server the daemon reads the epoll instances of the whole host, and the longer that takes, the rarer it does.
    let service = eventually(6 * PATIENCE, || {
        let service = only_service(&weir);
        let state = backend_of(&service, victim.cookie).state;
        if state == State::Ready { Ok(service) } else { Err(format!("it is {state:?}")) }
    });
    println!("served again after {:?}", continued.elapsed());
    assert!(backend_of(&service, victim.cookie).share > 0.2);
    let report = open_close(&pair.client, &plan.starting_at_flow(3000), 1000);
    report.assert_no_failure();
    assert_eq!(report.by_pid.len(), 4, "{:?}", report.by_pid);
}

/// `weir explain` names the worker that a connection from that very port reaches, and `--without` the one that it reaches when that
/// worker is drained; the share that it foresees is the share of the flows that move.
fn explain_is_right_about_now_and_without() {
    const FLOWS: usize = 20;
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let service = service_with_ready(&weir, 3);
    let cookie_of = |index: u64| service.backends.iter().find(|backend| u64::from(backend.index) == index).expect("a backend").cookie;
    let explain = |source: SocketAddr, without: &str| {
        weir.cli(&["explain", "tcp", &source.to_string(), &target.to_string(), "--without", without, "--json"])
    };
    let report = open_close(&pair.client, &plan, FLOWS);
    report.assert_no_failure();
    let drained = backend_of(&service, workers.sockets()[1].cookie).index.to_string();
    let mut foreseen = Vec::new();
    let mut share = 0.0;
    for (source, answer) in &report.flows {
        let explanation = explain(*source, &drained);
        assert_eq!(explanation["service"], service.name.as_str());
        assert_eq!(cookie_of(explanation["backend"].as_u64().expect("a backend")), answer.cookie, "{explanation}");
        foreseen.push(cookie_of(explanation["without"]["backend"].as_u64().expect("another")));
        let moves = explanation["without"]["moves"].as_bool().expect("yes or no");
        assert_eq!(moves, *foreseen.last().expect("just pushed") != answer.cookie, "{explanation}");
        share = explanation["without"]["moved_share"].as_f64().expect("a share");
    }
    let before = Table::read(&weir, &service);
    weir.cli(&["drain", &service.name, &drained, "--json"]);
    let after = Table::read(&weir, &only_service(&weir));
    let moved = before.entries().iter().zip(after.entries()).filter(|(before, after)| before != after).count();
    let moved = f64::from(u32::try_from(moved).expect("small")) / f64::from(service.table_size);
    assert!((moved - share).abs() < 1e-9, "{share} foreseen, {moved} moved");
    let later = open_close(&pair.client, &plan, FLOWS);
    later.assert_no_failure();
    let reached: Vec<u64> = later.flows.iter().map(|(_, answer)| answer.cookie).collect();
    assert_eq!(reached, foreseen);

    let elsewhere = SocketAddr::new(target.ip(), 8081);
    let explanation = weir.cli(&["explain", "tcp", &plan.source(0).to_string(), &elsewhere.to_string(), "--json"]);
    assert!(explanation["service"].is_null() && explanation["backend"].is_null(), "{explanation}");
}
