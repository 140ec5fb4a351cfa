//! Lists of prefixes, and what one packet alone shows of limits; several packets are in `sequences`.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::Reason;

use super::of;
use crate::{
    dataplane::{
        defended::{LIMITED, METERED, port},
        rows::{LINUX_SYN, Row},
        world::{NEW_PORT, SERVER, SERVER6},
    },
    support::packet::{ACK, Packet, SYN},
};

pub const ROWS: &[Row] = &[
    of("defence: SYN of a denied prefix", || syn(Ipv4Addr::new(203, 0, 113, 1)), LIMITED, Reason::DeniedSource),
    of("defence: SYN of the end of a denied prefix", || syn(Ipv4Addr::new(203, 0, 113, 127)), LIMITED, Reason::DeniedSource),
    super::super::opens("defence: SYN of an allowed prefix in a denied one", || syn(Ipv4Addr::new(203, 0, 113, 128)), LIMITED),
    super::super::opens("defence: SYN from behind a denied prefix", || syn(Ipv4Addr::new(203, 0, 114, 1)), LIMITED),
    of("defence: SYN of a denied prefix, IPv6", || syn6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 2, 0, 0, 0, 1)), LIMITED, Reason::DeniedSource),
    super::super::opens(
        "defence: SYN of an allowed prefix in a denied one, IPv6",
        || syn6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 1)),
        LIMITED,
    ),
    of("defence: segment of a denied prefix", || from(Ipv4Addr::new(203, 0, 113, 1), ACK), LIMITED, Reason::TcpEstablished),
    super::super::opens("defence: SYN within the limit of its prefix", || syn(Ipv4Addr::new(198, 51, 100, 9)), LIMITED),
    super::super::opens_udp("defence: datagram within the limits", || datagram(100), METERED, super::Choice::ByHash),
    of("defence: datagram of more bytes than the limit", || datagram(1_400), METERED, Reason::DatagramsOverLimit),
];

fn from(source: Ipv4Addr, flags: u8) -> Packet {
    Packet::ethernet().ipv4(source, SERVER).tcp(NEW_PORT, port(LIMITED)).flags(flags)
}

fn syn(source: Ipv4Addr) -> Packet {
    from(source, SYN).options(LINUX_SYN)
}

fn syn6(source: Ipv6Addr) -> Packet {
    Packet::ethernet().ipv6(source, SERVER6).tcp(NEW_PORT, port(LIMITED)).flags(SYN).options(LINUX_SYN)
}

fn datagram(bytes: usize) -> Packet {
    super::Around::V4.request().udp(NEW_PORT, port(METERED)).payload(&vec![0x5a; bytes])
}
