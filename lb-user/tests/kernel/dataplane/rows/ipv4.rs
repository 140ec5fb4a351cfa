//! IPv4: addresses, options, fragments, headers that lie.

use std::net::Ipv4Addr;

use lb_common::Reason;

use super::{LINUX_SYN, QUERY, Row, TIMESTAMPS, of, opens, passed, tcp, v4};
use crate::{
    dataplane::world::{CLIENT, DNS, NEW_PORT, SECOND_SERVER, SERVER, STRANGER, WEB, WILDCARD},
    support::packet::{ACK, PSH, Packet, SYN},
};

pub const ROWS: &[Row] = &[
    opens("ipv4: SYN", || tcp(v4(), 80, SYN).options(LINUX_SYN), WEB),
    of("ipv4: segment", || tcp(v4(), 80, ACK | PSH).options(TIMESTAMPS).payload(b"GET / HTTP/1.1\r\n\r\n"), WEB, Reason::TcpEstablished),
    opens("ipv4: SYN to a wildcard's first address", || tcp(v4(), 443, SYN).options(LINUX_SYN), WILDCARD),
    opens("ipv4: SYN to a wildcard's second address", || tcp(to(SECOND_SERVER), 443, SYN).options(LINUX_SYN), WILDCARD),
    passed("ipv4: another port", || tcp(v4(), 81, SYN).options(LINUX_SYN), Reason::NotAPort),
    passed("ipv4: another address", || tcp(to(STRANGER), 80, SYN).options(LINUX_SYN), Reason::NotAnAddress),
    passed("ipv4: the service's port at the wildcard's second address", || tcp(to(SECOND_SERVER), 80, SYN), Reason::NotAnAddress),
    passed("ipv4: the address before the service's", || tcp(to(Ipv4Addr::new(192, 0, 2, 0)), 80, SYN), Reason::NotAnAddress),
    passed("ipv4: loopback address", || tcp(to(Ipv4Addr::LOCALHOST), 80, SYN), Reason::NotAnAddress),
    passed("ipv4: broadcast address", || tcp(to(Ipv4Addr::BROADCAST), 80, SYN), Reason::NotAnAddress),
    passed("ipv4: wildcard address", || tcp(to(Ipv4Addr::UNSPECIFIED), 443, SYN), Reason::NotAnAddress),
    passed("ipv4: the server's answer", || reply().tcp(80, NEW_PORT).flags(SYN | ACK), Reason::NotAPort),
    passed("ipv4: the service's number of another protocol", || v4().udp(NEW_PORT, 80).payload(b"x"), Reason::NotAPort),
    opens("ipv4: router alert", || tcp(v4().options(&[0x94, 4, 0, 0]), 80, SYN), WEB),
    opens("ipv4: 40 bytes of options", || tcp(v4().options(&[1; 40]), 80, SYN).options(LINUX_SYN), WEB),
    of("ipv4: end of options, then rubbish", || tcp(v4().options(&[0, 0xff, 0xff, 0xff]), 80, ACK), WEB, Reason::TcpEstablished),
    of("ipv4: source route", || tcp(v4().options(&[131, 7, 4, 192, 0, 2, 9, 0]), 80, ACK), WEB, Reason::TcpEstablished),
    passed("ipv4: options, the packet ends inside them", || tcp(v4().options(&[1; 40]), 80, SYN).truncate(14 + 40), Reason::Truncated),
    passed("ipv4: the header's length reaches behind the packet", || tcp(v4().header_words(15).length(80), 80, SYN), Reason::Truncated),
    passed("ipv4: the header's length is above the total length", || tcp(v4().header_words(15), 80, SYN), Reason::Malformed),
    passed("ipv4: a header of 4 words", || tcp(v4().header_words(4), 80, SYN), Reason::Malformed),
    passed("ipv4: a header of 0 words", || tcp(v4().header_words(0), 80, SYN), Reason::Malformed),
    passed("ipv4: version 6", || tcp(v4().version(6), 80, SYN), Reason::Malformed),
    passed("ipv4: version 0", || tcp(v4().version(0), 80, SYN), Reason::Malformed),
    passed("ipv4: total length below the header", || tcp(v4().length(19), 80, SYN), Reason::Malformed),
    passed("ipv4: total length below the header with options", || tcp(v4().options(&[1; 8]).length(27), 80, SYN), Reason::Malformed),
    opens("ipv4: total length behind the frame's end", || tcp(v4().length(1500), 80, SYN), WEB),
    opens("ipv4: wrong checksum", || tcp(v4().checksum(0xdead), 80, SYN), WEB),
    opens("ipv4: TTL 0, every bit of TOS", || tcp(v4().ttl(0).traffic_class(0xff), 80, SYN), WEB),
    opens("ipv4: don't fragment", || tcp(v4().dont_fragment(), 80, SYN), WEB),
    opens("ipv4: the reserved flag", || tcp(v4().fragment(0x8000, false), 80, SYN), WEB),
    of("ipv4: first fragment of TCP", || first(80), WEB, Reason::FirstFragment),
    of("ipv4: first fragment, a SYN in 8 bytes", || tcp(v4().fragment(0, true), 80, SYN).truncate(14 + 28), WEB, Reason::FirstFragment),
    passed("ipv4: first fragment, 3 bytes of TCP", || tcp(v4().fragment(0, true), 80, SYN).truncate(14 + 23), Reason::Truncated),
    of("ipv4: first fragment of UDP", || v4().fragment(0, true).udp(NEW_PORT, 53).payload(QUERY), DNS, Reason::FirstFragment),
    of("ipv4: first fragment that must not be one", || tcp(v4().fragment(0x4000, true), 80, ACK), WEB, Reason::FirstFragment),
    passed("ipv4: first fragment, another port", || first(81), Reason::NotAPort),
    passed("ipv4: first fragment, another address", || tcp(to(STRANGER).fragment(0, true), 80, ACK), Reason::NotAnAddress),
    passed("ipv4: first fragment of GRE", || v4().fragment(0, true).next(47).payload(&[0; 32]), Reason::NotTransport),
    passed("ipv4: middle fragment", || v4().fragment(185, true).next(6).payload(&[0x5a; 64]), Reason::LaterFragment),
    passed("ipv4: last fragment", || v4().fragment(370, false).next(17).payload(&[0x5a; 64]), Reason::LaterFragment),
    passed("ipv4: later fragment of ICMP", || v4().fragment(1, false).next(1).payload(&[3; 64]), Reason::LaterFragment),
    passed("ipv4: fragment with the largest offset", || v4().fragment(0x1fff, false).next(6).payload(&[0; 8]), Reason::LaterFragment),
    passed("ipv4: later fragment that looks like a SYN", || tcp(v4().fragment(1, false), 80, SYN), Reason::LaterFragment),
    passed("ipv4: IP in IP around a SYN", || to(STRANGER).encapsulate(&tcp(v4(), 80, SYN)), Reason::NotTransport),
    passed("ipv4: GRE", || v4().next(47).payload(&[0; 40]), Reason::NotTransport),
    passed("ipv4: ESP", || v4().next(50).payload(&[0x5a; 40]), Reason::NotTransport),
    passed("ipv4: IGMP", || v4().next(2).payload(&[0x16, 0, 0, 0, 224, 0, 0, 9]), Reason::NotTransport),
    passed("ipv4: SCTP to a service's port", || v4().next(132).payload(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0]), Reason::NotTransport),
    passed("ipv4: UDP-Lite to a service's port", || v4().next(136).payload(&[0x9c, 0x40, 0, 53, 0, 8, 0, 0]), Reason::NotTransport),
    passed("ipv4: protocol 255", || v4().next(255).payload(&[0; 20]), Reason::NotTransport),
];

fn to(server: Ipv4Addr) -> Packet {
    Packet::ethernet().ipv4(CLIENT, server)
}

fn reply() -> Packet {
    Packet::ethernet().ipv4(SERVER, CLIENT)
}

fn first(port: u16) -> Packet {
    tcp(v4().fragment(0, true), port, ACK).payload(&[0x5a; 64])
}
