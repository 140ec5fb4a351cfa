//! Frames: types, tags, addresses, buffers.

use lb_common::Reason;

use super::{Row, of, opens, passed, tcp, v4, v6};
use crate::{
    dataplane::world::{BRIDGE_MAC, CLIENT, CLIENT6, SERVER, SERVER6, WEB, WEB6},
    support::packet::{ACK, CLIENT_MAC, PSH, Packet, SYN},
};

pub const ROWS: &[Row] = &[
    passed("ethernet: ARP request", || Packet::ethernet().next(0x0806).payload(ARP), Reason::NotIp),
    passed("ethernet: ARP reply in a VLAN", || Packet::ethernet().vlan(7).next(0x0806).payload(ARP), Reason::NotIp),
    passed("ethernet: LLDP", || Packet::ethernet().next(0x88cc).payload(&[2, 7, 4, 2, 0, 0, 0, 0, 2]), Reason::NotIp),
    passed("ethernet: an 802.3 length in place of the type", || Packet::ethernet().next(38).payload(&[0x42; 38]), Reason::NotIp),
    passed("ethernet: PPPoE around a SYN", || Packet::ethernet().next(0x8864).payload(&tcp(v4(), 80, SYN).ip_bytes()), Reason::NotIp),
    passed("ethernet: MPLS around a SYN", || Packet::ethernet().next(0x8847).payload(&tcp(v4(), 80, SYN).ip_bytes()), Reason::NotIp),
    passed("ethernet: nothing behind an IPv4 type", || Packet::ethernet().next(0x0800), Reason::Truncated),
    passed("ethernet: nothing behind an IPv6 type", || Packet::ethernet().next(0x86dd), Reason::Truncated),
    passed("ethernet: half a VLAN tag", || tcp(Packet::ethernet().vlan(7).ipv4(CLIENT, SERVER), 80, SYN).truncate(16), Reason::Truncated),
    opens("ethernet: VLAN, SYN over IPv4", || tcp(Packet::ethernet().vlan(7).ipv4(CLIENT, SERVER), 80, SYN), WEB),
    opens("ethernet: VLAN, SYN over IPv6", || tcp(Packet::ethernet().vlan(7).ipv6(CLIENT6, SERVER6), 80, SYN), WEB6),
    opens("ethernet: priority tag, SYN over IPv4", || tcp(Packet::ethernet().vlan(0xe000).ipv4(CLIENT, SERVER), 80, SYN), WEB),
    opens("ethernet: service tag alone, SYN over IPv4", || tcp(Packet::ethernet().service_vlan(7).ipv4(CLIENT, SERVER), 80, SYN), WEB),
    opens("ethernet: QinQ, SYN over IPv4", || tcp(qinq().ipv4(CLIENT, SERVER), 80, SYN), WEB),
    opens("ethernet: QinQ, SYN over IPv6", || tcp(qinq().ipv6(CLIENT6, SERVER6), 80, SYN), WEB6),
    of("ethernet: QinQ, segment over IPv4", || tcp(qinq().ipv4(CLIENT, SERVER), 80, ACK), WEB, Reason::TcpEstablished),
    opens("ethernet: two customer tags", || tcp(Packet::ethernet().vlan(7).vlan(8).ipv4(CLIENT, SERVER), 80, SYN), WEB),
    passed("ethernet: QinQ, another port", || tcp(qinq().ipv4(CLIENT, SERVER), 81, SYN), Reason::NotAPort),
    passed("ethernet: QinQ, LLDP", || qinq().next(0x88cc).payload(&[0; 40]), Reason::NotIp),
    passed("ethernet: three tags", || tcp(qinq().vlan(9).ipv4(CLIENT, SERVER), 80, SYN), Reason::TooDeep),
    passed("ethernet: four tags", || tcp(qinq().vlan(9).vlan(10).ipv6(CLIENT6, SERVER6), 80, SYN), Reason::TooDeep),
    passed("ethernet: three tags, the frame ends behind two", || qinq().next(0x8100), Reason::TooDeep),
    passed("ethernet: another host's MAC", || tcp(to([2, 0, 0, 0, 0, 0x77]).ipv4(CLIENT, SERVER), 80, SYN), Reason::OtherHost),
    passed("ethernet: another host's MAC, IPv6", || tcp(to([2, 0, 0, 0, 0, 0x77]).ipv6(CLIENT6, SERVER6), 80, ACK), Reason::OtherHost),
    passed("ethernet: a MAC that differs in its last bit", || tcp(to([2, 0, 0, 0, 0, 0]).ipv4(CLIENT, SERVER), 80, ACK), Reason::OtherHost),
    passed("ethernet: broadcast", || tcp(to([0xff; 6]).ipv4(CLIENT, SERVER), 80, SYN), Reason::OtherHost),
    passed("ethernet: multicast", || tcp(to([0x33, 0x33, 0, 0, 0, 1]).ipv6(CLIENT6, SERVER6), 80, SYN), Reason::OtherHost),
    opens("ethernet: the bridge's MAC", || tcp(to(BRIDGE_MAC).ipv4(CLIENT, SERVER), 80, SYN), WEB),
    of("ethernet: padding behind the packet", || tcp(v4().length(40), 80, ACK).payload(&[0; 6]), WEB, Reason::TcpEstablished),
    of("ethernet: a jumbo frame in three buffers", || tcp(v4(), 80, ACK | PSH).payload(&[0x5a; 8946]), WEB, Reason::TcpEstablished),
    of("ethernet: a joined segment of 60,000 bytes", || tcp(v6(), 80, ACK).payload(&[0x5a; 59_926]), WEB6, Reason::TcpEstablished),
    opens("ethernet: headers in the first buffer, data in the next", || tcp(v4(), 80, SYN).payload(&[1; 600]), WEB).first_buffer(54),
    passed("ethernet: headers cut by the first buffer's end", || tcp(v4(), 80, SYN).payload(&[1; 600]), Reason::Truncated).first_buffer(53),
    passed("ethernet: an empty first buffer", || tcp(v4(), 80, SYN), Reason::Truncated).first_buffer(0),
];

/// "Who has 192.0.2.1? Tell 198.51.100.7".
const ARP: &[u8] = &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];

fn qinq() -> Packet {
    Packet::ethernet().service_vlan(100).vlan(200)
}

fn to(mac: [u8; 6]) -> Packet {
    Packet::ethernet_between(CLIENT_MAC, mac)
}
