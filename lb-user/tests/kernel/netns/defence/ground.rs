//! What the tests of the defence stand on, tried without it: frames sent back by XDP, a client made of frames.

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::netns::programs::{bouncer, link_xdp};
use crate::support::load::Answer;
use crate::support::netns::Pair;
use crate::support::packet::{ACK, PSH, RST, SYN, SYN_OPTIONS, Segment};
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::ground::frames_sent_back_in_native_mode_arrive", || frames_sent_back_arrive(true)),
        trial("defence::ground::frames_sent_back_in_generic_mode_arrive", || frames_sent_back_arrive(false)),
        trial("defence::ground::a_raw_client_is_served", a_raw_client_is_served),
        trial("defence::ground::a_large_segment_is_a_flight_of_small_ones", a_large_segment_is_a_flight_of_small_ones),
    ]
}

const PORT: u16 = 8080;
const FROM: u16 = 40_000;
/// How long a frame needs that crosses a veth pair.
const QUIET: Duration = Duration::from_millis(200);

/// What XDP_TX sends on the server's device reaches the client's, whose kernel runs no XDP program.
fn frames_sent_back_arrive(native: bool) {
    const FRAMES: usize = 100;
    let pair = Pair::new();
    for v6 in [false, true] {
        let client = RawClient::new(&pair, v6, 0);
        let program = bouncer();
        let _attached = pair.server.run(|| link_xdp(&program, Pair::SERVER_DEVICE, native));
        let frames: Vec<_> = (0..FRAMES).map(|number| client.tcp(FROM, PORT).sequence(u32::try_from(number).expect("few"))).collect();
        client.send(&frames);
        let own = |frame: &[u8]| Segment::parse(frame).filter(|segment| segment.source.ip() == client.address());
        let back: Vec<_> = std::iter::from_fn(|| client.receive_frame(QUIET, own)).map(|segment| segment.sequence).collect();
        let expected: Vec<_> = (0..u32::try_from(FRAMES).expect("few")).collect();
        assert_eq!(back, expected, "native: {native}, IPv6: {v6}");
    }
}

/// The handshake by hand, a request and its echo; then segments that belong to nothing, each answered by the server's reset and by no
/// other: the client's own kernel says nothing to any of it.
fn a_raw_client_is_served() {
    let pair = Pair::new();
    for v6 in [false, true] {
        let server = if v6 { pair.server_v6[0] } else { pair.server_v4[0] };
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(server, PORT)).echo(), 1);
        let client = RawClient::new(&pair, v6, 1);
        let reply = client.open(FROM, PORT, 1000, &SYN_OPTIONS);
        assert_eq!((reply.flags, reply.acknowledgement, reply.intact), (SYN | ACK, 1001, true), "{reply:?}");
        assert_eq!(reply.option(2), Some(&(if v6 { 1440_u16 } else { 1460 }).to_be_bytes()[..]), "the MSS");
        assert!(reply.option(3).is_some() && reply.option(4) == Some(&[]) && reply.option(8).is_some_and(|times| times.len() == 8));

        let acknowledge = client.reply_to(&reply);
        let question = acknowledge.clone().flags(ACK | PSH).payload(b"alive?\n");
        client.send(&[acknowledge, question.clone(), question]);
        let said = client.hear(reply.sequence.wrapping_add(1), QUIET);
        let text = String::from_utf8(said).expect("lines");
        let (line, echo) = text.split_once('\n').expect("two lines");
        assert!(Answer::parse(line).is_some() && echo == "alive?\n", "{text:?}");

        client.send(&[client.tcp(FROM + 1, PORT).flags(ACK).sequence(7).acknowledgement(9)]);
        let replies = client.receive_all(QUIET);
        let resets: Vec<_> = replies.iter().filter(|segment| segment.flags & RST != 0).map(|segment| segment.sequence).collect();
        assert_eq!(resets, [9], "{replies:?}");
    }
}

/// The first flight in one batch: the handshake's last ACK with its data, and more data, before the connection is made.
fn a_large_segment_is_a_flight_of_small_ones() {
    const SIZE: u16 = 500;
    let pair = Pair::new();
    for v6 in [false, true] {
        let server = if v6 { pair.server_v6[0] } else { pair.server_v4[0] };
        let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(server, PORT)).echo(), 1);
        let client = RawClient::new(&pair, v6, 2);
        let reply = client.open(FROM, PORT, 5, &[2, 4, 5, 0xb4]);
        let sent: Vec<u8> = (0..1500_u32).map(|at| u8::try_from(at % 251).expect("below 251")).collect();
        client.send_as_segments(&client.reply_to(&reply).payload(&sent), SIZE);
        let said = client.hear(reply.sequence.wrapping_add(1), QUIET);
        let end = said.iter().position(|byte| *byte == b'\n').expect("the worker's line");
        assert!(said[end + 1..] == sent, "{} bytes of {} came back, IPv6: {v6}", said.len() - end - 1, sent.len());
        assert_eq!(workers.counts()[&0], 1);
    }
}
