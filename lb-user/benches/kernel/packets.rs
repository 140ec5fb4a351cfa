//! What `ingress` costs for rows of the packet table, beside an empty XDP program in the same run (BPF_PROG_TEST_RUN).
//!
//! The frames of a test run are one buffer, which a program that writes would find as it left it. So before each run of `ingress` a
//! program writes the row's frame again where the row says that it changes, and before each run of the empty program as well.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use serde_json::{Value, json};

use crate::{
    Filter,
    dataplane::{
        XDP_PASS,
        bpf::{self, Run, instruction},
        defended::{FLOODED, State, port},
        ground::Ground,
        harness::DataPlane,
        rows::{self, Out},
        world::{CLIENT, CLIENT6, SERVER, SERVER6, World},
    },
    report::Table,
};

/// The two programs take turns so often.
const ROUNDS: usize = 15;
/// How often a program runs in its turn.
const REPEAT: u32 = 200_000;

/// What a packet that is not ours may cost, in nanoseconds above the empty program.
const NOT_OURS: i64 = 10;
/// What a segment of an established flow may cost.
const ESTABLISHED: i64 = 40;
/// What the answer to a SYN may cost: over IPv4, over IPv6.
const COOKIE: [i64; 2] = [80, 110];
/// What an ACK without a right cookie may cost.
const BAD_ACK: i64 = 90;
/// What a segment of a known flow may cost in a flood.
const KNOWN_FLOW: i64 = 60;

/// The rows, with what each may cost. A datagram of a known flow needs a second lookup, in the flow table, so it has no such limit.
const ROWS: &[(&str, Option<i64>)] = &[
    ("ethernet: ARP request", Some(NOT_OURS)),
    ("ipv4: another port", Some(NOT_OURS)),
    ("ipv6: another port", Some(NOT_OURS)),
    ("udp: another port", Some(NOT_OURS)),
    ("icmp: echo request", Some(NOT_OURS)),
    ("ipv4: middle fragment", Some(NOT_OURS)),
    ("ipv4: another address", None),
    ("ipv6: another address", None),
    ("ethernet: another host's MAC", None),
    ("ipv4: segment", Some(ESTABLISHED)),
    ("ipv6: segment", Some(ESTABLISHED)),
    ("ethernet: QinQ, segment over IPv4", Some(ESTABLISHED)),
    ("udp: datagram of a known flow", None),
    ("udp: datagram of a known flow, IPv6", None),
    ("quic: known flow, whatever it names", None),
    ("ipv4: SYN", None),
    ("ipv6: SYN", None),
    ("udp: datagram of a new flow", None),
    ("ipv6: datagram", None),
    ("quic: short header naming worker 1", None),
    ("quic: long header (Initial)", None),
    ("ipv6: each kind of extension header", None),
    ("ipv4: first fragment of TCP", None),
    ("icmp: fragmentation needed, quoting 8 bytes", None),
    ("defence: SYN in calm", None),
    ("defence: SYN in calm, IPv6", None),
    ("defence: segment in calm", Some(ESTABLISHED)),
    ("defence: SYN of Linux", Some(COOKIE[0])),
    ("defence: SYN of Windows 10", Some(COOKIE[0])),
    ("defence: SYN of no options", Some(COOKIE[0])),
    ("defence: SYN of Linux, IPv6", Some(COOKIE[1])),
    ("defence: SYN of Windows 10, IPv6", Some(COOKIE[1])),
    ("defence: ACK without a cookie", Some(BAD_ACK)),
    ("defence: ACK without a cookie, IPv6", Some(BAD_ACK)),
    ("defence: cookie, a bit of its timestamp turned", Some(BAD_ACK)),
    ("defence: segment of a connection", Some(KNOWN_FLOW)),
    ("defence: segment of a connection, IPv6", Some(KNOWN_FLOW)),
    ("defence: stray RST", None),
    ("defence: no flag", None),
];

/// What no answer in a flood can do without, alone: whether there is a socket for the flow.
const FLOORS: &[(&str, bool)] = &[("(floor: one lookup of a listener)", false), ("(floor: one lookup of a listener, IPv6)", true)];

/// Measures the rows.
pub fn measure(filter: &Filter) -> Table {
    let rows: Vec<_> = ROWS.iter().filter(|(name, _)| filter.takes(name)).collect();
    let mut table = Table {
        about: format!(
            "**Packets**: nanoseconds of `ingress` above an empty XDP program; both by turns, {ROUNDS} times {REPEAT} runs each"
        ),
        columns: &[
            ("packet", "packet"),
            ("bytes", "bytes"),
            ("empty_ns", "empty program, ns"),
            ("above_ns", "above it (median), ns"),
            ("above_min_ns", "least"),
            ("above_max_ns", "most"),
            ("at_most_ns", "to reach"),
            ("reached", ""),
        ],
        rows: Vec::new(),
    };
    let floors: Vec<_> = FLOORS.iter().filter(|(name, _)| filter.takes(name)).collect();
    if rows.is_empty() && floors.is_empty() {
        return table;
    }
    let plane = DataPlane::load(&World::new());
    let empty =
        bpf::load(bpf::XDP, "empty", &[instruction::set(0, XDP_PASS.cast_signed()), instruction::exit()]).expect("an empty program");
    // Where the defended services have their sockets, on one CPU: on another, caches are cold and the counters others.
    table.rows = Ground::new().run(|| {
        let rows = rows.into_iter().map(|(name, at_most)| row(&plane, empty.as_fd(), name, *at_most));
        rows.chain(floors.into_iter().map(|(name, v6)| floor(empty.as_fd(), name, *v6))).collect()
    });
    table
}

fn row(plane: &DataPlane, empty: BorrowedFd<'_>, name: &str, at_most: Option<i64>) -> Vec<Value> {
    let row = rows::by_name(name);
    let frame = row.frame();
    let writing = matches!(row.out, Out::Becomes(_)).then(|| [empty, plane.program()].map(|program| Writing::new(&frame, program)));
    let [empty, ours] = match &writing {
        Some([empty, ours]) => [empty.program.as_fd(), ours.program.as_fd()],
        None => [empty, plane.program()],
    };
    let turn = || {
        // The state of the defence holds for 10 s, a round takes some hundredths.
        plane.prepare(&World::new(), State::Awake);
        nanoseconds(ours, &frame)
    };
    measured(name, &frame, at_most, || nanoseconds(empty, &frame), turn)
}

fn floor(empty: BorrowedFd<'_>, name: &str, v6: bool) -> Vec<Value> {
    let frame = rows::by_name(if v6 { "defence: SYN of Linux, IPv6" } else { "defence: SYN of Linux" }).frame();
    let looking = looking(v6);
    let run = Run { frame: &frame, first_buffer: None, interface: None, repeat: 1 };
    let verdict = bpf::test_run(looking.as_fd(), &run).map(|outcome| outcome.verdict);
    assert_eq!(verdict.ok(), Some(XDP_PASS), "there is a listener to be found");
    measured(name, &frame, None, || nanoseconds(empty, &frame), || nanoseconds(looking.as_fd(), &frame))
}

/// Both by turns.
fn measured(name: &str, frame: &[u8], at_most: Option<i64>, empty: impl Fn() -> i64, ours: impl Fn() -> i64) -> Vec<Value> {
    // Caches and the branch predictor learn the packet.
    ours();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (empty(), ours())).collect();
    let base = sorted(rounds.iter().map(|(empty, _)| *empty));
    let above = sorted(rounds.iter().map(|(empty, ours)| ours - empty));
    let median = above[ROUNDS / 2];
    vec![
        json!(name),
        json!(frame.len()),
        json!(base[ROUNDS / 2]),
        json!(median),
        json!(above[0]),
        json!(above[ROUNDS - 1]),
        json!(at_most),
        json!(at_most.map(|limit| median <= limit)),
    ]
}

/// A program that looks for the listener of the flooded service by a client's flow, lets go of it, and passes the packet.
fn looking(v6: bool) -> OwnedFd {
    const SKC_LOOKUP_TCP: i32 = 99;
    const SK_RELEASE: i32 = 86;
    const CURRENT_NETNS: i32 = -1;
    // The two addresses, then the two ports, in network byte order (struct bpf_sock_tuple).
    let [client, server] = if v6 {
        [SocketAddr::from((CLIENT6, 50_000)), SocketAddr::from((SERVER6, port(FLOODED)))]
    } else {
        [SocketAddr::from((CLIENT, 50_000)), SocketAddr::from((SERVER, port(FLOODED)))]
    };
    let address = |of: SocketAddr| match of {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    let ports = [client, server].map(|of| of.port().to_be_bytes()).concat();
    let tuple = [address(client), address(server), ports].concat();
    let length = i16::try_from(tuple.len()).expect("at most 36 bytes");
    let mut program: Vec<u64> = (-length..)
        .step_by(4)
        .zip(tuple.chunks_exact(4))
        .map(|(at, word)| instruction::store_word_of(10, at, i32::from_ne_bytes(word.try_into().expect("four bytes"))))
        .collect();
    program.extend([
        instruction::copy(2, 10),
        instruction::add(2, (-length).into()),
        instruction::set(3, length.into()),
        instruction::set(4, CURRENT_NETNS),
        instruction::set(5, 0),
        instruction::call(SKC_LOOKUP_TCP),
        instruction::jump_if_not_zero(0, 2),
        // None found: another verdict, which the measurement does not take for its own.
        instruction::set(0, 0),
        instruction::exit(),
        instruction::copy(1, 0),
        instruction::call(SK_RELEASE),
        instruction::set(0, XDP_PASS.cast_signed()),
        instruction::exit(),
    ]);
    bpf::load(bpf::XDP, "looking", &program).expect("the verifier takes a program that looks")
}

/// A program that writes a frame over the packet and jumps to another.
struct Writing {
    program: OwnedFd,
    /// The array that it jumps through; the kernel empties it when its last descriptor closes.
    _jump: OwnedFd,
}

impl Writing {
    fn new(frame: &[u8], next: BorrowedFd<'_>) -> Self {
        const TAIL_CALL: i32 = 12;
        let jump = bpf::program_array(next).expect("an array of programs");
        // The packet's start, and a comparison with its end that the verifier wants to see.
        let mut program = vec![instruction::copy(6, 1), instruction::load_word(2, 1, 0), instruction::load_word(3, 1, 4)];
        let length = i32::try_from(frame.len()).expect("a short frame");
        program.extend([instruction::copy(4, 2), instruction::add(4, length), instruction::jump_if_greater(4, 3, 0)]);
        let (comparison, words) = (program.len() - 1, frame.chunks_exact(4));
        let rest = words.remainder();
        assert!(rest.len() % 2 == 0, "a frame of whole half words");
        for (at, word) in (0_i16..).step_by(4).zip(words) {
            program.push(instruction::store_word_of(2, at, i32::from_ne_bytes(word.try_into().expect("four bytes"))));
        }
        let written = i16::try_from(frame.len() - rest.len()).expect("a short frame");
        for (at, half) in (written..).step_by(2).zip(rest.chunks_exact(2)) {
            program.push(instruction::encode(0x6a, 2, 0, at, i16::from_ne_bytes(half.try_into().expect("two bytes")).into()));
        }
        program.push(instruction::copy(1, 6));
        program.extend(instruction::map(2, jump.as_raw_fd()));
        program.extend([instruction::set(3, 0), instruction::call(TAIL_CALL)]);
        let over = i16::try_from(program.len() - comparison - 1).expect("a short program");
        program[comparison] = instruction::jump_if_greater(4, 3, over);
        program.extend([instruction::set(0, 0), instruction::exit()]);
        Self { program: bpf::load(bpf::XDP, "writing", &program).expect("the verifier takes a program that writes"), _jump: jump }
    }
}

/// The mean of one turn, as the kernel gives it: a whole number.
fn nanoseconds(program: BorrowedFd<'_>, frame: &[u8]) -> i64 {
    let run = Run { frame, first_buffer: None, interface: None, repeat: REPEAT };
    bpf::test_run(program, &run).unwrap_or_else(|error| panic!("a test run: {error}")).nanoseconds.into()
}

fn sorted(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values
}
