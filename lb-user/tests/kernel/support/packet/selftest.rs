//! The builder against frames it did not make: some captured on a veth pair (Linux 6.18, `tcpdump -XX`), some written by scapy 2.5.

use std::net::{Ipv4Addr, Ipv6Addr};

use libtest_mimic::Trial;

use super::{ACK, PSH, Packet, SYN, SYN_OPTIONS};
use crate::support::trial;

const V4_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const V4_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const V6_CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const V6_SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The MACs of the captured pair.
const LEFT: [u8; 6] = [0xba, 0xa6, 0x95, 0x18, 0xb7, 0x93];
const RIGHT: [u8; 6] = [0x02, 0x36, 0x46, 0xbd, 0x3f, 0xe6];

struct Row {
    name: &'static str,
    /// Hexadecimal, spaces apart from that ignored.
    frame: &'static str,
    built: fn() -> Packet,
}

const ROWS: [Row; 12] = [
    Row {
        name: "captured: SYN over IPv4, with a Linux client's options",
        frame: "0236 46bd 3fe6 baa6 9518 b793 0800 4500 003c 7239 4000 4006 447f c000 0201 c000
                0202 9c41 1f90 2e62 2e90 0000 0000 a002 faf0 f84f 0000 0204 05b4 0402 080a 8c68
                2b8c 0000 0000 0103 030a",
        built: || {
            let ip = Packet::ethernet_between(LEFT, RIGHT).ipv4(V4_CLIENT, V4_SERVER).identification(0x7239).dont_fragment();
            ip.tcp(40001, 8080).flags(SYN).sequence(778_186_384).window(64_240).options(&SYN_OPTIONS)
        },
    },
    Row {
        name: "captured: RST over IPv6, with a flow label",
        frame: "baa6 9518 b793 0236 46bd 3fe6 86dd 6001 5979 0014 0640 2001 0db8 0000 0000 0000
                0000 0000 0002 2001 0db8 0000 0000 0000 0000 0000 0001 1f90 9c43 0000 0000 320a
                838f 5014 0000 e2ee 0000",
        built: || {
            let ip = Packet::ethernet_between(RIGHT, LEFT).ipv6(V6_SERVER, V6_CLIENT).flow_label(0x15979);
            ip.tcp(8080, 40003).flags(super::RST | ACK).sequence(0).acknowledgement(839_549_839).window(0)
        },
    },
    Row {
        name: "captured: UDP over IPv6",
        frame: "0236 46bd 3fe6 baa6 9518 b793 86dd 6000 a53e 0012 1140 2001 0db8 0000 0000 0000
                0000 0000 0001 2001 0db8 0000 0000 0000 0000 0000 0002 9c42 270f 0012 bc39 6865 6c6c 6f20 7765 6972",
        built: udp_over_ipv6,
    },
    Row {
        name: "captured: port unreachable over IPv4, quoting a datagram",
        frame: "baa6 9518 b793 0236 46bd 3fe6 0800 45c0 0042 7055 0000 4001 85a2 c000 0202 c000
                0201 0303 8124 0000 0000 4500 0026 64c0 4000 4011 5203 c000 0201 c000 0202 9c42
                270f 0012 93aa 6865 6c6c 6f20 7765 6972",
        built: || {
            let ip = Packet::ethernet_between(LEFT, RIGHT).ipv4(V4_CLIENT, V4_SERVER).identification(0x64c0).dont_fragment();
            let datagram = ip.udp(40002, 9999).payload(b"hello weir");
            let ip = Packet::ethernet_between(RIGHT, LEFT).ipv4(V4_SERVER, V4_CLIENT).identification(0x7055).traffic_class(0xc0);
            ip.icmp_error(3, 3, 0, &datagram, 548)
        },
    },
    Row {
        name: "captured: port unreachable over IPv6, quoting a datagram",
        frame: "baa6 9518 b793 0236 46bd 3fe6 86dd 6004 4c94 0042 3a40 2001 0db8 0000 0000 0000
                0000 0000 0002 2001 0db8 0000 0000 0000 0000 0000 0001 0104 8c9c 0000 0000 6000
                a53e 0012 1140 2001 0db8 0000 0000 0000 0000 0000 0001 2001 0db8 0000 0000 0000
                0000 0000 0002 9c42 270f 0012 bc39 6865 6c6c 6f20 7765 6972",
        built: || {
            let ip = Packet::ethernet_between(RIGHT, LEFT).ipv6(V6_SERVER, V6_CLIENT).flow_label(0x44c94);
            ip.icmp_error(1, 4, 0, &udp_over_ipv6(), 1232)
        },
    },
    Row {
        name: "scapy: QinQ, IPv4 options (router alert), UDP with an odd payload",
        frame: "02000000000102000000000288a80064810000c8080046000023000700000311
                9ebbc0000201c00002029404000003e80035000ba4526f6464",
        built: || {
            let ip = Packet::ethernet().service_vlan(100).vlan(200).ipv4(V4_CLIENT, V4_SERVER).identification(7).ttl(3);
            ip.options(&[0x94, 4, 0, 0]).udp(1000, 53).payload(b"odd")
        },
    },
    Row {
        name: "scapy: hop-by-hop, routing, destination options, authentication, TCP",
        frame: "02000000000102000000000286dd628123450058000920010db8000000000000
                00000000000120010db80000000000000000000000022b000104000000003c02
                00000000000020010db800000000000000000000000933000104000000000604
                000000000100000000055a5a5a5a5a5a5a5a5a5a5a5a00050050010203040506
                0708501802006928000064617461",
        built: || {
            let routing = [&[0, 0, 0, 0], Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets().as_slice()].concat();
            let padding = [1, 4, 0, 0, 0, 0];
            let ip = Packet::ethernet().ipv6(V6_CLIENT, V6_SERVER).flow_label(0x12345).traffic_class(0x28).ttl(9);
            let ip = ip.hop_by_hop(&padding).routing(0, 0, &routing).destination_options(&padding).authentication(0x100, 5);
            let tcp = ip.tcp(5, 80).sequence(0x0102_0304).acknowledgement(0x0506_0708).flags(PSH | ACK).window(512);
            tcp.payload(b"data")
        },
    },
    Row {
        name: "scapy: fragment header",
        frame: "02000000000102000000000286dd6000000000102c4020010db8000000000000
                00000000000120010db800000000000000000000000211000019deadbeef3132333435363738",
        built: || {
            let ip = Packet::ethernet().ipv6(V6_CLIENT, V6_SERVER);
            ip.fragment_header(3, true, 0xdead_beef).next(17).payload(b"12345678")
        },
    },
    Row {
        name: "scapy: a later fragment over IPv4",
        frame: "02000000000102000000000208004500001cbeef20b940111725c0000201c00002023132333435363738",
        built: || {
            let ip = Packet::ethernet().ipv4(V4_CLIENT, V4_SERVER).identification(0xbeef).fragment(185, true);
            ip.next(17).payload(b"12345678")
        },
    },
    Row {
        name: "scapy: fragmentation needed, quoting 8 bytes of TCP",
        frame: "0200000000010200000000020800450000380001000040018e8dc6336401c0000202
                03045af10000057845000032000140004006b6c1c0000202c000020100509c4100000001",
        built: || {
            let segment = Packet::default().ipv4(V4_SERVER, V4_CLIENT).dont_fragment().tcp(80, 40001).flags(ACK).payload(b"0123456789");
            let ip = Packet::ethernet().ipv4(Ipv4Addr::new(198, 51, 100, 1), V4_SERVER);
            ip.icmp_error(3, 4, 1400, &segment, 28)
        },
    },
    Row {
        name: "scapy: packet too big over IPv6",
        frame: "02000000000102000000000286dd6000000000443a4020010db8000000000000
                0000000000fe20010db8000000000000000000000002020035d500000500
                600000000014064020010db800000000000000000000000220010db8000000000000000000000001
                00509c4100000001000000005010faf0bcdc0000",
        built: || {
            let segment = Packet::default().ipv6(V6_SERVER, V6_CLIENT).tcp(80, 40001).flags(ACK);
            let ip = Packet::ethernet().ipv6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe), V6_SERVER);
            ip.icmp_error(2, 0, 1280, &segment, 1232)
        },
    },
    Row {
        name: "scapy: IP in IP",
        frame: "020000000001020000000002080045000030000100004004265fc6336401c6336402
                4500001c000100004011f6ccc0000201c00002020001000200087bd7",
        built: || {
            let outer = Packet::ethernet().ipv4(Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
            outer.encapsulate(&Packet::ethernet().ipv4(V4_CLIENT, V4_SERVER).udp(1, 2))
        },
    },
];

fn udp_over_ipv6() -> Packet {
    let ip = Packet::ethernet_between(LEFT, RIGHT).ipv6(V6_CLIENT, V6_SERVER).flow_label(0xa53e);
    ip.udp(40002, 9999).payload(b"hello weir")
}

pub fn tests() -> Vec<Trial> {
    let rows = ROWS.iter().map(|row| {
        trial(&format!("support::packet::{}", row.name), move || {
            let built = (row.built)().bytes();
            assert_eq!(hexadecimal(&built), hexadecimal(&parse(row.frame)));
        })
    });
    rows.chain([
        trial("support::packet::overrides", overrides),
        trial("support::packet::truncate", truncate),
        trial("support::packet::quic", quic),
    ])
    .collect()
}

fn overrides() {
    let packet = Packet::ethernet().next(0x1234).ipv4(V4_CLIENT, V4_SERVER).header_words(15).version(7).length(9).checksum(0xabcd);
    let bytes = packet.tcp(1, 2).data_offset(3).checksum(0xfedc).bytes();
    assert_eq!(bytes[12..14], [0x12, 0x34]);
    assert_eq!(bytes[14], 0x7f, "version and header length");
    assert_eq!(bytes[16..18], [0, 9]);
    assert_eq!(bytes[24..26], [0xab, 0xcd]);
    assert_eq!(bytes[34 + 12], 0x30, "data offset");
    assert_eq!(bytes[34 + 16..34 + 18], [0xfe, 0xdc]);
}

fn truncate() {
    let packet = Packet::ethernet().vlan(1).ipv4(V4_CLIENT, V4_SERVER).udp(1, 2).payload(&[7; 100]);
    let (whole, cut) = (packet.bytes(), packet.clone().truncate(30).bytes());
    assert_eq!(packet.ip_offset(), 18);
    assert_eq!(whole.len(), 18 + 28 + 100);
    assert_eq!(cut, whole[..30]);
}

fn quic() {
    let udp = || Packet::ethernet().ipv6(V6_CLIENT, V6_SERVER).udp(40_000, 443);
    let long = udp().quic_long(1, &[0xd1, 0xd2], &[0x51]).bytes();
    assert_eq!(long.len(), 14 + 40 + 8 + 1200);
    assert_eq!(long[62..72], [0xc3, 0, 0, 0, 1, 2, 0xd1, 0xd2, 1, 0x51]);
    let short = udp().quic_short(&[0xd1, 0xd2]).bytes();
    assert_eq!(short.len(), 14 + 40 + 8 + 1 + 2 + 32);
    assert_eq!(short[62..66], [0x43, 0xd1, 0xd2, 0xa5]);
}

fn parse(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
