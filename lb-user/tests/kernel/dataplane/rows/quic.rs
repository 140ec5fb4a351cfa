//! QUIC (RFC 9000, section 17): the worker's index is the byte at position 3 of the destination connection ID.

use lb_common::Reason;

use super::{Choice, Row, of, opens_udp, passed, v4, v6};
use crate::dataplane::world::{DNS, KNOWN_PORT, NEW_PORT, QUIC, QUIC_POSITION, QUIC_TABLELESS, STALE_PORT};

pub const ROWS: &[Row] = &[
    opens_udp("quic: short header naming worker 0", || v4().udp(NEW_PORT, 443).payload(&short(0)), QUIC, worker(0)),
    opens_udp("quic: short header naming worker 1", || v4().udp(NEW_PORT, 443).payload(&short(1)), QUIC, worker(1)),
    opens_udp("quic: short header naming worker 200", || v4().udp(NEW_PORT, 443).payload(&short(200)), QUIC, worker(2)),
    opens_udp("quic: short header naming a worker, IPv6", || v6().udp(NEW_PORT, 443).payload(&short(200)), QUIC, worker(2)),
    opens_udp("quic: short header naming no worker", || v4().udp(NEW_PORT, 443).payload(&short(2)), QUIC, Choice::ByHash),
    opens_udp("quic: short header naming worker 255", || v6().udp(NEW_PORT, 443).payload(&short(255)), QUIC, Choice::ByHash),
    opens_udp("quic: long header (Initial)", || v4().udp(NEW_PORT, 443).payload(&initial()), QUIC, Choice::ByHash),
    opens_udp("quic: long header (Initial), IPv6", || v6().udp(NEW_PORT, 443).payload(&initial()), QUIC, Choice::ByHash),
    opens_udp("quic: short header without the fixed bit", || v4().udp(NEW_PORT, 443).payload(&greased(1)), QUIC, worker(1)),
    of("quic: known flow, whatever it names", || v4().udp(KNOWN_PORT, 443).payload(&short(1)), QUIC, Reason::UdpEstablished),
    of("quic: known flow, long header", || v6().udp(KNOWN_PORT, 443).payload(&initial()), QUIC, Reason::UdpEstablished),
    opens_udp("quic: flow whose worker has gone, naming one", || v4().udp(STALE_PORT, 443).payload(&short(1)), QUIC, worker(1)),
    opens_udp("quic: flow whose worker has gone, long header", || v4().udp(STALE_PORT, 443).payload(&initial()), QUIC, Choice::ByHash),
    opens_udp("quic: the connection ID ends with the worker", || v4().udp(NEW_PORT, 443).payload(&short(1)[..5]), QUIC, worker(1)),
    opens_udp("quic: the connection ID ends before it", || v4().udp(NEW_PORT, 443).payload(&short(1)[..4]), QUIC, Choice::ByHash),
    opens_udp("quic: no payload", || v4().udp(NEW_PORT, 443), QUIC, Choice::ByHash),
    opens_udp("quic: looks like it, is DNS", || v4().udp(NEW_PORT, 53).payload(&short(1)), DNS, Choice::ByHash),
    of("quic: service without a table", || v4().udp(NEW_PORT, 8444).payload(&short(1)), QUIC_TABLELESS, Reason::NoBackend),
    of("quic: first fragment", || v4().fragment(0, true).udp(NEW_PORT, 443).payload(&short(1)), QUIC, Reason::FirstFragment),
    passed("quic: another port", || v4().udp(NEW_PORT, 444).payload(&short(1)), Reason::NotAPort),
    opens_udp("quic: the connection ID begins in the second buffer", || v4().udp(NEW_PORT, 443).payload(&short(1)), QUIC, Choice::ByHash)
        .first_buffer(14 + 20 + 8 + 1),
];

const fn worker(place: u32) -> Choice {
    Choice::Slot(8 * QUIC + place)
}

/// A short header with a connection ID of 8 bytes, and a packet number and data that are encrypted.
fn short(worker: u8) -> Vec<u8> {
    let mut bytes = [&[0x40][..], &[0xc1; 8], &[0x5a; 24]].concat();
    bytes[1 + usize::from(QUIC_POSITION)] = worker;
    bytes
}

/// As [`short`], from a sender that greases the fixed bit (RFC 9287).
fn greased(worker: u8) -> Vec<u8> {
    let mut bytes = short(worker);
    bytes[0] = 0;
    bytes
}

/// An Initial: its connection ID is the client's random choice, whose byte at the position would be worker 0.
fn initial() -> Vec<u8> {
    let head: &[u8] = &[0xc0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x44, 0xa0];
    [head, &[0x5a; 1182]].concat()
}
