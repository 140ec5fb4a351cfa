//! What the tests of the defence stand on, tried without it: frames sent back by XDP, a client made of frames, and what is measured.

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::netns::live::target;
use crate::netns::programs::{bouncer, link_xdp};
use crate::support::load::{Answer, Held, download::Download, open_close};
use crate::support::netns::Pair;
use crate::support::packet::{ACK, PSH, RST, SYN, SYN_OPTIONS, Segment};
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::snmp::Counters;
use crate::support::tcp::{TcpInfo, negotiated};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::ground::frames_sent_back_in_native_mode_arrive", || frames_sent_back_arrive(true)),
        trial("defence::ground::frames_sent_back_in_generic_mode_arrive", || frames_sent_back_arrive(false)),
        trial("defence::ground::a_raw_client_is_served", a_raw_client_is_served),
        trial("defence::ground::a_large_segment_is_a_flight_of_small_ones", a_large_segment_is_a_flight_of_small_ones),
        trial("defence::ground::what_is_agreed_on_is_read_at_both_ends", what_is_agreed_on_is_read_at_both_ends),
        trial("defence::ground::times_and_counters_are_read", times_and_counters_are_read),
        trial("defence::ground::a_download_is_measured", a_download_is_measured),
    ]
}

const PORT: u16 = 8080;
const FROM: u16 = 40_000;
/// How long a frame needs that crosses a veth pair.
const QUIET: Duration = Duration::from_millis(200);
/// How long an answer may take of a server that has to wait for its processor.
const PATIENCE: Duration = Duration::from_secs(5);

/// What XDP_TX sends on the server's device reaches the client's, whose kernel runs no XDP program.
fn frames_sent_back_arrive(native: bool) {
    const FRAMES: usize = 100;
    let pair = Pair::new();
    for v6 in [false, true] {
        let client = RawClient::new(&pair, v6, 0);
        let program = bouncer();
        let _attached = pair.server.run(|| link_xdp(&program, Pair::SERVER_DEVICE, native));
        let frames: Vec<_> = (0..FRAMES).map(|number| client.tcp(FROM, PORT).sequence(u32::try_from(number).expect("few"))).collect();
        client.send(&frames);
        let own = |frame: &[u8]| Segment::parse(frame).filter(|segment| segment.source.ip() == client.address());
        let back: Vec<_> = std::iter::from_fn(|| client.receive_frame(QUIET, own)).map(|segment| segment.sequence).collect();
        let expected: Vec<_> = (0..u32::try_from(FRAMES).expect("few")).collect();
        assert_eq!(back, expected, "native: {native}, IPv6: {v6}");
    }
}

/// The handshake by hand, a request and its echo; then segments that belong to nothing, each answered by the server's reset and by no
/// other: the client's own kernel says nothing to any of it.
fn a_raw_client_is_served() {
    let pair = Pair::new();
    for v6 in [false, true] {
        let server = if v6 { pair.server_v6[0] } else { pair.server_v4[0] };
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(server, PORT)).echo(), 1);
        let client = RawClient::new(&pair, v6, 1);
        let reply = client.open(FROM, PORT, 1000, &SYN_OPTIONS);
        assert_eq!((reply.flags, reply.acknowledgement, reply.intact), (SYN | ACK, 1001, true), "{reply:?}");
        assert_eq!(reply.option(2), Some(&(if v6 { 1440_u16 } else { 1460 }).to_be_bytes()[..]), "the MSS");
        assert!(reply.option(3).is_some() && reply.option(4) == Some(&[]) && reply.option(8).is_some_and(|times| times.len() == 8));

        let acknowledge = client.reply_to(&reply);
        let question = acknowledge.clone().flags(ACK | PSH).payload(b"alive?\n");
        client.send(&[acknowledge, question.clone(), question]);
        let said = client.hear_until(reply.sequence.wrapping_add(1), PATIENCE, |said| said.ends_with(b"\nalive?\n"));
        let text = String::from_utf8(said).expect("lines");
        let (line, echo) = text.split_once('\n').expect("two lines");
        assert!(Answer::parse(line).is_some() && echo == "alive?\n", "{text:?}");

        client.send(&[client.tcp(FROM + 1, PORT).flags(ACK).sequence(7).acknowledgement(9)]);
        // The connection's own segments may come as well, again.
        let mut replies = Vec::new();
        while replies.iter().all(|segment: &Segment| segment.flags & RST == 0) {
            replies.push(client.receive(PATIENCE).expect("a reset"));
        }
        replies.extend(client.receive_all(QUIET));
        let resets: Vec<_> = replies.iter().filter(|segment| segment.flags & RST != 0).map(|segment| segment.sequence).collect();
        assert_eq!(resets, [9], "{replies:?}");
    }
}

/// The first flight in one batch: the handshake's last ACK with its data, and more data, before the connection is made.
fn a_large_segment_is_a_flight_of_small_ones() {
    const SIZE: u16 = 500;
    let pair = Pair::new();
    for v6 in [false, true] {
        let server = if v6 { pair.server_v6[0] } else { pair.server_v4[0] };
        let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(server, PORT)).echo(), 1);
        let client = RawClient::new(&pair, v6, 2);
        let reply = client.open(FROM, PORT, 5, &[2, 4, 5, 0xb4]);
        let sent: Vec<u8> = (0..1500_u32).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        client.send_as_segments(&client.reply_to(&reply).payload(&sent), SIZE);
        let all = |said: &[u8]| said.iter().position(|byte| *byte == b'\n').is_some_and(|end| said.len() - end > sent.len());
        let said = client.hear_until(reply.sequence.wrapping_add(1), PATIENCE, all);
        let end = said.iter().position(|byte| *byte == b'\n').expect("the worker's line");
        assert!(said[end + 1..] == sent, "{} bytes of {} came back, IPv6: {v6}", said.len() - end - 1, sent.len());
        assert_eq!(workers.counts()[&0], 1);
    }
}

/// The two ends see the same handshake, each from its side; a client without an option gets none.
fn what_is_agreed_on_is_read_at_both_ends() {
    let pair = Pair::new();
    pair.client.set_sysctl("net.ipv4.tcp_ecn", "1");
    for v6 in [false, true] {
        let (target, plan) = target(&pair, v6, PORT);
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 1);
        let held = Held::open(&pair.client, &plan, 1);
        let [client] = held.tcp_info()[..] else { panic!("one connection") };
        let server = TcpInfo::in_namespace(&pair.server, target, held.flows()[0].0);
        for end in [&client, &server] {
            assert!(end.sack && end.timestamps && end.ecn && end.retransmissions == 0, "{end:?}");
            assert!(end.retransmission_timeout >= Duration::from_millis(200), "{end:?}");
            // 40 bytes of headers (60 in IPv6) and 12 of timestamps.
            let mss = if v6 { 1440 } else { 1460 };
            assert_eq!((end.send_mss, end.advertised_mss), (mss - 12, mss - 12), "{end:?}");
        }
        assert_eq!(client.send_window_scale, server.receive_window_scale);
        assert_eq!(client.receive_window_scale, server.send_window_scale);
        assert!(client.send_window_scale.is_some());

        let other = Held::open(&pair.client, &plan.clone().starting_at_flow(1), 1);
        assert_eq!(negotiated(&other.tcp_info()[0]), negotiated(&client), "the same client, the same path");
        let options = ["net.ipv4.tcp_sack", "net.ipv4.tcp_timestamps", "net.ipv4.tcp_window_scaling"];
        let set = |value| options.map(|name| pair.client.set_sysctl(name, value));
        set("0");
        let bare = Held::open(&pair.client, &plan.starting_at_flow(2), 1).tcp_info()[0];
        set("1");
        let scales = (bare.send_window_scale, bare.receive_window_scale);
        assert_eq!((bare.sack, bare.timestamps, scales, bare.send_mss), (false, false, (None, None), client.send_mss + 12));
    }
}

/// Connections are timed and the stack's counters move by what was done, in both families.
fn times_and_counters_are_read() {
    const CONNECTIONS: usize = 200;
    let pair = Pair::new();
    // Cookies for every SYN, whether or not the queue is full.
    pair.server.set_sysctl("net.ipv4.tcp_syncookies", "2");
    for v6 in [false, true] {
        let (target, plan) = target(&pair, v6, PORT);
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 2);
        let before = Counters::read(&pair.server);
        let report = open_close(&pair.client, &plan.orderly_close(), CONNECTIONS);
        report.assert_no_failure();
        println!("connect: {}; first response: {}", report.connect, report.first_response);
        assert_eq!((report.connect.count(), report.first_response.count()), (CONNECTIONS, CONNECTIONS));
        assert!(report.connect.p50() <= report.connect.p99() && report.connect.p99() <= report.connect.max());
        assert!(report.connect.max() < report.first_response.max() && report.first_response.max() <= report.slowest);

        let moved = Counters::read(&pair.server).since(&before);
        let count = i64::try_from(CONNECTIONS).expect("few");
        for (group, name) in [("Tcp", "PassiveOpens"), ("TcpExt", "SyncookiesSent"), ("TcpExt", "SyncookiesRecv")] {
            assert_eq!(moved.get(group, name), count, "{name}: {:?}", moved.moved());
        }
        for (group, name) in [("TcpExt", "SyncookiesFailed"), ("TcpExt", "ListenDrops"), ("Tcp", "InCsumErrors")] {
            assert_eq!(moved.get(group, name), 0, "{name}: {:?}", moved.moved());
        }
        let received = moved.get("Snmp6", "Ip6InReceives");
        assert_eq!(received > count, v6, "{received} packets over IPv6");
        assert!(moved.get("Tcp", "OutRsts") <= count);
    }
}

/// A download comes to its end whole, and what it took is known meanwhile and afterwards.
fn a_download_is_measured() {
    const BYTES: u64 = 200_000_000;
    let pair = Pair::new();
    let download = Download::start(&pair.client, &pair.server, SocketAddr::new(pair.server_v4[0], PORT), BYTES);
    let part = download.measure(Duration::from_millis(100));
    let [client, server] = download.flow();
    assert!(TcpInfo::in_namespace(&pair.server, server, client).timestamps && download.tcp_info().timestamps);
    let whole = download.finish(Duration::from_secs(20));
    println!("a part: {part}; the whole: {whole}");
    assert!(part.bytes > 0 && part.bytes < BYTES && whole.bytes == BYTES, "{part:?} of {whole:?}");
    assert!(whole.server > Duration::ZERO && whole.server_share() <= 1.1, "{whole:?}");
    assert!(whole.processors.0.iter().any(|processor| processor.busy() > 0.0), "{whole:?}");
}
