//! What passes: everything in calm, what belongs to a connection, what only the kernel can answer, and SYNs that XDP must not answer.

use lb_common::Reason;

use super::{
    Around::{self, V4, V6},
    during, ends, of,
};
use crate::{
    dataplane::{
        defended::{ABSENT, CALM, DEAF, FLOODED, LINGERING, State, UNSAFE, port},
        ground::{CLOSED_PORT, CONNECTED_PORT},
        rows::{LINUX_SYN, Row, TIMESTAMPS, opens},
        world::{CLIENT, CLIENT6, NEW_PORT, SERVER, SERVER6},
    },
    support::packet::{ACK, FIN, PSH, Packet, RST, SYN},
};

pub const ROWS: &[Row] = &[
    opens("defence: SYN in calm", || syn(V4, CALM), CALM),
    opens("defence: SYN in calm, IPv6", || syn(V6, CALM), CALM),
    of("defence: segment in calm", || segment(V4, NEW_PORT, CALM, ACK | PSH).options(TIMESTAMPS), CALM, Reason::TcpEstablished),
    of("defence: stray RST in calm", || segment(V4, NEW_PORT, CALM, RST), CALM, Reason::TcpEstablished),
    of("defence: stray SYN-ACK in calm", || segment(V6, NEW_PORT, CALM, SYN | ACK), CALM, Reason::TcpEstablished),
    of(
        "defence: first fragment in calm",
        || segment_in(V4.request().fragment(0, true), NEW_PORT, CALM, ACK).payload(&[1; 40]),
        CALM,
        Reason::FirstFragment,
    ),
    opens("defence: SYN behind IP options in calm", || segment_in(V4.request().options(&[1; 8]), NEW_PORT, CALM, SYN), CALM),
    opens("defence: SYN with data in calm", || syn(V4, CALM).payload(b"x"), CALM),
    opens("defence: SYN when the flood is over", || syn(V4, LINGERING), LINGERING),
    ends("defence: segment of a connection", || connected(V4, ACK | PSH).options(TIMESTAMPS).payload(b"x"), Reason::TcpEstablished),
    ends("defence: segment of a connection, IPv6", || connected(V6, ACK), Reason::TcpEstablished),
    ends("defence: segment of a connection, VLAN", || connected(Around::Vlan, ACK), Reason::TcpEstablished),
    ends("defence: FIN of a connection", || connected(V4, ACK | FIN), Reason::TcpEstablished),
    ends("defence: RST of a connection", || connected(V4, RST), Reason::TcpEstablished),
    ends("defence: SYN-ACK of a connection", || connected(V4, SYN | ACK), Reason::TcpEstablished),
    ends(
        "defence: first fragment of a connection",
        || segment_in(V4.request().fragment(0, true), CONNECTED_PORT, FLOODED, ACK).payload(&[1; 40]),
        Reason::FirstFragment,
    ),
    ends(
        "defence: first fragment of a connection, IPv6",
        || segment_in(V6.request().fragment_header(0, true, 7), CONNECTED_PORT, FLOODED, ACK).payload(&[1; 40]),
        Reason::FirstFragment,
    ),
    ends(
        "defence: IP options of a connection",
        || segment_in(V4.request().options(&[1; 40]), CONNECTED_PORT, FLOODED, ACK),
        Reason::TcpEstablished,
    ),
    ends(
        "defence: extension headers of a connection",
        || segment_in(V6.request().destination_options(&[1, 4, 0, 0, 0, 0]), CONNECTED_PORT, FLOODED, ACK),
        Reason::TcpEstablished,
    ),
    ends("defence: segment of a connection that is over", || segment(V4, CLOSED_PORT, FLOODED, ACK | FIN), Reason::TcpEstablished),
    ends("defence: segment of a connection that is over, IPv6", || segment(V6, CLOSED_PORT, FLOODED, ACK | FIN), Reason::TcpEstablished),
    ends("defence: SYN of a connection", || connected(V4, SYN).options(LINUX_SYN), Reason::FloodSyn),
    ends("defence: SYN of a connection that is over", || segment(V4, CLOSED_PORT, FLOODED, SYN).options(LINUX_SYN), Reason::FloodSyn),
    ends("defence: SYN of a connection that is over, IPv6", || segment(V6, CLOSED_PORT, FLOODED, SYN).options(LINUX_SYN), Reason::FloodSyn),
    ends("defence: SYN with an MD5 signature", || with(MD5), Reason::KernelOnlySyn),
    ends("defence: SYN with TCP-AO", || with(&[2, 4, 5, 0xb4, 29, 16, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]), Reason::KernelOnlySyn),
    ends("defence: SYN of macOS with MPTCP", || with(MPTCP), Reason::KernelOnlySyn),
    ends("defence: SYN of iOS with MPTCP, IPv6", || segment(V6, NEW_PORT, FLOODED, SYN).options(MPTCP), Reason::KernelOnlySyn),
    ends("defence: SYN with an MSS of 535", || with(&[2, 4, 2, 0x17]), Reason::KernelOnlySyn),
    ends("defence: SYN with an MSS of 0", || with(&[2, 4, 0, 0]), Reason::KernelOnlySyn),
    ends(
        "defence: SYN with an MSS of 1,219, IPv6",
        || segment(V6, NEW_PORT, FLOODED, SYN).options(&[2, 4, 4, 0xc3]),
        Reason::KernelOnlySyn,
    ),
    of("defence: SYN whose listener has gone", || syn(V4, DEAF), DEAF, Reason::DefenceAsleep),
    of("defence: SYN to a service without a listener", || syn(V4, ABSENT), ABSENT, Reason::DefenceAsleep),
    of("defence: ACK to a service without a listener", || segment(V4, NEW_PORT, ABSENT, ACK), ABSENT, Reason::TcpEstablished),
    of("defence: SYN where a packet filter breaks cookies", || syn(V6, UNSAFE), UNSAFE, Reason::DefenceAsleep),
    of("defence: ACK where a packet filter breaks cookies", || segment(V6, NEW_PORT, UNSAFE, ACK), UNSAFE, Reason::TcpEstablished),
    during(State::Asleep, ends("defence: SYN while the daemon is away", || syn(V4, FLOODED), Reason::DefenceAsleep)),
    during(State::Unborn, ends("defence: SYN before the daemon came", || syn(V4, FLOODED), Reason::DefenceAsleep)),
    during(State::Schemeless, ends("defence: SYN while the kernel would refuse", || syn(V4, FLOODED), Reason::DefenceAsleep)),
    ends("defence: ICMP error about a stray", icmp, Reason::IcmpError),
    ends("defence: ICMP error about a stray, IPv6", icmp6, Reason::IcmpError),
];

pub const MD5: &[u8] = &[19, 18, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 1, 1];
/// macOS and iOS: MSS, NOP, window scale, NOP, NOP, timestamps, SACK, MP_CAPABLE, end of list.
const MPTCP: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 4, 2, 30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];

fn segment_in(ip: Packet, from: u16, service: u32, flags: u8) -> Packet {
    ip.tcp(from, port(service)).sequence(super::SEQUENCE).flags(flags)
}

fn segment(around: Around, from: u16, service: u32, flags: u8) -> Packet {
    segment_in(around.request(), from, service, flags)
}

fn connected(around: Around, flags: u8) -> Packet {
    segment(around, CONNECTED_PORT, FLOODED, flags)
}

fn syn(around: Around, service: u32) -> Packet {
    segment(around, NEW_PORT, service, SYN).options(LINUX_SYN)
}

fn with(options: &[u8]) -> Packet {
    segment(V4, NEW_PORT, FLOODED, SYN).options(options)
}

/// What the client's network says about a segment of the service.
fn icmp() -> Packet {
    let said = Packet::ethernet().ipv4(SERVER, CLIENT).tcp(port(FLOODED), NEW_PORT).flags(ACK);
    V4.request().icmp_error(3, 4, 1_400, &said, 28)
}

fn icmp6() -> Packet {
    let said = Packet::ethernet().ipv6(SERVER6, CLIENT6).tcp(port(FLOODED), NEW_PORT).flags(ACK);
    V6.request().icmp_error(2, 0, 1_400, &said, 60)
}
