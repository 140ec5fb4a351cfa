//! What `ingress` costs for rows of the packet table, beside an empty XDP program in the same run (BPF_PROG_TEST_RUN).

use std::os::fd::{AsFd as _, BorrowedFd};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Filter,
    dataplane::{
        XDP_PASS,
        bpf::{self, Run, instruction},
        harness::DataPlane,
        rows,
        world::World,
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
];

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
    if !rows.is_empty() {
        stay_on_one_cpu();
        let plane = DataPlane::load(&World::new());
        let empty =
            bpf::load(bpf::XDP, "empty", &[instruction::set(0, XDP_PASS.cast_signed()), instruction::exit()]).expect("an empty program");
        table.rows = rows.into_iter().map(|(name, at_most)| row(&plane, empty.as_fd(), name, *at_most)).collect();
    }
    table
}

fn row(plane: &DataPlane, empty: BorrowedFd<'_>, name: &str, at_most: Option<i64>) -> Vec<Value> {
    let frame = rows::by_name(name).frame();
    // Caches and the branch predictor learn the packet.
    nanoseconds(plane.program(), &frame);
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (nanoseconds(empty, &frame), nanoseconds(plane.program(), &frame))).collect();
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

/// A thread that moves to another CPU leaves warm caches and its per-CPU counters behind.
fn stay_on_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(nix::sched::sched_getcpu().expect("this CPU's number")).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("a CPU to stay on");
}
