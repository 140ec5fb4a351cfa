//! What the status says of groups and services that are not as one might think: another program, no listener, packets that go astray.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::live::UNDEFENDED;
use super::programs;
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{Nginx, WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("notes::group_steered_by_another", group_steered_by_another),
        trial("notes::takeover", takeover),
        trial("notes::listener_alone", listener_alone),
        trial("notes::named_service_without_listener", named_service_without_listener),
        trial("notes::two_programs_in_a_group", two_programs_in_a_group),
        trial("notes::packets_that_xdp_does_not_see", packets_that_xdp_does_not_see),
        trial("notes::packets_that_reach_no_worker", packets_that_reach_no_worker),
        trial("notes::late_segments_are_no_flows", late_segments_are_no_flows),
    ]
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a test of the status holds.
fn eventually_status(weir: &Weir, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(PATIENCE, || {
        let status = weir.cli(&["status", "--json"]);
        if wanted(&status) { Ok(status) } else { Err(status.to_string()) }
    })
}

/// The status for people, without its line breaks.
fn in_words(weir: &Weir) -> String {
    let output = weir.cli_output(&["status"]);
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why the listener at a port is not balanced.
fn why(status: &Value, port: u16) -> Option<&str> {
    status["others"].as_array()?.iter().find(|other| other["port"] == port)?["why"].as_str()
}

/// A listening socket in the server's namespace; with `reuseport` it may share its address.
fn listen(pair: &Pair, address: SocketAddr, reuseport: bool) -> Socket {
    pair.server.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(reuseport).expect("SO_REUSEPORT");
        socket.bind(&address.into()).expect("bind");
        socket.listen(64).expect("listen");
        socket
    })
}

fn service(name: &str, address: SocketAddr, more: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nport = {}\naddress = \"{}\"\n{more}", address.port(), address.ip())
}

fn group_steered_by_another() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 3);
    // One more member, by which the program comes to the group.
    let member = listen(&pair, address, true);
    let program = programs::selector();
    programs::attach_selector(&member, &program);
    drop(member);
    let id = programs::id(&program);
    drop(program);
    {
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
        let status = eventually_status(&weir, |status| why(status, 8080) == Some("steered_by_another"));
        assert_eq!(status["services"][0]["balanced"], false, "it is left alone");
        assert_eq!((&status["services"][0]["backends"], &status["services"][0]["listeners"]), (&serde_json::json!([]), &3.into()));
        let text = in_words(&weir);
        assert!(text.contains("another program steers its group") && text.contains("takeover = true"), "{text}");
        open_close(&pair.client, &Plan::new(address, &pair.client_v4), 200).assert_no_failure();
        assert_eq!(weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]), 0);
        assert!(programs::exists(id), "its program is still attached");

        // A service that names it, without `takeover`, says why it has no backends.
        let (weir_config, says) = (service("web", address, ""), "takeover = true");
        weir.configure(&weir_config);
        drop(weir);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&weir_config), &[]);
        let status = eventually_status(&weir, |status| status["services"][0]["notes"].to_string().contains(says));
        assert_eq!(status["services"][0]["backends"], serde_json::json!([]));
    }
    // Nor does the end of Weir take it away.
    assert!(programs::exists(id));
    assert_eq!(workers.sockets().len(), 3);
}

fn takeover() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 3);
    let member = listen(&pair, address, true);
    let program = programs::selector();
    programs::attach_selector(&member, &program);
    drop(member);
    let id = programs::id(&program);
    drop(program);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&service("web", address, "takeover = true\n")), &[]);
    eventually_status(&weir, |status| status["services"][0]["backends"].as_array().is_some_and(|backends| backends.len() == 3));
    let report = open_close(&pair.client, &Plan::new(address, &pair.client_v4), 300);
    report.assert_no_failure();
    assert_eq!(report.by_worker, workers.counts());
    assert_eq!(weir.metrics().count("weir_backend_selections_total", &[("service", "web"), ("cause", "syn")]), 300);
    eventually(PATIENCE, || if programs::exists(id) { Err("the program that was replaced is still there".to_owned()) } else { Ok(()) });
}

fn listener_alone() {
    let pair = Pair::new();
    let _socket = listen(&pair, SocketAddr::new(pair.server_v4[0], 8080), false);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let status = eventually_status(&weir, |status| why(status, 8080) == Some("not_reuseport"));
    assert_eq!((&status["services"][0]["balanced"], &status["services"][0]["backends"]), (&false.into(), &serde_json::json!([])));
    let text = in_words(&weir);
    assert!(text.contains("1 listener, not balanced: not SO_REUSEPORT"), "{text}");
    assert!(text.contains("without SO_REUSEPORT: there is nothing to spread"), "{text}");
    drop(weir);
    // Without a defence there is nothing to count it for.
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some("[defence]\nsyn_defence = \"off\"\n"), &[]);
    let status = eventually_status(&weir, |status| why(status, 8080) == Some("not_reuseport"));
    assert_eq!(status["services"], serde_json::json!([]));
}

fn named_service_without_listener() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&service("web", address, "")), &[]);
    let status = weir.cli(&["status", "--json"]);
    let notes = status["services"][0]["notes"].to_string();
    assert!(notes.contains("no listener is bound to") && notes.contains("start the server"), "{notes}");
    // When the server starts, the note goes.
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 2);
    eventually_status(&weir, |status| {
        status["services"][0]["notes"] == serde_json::json!([])
            && status["services"][0]["backends"].as_array().is_some_and(|all| all.len() == 2)
    });
}

fn two_programs_in_a_group() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let _nginx = Nginx::start(&pair.server, &[address], 2);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 1);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let status =
        eventually_status(&weir, |status| status["services"][0]["notes"].to_string().contains("sockets of different programs share it"));
    assert!(status["services"][0]["notes"].to_string().contains("nginx"), "{}", status["services"][0]["notes"]);
}

/// Clients on the server's own host come by loopback, to which Weir is not attached.
fn packets_that_xdp_does_not_see() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    for _ in 0..20 {
        pair.server.run(|| TcpStream::connect_timeout(&address, PATIENCE)).expect("connect by loopback");
    }
    let seen = "reached the workers and XDP saw none of them";
    eventually_status(&weir, |status| status["services"][0]["notes"].to_string().contains(seen));
    let text = in_words(&weir);
    assert!(text.contains("20 flows reached the workers") && text.contains("--iface"), "{text}");
    // It is told of a service of which XDP sees nothing at all, not of one that has clients on its own host beside others.
    open_close(&pair.client, &Plan::new(address, &pair.client_v4), 20).assert_no_failure();
    eventually_status(&weir, |status| status["services"][0]["notes"] == serde_json::json!([]));
}

fn packets_that_reach_no_worker() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    pair.server.nft("table inet weirtest { chain input { type filter hook input priority 0; tcp dport 8080 drop; }; }");
    let plan = Plan::new(address, &pair.client_v4).timeout(Duration::from_millis(200));
    assert_eq!(open_close(&pair.client, &plan, 20).ok, 0, "all are dropped");
    eventually_status(&weir, |status| {
        let notes = status["services"][0]["notes"].to_string();
        notes.contains("packets that open a flow and none reached a worker") && notes.contains("nft list ruleset")
    });
}

/// A client that closes by a reset answers the server's late segments with more of them, which come to the listener.
fn late_segments_are_no_flows() {
    let pair = Pair::new();
    let address = SocketAddr::new(pair.server_v4[0], 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(UNDEFENDED), &[]);
    open_close(&pair.client, &Plan::new(address, &pair.client_v4).concurrency(32), 4000).assert_no_failure();
    let by_cause = weir.metrics().counts_by("weir_backend_selections_total", "cause", &[]);
    assert_eq!((by_cause["syn"], by_cause.values().sum::<u64>()), (4000, 4000), "{by_cause:?}");
}
