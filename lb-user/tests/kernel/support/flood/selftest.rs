//! Tests of the generator itself: what it says it sends arrives, whole and varied.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::{Flood, FloodKind, FloodPlan, Prefix, Sink, hping3, ready, refuse_all_but_veth, trafgen};
use crate::support::capture::Capture;
use crate::support::counters::{Counters, Traffic};
use crate::support::load::{Plan, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("support::flood::what_is_sent_arrives_and_is_whole", what_is_sent_arrives_and_is_whole),
        trial("support::flood::packets_vary", packets_vary),
        trial("support::flood::a_syn_flood_meets_a_listener", a_syn_flood_meets_a_listener),
        trial("support::flood::rate_time_and_owner_are_heeded", rate_time_and_owner_are_heeded),
        trial("support::flood::only_a_veth_is_flooded", only_a_veth_is_flooded),
        trial("support::flood::known_tools", known_tools),
    ]
}

/// Packets a second. At full speed the veth's ring overflows whenever something else has the receiver's CPU.
const RATE: u64 = 50_000;
/// The share in percent that arrives even so: a run of frames that a signal cuts short is counted as sent.
const ENOUGH: u64 = 80;
/// What the two hosts have to say to each other besides.
const CHATTER: u64 = 100;

const KINDS: [FloodKind; 7] =
    [FloodKind::Syn, FloodKind::Ack, FloodKind::SynAck, FloodKind::Rst, FloodKind::Fin, FloodKind::Flags(0x29), FloodKind::Udp];

fn target(pair: &Pair, v6: bool) -> SocketAddr {
    SocketAddr::new(if v6 { pair.server_v6[0] } else { pair.server_v4[0] }, 8080)
}

fn what_is_sent_arrives_and_is_whole() {
    const PACKETS: u64 = 20_000;
    let pair = Pair::new();
    let mac = ready(&pair);
    for (kind, v6) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let (traffic, counters) = (Traffic::of(&pair.server, Pair::SERVER_DEVICE), Counters::of(&pair.server));
        let plan = FloodPlan::new(kind, target(&pair, v6), mac).packets(PACKETS).rate(RATE);
        assert_eq!(Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan).finish().sent, PACKETS, "{kind:?}");
        eventually(Duration::from_secs(5), || {
            let now = Counters::of(&pair.server);
            let moved = |name| now.since(&counters, name);
            let arrived = Traffic::of(&pair.server, Pair::SERVER_DEVICE).since(traffic).received;
            // The one datagram in two ports that nobody has: counted by family.
            let taken = match (kind, v6) {
                (FloodKind::Udp, false) => moved("Udp.NoPorts"),
                (FloodKind::Udp, true) => moved("Udp6NoPorts"),
                _ => moved("Tcp.InSegs"),
            };
            let whole = (taken..=taken + CHATTER).contains(&arrived);
            let enough = (PACKETS * ENOUGH / 100..=PACKETS).contains(&taken);
            if whole && enough { Ok(()) } else { Err(format!("{kind:?}: {arrived} arrived, {taken} were taken")) }
        });
        let now = Counters::of(&pair.server);
        for fault in [
            "Tcp.InCsumErrors",
            "Tcp.InErrs",
            "Udp.InCsumErrors",
            "Udp6InCsumErrors",
            "IpExt.InCsumErrors",
            "Ip.InHdrErrors",
            "Ip6InHdrErrors",
        ] {
            assert_eq!(now.since(&counters, fault), 0, "{fault} after {kind:?}, IPv6: {v6}");
        }
    }
}

fn packets_vary() {
    const PACKETS: usize = 1800;
    let pair = Pair::new();
    let mac = ready(&pair);
    // Not the resets by which the server answers a source whose port happens to be this one.
    let capture = Capture::start(&pair.server, Pair::SERVER_DEVICE, "tcp dst port 8080 and not src port 8080");
    let (v4, v6) = (
        Prefix::new(Ipv4Addr::new(77, 1, 0, 0).into(), 20),
        Prefix::new("2001:db8:7::".parse::<Ipv6Addr>().expect("an address").into(), 50),
    );
    for (target, prefix) in [(target(&pair, false), v4), (target(&pair, true), v6)] {
        let plan = FloodPlan::new(FloodKind::Syn, target, mac).packets(PACKETS as u64).coming_from(&[prefix]);
        // No faster than tcpdump takes them.
        Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan.rate(10_000)).finish();
    }
    let frames = capture.finish();
    let (of_v4, of_v6): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame[12..14] == [8, 0]);
    for (frames, at, prefix) in [(&of_v4[..], 14, v4), (&of_v6[..], 14, v6)] {
        // A run that a signal cuts short may send a frame more or fewer than is told.
        assert!((PACKETS * 9 / 10..=PACKETS * 11 / 10).contains(&frames.len()), "{} of {PACKETS}", frames.len());
        let (addresses, transport) = if prefix.address.is_ipv4() { (at + 12..at + 16, at + 20) } else { (at + 8..at + 24, at + 40) };
        let different = |range: std::ops::Range<usize>| frames.iter().map(|frame| &frame[range.clone()]).collect::<BTreeSet<_>>().len();
        for frame in frames {
            let octets = &frame[addresses.clone()];
            let source = <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            assert!(prefix.contains(source.expect("an address")), "{source:?}");
            assert!(u16::from_be_bytes([frame[transport], frame[transport + 1]]) >= 1024, "a port of an ordinary user");
            assert_eq!(frame[transport + 8..transport + 12], [0; 4], "a SYN acknowledges nothing");
        }
        assert!(different(addresses.clone()) > PACKETS / 2, "sources are many");
        assert!(different(transport..transport + 2) > PACKETS / 2, "ports are many");
        assert!(different(transport + 4..transport + 8) > PACKETS * 8 / 10, "sequence numbers are many");
        let lengths: BTreeSet<_> = frames.iter().map(|frame| frame.len()).collect();
        assert_eq!(lengths.len(), 5, "Linux and Android have options of the same length: {lengths:?}");
    }
}

fn a_syn_flood_meets_a_listener() {
    const PACKETS: u64 = 30_000;
    let pair = Pair::new();
    let mac = ready(&pair);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target(&pair, false)), 2);
    pair.server.set_sysctl("net.ipv4.tcp_syncookies", "2");
    let plan = FloodPlan::new(FloodKind::Syn, target(&pair, false), mac).packets(PACKETS).rate(RATE);
    let (counters, traffic) = (Counters::of(&pair.server), Traffic::of(&pair.server, Pair::SERVER_DEVICE));
    Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan).finish();
    eventually(Duration::from_secs(5), || {
        let (now, answers) = (Counters::of(&pair.server), Traffic::of(&pair.server, Pair::SERVER_DEVICE).since(traffic).sent);
        let (taken, cookies) = (now.since(&counters, "Tcp.InSegs"), now.since(&counters, "TcpExt.SyncookiesSent"));
        // Each is a SYN to the kernel, and each is answered by way of the client.
        let enough = (PACKETS * ENOUGH / 100..=PACKETS).contains(&taken);
        if enough && cookies == taken && answers >= cookies {
            Ok(())
        } else {
            Err(format!("{taken} taken, {cookies} cookies, {answers} sent"))
        }
    });

    pair.client_takes_what_xdp_sends(false);
    let _sink = Sink::attach(&pair.client, Pair::CLIENT_DEVICE);
    let counters = Counters::of(&pair.client);
    Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan).finish();
    assert!(Counters::of(&pair.client).since(&counters, "Ip.InReceives") < 100, "the sink takes the answers to others");
    let plan = Plan::new(target(&pair, false), &pair.client_v4);
    open_close(&pair.client, &plan, 100).assert_no_failure();
}

fn rate_time_and_owner_are_heeded() {
    let pair = Pair::new();
    let mac = ready(&pair);
    let plan = FloodPlan::new(FloodKind::Ack, target(&pair, false), mac).rate(20_000);
    let report = Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan.clone().packets(10_000)).finish();
    assert_eq!(report.sent, 10_000);
    assert!((0.45..0.8).contains(&report.elapsed.as_secs_f64()), "half a second: {report:?}");

    let report = Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan.clone().lasting(Duration::from_millis(300))).finish();
    assert!((4_000..=7_000).contains(&report.sent), "for 0.3 s: {report:?}");

    let (flood, start) = (Flood::start(&pair.client, Pair::CLIENT_DEVICE, &plan), Instant::now());
    eventually(Duration::from_secs(2), || if flood.sent() > 1_000 { Ok(()) } else { Err("it has not begun".to_owned()) });
    assert!(flood.is_running());
    let report = flood.stop();
    assert!(start.elapsed() < Duration::from_secs(1) && report.sent < 20_000, "{report:?}");
}

fn only_a_veth_is_flooded() {
    let pair = Pair::new();
    assert_eq!(refuse_all_but_veth(&pair.client, Pair::CLIENT_DEVICE), Ok(()));
    for device in ["lo", "nosuch"] {
        assert!(refuse_all_but_veth(&pair.client, device).is_err(), "{device}");
    }
}

fn known_tools() {
    let pair = Pair::new();
    let mac = ready(&pair);
    let second = Duration::from_secs(1);
    let before = Traffic::of(&pair.server, Pair::SERVER_DEVICE);
    let sent = hping3(&pair.client, target(&pair, false), None, second).finish();
    let arrived = Traffic::of(&pair.server, Pair::SERVER_DEVICE).since(before).received;
    assert!(sent > 10_000 && arrived >= sent / 4, "hping3 sent {sent}, {arrived} arrived");

    let before = Traffic::of(&pair.server, Pair::SERVER_DEVICE);
    let sent = trafgen(&pair.client, Pair::CLIENT_DEVICE, target(&pair, false), mac, 20_000, None, 5 * second).finish();
    let arrived = Traffic::of(&pair.server, Pair::SERVER_DEVICE).since(before).received;
    assert_eq!(sent, 20_000);
    assert!(arrived >= sent / 4, "trafgen sent {sent}, {arrived} arrived");

    let start = Instant::now();
    drop(hping3(&pair.client, target(&pair, false), None, 10 * second));
    assert!(start.elapsed() < second, "dropping it kills it");
    // A process that was killed is listed until its parent has taken note.
    eventually(second, || if pair.client.processes().is_empty() { Ok(()) } else { Err("it lives".to_owned()) });
}
