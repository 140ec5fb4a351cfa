//! UDP: flows that are new, known, and known wrongly.

use lb_common::Reason;

use super::{Choice, QUERY, Row, of, opens_udp, passed, v4, v6};
use crate::{
    dataplane::world::{CLIENT, DNS, KNOWN_PORT, LOST_PORT, NEW_PORT, SECOND_SERVER, STALE_PORT, TABLELESS},
    support::packet::Packet,
};

pub const ROWS: &[Row] = &[
    opens_udp("udp: datagram of a new flow", || v4().udp(NEW_PORT, 53).payload(QUERY), DNS, Choice::ByHash),
    of("udp: datagram of a known flow", || v4().udp(KNOWN_PORT, 53).payload(QUERY), DNS, Reason::UdpEstablished),
    of("udp: datagram of a known flow, IPv6", || v6().udp(KNOWN_PORT, 53).payload(QUERY), DNS, Reason::UdpEstablished),
    opens_udp("udp: datagram of a flow whose worker has gone", || v4().udp(STALE_PORT, 53).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: datagram of a flow whose worker has gone, IPv6", || v6().udp(STALE_PORT, 53).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: datagram of a flow whose slot does not exist", || v4().udp(LOST_PORT, 53).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: no payload", || v4().udp(NEW_PORT, 53), DNS, Choice::ByHash),
    opens_udp("udp: from port 0", || v4().udp(0, 53).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: no checksum", || v4().udp(NEW_PORT, 53).checksum(0).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: length behind the frame's end", || v4().udp(NEW_PORT, 53).length(1400).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: length 0 (jumbogram, joined datagrams)", || v6().udp(NEW_PORT, 53).length(0).payload(QUERY), DNS, Choice::ByHash),
    opens_udp("udp: 1,472 bytes", || v4().udp(NEW_PORT, 53).payload(&[0x5a; 1472]), DNS, Choice::ByHash),
    passed("udp: length 7", || v4().udp(NEW_PORT, 53).length(7).payload(QUERY), Reason::Malformed),
    passed("udp: length 1", || v6().udp(NEW_PORT, 53).length(1).payload(QUERY), Reason::Malformed),
    passed("udp: 7 bytes of a header", || v4().udp(NEW_PORT, 53).truncate(14 + 20 + 7), Reason::Truncated),
    passed("udp: another port", || v4().udp(NEW_PORT, 5353).payload(QUERY), Reason::NotAPort),
    passed("udp: another port, IPv6", || v6().udp(NEW_PORT, 5353).payload(QUERY), Reason::NotAPort),
    passed("udp: another address", || Packet::ethernet().ipv4(CLIENT, SECOND_SERVER).udp(NEW_PORT, 53), Reason::NotAnAddress),
    passed("udp: the server's answer", || v4().udp(53, KNOWN_PORT).payload(QUERY), Reason::NotAPort),
    of("udp: to a service without a table", || v4().udp(NEW_PORT, 8053).payload(QUERY), TABLELESS, Reason::NoBackend),
];
