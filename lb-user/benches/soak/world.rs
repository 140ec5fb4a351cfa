//! What the soak disturbs: a pair of namespaces, two groups of our workers and an nginx with two addresses, and Weir before them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_user::{
    observe::snapshot::{Service, Snapshot},
    plan::State,
};

use crate::{
    netns::live::{PATIENCE, status},
    support::{
        daemon::Weir,
        flood::ready,
        load::{Held, Plan},
        netns::Pair,
        random::Random,
        servers::{Nginx, WorkerPlan, Workers, long_body},
        wait::eventually,
    },
};

/// The services, in the order in which all lists here have them.
pub const SERVICES: [&str; 4] = ["workers-v4", "workers-v6", "nginx-v4", "nginx-v6"];
/// Those of our own workers come first.
pub const GROUPS: usize = 2;
/// How many workers each begins with.
const WORKERS: u32 = 4;
const PORTS: [u16; 4] = [8080, 8080, 80, 80];
/// A group has no fewer, and no more.
pub const FEWEST: usize = 3;
pub const MOST: usize = 8;
/// Connections to each group that stay open from round to round.
const HELD: usize = 40;

/// Our own workers of one address.
#[derive(Debug)]
pub struct Group {
    pub workers: Workers,
    /// Those that serve: by index, the cookie and whether it is drained.
    pub serving: BTreeMap<u32, (u64, bool)>,
    /// Those that have closed their listening socket and keep their connections.
    closed: Vec<u32>,
    /// Connections that stay open.
    pub held: Option<Held>,
}

impl Group {
    fn start(pair: &Pair, target: SocketAddr) -> Self {
        let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), WORKERS);
        let serving = workers.sockets().iter().map(|socket| (socket.index, (socket.cookie, false))).collect();
        Self { workers, serving, closed: Vec::new(), held: None }
    }

    pub fn join(&mut self) {
        let socket = self.workers.add();
        self.serving.insert(socket.index, (socket.cookie, false));
    }

    /// The worker accepts what waits and closes its listening socket.
    pub fn close(&mut self, index: u32) {
        self.serving.remove(&index);
        self.workers.close(index);
        self.closed.push(index);
    }

    /// Kills a worker: its listening socket.
    pub fn kill(&mut self, index: u32) -> u64 {
        let (cookie, _) = self.serving.remove(&index).unwrap_or_default();
        self.workers.kill9(index);
        cookie
    }

    /// Connections accepted by all processes that are left.
    pub fn accepted(&mut self) -> u64 {
        self.workers.counts().values().sum()
    }

    /// How many workers get new connections.
    pub fn undrained(&self) -> usize {
        self.serving.values().filter(|(_, drained)| !drained).count()
    }

    /// How many connections stay open at workers that have their listening socket.
    fn held_by_serving(&self) -> u64 {
        let all = |held: &Held| {
            let closed: usize = self.closed.iter().map(|index| held.held_by(*index)).sum();
            held.flows().len() - closed
        };
        self.held.as_ref().map_or(0, all) as u64
    }

    /// Ends the processes that only keep connections, which are let go first.
    fn let_go(&mut self) {
        self.held = None;
        for index in self.closed.drain(..) {
            self.workers.kill9(index);
        }
    }
}

/// All of it. Dropping it takes it away: the daemon first, the namespaces last.
#[derive(Debug)]
pub struct World {
    pub weir: Weir,
    pub groups: [Group; GROUPS],
    pub nginx: Nginx,
    pub nginx_workers: usize,
    pub pair: Pair,
    pub mac: [u8; 6],
    pub settings: Settings,
    /// How many flows with a port of their own there have been.
    flows: usize,
}

impl World {
    pub fn new() -> Self {
        let pair = Pair::new();
        let mac = ready(&pair);
        let groups = [0, 1].map(|service| Group::start(&pair, target(&pair, service)));
        let nginx = Nginx::start(&pair.server, &[target(&pair, 2), target(&pair, 3)], WORKERS as usize);
        let settings = Settings::new(&pair);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&settings.text()), &[]);
        let world = Self { weir, groups, nginx, nginx_workers: WORKERS as usize, pair, mac, settings, flows: 0 };
        world.wait_until_right();
        world
    }

    /// Whom to connect to, and what to ask.
    pub fn plan(&self, service: usize) -> Plan {
        let sources = if target(&self.pair, service).is_ipv4() { &self.pair.client_v4 } else { &self.pair.client_v6 };
        let plan = Plan::new(target(&self.pair, service), sources);
        if service < GROUPS { plan } else { plan.http("/body", Some(&long_body())).orderly_close() }
    }

    /// Where a service listens.
    pub fn target(&self, service: usize) -> SocketAddr {
        target(&self.pair, service)
    }

    /// Lets the connections go that were kept open, and opens others.
    pub fn hold_anew(&mut self) {
        for service in 0..GROUPS {
            let plan = self.plan(service).starting_at_flow(self.flows);
            let group = &mut self.groups[service];
            group.let_go();
            group.held = Some(Held::open(&self.pair.client, &plan, HELD));
        }
        self.flows += HELD;
    }

    /// Waits until the daemon has all backends as they are; panics when it has not in time.
    pub fn wait_until_right(&self) -> Snapshot {
        eventually(PATIENCE, || {
            let snapshot = status(&self.weir);
            self.is_right(&snapshot).map(|()| snapshot)
        })
    }

    fn is_right(&self, snapshot: &Snapshot) -> Result<(), String> {
        for (service, group) in self.groups.iter().enumerate() {
            let wanted: BTreeSet<_> = group.serving.values().copied().collect();
            let backends = &named(snapshot, service)?.backends;
            let told: BTreeSet<_> = backends.iter().map(|backend| (backend.cookie, backend.state == State::Draining)).collect();
            let unserved = backends.iter().filter(|backend| backend.state == State::Unserved).count();
            if told != wanted || unserved > 0 {
                return Err(format!("{}: {unserved} unserved, {told:?} instead of {wanted:?}", SERVICES[service]));
            }
            // What is over is counted as over some moments later.
            let (open, held): (u64, u64) = (backends.iter().map(|backend| backend.open).sum(), group.held_by_serving());
            if open != held {
                return Err(format!("{}: {open} connections are said to be open, and {held} are", SERVICES[service]));
            }
        }
        for (service, name) in SERVICES.into_iter().enumerate().skip(GROUPS) {
            let backends = &named(snapshot, service)?.backends;
            let ready = backends.iter().filter(|backend| backend.state == State::Ready && backend.open == 0).count();
            if (ready, backends.len()) != (self.nginx_workers, self.nginx_workers) {
                return Err(format!("{name}: {ready} of {} backends are ready and idle", backends.len()));
            }
        }
        Ok(())
    }
}

/// A service of the snapshot.
pub fn named(snapshot: &Snapshot, service: usize) -> Result<&Service, String> {
    snapshot.service(SERVICES[service]).ok_or_else(|| format!("the status has no service {}", SERVICES[service]))
}

fn target(pair: &Pair, service: usize) -> SocketAddr {
    let addresses = if service.is_multiple_of(2) { &pair.server_v4 } else { &pair.server_v6 };
    SocketAddr::new(addresses[0], PORTS[service])
}

/// The configuration, as far as reloads change it.
#[derive(Clone, Debug)]
pub struct Settings {
    addresses: [IpAddr; SERVICES.len()],
    overfull: u64,
    look: u64,
    weights: [u64; 3],
    /// The sizes of the maps and of the tables: no other instance on this machine has them.
    pub services: u32,
    pub table: u32,
}

impl Settings {
    fn new(pair: &Pair) -> Self {
        /// Sizes that a table may have, of which the process' number takes one.
        const TABLES: [u32; 8] = [10_007, 10_037, 10_061, 10_067, 10_079, 10_091, 10_103, 10_133];
        let process = std::process::id();
        let addresses = [0, 1, 2, 3].map(|service| target(pair, service).ip());
        let table = TABLES[process as usize % TABLES.len()];
        Self { addresses, overfull: 90, look: 1000, weights: [1; 3], services: 2_000 + process % 997, table }
    }

    /// Other settings, each of which a running daemon takes.
    pub fn changed(&self, random: &mut Random) -> Self {
        let weights = [(); 3].map(|()| 1 + random.below(3));
        Self { overfull: 80 + random.below(20), look: 500 + random.below(1000), weights, ..self.clone() }
    }

    /// Floods begin at 10,000 packets a second and are over soon, and keys live as short as can be.
    pub fn text(&self) -> String {
        let head = format!(
            "[defence]\nflood_syns_per_second = 10000\nflood_strays_per_second = 10000\nquiet_time = \"2s\"\nminimum_time = \"2s\"\n\
             key_lifetime = \"10s\"\n[steering]\noverfull_percent = {}\n[observe]\ninterval = \"{}ms\"\n[limits]\nservices = {}\n",
            self.overfull, self.look, self.services
        );
        let service = |number: usize| {
            format!(
                "[[service]]\nname = \"{}\"\nprotocol = \"tcp\"\naddress = \"{}\"\nport = {}\ntable_size = {}\nweights = {:?}\n",
                SERVICES[number], self.addresses[number], PORTS[number], self.table, self.weights
            )
        };
        (0..SERVICES.len()).map(service).fold(head, |text, service| text + &service)
    }

    /// A fault in it.
    pub fn faulty(&self) -> String {
        format!("{}[discovery]\ntcp = \"perhaps\"\n", self.text())
    }
}
