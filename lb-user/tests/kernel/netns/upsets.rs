//! What happens to a daemon that runs: workers that come and go faster than it can take them, an interface removed, its helper killed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::{
    Pair,
    topology::{add_address, join},
};
use crate::support::servers::{WorkerPlan, Workers, children, signal};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("upsets::workers_end_while_they_are_taken", workers_end_while_they_are_taken),
        trial("upsets::interface_removed_and_made_again", interface_removed_and_made_again),
        trial("upsets::helper_killed", helper_killed),
    ]
}

const PATIENCE: Duration = Duration::from_secs(15);

/// How many descriptors a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("list its descriptors").count()
}

/// The cookies of the backends of the one service.
fn cookies(status: &Value) -> BTreeSet<u64> {
    let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
    backends.iter().filter_map(|backend| backend["cookie"].as_u64()).collect()
}

fn workers_end_while_they_are_taken() {
    const ROUNDS: u32 = 80;
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    let mut lasting = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    let mut fleeting = Workers::start(&pair.server, &WorkerPlan::tcp(target), 0);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let settled = |workers: &Workers| {
        let wanted: BTreeSet<u64> = workers.sockets().iter().map(|socket| socket.cookie).collect();
        eventually(PATIENCE, || {
            let status = weir.cli(&["status", "--json"]);
            if cookies(&status) == wanted { Ok(()) } else { Err(format!("backends {:?}, workers {wanted:?}", cookies(&status))) }
        });
    };
    settled(&lasting);
    let helper = children(weir.pid())[0];
    let before = (descriptors(weir.pid()), descriptors(helper));

    // From killed at once, before anybody has looked at the socket, to killed when it has been a backend for a moment.
    let start = Instant::now();
    for round in 0..ROUNDS {
        let index = fleeting.add().index;
        std::thread::sleep(Duration::from_micros(u64::from(round) * 150));
        fleeting.kill9(index);
    }
    println!("{ROUNDS} workers came and went in {:?}", start.elapsed());
    settled(&lasting);
    eventually(PATIENCE, || {
        let after = (descriptors(weir.pid()), descriptors(helper));
        if after == before { Ok(()) } else { Err(format!("descriptors of the daemon and its helper: {before:?} before, {after:?} after")) }
    });
    let log = weir.log();
    assert!(!log.contains("ERROR"), "{log}");

    // The table is right: every connection goes where it says, and each worker gets its part.
    let selected = weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]);
    // Few at a time: many of them would be a flood to a fast machine.
    let report = open_close(&pair.client, &Plan::new(target, &pair.client_v4).concurrency(4), 600);
    report.assert_no_failure();
    assert_eq!(report.by_worker, lasting.counts());
    assert_eq!(report.by_worker.len(), 3);
    assert_eq!(
        weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]) - selected,
        600,
        "none was left to the kernel's hash"
    );
}

fn interface_removed_and_made_again() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    // A wildcard: the listeners stay when the address goes.
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp("0.0.0.0:8080".parse().expect("an address")), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let plan = Plan::new(target, &pair.client_v4);
    open_close(&pair.client, &plan, 100).assert_no_failure();
    let selected = || weir.metrics().count("weir_backend_chosen_total", &[]);
    assert_eq!(selected(), 100);

    pair.server.ip(&format!("link delete {}", Pair::SERVER_DEVICE));
    eventually(PATIENCE, || {
        let status = weir.cli(&["status", "--json"]);
        let note = status["notes"].to_string().contains("interface toclient no longer exists");
        if status["dataplane"]["interfaces"][0]["mode"] == "gone" && note { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(String::from_utf8_lossy(&weir.cli_output(&["status"]).stdout).contains("toclient (gone)"));
    assert!(weir.log().contains("toclient is gone"), "{}", weir.log());

    join(&pair.client, Pair::CLIENT_DEVICE, &pair.server, Pair::SERVER_DEVICE);
    add_address(&pair.server, Pair::SERVER_DEVICE, target.ip());
    for address in &pair.client_v4 {
        add_address(&pair.client, Pair::CLIENT_DEVICE, *address);
    }
    eventually(PATIENCE, || {
        let status = weir.cli(&["status", "--json"]);
        if status["dataplane"]["interfaces"][0]["mode"] == "native" { Ok(()) } else { Err(status["dataplane"].to_string()) }
    });
    let before = selected();
    open_close(&pair.client, &plan, 100).assert_no_failure();
    assert_eq!(selected() - before, 100, "XDP sees them again");
    assert_eq!(
        std::fs::read_dir(weir.pins().join("links"))
            .expect("the links")
            .filter(|entry| { entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("xdp-")) })
            .count(),
        1,
        "the link of the interface that went is gone too"
    );
}

/// Without its helper the daemon can take no new socket. What is balanced stays so, and the status says it.
fn helper_killed() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    assert_eq!(weir.metrics().get("weir_helper_up", &[]), Some(1.0));
    signal(children(weir.pid())[0], Signal::SIGKILL);
    eventually(PATIENCE, || {
        if weir.metrics().get("weir_helper_up", &[]) == Some(0.0) { Ok(()) } else { Err("it is said to be up".to_owned()) }
    });
    let text = String::from_utf8_lossy(&weir.cli_output(&["status"]).stdout).into_owned();
    assert!(text.contains("the privileged helper has ended: no new listener can join"), "{text}");
    // Several looks later all is as it was, and the log is not full of it.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cookies(&weir.cli(&["status", "--json"])), workers.sockets().iter().map(|socket| socket.cookie).collect());
    let plan = Plan::new(target, &pair.client_v4);
    open_close(&pair.client, &plan, 200).assert_no_failure();
    assert_eq!(weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]), 200);
    let log = weir.log();
    let (_, since) = log.split_once(" ready").expect("it was ready once");
    let complaints = since.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert_eq!(complaints, 1, "{log}");
}
