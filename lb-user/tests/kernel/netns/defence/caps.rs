//! What is above a limit is lost, is told by its reason, and is nobody else's loss.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, reload, wait_for_mode};
use super::floods::{self, generated, plan};
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::{PATIENCE, service_with_ready, target};
use crate::support::daemon::Weir;
use crate::support::flood::{Flood, FloodKind, FloodPlan, Prefix, ready};
use crate::support::load::{Plan, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::caps::above_the_cap_of_all_the_loss_is_told", above_the_cap_of_all_the_loss_is_told),
        trial("defence::caps::a_prefix_over_its_limit_harms_no_other", || {
            a_prefix_over_its_limit_harms_no_other(false, "20.30.40.0/24");
            a_prefix_over_its_limit_harms_no_other(true, "2a00:1:2:3400::/56");
        }),
        trial("defence::caps::lists_and_limits_of_a_service_change_by_reload", lists_and_limits_of_a_service_change_by_reload),
        trial("defence::caps::datagrams_of_a_prefix_are_limited", datagrams_of_a_prefix_are_limited),
    ]
}

const PORT: u16 = 80;

fn stage(v6: bool, configuration: &'static str) -> Stage {
    Stage::set(&Scenario { server: Server::Workers, v6, configuration, options: &[] })
}

/// Of 51,000 SYNs a second 10 are answered, half of them by each processor: hardly a client is lucky.
fn above_the_cap_of_all_the_loss_is_told() {
    const CLIENTS: usize = 128;
    let stage = stage(false, "syn_acks_per_second = 10");
    let flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let (_, plan) = target(&stage.pair, false, PORT);
    let plan = plan.starting_at_flow(1_000).concurrency(CLIENTS).timeout(Duration::from_millis(900));
    let report = open_close(&stage.pair.client, &plan, CLIENTS);
    let books = books.until_now(&stage.weir, &stage.pair.server);
    drop(flood);
    println!("{} of {CLIENTS} failed; {:?}", report.failures.len(), books.moved());
    assert!(report.failures.len() > CLIENTS / 2, "{} of {CLIENTS} failed", report.failures.len());
    let (sent, lost) = (books.reason("cookie_sent"), books.reason("syn_ack_cap"));
    assert!(sent < 100 && lost > 10_000, "{:?}", books.moved());
    assert_eq!(books.reason("syn_ack_prefix_limit"), 0, "{:?}", books.moved());
    assert_eq!(books.kernel.get("TcpExt", "SyncookiesSent"), 0, "none of them is the kernel's business");
}

fn a_prefix_over_its_limit_harms_no_other(v6: bool, prefix: &str) {
    const CLIENTS: usize = 500;
    let mut stage = stage(v6, "syn_acks_per_prefix = 2000");
    let aim = stage.aim();
    let (address, length) = prefix.split_once('/').expect("a prefix");
    let from = [Prefix::new(address.parse::<IpAddr>().expect("an address"), length.parse().expect("a length"))];
    let flood = generated(&aim, &plan(&aim, FloodKind::Syn).coming_from(&from));
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let report = stage.connections(CLIENTS);
    // A second's worth of the flood.
    let sent = flood.sent();
    eventually(PATIENCE, || if flood.sent() >= sent + floods::RATE { Ok(()) } else { Err("the flood does not go on".to_owned()) });
    let books = books.until_now(&stage.weir, &stage.pair.server);
    drop(flood);
    println!("{}; {:?}", report.first_response, books.moved());
    report.assert_no_failure();
    assert_eq!(report.slow, 0, "the slowest took {:?}", report.slowest);
    let others = CLIENTS as u64;
    assert!(books.reason("syn_ack_prefix_limit") > 10_000, "{:?}", books.moved());
    assert!((others..others + 10_000).contains(&books.reason("cookie_sent")), "{:?}", books.moved());
}

/// How many of 20 connections from one of the client's addresses are made within a short time.
fn made_from(pair: &Pair, target: SocketAddr, source: IpAddr, first: usize) -> u64 {
    let plan = Plan::new(target, &[source]).starting_at_flow(first).concurrency(20).timeout(Duration::from_millis(300));
    open_close(&pair.client, &plan, 20).ok
}

fn lists_and_limits_of_a_service_change_by_reload() {
    for v6 in [false, true] {
        let pair = Pair::new();
        let (target, _) = target(&pair, v6, PORT);
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 1);
        let [one, other] = if v6 { [pair.client_v6[0], pair.client_v6[1]] } else { [pair.client_v4[0], pair.client_v4[1]] };
        let service =
            |more: &str| format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\naddress = \"{}\"\nport = {PORT}\n{more}", target.ip());
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&service("")), &[]);
        service_with_ready(&weir, 1);
        let mut first = 0;
        let mut expect = |more: &str, from_one: std::ops::RangeInclusive<u64>, from_other: std::ops::RangeInclusive<u64>, reason: &str| {
            reload(&weir, &service(more));
            let books = Books::read(&weir, &pair.server);
            let made = [one, other].map(|source| {
                first += 20;
                made_from(&pair, target, source, first)
            });
            let books = books.until_now(&weir, &pair.server);
            println!("{more}: {made:?}; {:?}", books.moved());
            assert!(from_one.contains(&made[0]) && from_other.contains(&made[1]), "{more}: {made:?}; {:?}", books.moved());
            assert_eq!(books.reason(reason) > 0, made != [20, 20], "{more}: {:?}", books.moved());
        };
        expect("", 20..=20, 20..=20, "denied_source");
        expect(&format!("deny = [\"{one}\"]"), 0..=0, 20..=20, "denied_source");
        let text = one.to_string();
        let network = if v6 { text.replace("::1", "::/64") } else { format!("{}.0/24", text.trim_end_matches(".1")) };
        expect(&format!("deny = [\"{network}\"]\nallow = [\"{other}\"]"), 0..=0, 20..=20, "denied_source");
        // Both are of one prefix: what it may open in a second is soon used up, on whichever processor.
        expect("new_connections_per_prefix = 4", 2..=8, 0..=4, "new_flows_over_limit");
        // What was used up is there again after a second.
        std::thread::sleep(Duration::from_millis(1_100));
        expect(&format!("new_connections_per_prefix = 4\nallow = [\"{other}\"]"), 1..=8, 20..=20, "new_flows_over_limit");
        expect("new_connections_per_prefix = 0", 20..=20, 20..=20, "new_flows_over_limit");
    }
}

fn datagrams_of_a_prefix_are_limited() {
    const PACKETS: u64 = 20_000;
    let pair = Pair::new();
    let mac = ready(&pair);
    let target = SocketAddr::new(pair.server_v4[0], 5300);
    let _workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 1);
    let service =
        |limit: &str| format!("[[service]]\nname = \"dns\"\nprotocol = \"udp\"\naddress = \"{}\"\nport = 5300\n{limit}", target.ip());
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&service("udp_packets_per_prefix = 1000")), &[]);
    service_with_ready(&weir, 1);
    let from = [Prefix::new("20.30.40.0".parse().expect("an address"), 24)];
    let flood = |count: u64| {
        let books = Books::read(&weir, &pair.server);
        let plan = FloodPlan::new(FloodKind::Udp, target, mac).packets(count).rate(20_000).coming_from(&from);
        Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan).finish();
        let books = books.until_now(&weir, &pair.server);
        println!("{:?}", books.moved());
        books.reason("datagrams_over_limit")
    };
    let over = flood(PACKETS);
    assert!(over > PACKETS / 2, "{over} of {PACKETS}");
    // From elsewhere, all is as ever.
    let socket = pair.client.run(|| std::net::UdpSocket::bind((pair.client_v4[0], 0))).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set a timeout");
    socket.send_to(b"who?", target).expect("send");
    socket.recv_from(&mut [0; 512]).expect("an answer");
    for (limit, least) in [("udp_bytes_per_prefix = 20000", 1_000), ("udp_packets_per_prefix = 0", 0)] {
        reload(&weir, &service(limit));
        let over = flood(PACKETS / 4);
        assert!(if least > 0 { over > least } else { over == 0 }, "{limit}: {over}");
    }
}
