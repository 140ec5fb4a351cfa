//! Segments that bring cookies back, right and wrong.

use lb_common::{Reason, abi::RequestAttributes};

use super::{
    Around, Twist,
    clients::{BARE, Client, LINUX, WINDOWS},
    cookie_ack, during, ends, of,
};
use crate::{
    dataplane::{
        defended::{CALM, EMPTIED, FLOODED, LINGERING, State, UNBALANCED, WINDOW_SCALE},
        rows::{Choice, Out, Row},
        world::{CLIENT, NEW_PORT, SERVER},
    },
    support::packet::{ACK, FIN, PSH, Packet},
};

const NONE: Twist = Twist { is_of_old_key: false, acknowledged: 0, echoed: 0, sequence: 0 };
const OLD: Twist = Twist { is_of_old_key: true, ..NONE };

pub fn rows() -> Vec<Row> {
    let accepted: &[Row] = &[
        accepted("defence: cookie with timestamps", || ack(Around::V4, &LINUX), || linux(Around::V4, 0)),
        accepted("defence: cookie with timestamps, IPv6", || ack(Around::V6, &LINUX), || linux(Around::V6, 0)),
        accepted("defence: cookie with timestamps, VLAN", || ack(Around::Vlan, &LINUX), || linux(Around::Vlan, 0)),
        accepted("defence: cookie with timestamps, the old key's", || twisted(&LINUX, OLD), || linux(Around::V4, 1)),
        accepted("defence: cookie without timestamps", || ack(Around::V4, &WINDOWS), windows),
        accepted("defence: cookie without timestamps, the old key's", || twisted(&WINDOWS, OLD), windows),
        accepted("defence: cookie without options", || ack(Around::V4, &BARE), || bare(536)),
        accepted("defence: cookie without options, IPv6", || ack(Around::V6, &BARE), || bare(1_220)),
        accepted("defence: cookie with data", || with_data(&LINUX), || linux(Around::V4, 0)),
        accepted("defence: cookie with data, no timestamps", || with_data(&WINDOWS), windows),
        accepted("defence: cookie with FIN", || cookie_ack(Around::V4, &LINUX, FLOODED, NONE).flags(ACK | FIN), || linux(Around::V4, 0)),
        Row { service: LINGERING, ..accepted("defence: cookie when the flood is over", || to(LINGERING), || of_service(LINGERING)) },
        Row {
            service: UNBALANCED,
            choice: Choice::None,
            ..accepted("defence: cookie of a service without a group", || to(UNBALANCED), || of_service(UNBALANCED))
        },
        Row {
            service: EMPTIED,
            choice: Choice::None,
            ..accepted("defence: cookie of a service whose workers have gone", || to(EMPTIED), || of_service(EMPTIED))
        },
    ];
    [accepted, REFUSED].concat()
}

const REFUSED: &[Row] = &[
    ends(
        "defence: ACK without a cookie",
        || Around::V4.request().tcp(NEW_PORT, 9001).acknowledgement(77).flags(ACK),
        Reason::CookieRefused,
    ),
    ends(
        "defence: ACK without a cookie, IPv6",
        || Around::V6.request().tcp(NEW_PORT, 9001).acknowledgement(77).flags(ACK),
        Reason::CookieRefused,
    ),
    ends("defence: cookie, a bit of it turned", || twisted(&LINUX, Twist { acknowledged: 1 << 9, ..NONE }), Reason::CookieRefused),
    ends("defence: cookie, its first bit turned", || twisted(&LINUX, Twist { acknowledged: 1 << 31, ..NONE }), Reason::CookieRefused),
    ends("defence: cookie, a bit of its timestamp turned", || twisted(&LINUX, Twist { echoed: 1, ..NONE }), Reason::CookieRefused),
    ends("defence: cookie, a bit of its options turned", || twisted(&LINUX, Twist { echoed: 1 << 20, ..NONE }), Reason::CookieRefused),
    ends("defence: cookie, another sequence number", || twisted(&LINUX, Twist { sequence: 1 << 3, ..NONE }), Reason::CookieRefused),
    ends("defence: cookie without its timestamps", || ack(Around::V4, &LINUX).options(&[]), Reason::CookieRefused),
    ends(
        "defence: cookie with timestamps that it has not",
        || ack(Around::V4, &WINDOWS).options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
        Reason::CookieRefused,
    ),
    ends("defence: cookie of another port", || elsewhere(CLIENT, NEW_PORT + 1), Reason::CookieRefused),
    ends("defence: cookie of another client", || elsewhere(std::net::Ipv4Addr::new(198, 51, 100, 8), NEW_PORT), Reason::CookieRefused),
    ends(
        "defence: cookie of another service",
        || {
            Packet::ethernet()
                .ipv4(CLIENT, SERVER)
                .tcp(NEW_PORT, 9001)
                .sequence(super::SEQUENCE + 1)
                .acknowledgement(number(UNBALANCED))
                .flags(ACK)
        },
        Reason::CookieRefused,
    ),
    during(State::OneKey, ends("defence: cookie of a key that has expired", || twisted(&LINUX, OLD), Reason::CookieExpired)),
    during(State::Guessed, ends("defence: right cookie from a prefix that guesses", || ack(Around::V4, &LINUX), Reason::CookieGuessing)),
    during(State::KernelScheme, ends("defence: own cookie while the kernel's are sent", || ack(Around::V4, &LINUX), Reason::CookieRefused)),
    during(State::Asleep, ends("defence: cookie while the daemon is away", || ack(Around::V4, &LINUX), Reason::TcpEstablished)),
    during(State::Schemeless, ends("defence: ACK while no cookie is sent", || ack(Around::V4, &LINUX), Reason::TcpEstablished)),
    of("defence: cookie in calm", || to(CALM), CALM, Reason::TcpEstablished),
];

const fn accepted(name: &'static str, packet: fn() -> Packet, attributes: fn() -> RequestAttributes) -> Row {
    Row { choice: Choice::ByHash, out: Out::Restores(attributes), ..ends(name, packet, Reason::CookieAccepted) }
}

fn ack(around: Around, client: &Client) -> Packet {
    cookie_ack(around, client, FLOODED, NONE).flags(ACK)
}

fn twisted(client: &Client, twist: Twist) -> Packet {
    cookie_ack(Around::V4, client, FLOODED, twist).flags(ACK)
}

fn with_data(client: &Client) -> Packet {
    cookie_ack(Around::V4, client, FLOODED, NONE).flags(ACK | PSH).payload(b"GET / HTTP/1.1\r\n\r\n")
}

fn to(service: u32) -> Packet {
    cookie_ack(Around::V4, &LINUX, service, NONE).flags(ACK)
}

/// The number that a client without timestamps acknowledges at a service.
fn number(service: u32) -> u32 {
    let segment = crate::support::packet::Segment::parse(&cookie_ack(Around::V4, &WINDOWS, service, NONE).bytes());
    segment.expect("a segment").acknowledgement
}

/// The client's cookie from where it was not sent to.
fn elsewhere(client: std::net::Ipv4Addr, source: u16) -> Packet {
    let segment = crate::support::packet::Segment::parse(&ack(Around::V4, &LINUX).bytes()).expect("a segment");
    let packet = Packet::ethernet().ipv4(client, SERVER).tcp(source, 9001).sequence(segment.sequence);
    packet.acknowledgement(segment.acknowledgement).flags(ACK).options(&segment.options)
}

/// What the kernel is told of the Linux client, whose cookie the key with so much less parity has made.
fn linux(around: Around, older: u32) -> RequestAttributes {
    restored(around, FLOODED, older)
}

fn of_service(service: u32) -> RequestAttributes {
    restored(Around::V4, service, 0)
}

fn restored(around: Around, service: u32, older: u32) -> RequestAttributes {
    let twist = if older == 0 { NONE } else { OLD };
    let bytes = cookie_ack(around, &LINUX, service, twist).bytes();
    RequestAttributes {
        received_timestamp: 0x0001_0333,
        // The last four bytes of the segment are the timestamp that it echoes.
        echoed_timestamp: u32::from_be_bytes(*bytes.last_chunk().expect("four bytes")),
        maximum_segment_size: if around == Around::V6 { 1_440 } else { 1_460 },
        receive_window_scale: WINDOW_SCALE,
        send_window_scale: 7,
        has_window_scale: 1,
        has_selective_acknowledgement: 1,
        has_timestamps: 1,
        ..RequestAttributes::default()
    }
}

fn windows() -> RequestAttributes {
    RequestAttributes {
        maximum_segment_size: 1_460,
        receive_window_scale: WINDOW_SCALE,
        send_window_scale: 8,
        has_window_scale: 1,
        has_selective_acknowledgement: 1,
        ..RequestAttributes::default()
    }
}

fn bare(maximum_segment_size: u16) -> RequestAttributes {
    RequestAttributes { maximum_segment_size, ..RequestAttributes::default() }
}
