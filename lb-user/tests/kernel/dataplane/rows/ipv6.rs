//! IPv6: addresses, extension headers, fragments, headers that lie.

use std::net::Ipv6Addr;

use lb_common::Reason;

use super::{LINUX_SYN, QUERY, Row, TIMESTAMPS, of, opens, opens_udp, passed, tcp, v6};
use crate::{
    dataplane::{
        rows::Choice,
        world::{CLIENT, CLIENT6, DNS, NEW_PORT, SECOND_SERVER6, SERVER, SERVER6, STRANGER6, WEB6, WILDCARD},
    },
    support::packet::{ACK, PSH, Packet, SYN},
};

pub const ROWS: &[Row] = &[
    opens("ipv6: SYN", || tcp(v6(), 80, SYN).options(LINUX_SYN), WEB6),
    of("ipv6: segment", || tcp(v6(), 80, ACK | PSH).options(TIMESTAMPS).payload(b"GET / HTTP/1.1\r\n\r\n"), WEB6, Reason::TcpEstablished),
    opens("ipv6: SYN to a wildcard's first address", || tcp(v6(), 443, SYN).options(LINUX_SYN), WILDCARD),
    opens("ipv6: SYN to a wildcard's second address", || tcp(to(SECOND_SERVER6), 443, SYN).options(LINUX_SYN), WILDCARD),
    opens_udp("ipv6: datagram", || v6().udp(NEW_PORT, 53).payload(QUERY), DNS, Choice::ByHash),
    passed("ipv6: another port", || tcp(v6(), 81, SYN).options(LINUX_SYN), Reason::NotAPort),
    passed("ipv6: another address", || tcp(to(STRANGER6), 80, SYN).options(LINUX_SYN), Reason::NotAnAddress),
    passed("ipv6: an address that differs in its first half", || tcp(to(first_half()), 80, SYN), Reason::NotAnAddress),
    passed("ipv6: link-local address", || tcp(to(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), 80, SYN), Reason::NotAnAddress),
    passed("ipv6: multicast address", || tcp(to(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), 80, SYN), Reason::NotAnAddress),
    passed("ipv6: wildcard address", || tcp(to(Ipv6Addr::UNSPECIFIED), 443, SYN), Reason::NotAnAddress),
    passed("ipv6: IPv4-compatible address", || tcp(to(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0xc000, 0x201)), 80, SYN), Reason::NotAnAddress),
    passed("ipv6: the server's address as an IPv4-mapped one", || tcp(to(SERVER.to_ipv6_mapped()), 80, SYN), Reason::Malformed),
    passed("ipv6: a client with an IPv4-mapped address", || tcp(from(CLIENT.to_ipv6_mapped()), 80, SYN), Reason::Malformed),
    opens("ipv6: flow label, traffic class, hop limit 0", || tcp(v6().flow_label(0xf_ffff).traffic_class(0xff).ttl(0), 80, SYN), WEB6),
    opens("ipv6: payload length behind the frame's end", || tcp(v6().length(1440), 80, SYN), WEB6),
    of("ipv6: payload length 0 (jumbogram, joined segments)", || tcp(v6().length(0), 80, ACK), WEB6, Reason::TcpEstablished),
    passed("ipv6: version 4", || tcp(v6().version(4), 80, SYN), Reason::Malformed),
    passed("ipv6: version 7", || tcp(v6().version(7), 80, SYN), Reason::Malformed),
    opens("ipv6: hop-by-hop options", || tcp(v6().hop_by_hop(PADDING), 80, SYN), WEB6),
    opens("ipv6: destination options", || tcp(v6().destination_options(PADDING), 80, SYN), WEB6),
    opens("ipv6: destination options of 264 bytes", || tcp(v6().destination_options(&[0; 262]), 80, SYN), WEB6),
    opens("ipv6: routing header with no segment left", || tcp(v6().routing(4, 0, &[0; 20]), 80, SYN), WEB6),
    of("ipv6: authentication header", || tcp(v6().authentication(0x100, 5), 80, ACK), WEB6, Reason::TcpEstablished),
    opens("ipv6: each kind of extension header", || tcp(every_kind(), 80, SYN), WEB6),
    opens("ipv6: 6 extension headers", || tcp(chain(6), 80, SYN), WEB6),
    passed("ipv6: 7 extension headers", || tcp(chain(7), 80, SYN), Reason::TooDeep),
    passed("ipv6: 20 extension headers", || tcp(chain(20), 80, SYN), Reason::TooDeep),
    passed(
        "ipv6: an extension header longer than the packet",
        || v6().hop_by_hop(PADDING).length(9).next(6).payload(&[0; 40]),
        Reason::Truncated,
    ),
    passed("ipv6: a transport header farther in than is read", || tcp(far(2_046), 80, SYN), Reason::Truncated),
    opens("ipv6: a transport header as far in as is read", || tcp(far(1_990), 80, SYN), WEB6),
    of("ipv6: first fragment of TCP", || fragment(0, true, 80), WEB6, Reason::FirstFragment),
    of("ipv6: first fragment of UDP", || v6().fragment_header(0, true, 9).udp(NEW_PORT, 53).payload(QUERY), DNS, Reason::FirstFragment),
    of("ipv6: first fragment behind destination options", || behind_options(0, true), WEB6, Reason::FirstFragment),
    of("ipv6: first fragment, then destination options", || before_options(0, true), WEB6, Reason::FirstFragment),
    passed("ipv6: first fragment, another port", || fragment(0, true, 81), Reason::NotAPort),
    opens("ipv6: atomic fragment", || tcp(v6().fragment_header(0, false, 9), 80, SYN), WEB6),
    passed("ipv6: middle fragment", || fragment(185, true, 80), Reason::LaterFragment),
    passed("ipv6: last fragment", || fragment(370, false, 80), Reason::LaterFragment),
    passed("ipv6: later fragment behind destination options", || behind_options(1, false), Reason::LaterFragment),
    passed("ipv6: later fragment, then what is no header", || before_options(1, false), Reason::LaterFragment),
    passed("ipv6: two fragment headers, the second of a later one", later_in_first, Reason::LaterFragment),
    passed("ipv6: no next header", v6, Reason::NotTransport),
    passed("ipv6: no next header, then what looks like a SYN", || tcp(v6().next(59), 80, SYN), Reason::NotTransport),
    passed("ipv6: ESP", || v6().next(50).payload(&[0x5a; 40]), Reason::NotTransport),
    passed("ipv6: mobility header", || v6().next(135).payload(&[59, 0, 0, 0, 0, 0, 0, 0]), Reason::NotTransport),
    passed("ipv6: IPv6 in IPv6 around a SYN", || to(STRANGER6).encapsulate(&tcp(v6(), 80, SYN)), Reason::NotTransport),
    passed("ipv6: unknown header", || v6().next(200).payload(&[6, 0, 0, 0, 0, 0, 0, 0]), Reason::NotTransport),
];

/// A PadN option that fills a header of 8 bytes.
const PADDING: &[u8] = &[1, 4, 0, 0, 0, 0];

fn to(server: Ipv6Addr) -> Packet {
    Packet::ethernet().ipv6(CLIENT6, server)
}

fn from(client: Ipv6Addr) -> Packet {
    Packet::ethernet().ipv6(client, SERVER6)
}

fn first_half() -> Ipv6Addr {
    Ipv6Addr::from(u128::from(SERVER6) ^ 1 << 64)
}

fn every_kind() -> Packet {
    v6().hop_by_hop(PADDING).destination_options(PADDING).routing(0, 0, &[0; 20]).authentication(1, 2).destination_options(PADDING)
}

fn chain(length: usize) -> Packet {
    (0..length).fold(v6(), |packet, _| packet.destination_options(PADDING))
}

/// Destination options of this many bytes, in headers of at most 1,024.
fn far(bytes: usize) -> Packet {
    let half = bytes / 16 * 8;
    v6().destination_options(&vec![0; half - 2]).destination_options(&vec![0; half - 2])
}

fn fragment(offset: u16, more: bool, port: u16) -> Packet {
    tcp(v6().fragment_header(offset, more, 9), port, ACK).payload(&[0x5a; 64])
}

fn behind_options(offset: u16, more: bool) -> Packet {
    tcp(v6().destination_options(PADDING).fragment_header(offset, more, 9), 80, SYN)
}

fn before_options(offset: u16, more: bool) -> Packet {
    tcp(v6().fragment_header(offset, more, 9).destination_options(PADDING), 80, SYN)
}

fn later_in_first() -> Packet {
    tcp(v6().fragment_header(0, true, 9).fragment_header(2, true, 10), 80, ACK)
}
