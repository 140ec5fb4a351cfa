//! Sources that cannot be real.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::Reason;

use super::{ends, of};
use crate::{
    dataplane::{
        defended::{CALM, LOCAL, port},
        rows::{LINUX_SYN, Row, opens},
        world::{NEW_PORT, SECOND_SERVER, SECOND_SERVER6, SERVER, SERVER6},
    },
    support::packet::{ACK, Packet, SYN},
};

pub const ROWS: &[Row] = &[
    ends("defence: land", || syn(SERVER), Reason::Land),
    ends("defence: land, IPv6", || syn6(SERVER6), Reason::Land),
    ends("defence: land, with its own port", || Packet::ethernet().ipv4(SERVER, SERVER).tcp(9001, 9001).flags(SYN), Reason::Land),
    ends("defence: ACK of a land", || Packet::ethernet().ipv4(SERVER, SERVER).tcp(NEW_PORT, 9001).flags(ACK), Reason::Land),
    ends("defence: from 127.0.0.1", || syn(Ipv4Addr::LOCALHOST), Reason::ImpossibleSource),
    ends("defence: from 127.255.255.254", || syn(Ipv4Addr::new(127, 255, 255, 254)), Reason::ImpossibleSource),
    ends("defence: from 0.0.0.0", || syn(Ipv4Addr::UNSPECIFIED), Reason::ImpossibleSource),
    ends("defence: from 0.1.2.3", || syn(Ipv4Addr::new(0, 1, 2, 3)), Reason::ImpossibleSource),
    ends("defence: from a multicast group", || syn(Ipv4Addr::new(224, 0, 0, 1)), Reason::ImpossibleSource),
    ends("defence: from the last multicast group", || syn(Ipv4Addr::new(239, 255, 255, 255)), Reason::ImpossibleSource),
    ends("defence: from 240.0.0.1", || syn(Ipv4Addr::new(240, 0, 0, 1)), Reason::ImpossibleSource),
    ends("defence: from the broadcast address", || syn(Ipv4Addr::BROADCAST), Reason::ImpossibleSource),
    ends("defence: from ::", || syn6(Ipv6Addr::UNSPECIFIED), Reason::ImpossibleSource),
    ends("defence: from ::1", || syn6(Ipv6Addr::LOCALHOST), Reason::ImpossibleSource),
    ends("defence: from ff02::1", || syn6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), Reason::ImpossibleSource),
    ends("defence: from another address of this host", || syn(SECOND_SERVER), Reason::ImpossibleSource),
    ends("defence: from another address of this host, IPv6", || syn6(SECOND_SERVER6), Reason::ImpossibleSource),
    of("defence: land, in calm", || from(SERVER, CALM, SYN), CALM, Reason::Land),
    of("defence: from 127.0.0.1, in calm", || from(Ipv4Addr::LOCALHOST, CALM, SYN), CALM, Reason::ImpossibleSource),
    of("defence: ACK from the broadcast address, in calm", || from(Ipv4Addr::BROADCAST, CALM, ACK), CALM, Reason::ImpossibleSource),
    // There they are as real as any, and nobody else sends: a flood there is this host's own.
    of("defence: ACK of a land on a loopback device", || from(SERVER, LOCAL, ACK), LOCAL, Reason::TcpEstablished),
    opens("defence: SYN of this host itself on a loopback device", || from(SERVER, LOCAL, SYN), LOCAL),
    of("defence: ACK from 127.0.0.1 on a loopback device", || from(Ipv4Addr::LOCALHOST, LOCAL, ACK), LOCAL, Reason::TcpEstablished),
];

fn from(source: Ipv4Addr, service: u32, flags: u8) -> Packet {
    Packet::ethernet().ipv4(source, SERVER).tcp(NEW_PORT, port(service)).flags(flags)
}

fn syn(source: Ipv4Addr) -> Packet {
    from(source, super::FLOODED, SYN).options(LINUX_SYN)
}

fn syn6(source: Ipv6Addr) -> Packet {
    Packet::ethernet().ipv6(source, SERVER6).tcp(NEW_PORT, 9001).flags(SYN).options(LINUX_SYN)
}
