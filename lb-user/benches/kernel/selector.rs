//! What `select_socket` costs above an empty program of its type, for packets that come over a wire (`bpf_stats`).
//!
//! A test run cannot tell: the kernel has none for this type of program. So clients in one namespace open connections to a group in
//! another, and the kernel's own count of runs and of time gives the mean of one turn. The programs take turns on the same group.
//!
//! A third program selects a socket that it was told beforehand: what the kernel's own part of a selection costs, which nothing saves.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::{maps::MapData, programs::ProgramInfo, sys::Stats};
use lb_common::abi::ABI_VERSION;
use lb_user::dataplane::{Maps, Pins};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Filter,
    dataplane::bpf::{self, instruction},
    report::{Table, median},
    support::{
        daemon::Weir,
        load::{Plan, UdpFlows, open_close},
        netns::{Entrance, Pair},
        prerequisites::raise_open_file_limit,
        wait::eventually,
    },
};

/// The programs take turns so often.
const ROUNDS: usize = 15;
/// Connections, or datagrams, of one turn.
const PACKETS: usize = 3000;
/// Sockets of a group.
const WORKERS: usize = 4;
/// What selecting a socket may cost, in nanoseconds above the empty program.
const AT_MOST: f64 = 60.0;
/// UDP groups become services, and no new flow is refused its entry.
const CONFIGURATION: &str = "defence.syn_defence = \"off\"\ndiscovery.tcp = true\ndiscovery.udp = true\nlimits.udp_flows = 1048576\nlimits.udp_new_flows_per_second = 10000000\n";

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Load {
    Syn,
    KnownFlow,
    NewFlow,
}

/// The rows: the load and whether it comes over IPv6. Entering a new flow in the flow table is more than to select, and has no limit.
const ROWS: &[(&str, Load, bool, Option<f64>)] = &[
    ("SYN", Load::Syn, false, Some(AT_MOST)),
    ("SYN, IPv6", Load::Syn, true, Some(AT_MOST)),
    ("datagram of a known flow", Load::KnownFlow, false, None),
    ("datagram of a known flow, IPv6", Load::KnownFlow, true, None),
    ("datagram of a new flow", Load::NewFlow, false, None),
    ("datagram of a new flow, IPv6", Load::NewFlow, true, None),
];

/// Measures the rows.
pub fn measure(filter: &Filter) -> Table {
    let rows: Vec<_> = ROWS.iter().filter(|(name, ..)| filter.takes(name)).collect();
    let mut table = Table {
        about: format!(
            "**Selector**: nanoseconds of `select_socket` above an empty sk_reuseport program (bpf_stats), for packets over a veth pair to \
             a group of {WORKERS}; by turns, {ROUNDS} times {PACKETS} packets each"
        ),
        columns: &[
            ("packet", "packet"),
            ("empty_ns", "empty program, ns"),
            ("bare_ns", "select alone: above it, ns"),
            ("above_ns", "above it (median), ns"),
            ("above_min_ns", "least"),
            ("above_max_ns", "most"),
            ("undecided", "left to the kernel"),
            ("at_most_ns", "to reach"),
            ("reached", ""),
        ],
        rows: Vec::new(),
    };
    if rows.is_empty() {
        return table;
    }
    raise_open_file_limit();
    let scene = Scene::new();
    let _counting = aya::sys::enable_stats(Stats::RunTime).expect("the kernel counts the time of programs");
    table.rows = rows.into_iter().map(|row| scene.row(row)).collect();
    table
}

/// Clients, groups with Weir's selector, and the empty program.
struct Scene {
    pair: Pair,
    groups: Vec<Group>,
    weir: Weir,
    empty: OwnedFd,
    /// A program for each group, in their order.
    bare: Vec<OwnedFd>,
}

impl Scene {
    fn new() -> Self {
        let pair = Pair::new();
        let addresses = [pair.server_v4[0], pair.server_v6[0]];
        let bind = |(address, kind)| Group::start(&pair.server, SocketAddr::new(address, PORT), kind);
        let groups: Vec<_> =
            [Type::STREAM, Type::DGRAM].into_iter().flat_map(|kind| addresses.map(|address| bind((address, kind)))).collect();
        let mut weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CONFIGURATION), &[]);
        let slots = eventually(Duration::from_secs(10), || {
            let status = weir.cli(&["status", "--json"]);
            let slots: Vec<_> = groups.iter().filter_map(|group| group.slot(&status)).collect();
            if slots.len() == groups.len() { Ok(slots) } else { Err(format!("only so many whole services: {}", slots.len())) }
        });
        // The data plane goes on without it, and the daemon would notice that its selector is gone for a while.
        weir.kill9();
        let sockets = MapData::from_pin(weir.pins().join("sockets")).expect("the pinned socket array");
        let bare = slots
            .into_iter()
            .map(|slot| bpf::load(bpf::SELECTOR, "bare", &bare(sockets.fd().as_fd().as_raw_fd(), slot)).expect("a program that selects"));
        let empty = bpf::load(bpf::SELECTOR, "empty", &[instruction::set(0, SK_PASS), instruction::exit()]).expect("an empty program");
        Self { bare: bare.collect(), pair, groups, weir, empty }
    }

    fn row(&self, (name, load, v6, at_most): &(&str, Load, bool, Option<f64>)) -> Vec<Value> {
        let kind = if *load == Load::Syn { Type::STREAM } else { Type::DGRAM };
        let place = self.groups.iter().position(|group| group.kind == kind && group.address.is_ipv6() == *v6).expect("a group for each");
        let (group, bare) = (&self.groups[place], &self.bare[place]);
        let own = ProgramInfo::from_pin(self.weir.pins().join("programs/select_socket")).expect("the pinned selector");
        let own = own.fd().expect("the selector's descriptor").as_fd().try_clone_to_owned().expect("one more descriptor");
        let sources: &[IpAddr] = if *v6 { &self.pair.client_v6 } else { &self.pair.client_v4 };
        let mut clients = Clients::new(&self.pair.client, Plan::new(group.address, sources), *load);

        group.attach(&own);
        clients.send();
        let undecided = self.undecided();
        let [mut floor, mut alone, mut above] = [(); 3].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            let [empty, bare, ours] = [&self.empty, bare, &own].map(|program| {
                group.attach(program);
                nanoseconds(program, || clients.send())
            });
            floor.push(empty);
            alone.push(bare - empty);
            above.push(ours - empty);
        }
        group.attach(&own);
        for samples in [&mut floor, &mut alone, &mut above] {
            samples.sort_by(f64::total_cmp);
        }
        let rounded = |value: f64| json!((value * 10.0).round() / 10.0);
        let median_above = median(&above);
        vec![
            json!(name),
            rounded(median(&floor)),
            rounded(median(&alone)),
            rounded(median_above),
            rounded(above[0]),
            rounded(above[ROUNDS - 1]),
            json!(self.undecided() - undecided),
            json!(at_most),
            json!(at_most.map(|limit| median_above <= limit)),
        ]
    }

    /// How often the selector has left the choice to the kernel: a program that gives up early is no fast one.
    fn undecided(&self) -> u64 {
        let maps = Maps::pinned(&Pins::at(self.weir.pins()), ABI_VERSION).expect("the pinned maps");
        maps.selection_misses().expect("the counters").into_iter().sum()
    }
}

/// The mean of a program's runs while `work` goes on.
#[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
fn nanoseconds(program: &OwnedFd, work: impl FnOnce()) -> f64 {
    let (count, time) = runs(program);
    work();
    let (count_after, time_after) = runs(program);
    let count = count_after - count;
    assert!(count >= PACKETS as u64, "the program ran {count} times for {PACKETS} packets");
    (time_after - time) as f64 / count as f64
}

/// How often the program ran and how many nanoseconds that took, as the kernel counts (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
pub fn runs(program: &OwnedFd) -> (u64, u64) {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = std::fs::read_to_string(path).expect("the program's facts");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect("a count in the facts");
    (field("run_cnt:"), field("run_time_ns:"))
}

/// The port of every group.
const PORT: u16 = 7000;

/// The packets of each turn.
struct Clients<'a> {
    entrance: &'a Entrance,
    plan: Plan,
    load: Load,
    flows: Option<UdpFlows>,
    turns: usize,
}

impl<'a> Clients<'a> {
    fn new(entrance: &'a Entrance, plan: Plan, load: Load) -> Self {
        let flows = (load == Load::KnownFlow).then(|| UdpFlows::open(entrance, &plan, PACKETS));
        Self { entrance, plan, load, flows, turns: 0 }
    }

    /// One turn. A datagram that is lost, on a machine that has more to do, was counted nevertheless.
    fn send(&mut self) {
        self.turns += 1;
        match (self.load, &mut self.flows) {
            (Load::Syn, _) => open_close(self.entrance, &self.plan, PACKETS).assert_no_failure(),
            (_, Some(flows)) => drop(flows.round()),
            (_, None) => drop(UdpFlows::open(self.entrance, &self.plan.clone().starting_at_flow(self.turns * PACKETS), PACKETS).round()),
        }
    }
}

/// Sockets of one address, each served by a thread that answers as the tests' workers do.
struct Group {
    address: SocketAddr,
    kind: Type,
    sockets: Vec<Arc<Socket>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Group {
    fn start(entrance: &Entrance, address: SocketAddr, kind: Type) -> Self {
        let bind = || {
            let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
            let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            if kind == Type::STREAM {
                socket.listen(4096)?;
            }
            // So that the thread looks whether it is to end.
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok::<_, std::io::Error>(Arc::new(socket))
        };
        let bind = || bind().unwrap_or_else(|error| panic!("bind {address}: {error}"));
        let sockets: Vec<_> = entrance.run(|| (0..WORKERS).map(|_| bind()).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = sockets.iter().map(|socket| {
            let (socket, stop) = (Arc::clone(socket), Arc::clone(&stop));
            std::thread::spawn(move || serve(&socket, kind, &stop))
        });
        Self { address, kind, threads: threads.collect(), sockets, stop }
    }

    /// The slot of one of its sockets, once all are backends.
    fn slot(&self, status: &Value) -> Option<u32> {
        let protocol = if self.kind == Type::STREAM { "tcp" } else { "udp" };
        let address = self.address.ip().to_string();
        let mut services = status["services"].as_array()?.iter();
        let service = services.find(|service| service["address"] == address.as_str() && service["protocol"] == protocol)?;
        let backends = service["backends"].as_array().filter(|backends| backends.len() == WORKERS)?;
        backends[0]["slot"].as_u64()?.try_into().ok()
    }

    /// Gives the group a program in place of the one it has.
    fn attach(&self, program: &OwnedFd) {
        let (socket, program) = (self.sockets[0].as_raw_fd(), program.as_raw_fd());
        // SAFETY: the option's value is the 4 bytes at `program`, which live until the call returns.
        let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, (&raw const program).cast(), 4) };
        assert_eq!(result, 0, "attach to the group: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of it has been shown, and a client has missed its answer.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &Socket, kind: Type, stop: &AtomicBool) {
    const LINE: &[u8] = b"0 0 0\n";
    let datagrams = UdpSocket::from(socket.as_fd().try_clone_to_owned().expect("one more descriptor"));
    let mut request = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if kind == Type::STREAM {
            if let Ok((mut connection, _)) = socket.accept() {
                // The client may be gone already; its own report says so.
                let _ = connection.write_all(LINE);
            }
        } else if let Ok((length, client)) = datagrams.recv_from(&mut request) {
            let _ = datagrams.send_to(&[LINE, &request[..length]].concat(), client);
        }
    }
}

const SK_PASS: i32 = 1;

/// Selects the socket in a slot of the socket array (`bpf_sk_select_reuseport`).
fn bare(sockets: i32, slot: u32) -> Vec<u64> {
    const SELECT: i32 = 82;
    let [map, second] = instruction::map(2, sockets);
    vec![
        instruction::store(10, -8, slot.cast_signed()),
        map,
        second,
        instruction::copy(3, 10),
        instruction::add(3, -8),
        instruction::set(4, 0),
        instruction::call(SELECT),
        instruction::set(0, SK_PASS),
        instruction::exit(),
    ]
}
