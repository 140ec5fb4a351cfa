//! Tests of this support library without Weir: what the others rely on, under the kernel's own choice of worker.

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use super::capture::Capture;
use super::http::get_once;
use super::load::{Held, Phase, Plan, Steady, UdpFlows, Wrk, WrkReport, open_close};
use super::metrics::Metrics;
use super::netns::{Pair, Routed};
use super::servers::{HaProxy, ManySockets, Nginx, ProxyPlan, WorkerPlan, Workers, long_body};
use super::trial;
use super::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("support::metrics_are_read", metrics_are_read),
        trial("support::wrk_text_is_read", wrk_text_is_read),
        trial("support::namespace_leaves_nothing", namespace_leaves_nothing),
        trial("support::tcp_workers_answer_over_ipv4", || tcp_workers_answer(false)),
        trial("support::tcp_workers_answer_over_ipv6", || tcp_workers_answer(true)),
        trial("support::worker_killed_loses_what_it_held", worker_killed_loses_what_it_held),
        trial("support::worker_closed_keeps_what_it_held", worker_closed_keeps_what_it_held),
        trial("support::worker_paused_times_out", worker_paused_times_out),
        trial("support::two_thousand_sockets", two_thousand_sockets),
        trial("support::udp_flows_keep_their_worker", udp_flows_keep_their_worker),
        trial("support::steady_load_sees_an_outage", steady_load_sees_an_outage),
        trial("support::nginx_serves_and_reloads", nginx_serves_and_reloads),
        trial("support::haproxy_serves_and_reloads", haproxy_serves_and_reloads),
        trial("support::haproxy_hands_on", haproxy_hands_on),
        trial("support::router_forwards_and_translates", router_forwards_and_translates),
        trial("support::capture_counts", capture_counts),
    ]
}

fn metrics_are_read() {
    let text = "# HELP weir_x Help.\n# TYPE weir_x counter\nweir_x{service=\"a b\",reason=\"q\\\"\\\\\\n}\"} 4\nweir_x{service=\"b\",reason=\"r\"} 5 123\nweir_up 1e3\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.get("weir_up", &[]), Some(1000.0));
    assert_eq!(metrics.get("weir_x", &[("reason", "q\"\\\n}")]), Some(4.0));
    assert_eq!(metrics.get("weir_x", &[("service", "c")]), None);
    assert_eq!(metrics.count("weir_x", &[]), 9);
    assert_eq!(metrics.counts_by("weir_x", "service", &[])["a b"], 4);
}

fn wrk_text_is_read() {
    let text = "Running 1s test @ http://10.0.0.1/\n  71 requests in 1.10s, 25.31KB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\nRequests/sec: 64.5\npercentiles: 6 7 8\n";
    let expected =
        WrkReport { requests: 71, connect_errors: 1, read_errors: 2, write_errors: 3, timeouts: 4, bad_status: 5, latency: [6, 7, 8] };
    assert_eq!(WrkReport::parse(text), Some(expected));
    assert_eq!(WrkReport::parse("unable to connect"), None);
}

fn namespace_leaves_nothing() {
    let (path, mut sleeper) = {
        let pair = Pair::new();
        let sleeper = pair.server.command("sleep").arg("60").spawn().expect("start sleep");
        eventually(
            Duration::from_secs(5),
            || if pair.server.processes().is_empty() { Err("sleep is not inside".to_owned()) } else { Ok(()) },
        );
        pair.server.set_sysctl("net.ipv4.tcp_syncookies", "2");
        assert_eq!(pair.server.sysctl("net.ipv4.tcp_syncookies"), "2");
        assert_eq!(pair.client.sysctl("net.ipv4.tcp_syncookies"), "1", "a sysctl is its namespace's own");
        (pair.server.path(), sleeper)
    };
    assert!(!path.exists(), "{} is still there", path.display());
    assert!(!sleeper.wait().expect("wait for sleep").success(), "sleep was killed");
}

fn tcp_workers_answer(v6: bool) {
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 4);
    let report = open_close(&pair.client, &plan, 2000);
    report.assert_no_failure();
    assert_eq!(report.ok, 2000);
    assert_eq!(report.by_worker, workers.counts(), "what the clients read is what the workers accepted");
    assert_eq!(report.by_worker.len(), 4, "the kernel's hash reaches all: {:?}", report.by_worker);
    let mut sources: Vec<_> = report.flows.iter().map(|(source, _)| *source).collect();
    sources.dedup();
    assert_eq!(sources.len(), 2000, "each flow has a 4-tuple of its own");
    for socket in workers.sockets() {
        let answers = report.flows.iter().map(|(_, answer)| answer).filter(|answer| answer.worker == socket.index);
        assert!(answers.into_iter().all(|answer| (answer.pid, answer.cookie) == (socket.pid, socket.cookie)));
    }
}

fn worker_killed_loses_what_it_held() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 3);
    let mut held = Held::open(&pair.client, &plan, 300);
    assert_eq!(held.check_alive(), []);
    let expected = held.held_by(1);
    assert!(expected > 0);
    workers.kill9(1);
    let lost = held.check_alive();
    assert_eq!(lost.len(), expected);
    assert!(lost.iter().all(|(_, answer)| answer.worker == 1), "{lost:?}");
    assert_eq!(workers.add().index, 3);
    assert!(open_close(&pair.client, &plan.starting_at_flow(300), 100).by_worker.contains_key(&3));
}

fn worker_closed_keeps_what_it_held() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, true, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 2);
    let mut held = Held::open(&pair.client, &plan, 100);
    assert_eq!(workers.close(0), held.held_by(0) as u64);
    let report = open_close(&pair.client, &plan.starting_at_flow(100), 100);
    report.assert_no_failure();
    assert!(!report.by_worker.contains_key(&0), "a closed worker takes nothing new");
    assert_eq!(held.check_alive(), []);
}

fn worker_paused_times_out() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).without_accepting(), 1);
    let plan = plan.timeout(Duration::from_millis(200)).concurrency(4);
    let report = open_close(&pair.client, &plan, 4);
    assert_eq!(report.failures_by_kind(), [("Receive: timeout".to_owned(), 4)].into());
    workers.resume(0);
    open_close(&pair.client, &plan, 4).assert_no_failure();
}

fn two_thousand_sockets() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let mut sockets = ManySockets::start(&pair.server, &WorkerPlan::tcp(target), 2000);
    assert_eq!(sockets.sockets().len(), 2000);
    let report = open_close(&pair.client, &plan, 5000);
    report.assert_no_failure();
    assert_eq!(sockets.counts().iter().sum::<u64>(), 5000);
}

fn udp_flows_keep_their_worker() {
    let pair = Pair::new();
    for v6 in [false, true] {
        let (target, plan) = target(&pair, v6, 5353);
        let mut workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 3);
        let mut flows = UdpFlows::open(&pair.client, &plan, 500);
        let answers = flows.rounds(3);
        for answers in &answers {
            let first = answers[0].clone().expect("an answer");
            assert!(answers.iter().all(|answer| answer.as_ref() == Ok(&first)), "the kernel's hash is steady: {answers:?}");
        }
        let own = flows.round_with(|flow| vec![u8::try_from(flow % 256).expect("a byte"); 40]);
        assert!(own.iter().zip(&answers).all(|(answer, before)| *answer == before[0]), "datagrams of the caller's own");
        let counts = workers.counts();
        assert_eq!(counts.values().sum::<u64>(), 2000, "{counts:?}");
        assert!(counts.values().all(|count| *count > 0));
    }
}

fn steady_load_sees_an_outage() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 1);
    let load = Steady::at_rate(&pair.client, &plan, 2000);
    load.wait_for(500);
    let before = load.elapsed();
    workers.kill9(0);
    load.wait_for(100);
    let report = load.stop();
    assert!(report.ok >= 500);
    assert!(
        report.failures.iter().any(|failure| failure.phase == Phase::Connect && failure.cause == "ECONNREFUSED"),
        "{:?}",
        report.failures_by_kind()
    );
    assert!(report.failures.iter().all(|failure| failure.at >= before), "no failure before the worker went");
}

fn nginx_serves_and_reloads() {
    let pair = Pair::new();
    let (v4, plan) = target(&pair, false, 80);
    let (v6, _) = target(&pair, true, 80);
    let nginx = Nginx::start(&pair.server, &[v4, v6], 4);
    let before = nginx.worker_pids();
    assert_eq!(before.len(), 4);
    let text = pair.client.run(|| get_once(v6, "/", Duration::from_secs(2))).expect("an answer over IPv6");
    assert!(before.iter().any(|pid| text.body.starts_with(pid.to_string().as_bytes())));

    let load = Steady::closed_loop(&pair.client, &plan.http("/body", Some(&long_body())));
    load.wait_for(500);
    nginx.reload();
    load.wait_for(500);
    nginx.wait_until_settled();
    let report = load.stop();
    // What a reload under load loses without Weir is measured elsewhere; here the client only has to tell it apart.
    assert!(
        report.failures.iter().all(|failure| failure.phase != Phase::Check && failure.phase != Phase::Open),
        "{:?}",
        report.failures_by_kind()
    );
    assert!(
        report.by_pid.keys().any(|pid| before.contains(pid)) && report.by_pid.keys().any(|pid| !before.contains(pid)),
        "{:?}",
        report.by_pid
    );

    let wrk = Wrk::start(&pair.client, 20, Duration::from_secs(1), false, &format!("http://{v4}/body")).finish();
    assert!(wrk.requests > 100 && wrk.errors() == 0, "{wrk:?}");
    assert!(wrk.latency[0] > 0 && wrk.latency.is_sorted(), "{wrk:?}");
    nginx.stop();
}

/// One nginx whose workers share a socket, and a proxy before it that goes from one address to another at a reload.
fn haproxy_hands_on() {
    let pair = Pair::with_addresses(1, 3);
    let [front, one, other] = [0, 1, 2].map(|number: usize| SocketAddr::new(pair.server_v4[number], 80));
    let nginx = Nginx::start_sharing(&pair.server, &[one, other], 2);
    let listening = pair.server.tool("ss", &["-Hltn", "sport", "=", ":80"]);
    assert_eq!(listening.lines().count(), 2, "one socket for each address: {listening}");
    let plan = ProxyPlan { listen: front, balance: "roundrobin", servers: vec![one] };
    let haproxy = HaProxy::in_front(&pair.server, &plan);
    let clients = Plan::new(front, &pair.client_v4).http("/body", Some(&long_body()));
    open_close(&pair.client, &clients, 50).assert_no_failure();
    haproxy.set_plan(&ProxyPlan { servers: vec![other], ..plan });
    haproxy.reload();
    haproxy.wait_until_settled();
    let report = open_close(&pair.client, &clients.starting_at_flow(50), 50);
    report.assert_no_failure();
    assert!(report.by_pid.keys().all(|pid| nginx.worker_pids().contains(pid)), "nginx answers: {:?}", report.by_pid);
}

fn haproxy_serves_and_reloads() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 80);
    let haproxy = HaProxy::start(&pair.server, &[target], 4);
    let listening = pair.server.tool("ss", &["-Hltn", "sport", "=", ":80"]);
    assert_eq!(listening.lines().count(), 4, "one socket for each thread: {listening}");
    let load = Steady::closed_loop(&pair.client, &plan.clone().http("/body", Some(&long_body())));
    load.wait_for(500);
    haproxy.reload();
    load.wait_for(500);
    haproxy.wait_until_settled();
    let report = load.stop();
    assert!(
        report.failures.iter().all(|failure| failure.phase != Phase::Check && failure.phase != Phase::Open),
        "{:?}",
        report.failures_by_kind()
    );
    assert!(report.by_pid.len() >= 2, "old and new process answered: {:?}", report.by_pid);

    let keep_alive = open_close(&pair.client, &plan.http_keep_alive("/body", Some(&long_body()), 10), 50);
    keep_alive.assert_no_failure();
    assert_eq!((keep_alive.requests, keep_alive.closed_between_requests), (500, 0));
}

fn router_forwards_and_translates() {
    let network = Routed::new();
    for (family, own, backend) in [(0, Routed::ROUTER[0], Routed::BACKEND[0]), (1, Routed::ROUTER[1], Routed::BACKEND[1])] {
        let plan = |address, port| Plan::new(SocketAddr::new(address, port), &[Routed::CLIENT[family]]).concurrency(4);
        let _behind = Workers::start(&network.backend, &WorkerPlan::tcp(SocketAddr::new(backend, 8080)), 1);
        let mut own_workers = Workers::start(&network.router, &WorkerPlan::tcp(SocketAddr::new(own, 8080)), 2);
        if family == 0 {
            network.destination_nat(9090, 8080);
        }
        open_close(&network.client, &plan(backend, 8080), 50).assert_no_failure();
        open_close(&network.client, &plan(own, 9090), 50).assert_no_failure();
        assert_eq!(own_workers.counts().values().sum::<u64>(), 0, "neither is for the router's own listeners");
        open_close(&network.client, &plan(own, 8080), 50).assert_no_failure();
        assert_eq!(own_workers.counts().values().sum::<u64>(), 50);
    }
}

fn capture_counts() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 1);
    let capture = Capture::start(&pair.server, Pair::SERVER_DEVICE, "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn");
    open_close(&pair.client, &plan, 100).assert_no_failure();
    let packets = capture.finish();
    assert_eq!(packets.len(), 100);
    assert!(packets.iter().all(|packet| packet.len() == 74), "a SYN with a Linux client's options");
}

/// The pair's first server address of a family at `port`, and a plan to reach it from all client addresses.
fn target(pair: &Pair, v6: bool, port: u16) -> (SocketAddr, Plan) {
    let (servers, clients) = if v6 { (&pair.server_v6, &pair.client_v6) } else { (&pair.server_v4, &pair.client_v4) };
    let target = SocketAddr::new(servers[0], port);
    (target, Plan::new(target, clients))
}
