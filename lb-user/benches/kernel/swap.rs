//! What a change costs between the daemon's notice of it and the moment when no program reads an old table.
//!
//! The daemon's own functions run here, on maps of their own that no packet reaches: plan, fill the tables, write them, swap them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Instant,
};

use lb_user::{
    config::{self, Config, Limits, Protocol},
    dataplane::{Dataplane, Options, Pins},
    listeners::{Holder, Listener},
    observe::reader,
    plan::{
        self, Attached, Backend, Changes, Device, Host, Inputs, Member, Plan, Process, Registry, Service, ServiceDefence, State, Tables,
    },
};

use crate::{
    Filter,
    report::{Figure, Table, figures},
    support::daemon::mount_bpffs,
};

/// Medians of so many.
const ROUNDS: usize = 15;
/// What each change may take, in milliseconds.
const AT_MOST: f64 = 50.0;
/// The large group.
const WORKERS: u32 = 1000;
const ENTRIES: u32 = 65_537;
/// The many services.
const SERVICES: u16 = 100;
const WORKERS_EACH: u16 = 16;

/// Measures both changes, with their parts.
pub fn measure(filter: &Filter) -> Table {
    let (large, many) = ("1,000 workers", ["100 services", "100 weighted services"]);
    let mut found = Vec::new();
    if filter.takes(large) || many.iter().any(|name| filter.takes(name)) {
        mount_bpffs();
        let mut maps = OwnMaps::new();
        if filter.takes(large) {
            found.extend(one_large(&mut maps));
        }
        for (name, weighted) in many.into_iter().zip([false, true]).filter(|(name, _)| filter.takes(name)) {
            found.extend(many_at_once(&mut maps, name, weighted));
        }
    }
    figures(format!("**Swap**: from a change to its being live; {ROUNDS} rounds"), &found)
}

/// A data plane that is attached to nothing, and gone with this value.
struct OwnMaps {
    plane: Dataplane,
    directory: PathBuf,
}

impl OwnMaps {
    fn new() -> Self {
        let directory = PathBuf::from(format!("/sys/fs/bpf/weir/weirt-{}-swap", std::process::id()));
        let options = Options { limits: Limits::default(), flow_hash_key: None };
        let plane = Dataplane::open(Pins::at(directory.clone()), &options).unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self { plane, directory }
    }

    /// Swaps and says how many milliseconds that took.
    fn swap(&mut self, tables: Vec<(u32, Vec<u32>)>) -> f64 {
        let tables: Vec<_> = tables.into_iter().map(|(service, table)| (service, Some(table))).collect();
        let start = Instant::now();
        self.plane.maps.swap_tables(&tables).expect("swap tables");
        milliseconds(start)
    }
}

impl Drop for OwnMaps {
    fn drop(&mut self) {
        if let Err(error) = self.plane.pins.remove_all() {
            eprintln!("{} was not removed: {error}", self.directory.display());
        }
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// One service of 1,000 workers, one of whom has left.
fn one_large(maps: &mut OwnMaps) -> Vec<Figure> {
    let [mut fill, mut shares, mut grace, mut swap, mut whole] = [(); 5].map(|()| Vec::new());
    for round in 0..ROUNDS {
        let service = large_service(u32::try_from(round).expect("few"));
        let start = Instant::now();
        let table = Tables::default().table(&service);
        fill.push(milliseconds(start));
        let start = Instant::now();
        assert_eq!(reader::shares(&service, &table).len(), service.backends.len());
        shares.push(milliseconds(start));
        grace.push(maps.swap(vec![(1, vec![0])]));
        swap.push(maps.swap(vec![(1, table)]));
        whole.push(fill[round] + shares[round] + swap[round]);
    }
    let name = |what: &str| format!("1,000 workers, 65,537 entries: {what}");
    vec![
        Figure::new(&name("whole"), "ms", whole, Some(AT_MOST)),
        Figure::new(&name("fill the table"), "ms", fill, None),
        Figure::new(&name("count the shares"), "ms", shares, None),
        Figure::new(&name("write and swap it"), "ms", swap, None),
        Figure::new(&name("swap of a table of one entry"), "ms", grace, None),
    ]
}

fn large_service(absent: u32) -> Service {
    let backend = |index: u32| Backend {
        index,
        slot: index,
        generation: 1,
        cookie: u64::from(index) + 1,
        inode: index + 1,
        weight: 1,
        state: State::Ready,
        servers: Vec::new(),
        holders: Vec::new(),
    };
    Service {
        index: 1,
        name: "large".to_owned(),
        protocol: Protocol::Tcp,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: 80,
        device: None,
        configured: true,
        takeover: false,
        balanced: true,
        stance: config::Stance::Off,
        defence: ServiceDefence::default(),
        flags: 0,
        table_size: ENTRIES,
        entries: Vec::new(),
        backends: (0..=WORKERS).filter(|index| *index != absent).map(backend).collect(),
        listeners: Vec::new(),
        notes: Vec::new(),
    }
}

/// Each of 100 services loses one worker, at once. Those whose workers have the same weights share the computation of their tables;
/// with weights of their own no two have anything in common, which is the worst that can come.
fn many_at_once(maps: &mut OwnMaps, services: &str, weighted: bool) -> Vec<Figure> {
    let [mut planning, mut shares, mut writing, mut swap, mut whole] = [(); 5].map(|()| Vec::new());
    let mut world = World::new(weighted);
    let mut carry_out = |changes: Changes, plan: &Plan, measured: bool| {
        let start = Instant::now();
        for (index, table) in &changes.tables {
            let service = plan.services.iter().find(|service| service.index == *index).expect("a service for each table");
            assert!(!reader::shares(service, table).is_empty());
        }
        let counted = milliseconds(start);
        let start = Instant::now();
        for (slot, state) in changes.states {
            maps.plane.maps.set_backend(slot, state).expect("write a slot's state");
        }
        for (key, record) in changes.groups {
            maps.plane.maps.set_group(key, record).expect("write a group");
        }
        for (key, record) in changes.services {
            maps.plane.maps.set_service(key, record).expect("write a service");
        }
        let written = milliseconds(start);
        let swapped = maps.swap(changes.tables);
        if measured {
            shares.push(counted);
            writing.push(written);
            swap.push(swapped);
        }
        counted + written + swapped
    };
    let all = world.members.clone();
    let first = world.step();
    carry_out(first, &world.plan, false);
    for round in 0..ROUNDS {
        // Another one of each service, so that the plan has nothing to remember.
        let turn = |member: &Member| member.listener.cookie + round as u64 + u64::from(member.listener.port);
        let leaves = |member: &Member| turn(member).is_multiple_of(u64::from(WORKERS_EACH));
        world.members.retain(|member| !leaves(member));
        let start = Instant::now();
        let changes = world.step();
        planning.push(milliseconds(start));
        assert_eq!(changes.tables.len(), usize::from(SERVICES), "every service has another table");
        whole.push(planning[round] + carry_out(changes, &world.plan, true));
        world.members.clone_from(&all);
        let back = world.step();
        carry_out(back, &world.plan, false);
    }
    let name = |what: &str| format!("{services} of 16 workers, all changed: {what}");
    vec![
        Figure::new(&name("whole"), "ms", whole, Some(AT_MOST)),
        Figure::new(&name("plan, and fill the tables"), "ms", planning, None),
        Figure::new(&name("count the shares"), "ms", shares, None),
        Figure::new(&name("write slots, groups, services"), "ms", writing, None),
        Figure::new(&name("write and swap the tables"), "ms", swap, None),
    ]
}

/// What the plan is made from: 100 services of nginx, whose every worker holds every socket.
struct World {
    config: Config,
    host: Host,
    members: Vec<Member>,
    registry: Registry,
    plan: Plan,
}

impl World {
    fn new(weighted: bool) -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ports = || (0..SERVICES).map(|service| 8000 + service);
        let service = |port: u16| config::Service {
            name: format!("s{port}"),
            protocol: Protocol::Tcp,
            port,
            address,
            interface: None,
            table_size: None,
            takeover: false,
            weights: if weighted { (0..WORKERS_EACH).map(|worker| u32::from((port + worker) % 7 + 1)).collect() } else { Vec::new() },
            defence: config::ServiceDefence::default(),
            quic: None,
        };
        let config = Config { services: ports().map(service).collect(), ..Config::default() };
        let attached = Attached {
            index: 2,
            loopback: false,
            macs: [1, 2],
            mtu: 1_500,
            addresses: BTreeSet::from([IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]),
            devices: BTreeSet::from([2]),
        };
        let host = Host { attached: vec![attached], devices: vec![Device { index: 2, name: "eth0".to_owned() }] };
        let process = |pid: u16| Process { pid: pid.into(), command: "nginx".to_owned() };
        let member = |port: u16, worker: u16| {
            let number = u32::from(port - 8000) * u32::from(WORKERS_EACH) + u32::from(worker) + 1;
            let holder = |pid: u16| Holder { pid: pid.into(), fd: number.cast_signed(), command: "nginx".to_owned() };
            Member {
                listener: Listener {
                    protocol: Protocol::Tcp,
                    address,
                    port,
                    v6only: false,
                    device: 0,
                    inode: number,
                    cookie: number.into(),
                    uid: 0,
                    queue: None,
                    receive_buffer: None,
                },
                reuseport: true,
                holders: (1..=WORKERS_EACH).map(holder).collect(),
                servers: vec![process(worker + 1)],
                unserved: false,
                foreign_program: false,
            }
        };
        let members = ports().flat_map(|port| (0..WORKERS_EACH).map(move |worker| member(port, worker))).collect();
        Self { config, host, members, registry: Registry::default(), plan: Plan::default() }
    }

    /// Plans, keeps what the daemon keeps, and answers with the changes.
    fn step(&mut self) -> Changes {
        let drains = BTreeSet::new();
        let inputs = Inputs { config: &self.config, host: &self.host, members: &self.members, drains: &drains };
        let (next, registry) = plan::plan(&inputs, &self.registry);
        let changes = plan::changes(&self.plan, &next);
        (self.plan, self.registry) = (next, registry);
        let left: Vec<u32> = self.registry.quarantined().collect();
        self.registry.release(&left);
        changes
    }
}
