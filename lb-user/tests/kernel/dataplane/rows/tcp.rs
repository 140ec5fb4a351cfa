//! TCP: flags, options, services without backends.

use lb_common::Reason;

use super::{LINUX_SYN, Row, TIMESTAMPS, of, opens, passed, tcp, v4, v6};
use crate::{
    dataplane::world::{EMPTY, TABLELESS, WEB, WEB6},
    support::packet::{ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG},
};

pub const ROWS: &[Row] = &[
    opens("tcp: SYN without options", || tcp(v4(), 80, SYN), WEB),
    opens("tcp: a Windows client's SYN", || tcp(v4(), 80, SYN).options(&[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2]), WEB),
    opens("tcp: SYN with 40 bytes of options", || tcp(v6(), 80, SYN).options(&[1; 40]), WEB6),
    opens("tcp: SYN with ECN", || tcp(v4(), 80, SYN | ECE | CWR).options(LINUX_SYN), WEB),
    opens("tcp: SYN with PSH and URG", || tcp(v4(), 80, SYN | PSH | URG), WEB),
    opens("tcp: SYN with data (Fast Open)", || tcp(v4(), 80, SYN).options(FAST_OPEN).payload(b"GET / HTTP/1.1\r\n\r\n"), WEB),
    opens("tcp: SYN with an MD5 signature", || tcp(v4(), 80, SYN).options(&[&[19, 18][..], &[0x5a; 16], &[1, 1]].concat()), WEB),
    opens("tcp: SYN with MPTCP", || tcp(v6(), 80, SYN).options(&[30, 4, 0, 1]), WEB6),
    opens("tcp: SYN from port 0", || v4().tcp(0, 80).flags(SYN), WEB),
    opens("tcp: SYN from the service's own port", || v4().tcp(80, 80).flags(SYN), WEB),
    opens("tcp: SYN with a wrong checksum", || tcp(v4(), 80, SYN).checksum(0xdead), WEB),
    opens("tcp: SYN whose options are longer than the packet", || tcp(v4(), 80, SYN).data_offset(15), WEB),
    passed("tcp: SYN to port 0", || tcp(v4(), 0, SYN), Reason::NotAPort),
    passed("tcp: SYN to port 65535", || tcp(v4(), 65_535, SYN), Reason::NotAPort),
    passed("tcp: SYN to the port 64 above a service's", || tcp(v4(), 80 + 64, SYN), Reason::NotAPort),
    segment("tcp: SYN and ACK", || tcp(v4(), 80, SYN | ACK).options(LINUX_SYN)),
    segment("tcp: SYN and RST", || tcp(v4(), 80, SYN | RST)),
    segment("tcp: SYN and FIN", || tcp(v4(), 80, SYN | FIN)),
    segment("tcp: no flag", || tcp(v4(), 80, 0)),
    segment("tcp: every flag", || tcp(v4(), 80, 0xff)),
    segment("tcp: FIN, PSH and URG", || tcp(v4(), 80, FIN | PSH | URG)),
    segment("tcp: ACK", || tcp(v4(), 80, ACK).options(TIMESTAMPS)),
    segment("tcp: FIN and ACK", || tcp(v4(), 80, FIN | ACK).options(TIMESTAMPS)),
    segment("tcp: RST", || tcp(v4(), 80, RST)),
    segment("tcp: RST and ACK", || tcp(v4(), 80, RST | ACK)),
    segment("tcp: selective acknowledgement", || tcp(v4(), 80, ACK).options(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2])),
    segment("tcp: 1,460 bytes of data", || tcp(v4(), 80, ACK).payload(&[0x5a; 1460])),
    of("tcp: FIN and ACK over IPv6", || tcp(v6(), 80, FIN | ACK).options(TIMESTAMPS), WEB6, Reason::TcpEstablished),
    opens("tcp: a header of 4 words", || tcp(v4(), 80, SYN).data_offset(4), WEB),
    of("tcp: a header of 0 words", || tcp(v6(), 80, ACK).data_offset(0), WEB6, Reason::TcpEstablished),
    passed("tcp: 19 bytes of a header", || tcp(v4(), 80, SYN).truncate(14 + 20 + 19), Reason::Truncated),
    passed("tcp: ports and no more", || tcp(v6(), 80, ACK).truncate(14 + 40 + 4), Reason::Truncated),
    of("tcp: SYN to a service without a table", || tcp(v4(), 8080, SYN), TABLELESS, Reason::NoBackend),
    of("tcp: SYN to a service without a table, IPv6", || tcp(v6(), 8080, SYN), TABLELESS, Reason::NoBackend),
    of("tcp: segment to a service without a table", || tcp(v4(), 8080, ACK), TABLELESS, Reason::TcpEstablished),
    of("tcp: SYN to a service with an empty table", || tcp(v4(), 8081, SYN), EMPTY, Reason::NoBackend),
    of("tcp: segment to a service with an empty table", || tcp(v6(), 8081, ACK), EMPTY, Reason::TcpEstablished),
    passed("tcp: SYN to a service of another interface", || tcp(v4(), 8443, SYN), Reason::NotAnAddress),
    passed("tcp: segment to a service of another interface, IPv6", || tcp(v6(), 8443, ACK), Reason::NotAnAddress),
];

/// A Fast Open cookie of 8 bytes (RFC 7413), padded.
const FAST_OPEN: &[u8] = &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];

const fn segment(name: &'static str, packet: fn() -> Packet) -> Row {
    of(name, packet, WEB, Reason::TcpEstablished)
}
