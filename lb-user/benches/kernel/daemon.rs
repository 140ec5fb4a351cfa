//! What the daemon itself costs with 100 services of 16 workers: memory, time of a core when nothing happens, and how soon it is there.
//!
//! Twice: with a process for each service, and with nginx, whose every worker holds the sockets of all.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use lb_common::{
    Address,
    abi::{NO_SLOT, ServiceKey},
    wire::protocol,
};
use lb_user::dataplane::{Maps, Pins};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Filter,
    report::{Figure, Table, figures},
    support::{
        daemon::Weir,
        http,
        netns::Pair,
        prerequisites::raise_open_file_limit,
        servers::{ManySockets, Nginx, WorkerPlan, children},
    },
};

const SERVICES: u16 = 100;
const WORKERS: u16 = 16;
const FIRST_PORT: u16 = 20_000;
/// How long the daemon is left alone before it is measured: a full scan is among it.
const SETTLE: Duration = Duration::from_secs(15);
/// How long it is watched, doing nothing that anybody asked for.
const IDLE: Duration = Duration::from_secs(30);
const SCRAPES: usize = 10;
/// How often a worker joins, and leaves, every service.
const JOINS: usize = 5;

/// What the daemon may have in memory, in megabytes (10^6 bytes) resident.
const MEMORY: f64 = 30.0;
/// What it may take of a core when nothing happens, in percent.
const PROCESSOR: f64 = 1.0;
/// How long a scrape of /metrics may take, in milliseconds, and how long it may be, in megabytes.
const SCRAPE: f64 = 50.0;
const SCRAPE_SIZE: f64 = 10.0;
/// How soon a change of all services is to be live, in milliseconds.
const CHANGE: f64 = 50.0;

/// Measures the daemon over both kinds of servers.
pub fn measure(filter: &Filter) -> Table {
    let mut found = Vec::new();
    for kind in ["processes", "nginx"].into_iter().filter(|kind| filter.takes(kind)) {
        raise_open_file_limit();
        let pair = Pair::new();
        let addresses: Vec<_> = (0..SERVICES).map(|service| SocketAddr::new(pair.server_v4[0], FIRST_PORT + service)).collect();
        let (mut processes, mut nginx) = (Vec::new(), None);
        if kind == "nginx" {
            nginx = Some(Nginx::start(&pair.server, &addresses, WORKERS.into()));
        } else {
            processes.extend(addresses.iter().map(|at| ManySockets::start(&pair.server, &WorkerPlan::tcp(*at), WORKERS.into())));
        }
        found.extend(of_daemon(kind, &pair, &addresses));
        drop((processes, nginx));
    }
    let about = format!(
        "**Daemon**: with {SERVICES} services of {WORKERS} workers, measured {} s after its start and for {} s",
        SETTLE.as_secs(),
        IDLE.as_secs()
    );
    figures(about, &found)
}

fn of_daemon(kind: &str, pair: &Pair, addresses: &[SocketAddr]) -> Vec<Figure> {
    let start = Instant::now();
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    let ready = start.elapsed().as_secs_f64();
    weir.wait_for_backends(usize::from(SERVICES * WORKERS));
    std::thread::sleep(SETTLE);
    let daemon = weir.pid();
    let helper = *children(daemon).first().expect("the helper's process");
    let memory = |pid: u32, field: &str| Memory::of(pid).megabytes(field);
    let resident = [memory(daemon, "VmRSS:"), memory(daemon, "RssAnon:"), memory(daemon, "Pss:"), memory(daemon, "VmHWM:")];
    let of_helper = memory(helper, "VmRSS:");

    let (before, started) = ([daemon, helper].map(ticks), Instant::now());
    std::thread::sleep(IDLE);
    let watched = started.elapsed().as_secs_f64();
    let used = [daemon, helper].map(ticks);
    let per_second = ticks_per_second();
    let [of_core, helpers_of_core] = [0, 1].map(|at| (used[at] - before[at]) / per_second / watched * 100.0);

    let mut scrapes = Vec::new();
    let mut size = 0.0;
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let response = http::get_once(weir.http_address(), "/metrics", Duration::from_secs(20)).expect("/metrics");
        assert_eq!(response.status, 200, "/metrics");
        scrapes.push(start.elapsed().as_secs_f64() * 1e3);
        size = f64::from(u32::try_from(response.body.len()).expect("a size of 32 bits")) / 1e6;
    }
    let after_scrapes = memory(daemon, "VmRSS:");
    let (joins, leaves) = all_change(&weir, pair, addresses);

    let name = |what: &str| format!("{kind}: {what}");
    vec![
        Figure::new(&name("resident"), "MB", [resident[0]], Some(MEMORY)),
        Figure::new(&name("resident, daemon and helper"), "MB", [resident[0] + of_helper], None),
        Figure::new(&name("of that its own (RssAnon)"), "MB", [resident[1]], None),
        Figure::new(&name("proportional (Pss)"), "MB", [resident[2]], None),
        Figure::new(&name("most at any time (VmHWM)"), "MB", [resident[3]], None),
        Figure::new(&name("resident after the scrapes"), "MB", [after_scrapes], Some(MEMORY)),
        Figure::new(&name("idle, daemon and helper"), "% of a core", [of_core + helpers_of_core], Some(PROCESSOR)),
        Figure::new(&name("idle, the helper alone"), "% of a core", [helpers_of_core], None),
        Figure::new(&name("start until ready"), "s", [ready], None),
        Figure::new(&name("scrape of /metrics"), "ms", scrapes, Some(SCRAPE)),
        Figure::new(&name("size of /metrics"), "MB", [size], Some(SCRAPE_SIZE)),
        Figure::new(&name("a worker joins every service, until live"), "ms", joins, Some(CHANGE)),
        Figure::new(&name("it leaves every service, until live"), "ms", leaves, Some(CHANGE)),
    ]
}

/// A process gets a listener in each group, at once, and closes them at once: milliseconds until all tables have it, and have it no more.
fn all_change(weir: &Weir, pair: &Pair, addresses: &[SocketAddr]) -> (Vec<f64>, Vec<f64>) {
    let tables = LiveTables::open(weir, pair, addresses);
    let bind = |address: &SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&(*address).into()).expect("bind to a group");
        socket
    };
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..JOINS {
        let sockets: Vec<_> = pair.server.run(|| addresses.iter().map(bind).collect());
        let start = Instant::now();
        for socket in &sockets {
            socket.listen(128).expect("listen");
        }
        joins.push(tables.wait_until(true, start));
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        drop(sockets);
        leaves.push(tables.wait_until(false, start));
        std::thread::sleep(Duration::from_millis(300));
    }
    (joins, leaves)
}

/// The tables in the kernel, asked whether they name a worker beyond the sixteen.
struct LiveTables {
    tables: ArrayOfMaps<MapData, Array<MapData, u32>>,
    services: Vec<u32>,
}

impl LiveTables {
    fn open(weir: &Weir, pair: &Pair, addresses: &[SocketAddr]) -> Self {
        let pins = Pins::at(weir.pins());
        let maps = Maps::pinned(&pins, lb_common::abi::ABI_VERSION).expect("the pinned maps");
        let interface = pair.server.run(|| nix::net::if_::if_nametoindex(Pair::SERVER_DEVICE)).expect("the interface");
        let service = |at: &SocketAddr| {
            let key = ServiceKey::new(Address::from(at.ip()), at.port(), protocol::TCP, interface);
            maps.service(&key).expect("the services").expect("an entry for each service").service
        };
        let data = MapData::from_pin(pins.map("TABLES")).expect("the pinned tables");
        let tables = Map::from_map_data(data).and_then(ArrayOfMaps::try_from).expect("the map of tables");
        Self { tables, services: addresses.iter().map(service).collect() }
    }

    /// Milliseconds from `start` until every table has such a worker, or none has.
    fn wait_until(&self, present: bool, start: Instant) -> f64 {
        let has_it = |service: &u32| {
            let table = self.tables.get(service, 0).expect("a table for each service");
            table.get(&(1 + u32::from(WORKERS)), 0).expect("an element of a table") != NO_SLOT
        };
        for service in &self.services {
            while has_it(service) != present {
                assert!(start.elapsed() < Duration::from_secs(20), "the tables do not follow");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        start.elapsed().as_secs_f64() * 1e3
    }
}

/// What /proc says of a process's memory.
struct Memory(String);

impl Memory {
    fn of(pid: u32) -> Self {
        let file = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the process lives");
        Self(file("status") + &file("smaps_rollup"))
    }

    /// A field in kibibytes, in millions of bytes.
    fn megabytes(&self, field: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the process's status");
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a size");
        kibibytes * 1024.0 / 1e6
    }
}

/// The time of the CPU that a process has used, in ticks: fields 14 and 15 of /proc/PID/stat.
fn ticks(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name in brackets").1.split_whitespace().collect();
    let field = |number: usize| -> f64 { fields[number - 3].parse().expect("a number of ticks") };
    field(14) + field(15)
}

fn ticks_per_second() -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).expect("sysconf").expect("a clock of ticks");
    f64::from(u32::try_from(ticks).expect("a small number"))
}
