//! Groups as large as they get, and larger than the limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use super::live::UNDEFENDED;
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{ManySockets, WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("limits::two_thousand_workers", two_thousand_workers),
        trial("limits::more_workers_than_a_service_may_have", more_workers_than_a_service_may_have),
        trial("limits::more_services_than_there_may_be", more_services_than_there_may_be),
    ]
}

const PATIENCE: Duration = Duration::from_secs(30);

fn status(weir: &Weir) -> Value {
    weir.cli(&["status", "--json"])
}

fn backends(status: &Value) -> Vec<Value> {
    status["services"][0]["backends"].as_array().cloned().unwrap_or_default()
}

fn two_thousand_workers() {
    const WORKERS: u32 = 2000;
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    let mut workers = ManySockets::start(&pair.server, &WorkerPlan::tcp(target), WORKERS);
    let listening = Instant::now();
    let joined = eventually(PATIENCE, || {
        let found = weir.metrics().count("weir_backends", &[("state", "ready")]);
        if found == u64::from(WORKERS) { Ok(listening.elapsed()) } else { Err(format!("{found} of {WORKERS} have joined")) }
    });
    println!("{WORKERS} workers were in the table {joined:?} after the last of them listened");

    let picture = status(&weir);
    // The ladder's step for so many: at least 100 entries for each.
    assert_eq!(picture["services"][0]["table_size"], 262_139);
    let share = |backend: &Value| backend["share"].as_f64().unwrap_or_default() * f64::from(WORKERS);
    for backend in &backends(&picture) {
        assert!((0.98..=1.02).contains(&share(backend)), "{backend}");
    }

    let report = open_close(&pair.client, &Plan::new(target, &pair.client_v4), 10_000);
    report.assert_no_failure();
    let picture = status(&weir);
    let by_cookie: BTreeMap<u64, Value> =
        backends(&picture).into_iter().map(|backend| (backend["cookie"].as_u64().unwrap_or_default(), backend)).collect();
    let sockets = workers.sockets().to_vec();
    for (socket, accepted) in sockets.iter().zip(workers.counts()) {
        let backend = &by_cookie[&socket.cookie];
        let figures = (backend["chosen"].as_u64(), backend["selected"]["syn"].as_u64(), backend["established"].as_u64());
        assert_eq!(figures, (Some(accepted), Some(accepted), Some(accepted)), "XDP's choice is the socket that accepted: {backend}");
    }
    assert_eq!(picture["services"][0]["notes"], serde_json::json!([]));

    let leaving = Instant::now();
    drop(workers);
    eventually(PATIENCE, || if backends(&status(&weir)).is_empty() { Ok(()) } else { Err("some are still there".to_owned()) });
    println!("all had left {:?} after their process was killed", leaving.elapsed());
}

fn more_workers_than_a_service_may_have() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 6);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some("[limits]\nbackends_per_service = 4\n"), &[]);
    let picture = status(&weir);
    let balanced: Vec<u64> = backends(&picture).iter().filter_map(|backend| backend["cookie"].as_u64()).collect();
    assert_eq!(balanced.len(), 4, "{picture}");
    let notes = picture["services"][0]["notes"].to_string();
    assert!(notes.contains("2 sockets not balanced: limits.backends_per_service = 4 is reached"), "{notes}");

    let report = open_close(&pair.client, &Plan::new(target, &pair.client_v4), 400);
    report.assert_no_failure();
    let answered: Vec<u64> =
        workers.sockets().iter().filter(|socket| report.by_worker.contains_key(&socket.index)).map(|socket| socket.cookie).collect();
    assert!(answered.iter().all(|cookie| balanced.contains(cookie)) && answered.len() == 4, "{balanced:?}: {answered:?}");

    // When one of the four goes, one of those left out takes its place.
    let gone = workers.sockets().into_iter().find(|socket| balanced.contains(&socket.cookie)).expect("one that is balanced");
    workers.kill9(gone.index);
    eventually(PATIENCE, || {
        let picture = status(&weir);
        let now: Vec<u64> = backends(&picture).iter().filter_map(|backend| backend["cookie"].as_u64()).collect();
        let one_left_out = picture["services"][0]["notes"].to_string().contains("1 socket not balanced");
        if now.len() == 4 && !now.contains(&gone.cookie) && one_left_out { Ok(()) } else { Err(picture.to_string()) }
    });
}

fn more_services_than_there_may_be() {
    let pair = Pair::new();
    let address = |port| SocketAddr::new(pair.server_v4[0], port);
    let mut groups: Vec<Workers> = (8080..8083).map(|port| Workers::start(&pair.server, &WorkerPlan::tcp(address(port)), 2)).collect();
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some("[limits]\nservices = 2\n"), &[]);
    let picture = status(&weir);
    assert_eq!(picture["services"].as_array().map(Vec::len), Some(2), "{picture}");
    let notes = picture["notes"].to_string();
    assert!(notes.contains("1 service left out: limits.services = 2 is reached") && notes.contains("raise limits.services"), "{notes}");
    let others = picture["others"].as_array().cloned().unwrap_or_default();
    assert!(others.iter().any(|other| other["why"] == "over_limit"), "{others:?}");
    // The one left out is served as ever, by the kernel's hash.
    for port in 8080..8083 {
        open_close(&pair.client, &Plan::new(address(port), &pair.client_v4), 50).assert_no_failure();
    }
    assert_eq!(weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]), 100);
    // When a service ends, the one that was left out comes in.
    let first = picture["services"][0]["port"].as_u64().and_then(|port| usize::try_from(port - 8080).ok()).expect("a port");
    drop(groups.remove(first));
    eventually(PATIENCE, || {
        let picture = status(&weir);
        let ports: Vec<_> = picture["services"].as_array().into_iter().flatten().map(|service| service["port"].clone()).collect();
        if ports.len() == 2 && !ports.contains(&(8080 + first).into()) { Ok(()) } else { Err(picture.to_string()) }
    });
}
