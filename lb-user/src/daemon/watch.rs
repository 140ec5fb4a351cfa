//! The daemon's part of watching: when to look at the queues, and which sockets are looked at.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use lb_common::abi::{DropKey, NO_SLOT, SocketQueues};

use super::Daemon;
use crate::{
    dataplane::{Error, monotonic_time},
    network,
    observe::{
        queues::{Look, Watched},
        snapshot::{Queue, Queues, Watch},
    },
};

/// A look that is not older is fresh enough for whoever asks.
const FRESH: Duration = Duration::from_millis(20);
/// How much of the time may go into looking: one part in this many.
const SHARE: u32 = 20;

/// What the daemon knows of the sockets that are watched.
#[derive(Debug)]
pub(super) struct Watcher {
    next: Instant,
    last: Option<Instant>,
    took: Option<Duration>,
    sockets: HashMap<u64, Watched>,
    /// The listeners that are no backends and are watched all the same, by cookie.
    listeners: HashSet<u64>,
}

impl Watcher {
    pub fn new() -> Self {
        Self { next: Instant::now(), last: None, took: None, sockets: HashMap::new(), listeners: HashSet::new() }
    }

    /// When to look next.
    pub fn next(&self) -> Instant {
        self.next
    }
}

impl Daemon {
    /// Looks at the queues if it is time.
    pub(super) fn watch(&mut self) {
        if Instant::now() >= self.watcher.next {
            self.look();
            let took = self.watcher.took.unwrap_or_default();
            self.watcher.next = Instant::now() + self.config.observe.interval.max(took * SHARE);
        }
    }

    fn look(&mut self) {
        let began = Instant::now();
        let Some(seen) = self.dataplane.queues() else { return };
        match seen {
            Ok(seen) => self.note(&seen, began),
            Err(error) => tracing::warn!("{:#}", anyhow::Error::from(error)),
        }
    }

    fn note(&mut self, seen: &HashMap<u64, SocketQueues>, began: Instant) {
        let watcher = &mut self.watcher;
        let since_last = watcher.last.map_or(Duration::ZERO, |last| began.saturating_duration_since(last));
        let look = Look { since_last, cookies: self.guard.host.syncookies != 0 };
        let after = seen.iter().map(|(cookie, seen)| (*cookie, Watched::after(watcher.sockets.get(cookie), *seen, look)));
        watcher.sockets = after.collect();
        watcher.last = Some(began);
        watcher.took = Some(began.elapsed());
    }

    /// What waits at the sockets of services, by cookie, as it is now.
    pub(super) fn queues(&mut self) -> HashMap<u64, Queues> {
        if self.watcher.last.is_none_or(|last| last.elapsed() > FRESH) {
            self.look();
        }
        let now = monotonic_time();
        let mut queues: HashMap<u64, Queues> =
            self.watcher.sockets.iter().map(|(cookie, watched)| (*cookie, watched.queues(now))).collect();
        let unseen = |cookie: &u64| !self.watcher.sockets.contains_key(cookie);
        let services = self.plan.services.iter();
        let cookies = services.flat_map(|service| {
            service.backends.iter().map(|backend| backend.cookie).chain(service.listeners.iter().map(|listener| listener.cookie))
        });
        if cookies.into_iter().any(|cookie| unseen(&cookie)) {
            // Without the iterator, and for a socket that could not be taken, there is what sock_diag says.
            for (cookie, (length, limit)) in self.survey.queues().into_iter().filter(|(cookie, _)| unseen(cookie)) {
                queues.insert(cookie, Queues { accept_queue: Some(Queue { length, limit }), ..Queues::default() });
            }
        }
        queues
    }

    /// Lets the listeners that are no backends be watched as well. Backends are when they get their slot.
    pub(super) fn watch_listeners(&mut self) {
        let wanted: Vec<_> = self.plan.services.iter().flat_map(|service| service.listeners.iter().copied()).collect();
        let cookies: HashSet<u64> = wanted.iter().map(|listener| listener.cookie).collect();
        self.watcher.listeners.retain(|cookie| cookies.contains(cookie));
        for listener in wanted {
            if self.watcher.listeners.contains(&listener.cookie) {
                continue;
            }
            // One that cannot be taken is tried again with the next plan.
            let Some(socket) = self.survey.take_known(listener.inode, listener.cookie) else { continue };
            match self.dataplane.maps.watch.watch(&socket) {
                Ok(()) => drop(self.watcher.listeners.insert(listener.cookie)),
                Err(error) => tracing::debug!("{:#}", anyhow::Error::from(error)),
            }
        }
    }

    /// Attaches what counts drops and times.
    pub(super) fn attach_watchers(&mut self) {
        if let Err(error) = self.dataplane.attach_watchers(self.config.observe.kernel_drops) {
            tracing::warn!("{:#}; what it would count is left out", anyhow::Error::from(error));
        }
    }

    /// Removes the rows of drops whose backend is no more: the table of rows is bounded.
    pub(super) fn prune_drops(&mut self) -> Result<(), Error> {
        if !self.dataplane.watching.kernel_drops {
            return Ok(());
        }
        let backends = self.plan.services.iter().flat_map(|service| &service.backends);
        let present: HashSet<(u32, u32)> = backends.map(|backend| (backend.slot, backend.generation)).collect();
        let (rows, _) = self.dataplane.maps.watch.kernel_drops()?;
        let is_left = |key: &DropKey| key.slot != NO_SLOT && !present.contains(&(key.slot, key.generation));
        rows.iter().filter(|(key, _)| is_left(key)).try_for_each(|(key, _)| self.dataplane.maps.watch.forget_drops(key))
    }

    /// How it is watched.
    pub(super) fn how_watched(&self) -> Watch {
        let watching = self.dataplane.watching;
        let iterator = self.dataplane.has_queues();
        let latency = match (watching.accepts, iterator) {
            (true, _) => Some("measured"),
            (false, true) => Some("estimated"),
            (false, false) => None,
        };
        Watch {
            interval: Some(self.config.observe.interval.as_secs_f64()),
            look: self.watcher.took.map(|took| took.as_secs_f64()),
            listeners: self.watcher.sockets.len() as u64,
            syn_queues: iterator.then(|| "iterator".to_owned()),
            accept_latency: latency.map(str::to_owned),
            backend_series: Some(self.config.observe.backend_series),
            kernel_drops: watching.kernel_drops,
            kernel_drops_by_backend: watching.kernel_drops && watching.drops_by_backend,
        }
    }
}

/// What TCP counts of listeners and cookies in the namespace of the calling thread, by the kernel's names.
pub(super) fn tcp_counters() -> std::collections::BTreeMap<String, u64> {
    /// In the order of their weight for who was paged.
    const WANTED: [&str; 7] = [
        "ListenOverflows",
        "ListenDrops",
        "TCPReqQFullDrop",
        "TCPReqQFullDoCookies",
        "SyncookiesSent",
        "SyncookiesRecv",
        "SyncookiesFailed",
    ];
    let counters = network::tcp_counters().unwrap_or_default();
    counters.into_iter().filter(|(name, _)| WANTED.contains(&name.as_str())).collect()
}
