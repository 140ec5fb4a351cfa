//! What is refused: combinations that no stack sends, headers that lie, strays, SYNs that XDP does not answer.

use lb_common::Reason;

use super::{
    Around::{V4, V6},
    during, ends, of,
};
use crate::{
    dataplane::{
        defended::{CALM, LINGERING, State, port},
        rows::{LINUX_SYN, Row, TIMESTAMPS},
        world::NEW_PORT,
    },
    support::packet::{ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG},
};

pub const ROWS: &[Row] = &[
    ends("defence: no flag", || segment(0), Reason::NullFlags),
    ends("defence: the ECN flags alone", || segment(ECE | CWR), Reason::NullFlags),
    ends("defence: no flag, IPv6", || segment6(0), Reason::NullFlags),
    ends("defence: FIN, PSH and URG", || segment(FIN | PSH | URG), Reason::XmasFlags),
    ends("defence: FIN alone", || segment(FIN), Reason::XmasFlags),
    ends("defence: PSH alone", || segment(PSH), Reason::XmasFlags),
    ends("defence: URG alone, IPv6", || segment6(URG), Reason::XmasFlags),
    ends("defence: SYN and FIN", || segment(SYN | FIN), Reason::SynFinFlags),
    ends("defence: SYN, FIN and ACK, IPv6", || segment6(SYN | FIN | ACK), Reason::SynFinFlags),
    ends("defence: every flag", || segment(0xff), Reason::SynFinFlags),
    ends("defence: SYN and RST", || segment(SYN | RST), Reason::SynResetFlags),
    ends("defence: SYN, RST and ACK, IPv6", || segment6(SYN | RST | ACK), Reason::SynResetFlags),
    of("defence: no flag, in calm", || segment_to(CALM, 0), CALM, Reason::NullFlags),
    of("defence: FIN, PSH and URG, in calm", || segment_to(CALM, FIN | PSH | URG), CALM, Reason::XmasFlags),
    of("defence: SYN and FIN, in calm", || segment_to(CALM, SYN | FIN), CALM, Reason::SynFinFlags),
    of("defence: SYN and RST, in calm", || segment_to(CALM, SYN | RST), CALM, Reason::SynResetFlags),
    ends("defence: SYN with a header of 4 words", || segment(SYN).data_offset(4), Reason::BadDataOffset),
    ends("defence: ACK with a header of 0 words, IPv6", || segment6(ACK).data_offset(0), Reason::BadDataOffset),
    ends("defence: SYN whose header is longer than the packet", || segment(SYN).data_offset(15), Reason::BadDataOffset),
    ends("defence: ACK whose header is longer than the packet, IPv6", || segment6(ACK).data_offset(6), Reason::BadDataOffset),
    of("defence: SYN with a header of 4 words, in calm", || segment_to(CALM, SYN).data_offset(4), CALM, Reason::BadDataOffset),
    of("defence: ACK with a header of 6 words, in calm", || segment_to(CALM, ACK).data_offset(6), CALM, Reason::BadDataOffset),
    ends("defence: first fragment of 16 bytes of TCP", || fragment(16), Reason::TinyFragment),
    ends("defence: first fragment of 8 bytes of TCP", || fragment(8), Reason::TinyFragment),
    ends("defence: first fragment of 8 bytes of TCP, IPv6", || fragment6(8), Reason::TinyFragment),
    of(
        "defence: first fragment of 16 bytes of TCP, in calm",
        || to(V4.request().fragment(0, true).length(36), CALM, ACK),
        CALM,
        Reason::TinyFragment,
    ),
    ends(
        "defence: first fragment of no flow",
        || to(V4.request().fragment(0, true), super::FLOODED, ACK).payload(&[0x5a; 64]),
        Reason::StrayFragment,
    ),
    ends(
        "defence: first fragment of no flow, IPv6",
        || to(V6.request().fragment_header(0, true, 7), super::FLOODED, ACK).payload(&[0x5a; 64]),
        Reason::StrayFragment,
    ),
    ends(
        "defence: first fragment of a SYN",
        || to(V4.request().fragment(0, true), super::FLOODED, SYN).payload(&[0x5a; 64]),
        Reason::StrayFragment,
    ),
    ends(
        "defence: SYN behind a router alert",
        || to(V4.request().options(&[0x94, 4, 0, 0]), super::FLOODED, SYN).options(LINUX_SYN),
        Reason::SynBehindOptions,
    ),
    ends(
        "defence: SYN behind 40 bytes of options",
        || to(V4.request().options(&[1; 40]), super::FLOODED, SYN).options(LINUX_SYN),
        Reason::SynBehindOptions,
    ),
    ends(
        "defence: SYN behind destination options",
        || to(V6.request().destination_options(&[1, 4, 0, 0, 0, 0]), super::FLOODED, SYN).options(LINUX_SYN),
        Reason::SynBehindOptions,
    ),
    ends(
        "defence: SYN behind an atomic fragment's header",
        || to(V6.request().fragment_header(0, false, 7), super::FLOODED, SYN).options(LINUX_SYN),
        Reason::SynBehindOptions,
    ),
    ends("defence: SYN with data", || segment(SYN).options(LINUX_SYN).payload(b"x"), Reason::SynWithData),
    ends("defence: SYN with data, IPv6", || segment6(SYN).options(LINUX_SYN).payload(&[0x5a; 1000]), Reason::SynWithData),
    ends("defence: stray SYN-ACK", || segment(SYN | ACK).options(LINUX_SYN), Reason::StraySynAck),
    ends("defence: stray SYN-ACK, IPv6", || segment6(SYN | ACK), Reason::StraySynAck),
    ends("defence: stray RST", || segment(RST), Reason::StrayReset),
    ends("defence: stray RST and ACK, IPv6", || segment6(RST | ACK), Reason::StrayReset),
    ends("defence: stray FIN", || segment(FIN | ACK).options(TIMESTAMPS), Reason::CookieRefused),
    ends("defence: stray segment with data", || segment(ACK | PSH).payload(&[0x5a; 1_400]), Reason::CookieRefused),
    ends("defence: stray segment behind IP options", || to(V4.request().options(&[1; 8]), super::FLOODED, ACK), Reason::CookieRefused),
    of("defence: stray RST when the flood is over", || segment_to(LINGERING, RST), LINGERING, Reason::StrayReset),
    of("defence: stray ACK when the flood is over", || segment_to(LINGERING, ACK), LINGERING, Reason::CookieRefused),
    during(
        State::NoKernelOnly,
        ends(
            "defence: SYN with an MD5 signature, above the limit",
            || segment(SYN).options(super::passes::MD5),
            Reason::KernelOnlySynOverLimit,
        ),
    ),
    during(State::Capped, ends("defence: SYN above the cap", || segment(SYN).options(LINUX_SYN), Reason::SynAckCap)),
    during(
        State::PrefixCapped,
        ends("defence: SYN above its prefix's limit, IPv6", || segment6(SYN).options(LINUX_SYN), Reason::SynAckPrefixLimit),
    ),
];

fn to(ip: Packet, service: u32, flags: u8) -> Packet {
    ip.tcp(NEW_PORT, port(service)).sequence(super::SEQUENCE).flags(flags)
}

fn segment_to(service: u32, flags: u8) -> Packet {
    to(V4.request(), service, flags)
}

fn segment(flags: u8) -> Packet {
    segment_to(super::FLOODED, flags)
}

fn segment6(flags: u8) -> Packet {
    to(V6.request(), super::FLOODED, flags)
}

/// A first fragment with so many bytes of TCP.
fn fragment(bytes: u16) -> Packet {
    to(V4.request().fragment(0, true).length(20 + bytes), super::FLOODED, ACK).truncate(14 + 20 + usize::from(bytes))
}

fn fragment6(bytes: u16) -> Packet {
    to(V6.request().length(8 + bytes).fragment_header(0, true, 7), super::FLOODED, ACK).truncate(14 + 48 + usize::from(bytes))
}
