//! The daemon: one loop over one closed list of events, on a thread of its own, that owns all state.
//!
//! Everything that can make it work is an [`Event`]; what produces them (sockets, signals, netlink, the ring buffer) runs elsewhere and
//! shares nothing with it. So there is no lock, and what happened is told by the order of events.

mod answer;
mod apply;
mod guard;
mod host;
pub mod notify;
mod order;
mod reload;
mod status;
mod story;
mod survey;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use lb_common::abi::{self, EventKind};

pub(crate) use apply::no_interface;
pub use guard::restore_settings;
pub use status::{failure, read as read_state};
pub use survey::Survey;

use crate::{
    api::{
        Question,
        protocol::{Request, Response},
    },
    cli::RunArgs,
    config::Config,
    dataplane::Dataplane,
    exit::Failure,
    network::Network,
    observe::{
        reader::unix_time,
        snapshot::{Interface, Reload},
    },
    plan::{self, GroupSockets, Inputs, Plan, Registry, SlotFill},
};

/// How long events may gather before they are acted on together.
const GATHER: Duration = Duration::from_millis(5);
/// How often it is looked at who serves what, at the most; see [`Daemon::look_interval`].
const LOOK: Duration = Duration::from_secs(1);
/// How much of the time may go into looking at who serves what: one part in this many.
const LOOK_SHARE: u32 = 200;
/// How often it is looked at who serves what, at the least: so long it takes at the most until a worker that is back gets connections.
const LOOK_AT_LEAST: Duration = Duration::from_secs(30);
/// How much of the time may go into full scans where listeners are noticed by event: one part in this many.
const SCAN_SHARE: u32 = 400;
/// How soon a plan that could not be carried out whole is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What makes the daemon do something.
#[derive(Debug)]
pub enum Event {
    /// A listener began or ended.
    Listener(abi::Event),
    /// The network namespace has other interfaces or addresses than before.
    Network(Box<Network>),
    /// Somebody asks or orders.
    Question(Question),
    /// Read the configuration again (SIGHUP).
    Reload,
    /// End (SIGTERM, SIGINT).
    End,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The data plane stays and goes on balancing.
    Left,
    /// The data plane is gone.
    Detached,
}

/// The daemon's state.
pub struct Daemon {
    /// The arguments, for a reload.
    pub args: RunArgs,
    /// What holds now.
    pub config: Config,
    /// The instance's name.
    pub instance: String,
    /// Where the plan is written for commands that run without the daemon.
    pub state_file: PathBuf,
    /// The network namespace.
    pub network: Network,
    /// The interfaces with the XDP program.
    pub attached: Vec<Interface>,
    /// The kernel's side.
    pub dataplane: Dataplane,
    /// The listeners.
    pub survey: Survey,
    /// What is kept between plans.
    pub registry: Registry,
    /// Whether listeners are noticed by event.
    pub events: bool,
    plan: Plan,
    shares: HashMap<u32, f64>,
    drains: BTreeSet<u64>,
    /// What the operator has ordered of the services' SYN defence.
    overrides: order::Overrides,
    /// The daemon's part of the SYN defence.
    guard: guard::Guard,
    /// What waits at the sockets of services.
    watcher: watch::Watcher,
    watchdog: notify::Watchdog,
    /// Sockets that could not be put into their slots yet.
    unfilled: Vec<SlotFill>,
    /// Groups that could not be given the selector yet.
    unattached: Vec<GroupSockets>,
    /// Whether the maps may differ from the plan, so that everything is written anew.
    rewrite: bool,
    started: Instant,
    started_at: f64,
    last_reload: Option<Reload>,
    last_scan: Option<Duration>,
    udp_flows: u64,
    next_scan: Instant,
    next_look: Instant,
    look_cost: Duration,
    retry: Option<Instant>,
}

/// What a daemon starts with.
pub struct Start {
    /// The arguments, for a reload.
    pub args: RunArgs,
    /// What holds.
    pub config: Config,
    /// The instance's name.
    pub instance: String,
    /// Where the plan is written.
    pub state_file: PathBuf,
    /// The network namespace.
    pub network: Network,
    /// The kernel's side, nothing attached yet.
    pub dataplane: Dataplane,
    /// The listeners, none listed yet.
    pub survey: Survey,
}

impl Daemon {
    /// Fills the maps with what is there, then attaches: when this returns, the data plane works.
    pub fn start(start: Start) -> Result<Self, Failure> {
        let Start { args, config, instance, state_file, network, dataplane, survey } = start;
        let now = Instant::now();
        let mut daemon = Self {
            registry: status::adopt(&state_file, &dataplane)?,
            drains: status::drains(&state_file),
            overrides: status::orders(&state_file),
            guard: guard::Guard::new(dataplane.maps.defence.live().map_err(failure)?, dataplane.maps.defence.told().map_err(failure)?),
            watcher: watch::Watcher::new(),
            watchdog: notify::Watchdog::of_environment(),
            args,
            config,
            instance,
            state_file,
            network,
            attached: Vec::new(),
            dataplane,
            survey,
            events: false,
            plan: Plan::default(),
            shares: HashMap::new(),
            unfilled: Vec::new(),
            unattached: Vec::new(),
            rewrite: false,
            started: now,
            started_at: unix_time(),
            last_reload: None,
            last_scan: None,
            udp_flows: 0,
            next_scan: now,
            next_look: now,
            look_cost: Duration::ZERO,
            retry: None,
        };
        let begun = daemon.begin();
        if begun.is_err() && daemon.dataplane.is_new {
            // Nothing was there before, and nothing stays. A data plane that was adopted goes on as it did.
            let _ = daemon.stop();
        }
        begun.map(|()| daemon)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        // The tracepoint comes first: a listener that begins during the scan is announced.
        match self.dataplane.attach_tracepoint() {
            Ok(()) => self.events = self.dataplane.has_events(),
            Err(error) => tracing::warn!("{:#}; listeners are noticed by scan alone", anyhow::Error::from(error)),
        }
        self.attach_watchers();
        self.relieve()?;
        self.attached = self.interfaces()?;
        self.scan();
        self.prune().map_err(failure)?;
        self.attach()?;
        // What a cookie's connection meets on its way can be tried only now.
        self.guard();
        self.dataplane.settle().map_err(failure)
    }

    /// Runs until it is told to end.
    pub fn run(mut self, events: &Receiver<Event>) -> Ended {
        loop {
            let first = match events.recv_timeout(self.patience()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            };
            let mut listeners = Vec::new();
            let gather_until = Instant::now() + GATHER;
            let mut next = first;
            while let Some(event) = next {
                match event {
                    Event::Listener(event) => listeners.push(event),
                    Event::Network(network) => self.network_changed(*network),
                    Event::Question((Request::Stop, answer)) => {
                        let response = self.stop();
                        let done = matches!(response, Response::Done { .. });
                        // Who asked may have left.
                        let _ = answer.send(response);
                        if done {
                            return Ended::Detached;
                        }
                    }
                    Event::Question((request, answer)) => {
                        let _ = answer.send(self.answer(request));
                    }
                    Event::Reload => {
                        let _ = self.reload();
                    }
                    Event::End => return self.end(),
                }
                // Listeners come in bursts: a reload of nginx or a start of many workers is one change of tables.
                let rest = gather_until.saturating_duration_since(Instant::now());
                next = match (listeners.is_empty(), rest.is_zero()) {
                    (true, _) => events.try_recv().ok(),
                    // What comes after that is another change: however many there are, the tables follow.
                    (false, true) => None,
                    (false, false) => events.recv_timeout(rest).ok(),
                };
            }
            self.listeners_changed(&listeners);
            self.keep_up();
        }
    }

    /// How long there is nothing to do unless something happens.
    fn patience(&self) -> Duration {
        let doubtful = self.survey.look_again_in().map(|after| Instant::now() + after);
        let always = [self.next_scan, self.next_look, self.guard.next(), self.watcher.next()];
        let sometimes = [self.watchdog.next(), self.retry, doubtful];
        let next = always.into_iter().chain(sometimes.into_iter().flatten()).min();
        next.map_or(LOOK, |next| next.saturating_duration_since(Instant::now()))
    }

    /// Does what is due by the clock.
    fn keep_up(&mut self) {
        self.watchdog.alive(Instant::now());
        self.guard();
        self.watch();
        let now = Instant::now();
        if now >= self.next_scan {
            self.scan();
        } else if self.retry.is_some_and(|retry| now >= retry) {
            self.relist(&BTreeSet::new(), true);
        }
        let doubtful = self.survey.look_again_in().is_some_and(|after| after.is_zero());
        if now >= self.next_look || doubtful {
            if Survey::wants_udp(&self.config) {
                // No tracepoint tells of a UDP socket that was bound: they are listed instead.
                self.relist(&BTreeSet::new(), false);
            }
            let changed = self.survey.look_at_servers();
            self.look_cost = now.elapsed();
            self.next_look = Instant::now() + self.look_interval();
            if changed {
                self.replan();
            }
        }
    }

    /// Looking at servers costs with the number of workers: the more it costs, the rarer it is.
    fn look_interval(&self) -> Duration {
        LOOK.max(self.look_cost * LOOK_SHARE).min(LOOK_AT_LEAST)
    }

    /// Looks at everything anew: repairs what went unnoticed.
    fn scan(&mut self) {
        let began = Instant::now();
        if let Err(error) = self.survey.list(&self.config, &self.dataplane, &BTreeSet::new()) {
            tracing::warn!("cannot list the listeners: {error}");
        }
        if self.last_scan.is_some() {
            self.survey.look_at_all(&self.dataplane);
        } else {
            self.survey.look_at_new(&BTreeSet::new());
        }
        self.replan();
        self.udp_flows = self.dataplane.maps.udp_flow_count();
        if let Err(error) = self.prune_drops() {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        let took = began.elapsed();
        self.last_scan = Some(took);
        // Without events the scan is all there is. With them it repairs what is rare, and is the rarer the more it costs.
        let interval = self.config.daemon.rescan_interval;
        let interval = if self.events { interval.max(took * SCAN_SHARE) } else { LOOK.min(interval) };
        self.next_scan = Instant::now() + interval;
    }

    fn listeners_changed(&mut self, events: &[abi::Event]) {
        let mut pids = BTreeSet::new();
        let mut ended = false;
        let mut flood = false;
        for event in events {
            match EventKind::of(event.kind) {
                Some(EventKind::ListenStart) => drop(pids.insert(event.pid)),
                Some(EventKind::ListenStop) => ended |= self.survey.forget(event.cookie),
                Some(EventKind::FloodStart) => flood = true,
                None => {}
            }
        }
        if flood {
            self.look_at_floods();
        }
        if !pids.is_empty() {
            // Other namespaces' listeners are announced as well: most of what is told means nothing here.
            self.relist(&pids, ended);
        } else if ended {
            self.replan();
        }
    }

    /// Lists the listeners, and plans anew if there is a reason to or the list is one.
    fn relist(&mut self, pids: &BTreeSet<u32>, replan: bool) {
        let changed = self.survey.list(&self.config, &self.dataplane, pids).unwrap_or_else(|error| {
            tracing::warn!("cannot list the listeners: {error}");
            false
        });
        if changed || replan || self.retry.is_some() {
            self.replan();
        }
        // A new listener does not wait for this.
        if self.survey.look_at_new(pids) {
            self.replan();
        }
    }

    fn network_changed(&mut self, network: Network) {
        self.network = network;
        self.guard.check_soon();
        let attached = self.interfaces_left();
        if attached != self.attached {
            self.attached = attached;
            if let Err(failure) = self.attach() {
                tracing::warn!("{}", failure.render());
            }
        }
        self.replan();
    }

    /// Makes the plan anew and carries out what has changed.
    fn replan(&mut self) {
        let host = self.host();
        let members = self.survey.members();
        let inputs = Inputs { config: &self.config, host: &host, members: &members, drains: &self.drains };
        let (mut next, registry) = plan::plan(&inputs, &self.registry);
        next.orders.clone_from(&self.overrides);
        let before = std::mem::replace(&mut self.registry, registry);
        self.clear_counters(&before);
        let previous = std::mem::take(&mut self.plan);
        let carried_out = if std::mem::take(&mut self.rewrite) { &Plan::default() } else { &previous };
        let whole = self.apply(carried_out, &next) && !self.rewrite;
        self.retry = (!whole).then(|| Instant::now() + RETRY);
        if next != previous {
            status::tell(&previous, &next);
            status::write(&self.state_file, &next);
        }
        self.plan = next;
        self.watch_listeners();
        self.defend();
    }

    fn end(mut self) -> Ended {
        if !self.config.daemon.detach_on_exit {
            return Ended::Left;
        }
        match self.stop() {
            Response::Done { .. } => Ended::Detached,
            _ => Ended::Left,
        }
    }
}
