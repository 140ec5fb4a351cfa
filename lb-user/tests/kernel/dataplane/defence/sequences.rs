//! Several packets, one after the other: limits, floods that begin, cookies that come back twice, the kernel's own cookies.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::{
    Reason,
    abi::{DefencePolicy, LiveState},
};

use super::super::{
    Plane, Test, XDP_TX,
    bpf::Outcome,
    defended::{
        CALM, CONNECTIONS, DATAGRAM_BYTES, DATAGRAMS, FLOODED, LIMITED, METERED, RISING, STRAYS_OF_A_FLOOD, SYNS_OF_A_FLOOD, State, port,
    },
    harness::monotonic,
    has_room_for_metadata,
    rows::{
        LINUX_SYN,
        defence::{
            Around, SEQUENCE, Twist,
            clients::{LINUX, WINDOWS},
            cookie_ack, syn,
        },
    },
    run,
    world::{CLIENT, NEW_PORT, SERVER, SERVER6},
};
use crate::support::packet::{ACK, PSH, Packet, SYN, Segment};

type Sequence = fn(&Plane);

pub fn tests() -> Vec<(String, Test)> {
    let tests: [(&str, Sequence); 12] = [
        ("a_cookie_that_comes_twice_is_a_known_flow", twice),
        ("syn_acks_to_a_prefix_are_limited", to_a_prefix),
        ("syn_acks_in_all_are_limited", in_all),
        ("wrong_cookies_of_a_prefix_are_limited", wrong_cookies),
        ("syns_for_the_kernel_alone_are_limited", for_the_kernel),
        ("new_connections_of_a_prefix_are_limited", connections),
        ("datagrams_of_a_prefix_are_limited", datagrams),
        ("a_flood_of_syns_shows_in_its_window", rising_syns),
        ("a_flood_of_strays_shows", rising_strays),
        ("a_full_queue_is_a_flood_for_as_long_as_is_said", full_queue),
        ("the_kernels_cookies_come_back", kernel_cookies),
        ("a_host_that_uses_no_options_grants_none", unwilling),
    ];
    tests.map(|(name, test)| (format!("defence_{name}"), Box::new(move |plane: &Plane| plane.ground().run(|| test(plane))) as Test)).into()
}

/// Runs a packet to a service, and says which of its counters moved.
fn send(plane: &Plane, service: u32, packet: &Packet) -> (Reason, Outcome) {
    let before = plane.kernel.counters(service);
    let outcome = plane.kernel.run(&run(&packet.bytes()));
    let after = plane.kernel.counters(service);
    let moved =
        Reason::ALL.into_iter().filter(|reason| after.by_reason[reason.index()].packets != before.by_reason[reason.index()].packets);
    let moved: Vec<_> = moved.collect();
    assert_eq!(moved.len(), 1, "these counters of service {service} moved: {moved:?}");
    (moved[0], outcome)
}

fn reason(plane: &Plane, service: u32, packet: &Packet) -> Reason {
    send(plane, service, packet).0
}

/// The state in which all is well, changed.
fn prepare(plane: &Plane, change: impl FnOnce(&mut LiveState)) {
    plane.kernel.prepare(&plane.world, State::Awake);
    let mut live = State::Awake.live(monotonic());
    change(&mut live);
    plane.kernel.put("LIVE", 0, &live);
}

fn v4(host: u8, service: u32, flags: u8) -> Packet {
    from(Ipv4Addr::new(198, 51, 100, host), service, flags)
}

fn from(source: Ipv4Addr, service: u32, flags: u8) -> Packet {
    Packet::ethernet().ipv4(source, SERVER).tcp(NEW_PORT, port(service)).sequence(SEQUENCE).flags(flags)
}

fn v6(network: u16, host: u16, flags: u8) -> Packet {
    let source = Ipv6Addr::new(0x2001, 0xdb8, 0xc, network, 0, 0, 0, host);
    Packet::ethernet().ipv6(source, SERVER6).tcp(NEW_PORT, port(FLOODED)).sequence(SEQUENCE).flags(flags)
}

fn twice(plane: &Plane) {
    if !has_room_for_metadata() {
        return println!("not run: it needs Linux 6.9");
    }
    for client in [&LINUX, &WINDOWS] {
        for around in [Around::V4, Around::V6, Around::Vlan] {
            prepare(plane, |_| {});
            plane.kernel.forget(&around.flow(FLOODED));
            let ack = || cookie_ack(around, client, FLOODED, Twist::default()).flags(ACK);
            let (first, outcome) = send(plane, FLOODED, &ack());
            assert_eq!((first, outcome.metadata.len()), (Reason::CookieAccepted, 40));
            let data = ack().flags(ACK | PSH).payload(b"GET / HTTP/1.1\r\n\r\n");
            for packet in [&data, &ack(), &ack().flags(0x04)] {
                let (again, outcome) = send(plane, FLOODED, packet);
                assert_eq!((again, outcome.metadata.len()), (Reason::TcpEstablished, 0), "{client:?} {around:?}");
            }
            plane.kernel.forget(&around.flow(FLOODED));
            assert_eq!(reason(plane, FLOODED, &data), Reason::CookieAccepted, "the first segment with data, its ACK lost");
            plane.kernel.forget(&around.flow(FLOODED));
        }
    }
}

fn to_a_prefix(plane: &Plane) {
    prepare(plane, |live| live.syn_acks_to_prefix = 2);
    let syn = |host| v4(host, FLOODED, SYN).options(LINUX_SYN);
    let met = [1, 2, 3, 250].map(|host| reason(plane, FLOODED, &syn(host)));
    assert_eq!(met, [Reason::CookieSent, Reason::CookieSent, Reason::SynAckPrefixLimit, Reason::SynAckPrefixLimit]);
    // The neighbouring /24, and a /56 with its neighbour.
    assert_eq!(reason(plane, FLOODED, &from(Ipv4Addr::new(198, 51, 101, 1), FLOODED, SYN)), Reason::CookieSent);
    let met = [(0x100, 1), (0x1ff, 2), (0x101, 3), (0x200, 1)].map(|(network, host)| reason(plane, FLOODED, &v6(network, host, SYN)));
    assert_eq!(met, [Reason::CookieSent, Reason::CookieSent, Reason::SynAckPrefixLimit, Reason::CookieSent]);
}

fn in_all(plane: &Plane) {
    prepare(plane, |live| live.syn_acks = 3);
    let sources = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(4, 4, 4, 4)];
    let met = sources.map(|source| reason(plane, FLOODED, &from(source, FLOODED, SYN)));
    assert_eq!(met, [Reason::CookieSent, Reason::CookieSent, Reason::CookieSent, Reason::SynAckCap]);
}

fn wrong_cookies(plane: &Plane) {
    prepare(plane, |live| live.wrong_cookies = 2);
    let met = [1, 2, 3].map(|host| reason(plane, FLOODED, &v4(host, FLOODED, ACK).acknowledgement(77)));
    assert_eq!(met, [Reason::CookieRefused, Reason::CookieRefused, Reason::CookieGuessing]);
    // A right one takes none, but is not read either once they are gone.
    let ack = || cookie_ack(Around::V4, &LINUX, FLOODED, Twist::default()).flags(ACK);
    assert_eq!(reason(plane, FLOODED, &ack()), Reason::CookieGuessing);
    if !has_room_for_metadata() {
        return println!("the rest is not run: it needs Linux 6.9");
    }
    prepare(plane, |live| live.wrong_cookies = 2);
    for _ in 0..5 {
        plane.kernel.forget(&Around::V4.flow(FLOODED));
        assert_eq!(reason(plane, FLOODED, &ack()), Reason::CookieAccepted);
    }
    plane.kernel.forget(&Around::V4.flow(FLOODED));
}

fn for_the_kernel(plane: &Plane) {
    prepare(plane, |live| live.kernel_only_syns = 2);
    let met = [1, 2, 3].map(|host| reason(plane, FLOODED, &v4(host, FLOODED, SYN).options(&[30, 4, 0, 1])));
    assert_eq!(met, [Reason::KernelOnlySyn, Reason::KernelOnlySyn, Reason::KernelOnlySynOverLimit]);
    assert_eq!(reason(plane, FLOODED, &v4(1, FLOODED, SYN)), Reason::CookieSent, "who needs no kernel is under no such limit");
}

fn connections(plane: &Plane) {
    prepare(plane, |_| {});
    for host in 0..4 {
        let expected = if u32::from(host) < CONNECTIONS { Reason::TcpOpened } else { Reason::NewFlowsOverLimit };
        assert_eq!(reason(plane, LIMITED, &v4(host, LIMITED, SYN)), expected, "{host}");
        let allowed = from(Ipv4Addr::new(203, 0, 113, 200 + host), LIMITED, SYN);
        assert_eq!(reason(plane, LIMITED, &allowed), Reason::TcpOpened, "who is allowed is under no limit");
        assert_eq!(reason(plane, LIMITED, &v4(host, LIMITED, ACK)), Reason::TcpEstablished, "a segment opens nothing");
    }
}

fn datagrams(plane: &Plane) {
    prepare(plane, |_| {});
    let datagram = |bytes: usize| Packet::ethernet().ipv4(CLIENT, SERVER).udp(NEW_PORT, port(METERED)).payload(&vec![0x5a; bytes]);
    for number in 0..5 {
        let expected = if number < DATAGRAMS { Reason::UdpOpened } else { Reason::DatagramsOverLimit };
        assert_eq!(reason(plane, METERED, &datagram(10)), expected, "{number}");
    }
    prepare(plane, |_| {});
    let half = DATAGRAM_BYTES as usize / 2 - 14 - 20 - 8;
    let met = [half, half, 10].map(|bytes| reason(plane, METERED, &datagram(bytes)));
    assert_eq!(met, [Reason::UdpOpened, Reason::UdpOpened, Reason::DatagramsOverLimit]);
}

fn rising_syns(plane: &Plane) {
    prepare(plane, |_| {});
    // A window of 10 ms by a clock that ticks each 1 to 10 ms: again, if the machine was busy elsewhere.
    for _ in 0..20 {
        plane.kernel.prepare(&plane.world, State::Awake);
        std::thread::sleep(std::time::Duration::from_millis(25));
        let met: Vec<_> = (0..=SYNS_OF_A_FLOOD).map(|_| reason(plane, RISING, &v4(1, RISING, SYN))).collect();
        let calm = met.iter().take_while(|reason| **reason == Reason::TcpOpened).count();
        if calm == SYNS_OF_A_FLOOD as usize - 1 {
            assert_eq!(met[calm..], [Reason::CookieSent, Reason::CookieSent]);
            let flood = plane.kernel.flood(RISING);
            assert!(flood.entered != 0 && flood.hot >= flood.entered && flood.hot <= monotonic());
            return plane.kernel.prepare(&plane.world, State::Awake);
        }
    }
    panic!("no flood began with SYN {SYNS_OF_A_FLOOD} of a window");
}

fn rising_strays(plane: &Plane) {
    for _ in 0..20 {
        plane.kernel.prepare(&plane.world, State::Awake);
        std::thread::sleep(std::time::Duration::from_millis(25));
        // Two of them are looked up.
        let met: Vec<_> = (0..STRAYS_OF_A_FLOOD + 32).map(|_| reason(plane, RISING, &v4(1, RISING, ACK))).collect();
        let calm = met.iter().take_while(|reason| **reason == Reason::TcpEstablished).count();
        if calm < met.len() {
            assert!(met[calm..].iter().all(|reason| *reason == Reason::CookieRefused), "{met:?}");
            assert_eq!(reason(plane, RISING, &v4(1, RISING, SYN)), Reason::TcpOpened, "it is not SYNs that come in a flood");
            return plane.kernel.prepare(&plane.world, State::Awake);
        }
    }
    panic!("no flood began with strays");
}

fn full_queue(plane: &Plane) {
    prepare(plane, |_| {});
    let policy = plane.world.policies[&CALM];
    let syn = v4(1, CALM, SYN).options(LINUX_SYN);
    let until = |full_until| {
        plane.kernel.defend(CALM, &DefencePolicy { full_until, ..policy });
        reason(plane, CALM, &syn)
    };
    assert_eq!(until(monotonic() + 1_000_000_000), Reason::CookieSent);
    assert_eq!(until(monotonic() - 50_000_000), Reason::TcpOpened);
    assert_eq!(until(0), Reason::TcpOpened);
}

/// The kernel makes a cookie for the listener in the namespace, and takes it back, also when own cookies are sent meanwhile.
fn kernel_cookies(plane: &Plane) {
    for around in [Around::V4, Around::V6] {
        plane.kernel.prepare(&plane.world, State::KernelScheme);
        plane.kernel.forget(&around.flow(FLOODED));
        let (sent, outcome) = send(plane, FLOODED, &syn(around, &LINUX, FLOODED));
        assert_eq!((sent, outcome.verdict), (Reason::CookieSent, XDP_TX), "{around:?}");
        let answer = Segment::parse(&outcome.frame).expect("a segment");
        assert!(answer.intact && answer.flags == SYN | ACK && answer.acknowledgement == SEQUENCE + 1, "{answer:?}");
        // It holds the MSS alone.
        assert_eq!(answer.options, [&[2, 4, 5, 0xb4][..], &[0; 16]].concat());

        let again = cookie_ack(around, &WINDOWS, FLOODED, Twist::default()).flags(ACK);
        let ack = again.acknowledgement(answer.sequence.wrapping_add(1));
        for state in [State::KernelScheme, State::Awake, State::OneKey] {
            plane.kernel.prepare(&plane.world, state);
            let (reason, outcome) = send(plane, FLOODED, &ack);
            assert_eq!((reason, outcome.metadata.len()), (Reason::CookieAccepted, 0), "{around:?} {state:?}");
            assert_eq!(send(plane, FLOODED, &ack).0, Reason::TcpEstablished, "a known flow now");
            plane.kernel.forget(&around.flow(FLOODED));
        }
        plane.kernel.prepare(&plane.world, State::Awake);
        // The next numbers stand for other MSS.
        let wrong = ack.clone().acknowledgement(answer.sequence.wrapping_add(1) ^ 1 << 20);
        assert_eq!(send(plane, FLOODED, &wrong).0, Reason::CookieRefused);
    }
}

fn unwilling(plane: &Plane) {
    plane.kernel.prepare(&plane.world, State::Unwilling);
    for around in [Around::V4, Around::V6] {
        let (sent, outcome) = send(plane, FLOODED, &syn(around, &LINUX, FLOODED));
        let answer = Segment::parse(&outcome.frame).expect("a segment");
        assert_eq!(sent, Reason::CookieSent);
        assert_eq!(answer.options, [&[2, 4, 5, 0xb4][..], &[0; 16]].concat());
    }
}
