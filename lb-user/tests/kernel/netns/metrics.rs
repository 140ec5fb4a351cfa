//! What the metrics of a daemon that runs say, to Prometheus' own checker, beside the status, and beside the maps themselves.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lb_common::Reason;
use lb_common::abi::{ABI_VERSION, Cause};
use lb_user::dataplane::{Maps, Pins};
use lb_user::observe::snapshot::Snapshot;
use libtest_mimic::Trial;

use crate::support::daemon::Weir;
use crate::support::http::{Response, get_once};
use crate::support::load::{Plan, UdpFlows, open_close};
use crate::support::metrics::Metrics;
use crate::support::netns::Pair;
use crate::support::servers::{ManySockets, WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("metrics::are_what_prometheus_expects", are_what_prometheus_expects),
        trial("metrics::equal_the_status_and_the_maps", equal_the_status_and_the_maps),
        trial("metrics::health_and_readiness", health_and_readiness),
        trial("metrics::slow_clients_block_nobody", slow_clients_block_nobody),
        trial("metrics::hostile_clients_block_nobody", hostile_clients_block_nobody),
        trial("metrics::of_a_hundred_services_are_small_and_quick", of_a_hundred_services_are_small_and_quick),
    ]
}

/// Two services that have had traffic.
struct Busy {
    weir: Weir,
    _workers: [Workers; 2],
    _pair: Pair,
}

impl Busy {
    fn new() -> Self {
        let pair = Pair::new();
        let (web, dns) = (SocketAddr::new(pair.server_v4[0], 8080), SocketAddr::new(pair.server_v6[0], 5353));
        let workers = [Workers::start(&pair.server, &WorkerPlan::tcp(web), 3), Workers::start(&pair.server, &WorkerPlan::udp(dns), 2)];
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--discover", "tcp,udp"]);
        open_close(&pair.client, &Plan::new(web, &pair.client_v4).concurrency(4), 500).assert_no_failure();
        let answers = UdpFlows::open(&pair.client, &Plan::new(dns, &pair.client_v6), 50).rounds(2);
        assert!(answers.iter().flatten().all(Result::is_ok), "{answers:?}");
        // A port that nobody listens at, and a service that is none.
        let nowhere = Plan::new(SocketAddr::new(pair.server_v4[0], 9), &pair.client_v4);
        assert_eq!(open_close(&pair.client, &nowhere, 5).ok, 0);
        // The last segments of closed connections may still be on their way.
        std::thread::sleep(Duration::from_millis(100));
        Self { weir, _workers: workers, _pair: pair }
    }

    fn get(&self, path: &str) -> Response {
        get_once(self.weir.http_address(), path, Duration::from_secs(5)).unwrap_or_else(|problem| panic!("{path}: {problem}"))
    }
}

fn are_what_prometheus_expects() {
    let busy = Busy::new();
    let scrape = busy.get("/metrics");
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut checker = Command::new("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    checker.stdin.take().expect("piped").write_all(&scrape.body).expect("feed promtool");
    let verdict = checker.wait_with_output().expect("wait for promtool");
    assert!(verdict.status.success() && verdict.stderr.is_empty(), "{}", String::from_utf8_lossy(&verdict.stderr));

    // Every family of the page about the metrics is there, and no other.
    let page = include_str!("../../../../docs/metrics.md");
    let text = String::from_utf8(scrape.body).expect("UTF-8");
    let families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next()).collect();
    assert!(families.len() > 20, "{families:?}");
    for family in &families {
        assert!(page.contains(&format!("## `{family}`\n")), "{family} is not in docs/metrics.md");
    }
    // Those that depend on the kernel, and those that begin with the first drop.
    let may_be_absent =
        ["weir_backend_accept_latency_seconds", "weir_kernel_dropped_packets_total", "weir_backend_kernel_dropped_packets_total"];
    let always = |family: &&str| !may_be_absent.contains(family);
    for family in page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).filter(always) {
        assert!(families.contains(&family), "{family} is in docs/metrics.md, and this daemon does not have it");
    }

    // What can happen and has not is there with zero.
    let metrics = Metrics::parse(&text);
    for service in ["tcp/", "udp/"] {
        let names: Vec<String> = metrics.counts_by("weir_service_info", "service", &[]).into_keys().collect();
        let name = names.iter().find(|name| name.starts_with(service)).unwrap_or_else(|| panic!("{names:?}"));
        let series = |family: &str, label: &str| metrics.counts_by(family, label, &[("service", name)]);
        assert!(series("weir_packets_total", "reason").len() >= 3, "{:?}", series("weir_packets_total", "reason"));
        assert_eq!(series("weir_backends", "state").len(), 3);
        assert!(series("weir_backend_selections_total", "cause").len() >= 4);
    }
    let passed = Reason::ALL.iter().filter(|reason| !reason.is_of_service()).count();
    assert_eq!(metrics.counts_by("weir_passed_packets_total", "reason", &[]).len(), passed);
    assert!(metrics.count("weir_passed_packets_total", &[("reason", "not_a_port")]) >= 5);
}

fn equal_the_status_and_the_maps() {
    let mut busy = Busy::new();
    // Both before and after the daemon has died: then the command reads the maps itself.
    let metrics = busy.weir.metrics();
    let read = |weir: &Weir| -> Snapshot { serde_json::from_value(weir.cli(&["status", "--json"])).expect("a snapshot") };
    let told = read(&busy.weir);
    busy.weir.kill9();
    let found = read(&busy.weir);
    assert!(told.daemon.is_some() && found.daemon.is_none());
    let maps = Maps::pinned(&Pins::at(busy.weir.pins()), ABI_VERSION).expect("the pinned maps");
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;

    assert_eq!(told.services.len(), 2);
    for (told, found) in told.services.iter().zip(&found.services) {
        assert_eq!((&told.name, &told.packets, told.table_size), (&found.name, &found.packets, found.table_size));
        for count in &told.packets {
            let labels = [("service", told.name.as_str()), ("reason", count.reason.as_str())];
            assert_eq!(metrics.count("weir_packets_total", &labels), count.packets, "{labels:?}");
            assert_eq!(metrics.count("weir_bytes_total", &labels), count.bytes, "{labels:?}");
        }
        let mut selected = 0;
        for (told, found) in told.backends.iter().zip(&found.backends) {
            let name = told_name(&metrics, told.inode);
            let labels = [("service", name.0.as_str()), ("backend", name.1.as_str())];
            let totals = maps.backend_totals(told.slot).expect("the backend's counters");
            assert_eq!(
                (told.chosen, &told.selected, told.established, told.open),
                (found.chosen, &found.selected, found.established, found.open)
            );
            assert_eq!((told.chosen, told.established), (totals.chosen, totals.established));
            assert!(close(told.share, found.share) && close(metrics.get("weir_backend_share_ratio", &labels).unwrap_or(-1.0), told.share));
            assert_eq!(metrics.count("weir_backend_chosen_total", &labels), told.chosen);
            for cause in Cause::ALL {
                assert_eq!(told.selected[cause.label()], totals.selected[cause as usize], "{cause:?}");
                let labels = [labels[0], labels[1], ("cause", cause.label())];
                assert_eq!(metrics.count("weir_backend_selections_total", &labels), told.selected[cause.label()], "{labels:?}");
            }
            assert_eq!(metrics.count("weir_backend_connections_total", &labels), told.established);
            selected += told.selected["syn"] + told.selected["udp"] + told.selected["udp_flow"];
        }
        assert_eq!(selected, if told.name.starts_with("tcp/") { 500 } else { 100 }, "{}", told.name);
    }
    assert_eq!(told.selector_misses, found.selector_misses);
}

/// The service and the number of the backend with this inode, by the metrics.
fn told_name(metrics: &Metrics, inode: u32) -> (String, String) {
    let inode = inode.to_string();
    let label = |label: &str| {
        let values = metrics.counts_by("weir_backend_info", label, &[("inode", &inode)]);
        assert_eq!(values.len(), 1, "{values:?}");
        values.into_keys().next().unwrap_or_default()
    };
    (label("service"), label("backend"))
}

fn health_and_readiness() {
    let busy = Busy::new();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(busy.get(path).status, 200, "{path}");
    }
    assert_eq!(busy.get("/nonesuch").status, 404);
    let snapshot: Snapshot = serde_json::from_slice(&busy.get("/api/v1/status").body).expect("the snapshot as JSON");
    assert_eq!(snapshot.services.len(), 2);
}

/// Clients that never end their request, and clients that never read the answer.
fn slow_clients_block_nobody() {
    let busy = Busy::new();
    let address = busy.weir.http_address();
    let slow: Vec<TcpStream> = (0..50)
        .map(|number| {
            let mut stream = TcpStream::connect(address).expect("connect");
            let request = if number % 2 == 0 { "GET /metrics HTTP/1.1\r\nHost: x" } else { "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" };
            stream.write_all(request.as_bytes()).expect("send");
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(busy.get("/metrics").status, 200);
    assert!(busy.weir.cli(&["status", "--json"]).is_object());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?} beside {} slow clients", start.elapsed(), slow.len());
}

/// 1,000 connections at once: some say nothing, some never read, some ask for what there is not, or in a way that nobody may.
fn hostile_clients_block_nobody() {
    let busy = Busy::new();
    let address = busy.weir.http_address();
    let huge = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let requests = [
        "",
        "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        &huge,
        "BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ];
    let hostile: Vec<TcpStream> = (0..1000)
        .map(|number| {
            let mut stream = TcpStream::connect(address).expect("connect");
            // The daemon may have refused it already.
            let _ = stream.write_all(requests[number % requests.len()].as_bytes());
            stream
        })
        .collect();
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(busy.get("/metrics").status, 200);
        assert_eq!(busy.get("/healthz").status, 200);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?} beside {} hostile clients", start.elapsed(), hostile.len());
    }
    assert!(busy.weir.cli(&["status", "--json"]).is_object());
    let is_405 = |method: &str| {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.write_all(format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes()).expect("send");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        answer.starts_with("HTTP/1.1 405 ")
    };
    assert!(["POST", "PUT", "DELETE", "BREW"].into_iter().all(is_405));
}

/// 100 services of 16 workers each: the size and the time of one scrape. The best of some, because this machine is busy, and loose where
/// the daemon was built without optimisation.
fn of_a_hundred_services_are_small_and_quick() {
    let pair = Pair::new();
    let plan = |port| WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], port));
    let _servers: Vec<ManySockets> = (9000..9100).map(|port| ManySockets::start(&pair.server, &plan(port), 16)).collect();
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--discover", "tcp"]);
    let scrapes: Vec<(Duration, usize)> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let scrape = get_once(weir.http_address(), "/metrics", Duration::from_secs(5)).expect("a scrape");
            let took = start.elapsed();
            let backends = String::from_utf8_lossy(&scrape.body).lines().filter(|line| line.starts_with("weir_backend_info{")).count();
            assert_eq!(backends, 1600);
            (took, scrape.body.len())
        })
        .collect();
    let (best, size) = scrapes.iter().copied().min().expect("five");
    println!("a scrape of 1,600 backends: {} kB in {best:?}", size / 1000);
    assert!(size < 10_000_000, "{size} bytes");
    assert!(best < Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 50 }), "{scrapes:?}");
}
