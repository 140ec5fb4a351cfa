//! Workers that do not keep up are spared new connections, until they do.

use std::time::Duration;

use lb_user::observe::snapshot::{Backend, Queue};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::live::{MOMENT, PATIENCE, assert_no_miss, backend_of, only_service, selected, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, Report, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers, signal};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::relief::a_full_queue_gets_no_more_over_ipv4", || a_full_queue_gets_no_more(false)),
        trial("netns::relief::a_full_queue_gets_no_more_over_ipv6", || a_full_queue_gets_no_more(true)),
        trial(
            "netns::relief::a_worker_that_accepts_nothing_is_spared_until_it_does",
            a_worker_that_accepts_nothing_is_spared_until_it_does,
        ),
        trial("netns::relief::where_nobody_keeps_up_the_table_decides", where_nobody_keeps_up_the_table_decides),
    ]
}

const BACKLOG: i32 = 64;

/// Looks that come often, so that a listener is known soon after it has joined.
fn configuration(steering: &str) -> String {
    format!("defence.syn_defence = \"off\"\nobserve.interval = \"100ms\"\ndiscovery.tcp = true\n[steering]\n{steering}\n")
}

const OFF: &str = "overfull_percent = 0\nstalled_after = \"off\"";

struct Scene {
    weir: Weir,
    workers: Workers,
    plan: Plan,
    pair: Pair,
}

impl Scene {
    fn new(v6: bool, workers: u32, steering: &str) -> Self {
        let pair = Pair::new();
        let (target, plan) = target(&pair, v6, 8080);
        let group = Workers::start(&pair.server, &WorkerPlan::tcp(target).backlog(BACKLOG), workers);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration(steering)), &[]);
        service_with_ready(&weir, workers as usize);
        // The first looks at the queues tell the selector where they are.
        std::thread::sleep(MOMENT * 5);
        Self { weir, workers: group, plan: plan.timeout(Duration::from_secs(30)), pair }
    }

    /// Clients who each open one connection after another, in a thread of their own: those whose worker accepts nothing wait.
    fn clients(&self, concurrency: usize, first: usize, count: usize) -> std::thread::JoinHandle<Report> {
        let (entrance, plan) = (self.pair.client.entrance(), self.plan.clone().concurrency(concurrency).starting_at_flow(first));
        std::thread::spawn(move || open_close(&entrance, &plan, count))
    }

    /// The backend of a worker, by the worker's number.
    fn backend(&self, worker: u32) -> Backend {
        let socket = self.workers.sockets().into_iter().find(|socket| socket.index == worker).expect("it listens");
        backend_of(&only_service(&self.weir), socket.cookie).clone()
    }

    fn queue(&self, worker: u32) -> Queue {
        self.backend(worker).queues.accept_queue.expect("the kernel tells of it")
    }

    /// Stops the worker as it is: it still polls its socket, and does nothing. (One that no longer polled it would be taken out.)
    fn hang(&self, worker: u32) {
        signal(self.process(worker), Signal::SIGSTOP);
    }

    fn wake(&self, worker: u32) {
        signal(self.process(worker), Signal::SIGCONT);
    }

    fn process(&self, worker: u32) -> u32 {
        eventually(PATIENCE, || match &self.backend(worker).servers[..] {
            [server] => Ok(server.pid),
            servers => Err(format!("worker {worker} is served by {servers:?}")),
        })
    }

    /// How many connections were placed by a cause, at all workers.
    fn placed(&self, cause: &str) -> u64 {
        only_service(&self.weir).backends.iter().map(|backend| selected(backend, cause)).sum()
    }
}

/// Of three workers one accepts nothing. Its queue fills to the share that it may, then the others get all; when it accepts again
/// everybody is served, and it gets its flows.
fn a_full_queue_gets_no_more(v6: bool) {
    const CLIENTS: usize = 90;
    const FLOWS: usize = 1000;
    let scene = Scene::new(v6, 3, "overfull_percent = 50\nstalled_after = \"off\"");
    scene.hang(0);
    let clients = scene.clients(CLIENTS, 0, FLOWS);
    let served = eventually(PATIENCE, || {
        let opened = scene.placed("syn") + scene.placed("relief");
        if opened == FLOWS as u64 { Ok(opened) } else { Err(format!("{opened} of {FLOWS} connections were opened")) }
    });
    let queue = scene.queue(0);
    // As many as half, and those whose handshake was on its way when it was reached: at most a client each.
    assert!((32..=BACKLOG.unsigned_abs()).contains(&queue.length), "{queue:?}");
    let relieved = scene.placed("relief");
    assert!(relieved > 200, "{relieved} of {served} went elsewhere; without the bound each third would be for the first worker");
    assert_eq!(selected(&scene.backend(0), "relief"), 0);
    scene.wake(0);
    let report = clients.join().expect("the clients end");
    report.assert_no_failure();
    assert_eq!(report.by_worker.get(&0), Some(&u64::from(queue.length)));

    eventually(PATIENCE, || if scene.queue(0).length == 0 { Ok(()) } else { Err(format!("{:?}", scene.queue(0))) });
    let report = scene.clients(4, FLOWS, 300).join().expect("the clients end");
    report.assert_no_failure();
    assert_eq!(scene.placed("relief"), relieved, "it keeps up again");
    assert!(report.by_worker[&0] > 50, "{:?}", report.by_worker);
    assert_no_miss(&status(&scene.weir));
}

/// A queue that is far from full, and a connection in it that nobody accepts. Off, then on by a reload, then off again.
fn a_worker_that_accepts_nothing_is_spared_until_it_does() {
    let scene = Scene::new(false, 2, OFF);
    scene.hang(0);
    let first = scene.clients(40, 0, 40);
    let waiting = eventually(PATIENCE, || match scene.queue(0).length {
        length if length > 8 && scene.placed("syn") == 40 => Ok(length),
        length => Err(format!("{length} wait")),
    });
    assert_eq!(scene.placed("relief"), 0, "it is off");

    scene.weir.configure(&configuration("overfull_percent = 0\nstalled_after = \"50ms\""));
    scene.weir.reload();
    eventually(PATIENCE, || if scene.weir.log().contains("read anew") { Ok(()) } else { Err(scene.weir.log()) });
    // By then the first of those who wait has waited for longer than that.
    std::thread::sleep(MOMENT);
    let report = scene.clients(4, 100, 200).join().expect("the clients end");
    report.assert_no_failure();
    assert_eq!(report.by_worker, [(1, 200)].into(), "the other one got all of them");
    assert_eq!(scene.queue(0).length, waiting);
    let relieved = scene.placed("relief");
    assert!((50..=150).contains(&relieved), "{relieved} of 200");

    scene.wake(0);
    let report = first.join().expect("the clients end");
    report.assert_no_failure();
    assert_eq!(report.by_worker[&0], u64::from(waiting));
    let report = scene.clients(1, 400, 100).join().expect("the clients end");
    report.assert_no_failure();
    assert!(report.by_worker[&0] > 20, "{:?}", report.by_worker);
    assert_eq!(scene.placed("relief"), relieved);
    let metrics = scene.weir.metrics();
    assert_eq!(metrics.count("weir_backend_selections_total", &[("cause", "relief")]), relieved);
}

/// Both accept nothing: there is nobody to relieve them, and each keeps its flows.
fn where_nobody_keeps_up_the_table_decides() {
    let scene = Scene::new(false, 2, "overfull_percent = 10\nstalled_after = \"20ms\"");
    for worker in [0, 1] {
        scene.hang(worker);
    }
    let clients = scene.clients(60, 0, 60);
    eventually(PATIENCE, || match [0, 1].map(|worker| scene.queue(worker).length) {
        [one, other] if one + other == 60 => Ok(()),
        lengths => Err(format!("{lengths:?}")),
    });
    let before = scene.placed("relief");
    let late = scene.clients(20, 100, 20);
    eventually(PATIENCE, || {
        let placed = scene.placed("syn") + scene.placed("relief");
        if placed == 80 { Ok(()) } else { Err(format!("{placed} of 80 were placed")) }
    });
    assert_eq!(scene.placed("relief"), before);
    for worker in [0, 1] {
        scene.wake(worker);
    }
    for clients in [clients, late] {
        clients.join().expect("the clients end").assert_no_failure();
    }
}
