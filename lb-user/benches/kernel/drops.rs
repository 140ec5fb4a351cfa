//! What a packet costs that the kernel drops behind XDP, with the kernel's drops counted (`observe.kernel_drops`) and not.
//!
//! Datagrams to a socket whose receive queue is full: each is dropped under a reason of its own, on the sender's processor and in its time.
//! Weir counts and does not by turns. That not counting costs nothing is seen where XDP has no part: over loopback, beside no Weir at all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::{
    programs::{
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
    sys::Stats,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Filter,
    report::{Table, median},
    selector::runs,
    support::{daemon::Weir, flood::pin, netns::Pair, snmp::Counters, wait::eventually},
};

const ROUNDS: usize = 11;
/// Parts of a turn, of which the quickest counts: what else the machine does only ever adds.
const PARTS: u32 = 20;
/// Datagrams of one part.
const DATAGRAMS: u32 = 5_000;
/// Of a group that Weir finds, and of a socket that is in none.
const SERVICE: u16 = 7001;
const NOBODY: u16 = 7002;
/// How long the daemon is left alone after it was told something, to be done with it.
const PAUSE: Duration = Duration::from_millis(300);

/// Who is told of a dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// There is no Weir.
    Without,
    Off,
    On,
}

/// The rows: whose packets they are, and the turns that can be compared.
const ROWS: &[(&str, u16, &[Watch])] = &[
    ("dropped datagram of a service, over veth", SERVICE, &[Watch::Off, Watch::On]),
    ("dropped datagram of nobody, over loopback", NOBODY, &[Watch::Without, Watch::Off, Watch::On]),
];

/// Measures the rows.
pub fn measure(filter: &Filter) -> Table {
    let rows = ROWS.iter().filter(|(name, ..)| filter.takes(name));
    Table {
        about: format!(
            "**Drops**: nanoseconds from sending a datagram until the kernel has dropped it (the receive queue is full), with the kernel's drops \
             counted (`observe.kernel_drops`) and not; medians of {ROUNDS} rounds, by turns, of each turn the quickest of {PARTS} times {DATAGRAMS} datagrams; ratios are medians of \
             those within a round"
        ),
        columns: &[
            ("packet", "packet"),
            ("without_ns", "no Weir, ns"),
            ("off_ns", "off, ns"),
            ("on_ns", "on, ns"),
            ("off_to_without", "off to no Weir"),
            ("on_to_off", "on to off"),
            ("more_ns", "more when on, ns"),
            ("program_ns", "the program alone (bpf_stats), ns"),
        ],
        rows: rows.map(|(name, port, turns)| row(name, *port, turns)).collect(),
    }
}

fn row(name: &str, port: u16, turns: &[Watch]) -> Vec<Value> {
    let scene = Scene::new(port);
    let mut weir = None;
    let [mut without, mut off, mut on] = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for turn in turns {
            scene.prepare(&mut weir, *turn);
            let samples = match turn {
                Watch::Without => &mut without,
                Watch::Off => &mut off,
                Watch::On => &mut on,
            };
            samples.push(scene.nanoseconds());
        }
    }
    let weir = weir.expect("the last turn has one");
    assert!(port == NOBODY || counted(&weir) >= u64::from(PARTS * DATAGRAMS), "the drops were not counted");
    let program = scene.of_program(&weir);

    let rounded = |value: f64, digits: f64| json!((value * digits).round() / digits);
    let middle = |samples: &[f64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then(|| median(&sorted))
    };
    let pairs = |above: &[f64], below: &[f64], of: fn(f64, f64) -> f64| {
        middle(&above.iter().zip(below).map(|(above, below)| of(*above, *below)).collect::<Vec<_>>())
    };
    let time = |value: Option<f64>| value.map(|value| rounded(value, 10.0));
    let ratio = |value: Option<f64>| value.map(|value| rounded(value, 1000.0));
    vec![
        json!(name),
        json!(time(middle(&without))),
        json!(time(middle(&off))),
        json!(time(middle(&on))),
        json!(ratio(pairs(&off, &without, |off, without| off / without))),
        json!(ratio(pairs(&on, &off, |on, off| on / off))),
        json!(time(pairs(&on, &off, |on, off| on - off))),
        json!(time(Some(program))),
    ]
}

/// A socket that nobody reads, full, and a sender.
struct Scene {
    pair: Pair,
    sender: UdpSocket,
    _receiver: Socket,
    /// Who registers a socket with it serves the socket: without, Weir would give it nothing.
    _server: Epoll,
}

impl Scene {
    fn new(port: u16) -> Self {
        let pair = Pair::new();
        let address = if port == SERVICE { pair.server_v4[0] } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let target = SocketAddr::new(address, port);
        let receiver = pair.server.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
            socket.set_reuse_port(port == SERVICE).expect("SO_REUSEPORT");
            socket.bind(&target.into()).expect("bind");
            socket
        });
        let server = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
        server.add(&receiver, EpollEvent::new(EpollFlags::EPOLLIN, 0)).expect("register the socket");
        let connect = || {
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            sender.connect(target).expect("connect");
            sender
        };
        let sender = if port == SERVICE { pair.client.run(connect) } else { pair.server.run(connect) };
        let scene = Self { pair, sender, _receiver: receiver, _server: server };
        // Full from here on.
        scene.send();
        scene
    }

    /// Brings about what is to be measured.
    fn prepare(&self, weir: &mut Option<Weir>, turn: Watch) {
        if turn == Watch::Without {
            *weir = None;
        } else {
            let configuration = format!("discovery.udp = true\nobserve.kernel_drops = {}\n", turn == Watch::On);
            match weir {
                None => *weir = Some(Weir::start(&self.pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[])),
                Some(weir) => {
                    weir.configure(&configuration);
                    weir.reload();
                }
            }
        }
        if let Some(weir) = weir {
            let link = weir.pins().join("links/kernel_drop");
            let is_so = || link.exists() == (turn == Watch::On);
            eventually(Duration::from_secs(10), || if is_so() { Ok(()) } else { Err(format!("{turn:?} is not so")) });
        }
        std::thread::sleep(PAUSE);
    }

    fn send(&self) {
        for _ in 0..DATAGRAMS {
            self.sender.send(&[0; 32]).expect("send a datagram");
        }
    }

    /// The mean of one turn.
    fn nanoseconds(&self) -> f64 {
        let drops = || Counters::read(&self.pair.server).get("Udp", "RcvbufErrors");
        let before = drops();
        let took = std::thread::scope(|scope| {
            let turn = || {
                pin(0);
                let part = |_| {
                    let start = Instant::now();
                    self.send();
                    start.elapsed()
                };
                (0..PARTS).map(part).min().expect("some parts")
            };
            scope.spawn(turn).join().expect("a turn")
        });
        let dropped = drops() - before;
        let sent = i64::from(PARTS * DATAGRAMS);
        assert!(dropped * 100 >= sent * 99, "the kernel dropped {dropped} of {sent} for want of room");
        took.as_secs_f64() * 1e9 / f64::from(DATAGRAMS)
    }

    /// What one run of the program takes, as the kernel counts: not in the turns above, for counting has its price too.
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
    fn of_program(&self, weir: &Weir) -> f64 {
        let link = FdLink::from(PinnedLink::from_pin(weir.pins().join("links/kernel_drop")).expect("the pinned link"));
        let id = link.info().expect("the link's facts").program_id();
        let mut programs = loaded_programs().filter_map(Result::ok);
        let program = programs.find(|program| program.id() == id).expect("the link's program");
        let program: OwnedFd = program.fd().expect("its descriptor").as_fd().try_clone_to_owned().expect("one more descriptor");
        let _counting = aya::sys::enable_stats(Stats::RunTime).expect("the kernel counts the time of programs");
        let (count, time) = runs(&program);
        self.nanoseconds();
        let (count_after, time_after) = runs(&program);
        assert!(count_after - count >= u64::from(PARTS * DATAGRAMS), "the program ran {} times", count_after - count);
        (time_after - time) as f64 / (count_after - count) as f64
    }
}

/// How many drops Weir has counted under its service and under the backend, the fewer of both.
fn counted(weir: &Weir) -> u64 {
    let status = weir.cli(&["status", "--json"]);
    let service = status["services"].as_array().into_iter().flatten().find(|service| service["port"] == SERVICE).expect("the service");
    let sum = |of: &Value| of["kernel_drops"].as_array().into_iter().flatten().filter_map(|row| row["packets"].as_u64()).sum::<u64>();
    sum(service).min(sum(&service["backends"][0]))
}
