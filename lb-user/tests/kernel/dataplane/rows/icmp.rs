//! ICMP and ICMPv6: errors about packets that a service sent belong to its flow.

use lb_common::Reason;

use super::{Row, TIMESTAMPS, of, passed};
use crate::{
    dataplane::world::{CLIENT, CLIENT6, DNS, NEW_PORT, QUIC, SERVER, SERVER6, STRANGER, WEB, WEB6},
    support::packet::{ACK, CLIENT_MAC, Packet},
};

pub const ROWS: &[Row] = &[
    about_web("icmp: host unreachable", || error(3, 1, &segment())),
    about_web("icmp: fragmentation needed, quoting 8 bytes", || from_router().icmp_error(3, 4, 1400, &segment(), 28)),
    about_web("icmp: time exceeded", || error(11, 0, &segment())),
    about_web("icmp: parameter problem", || error(12, 0, &segment())),
    about_web("icmp: redirect", || error(5, 1, &segment())),
    about_web("icmp: source quench", || error(4, 0, &segment())),
    about_web("icmp: quoting a header with options", || error(3, 1, &ip().options(&[1; 40]).tcp(80, NEW_PORT).flags(ACK))),
    about_web("icmp: quoting a first fragment", || error(3, 1, &ip().fragment(0, true).tcp(80, NEW_PORT).flags(ACK))),
    about_web("icmp: quoting the ports and no more", || from_router().icmp_error(3, 4, 1400, &segment(), 24)),
    about_web("icmp: in a VLAN", || Packet::ethernet().vlan(7).ipv4(STRANGER, SERVER).icmp_error(3, 4, 1400, &segment(), 28)),
    about_web("icmp: with options of its own", || from_router().options(&[1; 12]).icmp_error(3, 4, 1400, &segment(), 28)),
    of("icmp: port unreachable, quoting UDP", || error(3, 3, &ip().udp(53, NEW_PORT).payload(b"answer")), DNS, Reason::IcmpError),
    of("icmp: quoting QUIC", || error(3, 4, &ip().udp(443, NEW_PORT).payload(&[0x40; 1200])), QUIC, Reason::IcmpError),
    passed("icmp: quoting 3 bytes of the ports", || from_router().icmp_error(3, 4, 1400, &segment(), 23), Reason::Truncated),
    passed("icmp: quoting half a header", || from_router().icmp_error(3, 4, 1400, &segment(), 10), Reason::Truncated),
    passed("icmp: quoting nothing", || from_router().icmp(3, 1, 0), Reason::Truncated),
    passed("icmp: quoting another port", || error(3, 1, &ip().tcp(81, NEW_PORT).flags(ACK)), Reason::NotAPort),
    passed("icmp: quoting a connection that we opened", || error(3, 1, &ip().tcp(NEW_PORT, 80).flags(ACK)), Reason::NotAPort),
    passed("icmp: quoting another address", || error(3, 1, &Packet::default().ipv4(STRANGER, CLIENT).tcp(80, 1)), Reason::NotAnAddress),
    passed("icmp: quoting a later fragment", || error(11, 1, &ip().fragment(9, true).next(6).payload(&[0; 8])), Reason::LaterFragment),
    passed("icmp: quoting ICMP", || error(3, 1, &ip().icmp(8, 0, 1)), Reason::NotTransport),
    passed("icmp: quoting IPv6", || from_router().icmp(3, 1, 0).payload(&segment6().ip_bytes()), Reason::Malformed),
    passed("icmp: quoting a header of 4 words", || error(3, 1, &ip().header_words(4).tcp(80, NEW_PORT)), Reason::Malformed),
    passed("icmp: in a frame for another host", || other_host().icmp_error(3, 1, 0, &segment(), 28), Reason::OtherHost),
    passed("icmp: echo request", || from_router().icmp(8, 0, 0x0001_0001).payload(&segment().ip_bytes()), Reason::NotTransport),
    passed("icmp: echo reply", || from_router().icmp(0, 0, 0x0001_0001).payload(&segment().ip_bytes()), Reason::NotTransport),
    passed("icmp: timestamp request", || from_router().icmp(13, 0, 0).payload(&[0; 12]), Reason::NotTransport),
    passed("icmp: 7 bytes of a header", || from_router().icmp(3, 1, 0).truncate(14 + 20 + 7), Reason::Truncated),
    passed("icmp: later fragment of an error", || from_router().fragment(3, false).next(1).payload(&[0; 20]), Reason::LaterFragment),
    about_web6("icmpv6: unreachable", || error6(1, 0, &segment6())),
    about_web6("icmpv6: packet too big", || error6(2, 0, &segment6())),
    about_web6("icmpv6: time exceeded", || error6(3, 0, &segment6())),
    about_web6("icmpv6: parameter problem", || error6(4, 1, &segment6())),
    about_web6("icmpv6: quoting extension headers", || error6(1, 0, &ip6().destination_options(PADDING).tcp(80, NEW_PORT))),
    about_web6("icmpv6: behind extension headers", || from_router6().hop_by_hop(PADDING).icmp_error(2, 0, 1280, &segment6(), 1232)),
    about_web6("icmpv6: quoting a first fragment", || error6(1, 0, &ip6().fragment_header(0, true, 9).tcp(80, NEW_PORT))),
    of("icmpv6: port unreachable, quoting UDP", || error6(1, 4, &ip6().udp(53, NEW_PORT).payload(b"answer")), DNS, Reason::IcmpError),
    passed("icmpv6: quoting a later fragment", || error6(3, 1, &ip6().fragment_header(9, true, 9).tcp(80, 1)), Reason::LaterFragment),
    passed("icmpv6: quoting 7 extension headers", || error6(1, 0, &seven_headers()), Reason::TooDeep),
    passed("icmpv6: quoting another port", || error6(1, 0, &ip6().tcp(81, NEW_PORT)), Reason::NotAPort),
    passed("icmpv6: quoting IPv4", || from_router6().icmp(1, 0, 0).payload(&segment().ip_bytes()), Reason::Malformed),
    passed("icmpv6: quoting half a header", || from_router6().icmp_error(1, 0, 0, &segment6(), 30), Reason::Truncated),
    passed("icmpv6: quoting ICMPv6", || error6(1, 0, &ip6().icmp(128, 0, 1)), Reason::NotTransport),
    passed("icmpv6: echo request", || from_router6().icmp(128, 0, 1).payload(&[0x5a; 56]), Reason::NotTransport),
    passed("icmpv6: neighbour solicitation", || from_router6().icmp(135, 0, 0).payload(&SERVER6.octets()), Reason::NotTransport),
    passed("icmpv6: router advertisement", || from_router6().icmp(134, 0, 0x4000_0708).payload(&[0; 8]), Reason::NotTransport),
    passed("icmpv6: listener report", || from_router6().hop_by_hop(ALERT).icmp(143, 0, 1).payload(&[4; 20]), Reason::NotTransport),
    passed("icmpv6: an error of an unknown type", || error6(100, 0, &segment6()), Reason::NotTransport),
];

/// A PadN option, and a router alert, that fill a header of 8 bytes.
const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];
const ALERT: &[u8] = &[5, 2, 0, 0, 1, 0];

const fn about_web(name: &'static str, packet: fn() -> Packet) -> Row {
    of(name, packet, WEB, Reason::IcmpError)
}

const fn about_web6(name: &'static str, packet: fn() -> Packet) -> Row {
    of(name, packet, WEB6, Reason::IcmpError)
}

/// The header of what the server sent to the client.
fn ip() -> Packet {
    Packet::default().ipv4(SERVER, CLIENT)
}

fn ip6() -> Packet {
    Packet::default().ipv6(SERVER6, CLIENT6)
}

fn segment() -> Packet {
    ip().tcp(80, NEW_PORT).flags(ACK).options(TIMESTAMPS).payload(&[0x5a; 100])
}

fn segment6() -> Packet {
    ip6().tcp(80, NEW_PORT).flags(ACK).options(TIMESTAMPS).payload(&[0x5a; 100])
}

fn seven_headers() -> Packet {
    (0..7).fold(ip6(), |packet, _| packet.destination_options(PADDING)).tcp(80, NEW_PORT)
}

/// The header of what some router on the way sends to the server.
fn from_router() -> Packet {
    Packet::ethernet().ipv4(STRANGER, SERVER)
}

fn from_router6() -> Packet {
    Packet::ethernet().ipv6(CLIENT6, SERVER6)
}

fn other_host() -> Packet {
    Packet::ethernet_between(CLIENT_MAC, [2, 0, 0, 0, 0, 0x77]).ipv4(STRANGER, SERVER)
}

/// An error that quotes all that fits into 576 bytes (RFC 1812, section 4.3.2.3).
fn error(kind: u8, code: u8, original: &Packet) -> Packet {
    from_router().icmp_error(kind, code, 0, original, 548)
}

/// An error that quotes all that fits into 1,280 bytes (RFC 4443, section 2.4).
fn error6(kind: u8, code: u8, original: &Packet) -> Packet {
    from_router6().icmp_error(kind, code, 0, original, 1232)
}
