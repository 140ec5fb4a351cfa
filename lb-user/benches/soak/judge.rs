//! What a round may lose and what has to add up: no clock, no I/O, so that the host's tests show each rule broken (`tests/soak.rs`).

use std::time::Duration;

use lb_user::dataplane::SURVIVAL_TRIES;

/// How soon after its worker's end a connection notices.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// Of so many connections made while a flood goes on, one may have to send its SYN again: the flood and its answers fill rings of 256 frames.
const ONE_SYN_AGAIN_OF: u64 = 100;
/// At its start, at a reload and once a minute the daemon tries out the host by so many connections that it makes and takes itself: whether
/// cookies of either family survive, and which window the kernel announces.
const SELF_TEST: u64 = 2 * SURVIVAL_TRIES as u64 + 1;
/// How many such times a round has at most.
const SELF_TESTS: u64 = 3;

/// A worker that was killed while connections came in.
#[derive(Clone, Debug)]
pub struct Killed {
    /// Which of the loads it served.
    pub service: usize,
    /// The listening sockets that it served, by cookie.
    pub sockets: Vec<u64>,
    /// By that load's clock.
    pub at: Duration,
    /// How many connections it can have accepted and not answered.
    pub at_most: u64,
}

/// What a round's disturbances excuse.
#[derive(Clone, Debug, Default)]
pub struct Excuses {
    pub killed: Vec<Killed>,
    /// Listening sockets that were closed while SYNs came in. The kernel may be in the midst of one: it drops that, and the client sends it
    /// again.
    pub closed_listeners: u64,
    /// Whether a flood went on.
    pub flood: bool,
}

/// A connection that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    pub service: usize,
    pub at: Duration,
    /// Whether it was open by then.
    pub was_connected: bool,
    /// The socket that the table of before the round named for it.
    pub socket: Option<u64>,
    /// Phase and cause, in words.
    pub what: String,
}

/// What the failures of a round are put down to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// Held by workers that were killed.
    pub of_killed_workers: u64,
    /// What nothing explains, in words.
    pub unexplained: Vec<String>,
}

/// Puts each failure down to a killed worker that had the connection, or to nothing.
pub fn losses(failures: &[Failed], excuses: &Excuses) -> Losses {
    let mut losses = Losses::default();
    let mut left: Vec<u64> = excuses.killed.iter().map(|killed| killed.at_most).collect();
    for failure in failures {
        let held = |killed: &Killed| {
            let soon = failure.at >= killed.at && failure.at < killed.at + NOTICED_WITHIN;
            killed.service == failure.service && soon && failure.socket.is_some_and(|socket| killed.sockets.contains(&socket))
        };
        let by = (0..left.len()).find(|at| left[*at] > 0 && failure.was_connected && held(&excuses.killed[*at]));
        match by {
            Some(at) => {
                left[at] -= 1;
                losses.of_killed_workers += 1;
            }
            None => losses.unexplained.push(failure.what.clone()),
        }
    }
    losses
}

/// What was late in a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    pub connections: u64,
    /// Connections that took longer than a SYN that is lost makes them take.
    pub slow: u64,
    /// SYNs that the clients' kernel sent again.
    pub syns_again: u64,
    /// Whatever either kernel sent again because a timer ran out.
    pub timeouts: u64,
}

/// What the delays of a round are put down to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lateness {
    /// SYNs that were lost as their listener was closed.
    pub by_closing: u64,
    /// SYNs that were lost in a flood.
    pub by_flood: u64,
    /// Slow, though nothing was sent again: they waited for a processor.
    pub by_machine: u64,
    pub unexplained: Vec<String>,
}

/// Puts delays down to a flood, to listeners that were closed, to the machine, or to nothing.
pub fn lateness(delays: Delays, excuses: &Excuses) -> Lateness {
    let mut lateness = Lateness::default();
    let Delays { connections, slow, syns_again, timeouts } = delays;
    let in_flood = if excuses.flood { connections / ONE_SYN_AGAIN_OF + 1 } else { 0 };
    lateness.by_closing = syns_again.min(excuses.closed_listeners);
    lateness.by_flood = (syns_again - lateness.by_closing).min(in_flood);
    let lost = syns_again - lateness.by_closing - lateness.by_flood;
    if lost > 0 {
        lateness.unexplained.push(format!("{lost} of {syns_again} SYNs sent again, and nothing explains their loss"));
    }
    // One that lost its SYN is slow, and so may be one whose SYN-ACK or answer was lost where losses are excused.
    let tolerated = in_flood + excuses.closed_listeners.max(syns_again);
    if timeouts == 0 {
        lateness.by_machine = slow;
    } else if slow > tolerated {
        lateness.unexplained.push(format!("{slow} connections were slow, {syns_again} SYNs and {timeouts} segments sent again"));
    }
    lateness
}

/// What a service, its clients and its workers have counted in a round.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub service: String,
    /// Connections that the clients tried, and those that were right.
    pub attempted: u64,
    pub ok: u64,
    /// SYNs that opened a flow, and cookies that did.
    pub opened: u64,
    pub cookies: u64,
    /// SYNs in a flood that are the kernel's.
    pub kernels: u64,
    /// Choices of XDP.
    pub chosen: u64,
    /// Selections for SYNs and for cookies; those for connections that a listener left behind are not among them.
    pub selected: u64,
    /// Connections established by the selector's count.
    pub established: u64,
    /// Connections that the workers accepted, where they are our own.
    pub accepted: Option<u64>,
}

/// All that was counted in a round.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what happened in a round: each may come with each")]
pub struct Books {
    /// Packets by their verdicts, and those that the device received.
    pub verdicts: u64,
    pub received: u64,
    /// `Tcp.PassiveOpens` of the server.
    pub passive_opens: u64,
    pub syns_again: u64,
    /// Choices that the selector left to the kernel, and packets that met no record or no backend: none of either is ever right.
    pub misses: u64,
    pub no_record: u64,
    pub services: Vec<Tally>,
    /// Whether no flood went on and no SYN was answered by cookie.
    pub calm: bool,
    /// Whether a flood of segments other than SYNs went on: until it is noticed, the selector gets to see those that reach a listener.
    pub strays: bool,
    /// Whether a backend left, and its counts with it.
    pub backends_left: bool,
    /// Whether a worker was killed.
    pub worker_killed: bool,
}

/// The equations, as the report names them.
pub const EQUATIONS: [(&str, &str); 8] = [
    ("packets", "the sum of all verdicts = packets that the device received (every round)"),
    ("misses", "choices left to the kernel + packets without a record or a backend = 0 (every round)"),
    (
        "choices",
        "choices of XDP = SYNs that opened a flow + cookies accepted, for each service (unless a backend left, and its counts with it)",
    ),
    (
        "selections",
        "selections over all backends and causes but migration = choices of XDP + SYNs of a flood that the kernel knows, for each service \
         (unless a backend left; no less in a flood of other segments, of which the first reach the listener)",
    ),
    ("SYNs", "SYNs that opened a flow, of all services = connections that the clients tried + SYNs sent again (in calm)"),
    (
        "established",
        "connections established, of all backends = the kernel's own count, Tcp.PassiveOpens (unless a backend left; less by 33, \
         twice or three times that, by which the daemon tested the host meanwhile)",
    ),
    (
        "clients",
        "connections established from each service = connections that its clients got answers on (unless a backend left or a worker was \
         killed)",
    ),
    ("accepted", "connections that our workers accepted = connections that their clients got answers on (unless a worker was killed)"),
];

/// The equations that this round can check: the number of each, and what is wrong with it.
pub fn equations(books: &Books) -> Vec<(usize, Result<(), String>)> {
    let equal = |what: &str, left: u64, right: u64| if left == right { Ok(()) } else { Err(format!("{what}: {left} is not {right}")) };
    let sum = |count: fn(&Tally) -> u64| books.services.iter().map(count).sum::<u64>();
    let but_self_tests = |what: &str, left: u64, right: u64| {
        let tests = right.checked_sub(left).filter(|less| less % SELF_TEST == 0).map(|less| less / SELF_TEST);
        let is_right = tests.is_some_and(|tests| tests <= SELF_TESTS);
        if is_right { Ok(()) } else { Err(format!("{what}: {left} is not {right}, nor less by {SELF_TEST}, twice or three times that")) }
    };
    let mut found =
        vec![(0, equal("verdicts and packets", books.verdicts, books.received)), (1, equal("misses", books.misses + books.no_record, 0))];
    if !books.backends_left {
        for tally in &books.services {
            let name = &tally.service;
            found.push((2, equal(&format!("{name}: choices and flows opened"), tally.chosen, tally.opened + tally.cookies)));
            let selected = if books.strays { tally.selected.min(tally.chosen + tally.kernels) } else { tally.selected };
            found.push((3, equal(&format!("{name}: selections and choices"), selected, tally.chosen + tally.kernels)));
            if !books.worker_killed {
                found.push((6, equal(&format!("{name}: established and answered"), tally.established, tally.ok)));
            }
        }
        found.push((5, but_self_tests("established and Tcp.PassiveOpens", sum(|tally| tally.established), books.passive_opens)));
    }
    if books.calm {
        found.push((4, equal("SYNs and connections tried", sum(|tally| tally.opened), sum(|tally| tally.attempted) + books.syns_again)));
    }
    if !books.worker_killed {
        let accepted = |tally: &Tally| Some((7, equal(&format!("{}: accepted and answered", tally.service), tally.accepted?, tally.ok)));
        found.extend(books.services.iter().filter_map(accepted));
    }
    found
}

/// What a daemon and its data plane hold at a moment of rest.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holdings {
    /// Descriptors of the daemon and of its helper.
    pub descriptors: [usize; 2],
    /// Paths below the instance's directory.
    pub pins: Vec<String>,
    /// Programs that use its maps.
    pub programs: usize,
    /// Tables of services in the kernel.
    pub tables: usize,
    /// Maps that its programs use.
    pub maps: usize,
}

/// What of the holdings is not as it was at the start.
pub fn leaks(now: &Holdings, at_start: &Holdings) -> Result<(), String> {
    let Holdings { descriptors, pins, programs, tables, maps } = now;
    let counts = [
        ("descriptors of the daemon", descriptors[0], at_start.descriptors[0]),
        ("descriptors of its helper", descriptors[1], at_start.descriptors[1]),
        ("programs", *programs, at_start.programs),
        ("tables", *tables, at_start.tables),
        ("maps", *maps, at_start.maps),
    ];
    let changed = counts.into_iter().filter(|(_, is, was)| is != was).map(|(what, is, was)| format!("{is} {what} instead of {was}"));
    let come = pins.iter().filter(|pin| !at_start.pins.contains(pin)).map(|pin| format!("the pin {pin} has come"));
    let gone = at_start.pins.iter().filter(|pin| !pins.contains(pin)).map(|pin| format!("the pin {pin} has gone"));
    let all: Vec<String> = changed.chain(come).chain(gone).collect();
    if all.is_empty() { Ok(()) } else { Err(all.join(", ")) }
}

/// How much of its own memory a daemon may have gained over its life, in KiB, once it had warmed up.
pub const MAY_GROW: u64 = 1024;

/// Whether memory was flat: no sample above the first by more than [`MAY_GROW`].
pub fn flat(samples: &[u64]) -> Result<(), String> {
    let (Some(first), Some(most)) = (samples.first(), samples.iter().max()) else { return Ok(()) };
    if *most <= first + MAY_GROW { Ok(()) } else { Err(format!("the daemon's memory went from {first} KiB to {most} KiB")) }
}
