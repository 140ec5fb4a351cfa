//! What the defence finds out about its host and tells the programs: the other end of a veth, receive buffers, a configuration that changes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::netns::live::{PATIENCE, status};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::Pair;
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::host::a_veth_whose_other_end_takes_nothing_answers_no_syn", a_veth_whose_other_end_takes_nothing_answers_no_syn),
        trial("defence::host::each_service_announces_the_window_of_its_own_buffer", each_service_announces_the_window_of_its_own_buffer),
        trial("defence::host::a_reload_takes_hold_at_once", a_reload_takes_hold_at_once),
        trial("defence::host::a_service_begins_calm_where_another_was_in_flood", a_service_begins_calm_where_another_was_in_flood),
    ]
}

const PORT: u16 = 80;
/// What a client without timestamps offers: with them the kernel's own SYN-ACK rounds the window down to shorter segments.
const OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 1, 3, 3, 9];

fn workers(pair: &Pair) -> Workers {
    Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], PORT)), 2)
}

/// The name of the service at a port, once there is one.
fn name_of(weir: &Weir, port: u16) -> String {
    eventually(PATIENCE, || {
        let found = status(weir).services.into_iter().find(|service| service.port == port && !service.backends.is_empty());
        found.map(|service| service.name).ok_or_else(|| format!("no service on port {port}"))
    })
}

/// Gives an order that has to be taken.
#[track_caller]
fn order(weir: &Weir, arguments: &[&str]) {
    let output = weir.cli_output(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn packets(weir: &Weir, service: &str, reason: &str) -> u64 {
    weir.metrics().count("weir_packets_total", &[("service", service), ("reason", reason)])
}

/// The mode that the status tells, without waiting.
fn mode(weir: &Weir, service: &str) -> String {
    let status = status(weir);
    status.service(service).and_then(|service| service.defence.as_ref()).map(|defence| defence.mode.clone()).expect("a TCP service")
}

fn a_veth_whose_other_end_takes_nothing_answers_no_syn() {
    const WHERE: &str = "the other end of this veth has no XDP program";
    let pair = Pair::new();
    pair.client_takes_what_xdp_sends(false);
    let _workers = workers(&pair);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(""), &["--mode", "native"]);
    let service = name_of(&weir, PORT);
    order(&weir, &["defence", &service, "on"]);
    let plan = Plan::new(SocketAddr::new(pair.server_v4[0], PORT), &pair.client_v4);
    let connect = |first: usize| {
        let report = open_close(&pair.client, &plan.clone().orderly_close().starting_at_flow(first), 100);
        report.assert_no_failure();
        assert_eq!(report.slow, 0, "the slowest took {:?}", report.slowest);
    };
    for (takes, first) in [(false, 0), (true, 100), (false, 200)] {
        pair.client_takes_what_xdp_sends(takes);
        // What is looked at each minute is looked at now.
        order(&weir, &["reload"]);
        eventually(PATIENCE, || {
            let is_unsafe = weir.metrics().count("weir_defence_unsafe", &[("service", &service)]) == 1;
            if is_unsafe == takes { Err(format!("it is unsafe: {is_unsafe}")) } else { Ok(()) }
        });
        let sent = packets(&weir, &service, "cookie_sent");
        connect(first);
        let text = String::from_utf8_lossy(&weir.cli_output(&["status"]).stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text.contains(WHERE) && text.contains("--mode generic"), !takes, "{text}");
        assert_eq!(packets(&weir, &service, "cookie_sent") - sent, if takes { 100 } else { 0 });
    }
}

fn each_service_announces_the_window_of_its_own_buffer() {
    let pair = Pair::new();
    let listeners: Vec<TcpListener> = [(8_001, Some(16 * 1024)), (8_002, Some(1024 * 1024)), (8_003, None)]
        .into_iter()
        .map(|(port, buffer)| {
            let listener = pair.server.run(|| TcpListener::bind(SocketAddr::new(pair.server_v4[0], port)).expect("listen"));
            if let Some(buffer) = buffer {
                setsockopt(&listener, RcvBufForce, &buffer).expect("SO_RCVBUF");
            }
            listener
        })
        .collect();
    let ports = listeners.iter().map(|listener| listener.local_addr().expect("bound").port());
    let client = RawClient::new(&pair, false, 0);
    let announced = |from: u16| {
        let of_port = |port: u16| {
            let syn_ack = client.open(from, port, 1_000, &OPTIONS);
            client.send(&[client.tcp(from, port).flags(crate::support::packet::RST).sequence(1_001)]);
            (syn_ack.window, syn_ack.option(3).map(<[u8]>::to_vec))
        };
        ports.clone().map(of_port).collect::<Vec<_>>()
    };
    let calm = announced(4_001);
    assert!(calm.windows(2).all(|two| two[0] != two[1]), "three different ones: {calm:?}");
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some("[defence]\nsyn_defence = \"always\"\n"), &[]);
    eventually(PATIENCE, || {
        let services = status(&weir).services.into_iter().filter(|service| service.listeners > 0).count();
        if services == 3 { Ok(()) } else { Err(format!("{services} services")) }
    });
    assert_eq!(announced(4_002), calm);
    for service in status(&weir).services {
        assert_eq!(packets(&weir, &service.name, "cookie_sent"), 1, "{}", service.name);
    }
}

fn a_reload_takes_hold_at_once() {
    let pair = Pair::new();
    let _workers = workers(&pair);
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    let configuration = |all: &str, own: &str| {
        let service = format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = {PORT}\naddress = \"{}\"\n", target.ip());
        format!("[defence]\n{all}\n{service}{own}\n")
    };
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration("", "")), &[]);
    assert_eq!((name_of(&weir, PORT).as_str(), mode(&weir, "web").as_str()), ("web", "calm"));
    let reload = |all: &str, own: &str| {
        weir.configure(&configuration(all, own));
        order(&weir, &["reload"]);
    };
    let connects = || pair.client.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(300)).is_ok());

    reload("syn_defence = \"always\"", "");
    assert_eq!(mode(&weir, "web"), "flood");
    assert!(connects());
    assert_eq!(packets(&weir, "web", "cookie_accepted"), 1);

    reload("", &format!("deny = [\"{}\"]", pair.client_v4[0]));
    assert!(!connects());
    assert!(packets(&weir, "web", "denied_source") > 0);

    reload("", &format!("allow = [\"{}\"]", pair.client_v4[0]));
    assert!(connects());

    reload("", "new_connections_per_prefix = 1");
    assert!((0..20).filter(|_| connects()).count() < 20);
    assert!(packets(&weir, "web", "new_flows_over_limit") > 0);
}

/// A daemon that was away finds one service gone and another in its place, by the only index that there is.
fn a_service_begins_calm_where_another_was_in_flood() {
    let pair = Pair::new();
    let first = workers(&pair);
    let quiet = "[defence]\nflood_syns_per_second = 100\nquiet_time = \"10m\"\nminimum_time = \"1h\"\n[limits]\nservices = 1\n";
    let mut weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(quiet), &[]);
    let service = name_of(&weir, PORT);
    let plan = Plan::new(SocketAddr::new(pair.server_v4[0], PORT), &pair.client_v4);
    open_close(&pair.client, &plan, 500).assert_no_failure();
    assert_eq!(mode(&weir, &service), "flood");
    weir.kill9();
    drop(first);
    let second = WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], PORT + 1));
    let _second = Workers::start(&pair.server, &second, 2);
    weir.restart();
    let service = name_of(&weir, PORT + 1);
    assert_eq!(mode(&weir, &service), "calm");
}
