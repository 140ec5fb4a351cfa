//! How soon a listener is in the table and out of it, and that nothing of Weir keeps one alive.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use lb_common::abi::TABLE_HEADER;
use lb_user::listeners::Protocol;
use lb_user::listeners::diag::Diag;
use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};

use super::live::{maps, planned, service_with_ready, target};
use crate::support::daemon::Weir;
use crate::support::load::Steady;
use crate::support::netns::{Entrance, Pair};
use crate::support::servers::{ManySockets, WorkerPlan, Workers};
use crate::support::snmp::Counters;
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::timing::a_listener_joins_and_leaves_within_50_ms", a_listener_joins_and_leaves_within_50_ms),
        trial("netns::timing::a_discovered_listener_joins_within_50_ms", a_discovered_listener_joins_within_50_ms),
        trial("netns::timing::a_killed_owner_leaves_no_listener", a_killed_owner_leaves_no_listener),
    ]
}

/// What the issue allows.
const SOON: Duration = Duration::from_millis(50);
const TURNS: usize = 20;

/// From `listen` to the first connection accepted, and from the close to a live table without the socket: 20 times each, under load.
fn a_listener_joins_and_leaves_within_50_ms() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    // A small table, so that reading it whole takes no time that matters here.
    let text = format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\naddress = \"{}\"\ntable_size = 499\n", target.ip());
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&text), &[]);
    service_with_ready(&weir, 3);
    let index = planned(&weir, "web").index;
    let maps = maps(&weir);
    let slots = || -> BTreeSet<u32> {
        maps.table(index).expect("read the table").expect("there is one").into_iter().skip(TABLE_HEADER as usize).collect()
    };
    let before = slots();
    // Enough that the next connection is never far, and too little to keep the daemon from a processor.
    let counted = Counters::read(&pair.server);
    let load = Steady::at_rate(&pair.client, &plan.concurrency(4), 1000);
    load.wait_for(200);

    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let listener = listen(&pair.server, target);
        let began = Instant::now();
        answer_one(&listener);
        joins.push(began.elapsed());
        assert_eq!(slots().len(), before.len() + 1, "what accepts is in the table");
        // What waits in its queue goes to the others.
        drop(listener);
        let began = Instant::now();
        while slots() != before {
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", slots());
            std::thread::sleep(Duration::from_millis(1));
        }
        leaves.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = load.stop();
    println!("joins: {}; leaves: {}", summary(&mut joins), summary(&mut leaves));
    assert!(joins[TURNS / 2] < SOON && leaves[TURNS / 2] < SOON, "joins {joins:?}, leaves {leaves:?}");
    report.assert_failed_by_the_kernel_alone();
    report.assert_slow_by_the_kernel_alone(&Counters::read(&pair.server).since(&counted));
}

/// From `listen` to the first connection accepted, with nothing configured, over IPv6, with tables of the size that Weir chooses, and
/// with a neighbour on the host whose 2,000 sockets in epoll make it slow to find out who serves what.
fn a_discovered_listener_joins_within_50_ms() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, true, 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let _neighbour = ManySockets::start(&pair.client, &WorkerPlan::tcp(SocketAddr::new(pair.client_v6[0], 8080)), 2000);
    let size = service_with_ready(&weir, 3).table_size;
    let counted = Counters::read(&pair.server);
    let load = Steady::at_rate(&pair.client, &plan.concurrency(4), 1000);
    load.wait_for(200);
    let mut joins = Vec::new();
    for _ in 0..TURNS {
        let listener = listen(&pair.server, target);
        let began = Instant::now();
        answer_one(&listener);
        joins.push(began.elapsed());
        drop(listener);
        service_with_ready(&weir, 3);
    }
    let report = load.stop();
    println!("joins with {size} entries: {}", summary(&mut joins));
    assert!(joins[TURNS / 2] < SOON, "{joins:?}");
    report.assert_failed_by_the_kernel_alone();
    report.assert_slow_by_the_kernel_alone(&Counters::read(&pair.server).since(&counted));
}

/// A worker that is killed at any moment after it began to listen, also while the daemon has a descriptor of its socket: 50 ms later
/// the kernel lists no socket of it.
fn a_killed_owner_leaves_no_listener() {
    let pair = Pair::new();
    let (target, _) = target(&pair, false, 8080);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    service_with_ready(&weir, 2);
    let mut diag = pair.server.run(|| Diag::open().expect("open sock_diag"));
    let mut ends = Vec::new();
    for turn in 0..TURNS {
        let socket = workers.add();
        // From at once, when the daemon is taking it in, to long after.
        std::thread::sleep(Duration::from_millis(turn as u64));
        workers.kill9(socket.index);
        let began = Instant::now();
        while diag.on_port(Protocol::Tcp, 8080).expect("list the listeners").iter().any(|listener| listener.cookie == socket.cookie) {
            assert!(began.elapsed() < Duration::from_secs(5), "somebody keeps the listener alive");
        }
        ends.push(began.elapsed());
    }
    println!("gone after: {}", summary(&mut ends));
    assert!(ends[TURNS - 1] < SOON, "{ends:?}");
    service_with_ready(&weir, 2);
}

/// A listener of this process, in the namespace.
fn listen(entrance: &Entrance, address: SocketAddr) -> TcpListener {
    entrance.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("make a socket");
        socket.set_reuse_port(true).expect("set SO_REUSEPORT");
        socket.set_reuse_address(true).expect("set SO_REUSEADDR");
        socket.bind(&address.into()).expect("bind");
        socket.set_nonblocking(true).expect("do not block");
        socket.listen(1024).expect("listen");
        socket.into()
    })
}

/// Waits for a connection and answers it as a worker does.
fn answer_one(listener: &TcpListener) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Ok((mut connection, _)) = listener.accept() {
            return connection.write_all(b"99 0 0\n").expect("answer");
        }
        assert!(Instant::now() < deadline, "the new listener gets no connection");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Sorts the times and says what they are.
fn summary(times: &mut [Duration]) -> String {
    times.sort();
    format!("median {:.1?}, longest {:.1?}", times[times.len() / 2], times[times.len() - 1])
}
