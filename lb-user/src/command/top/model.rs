//! What `weir top` shows: the last snapshot, what happened since the one before, and where the user is. No I/O, no clock.

use std::collections::{BTreeMap, VecDeque};

use super::sorting::{ServiceOrder, WorkerOrder};
use crate::observe::{
    rates::{BackendRates, Rates, ServiceRates, quantile},
    snapshot::{Backend, Queue, Queues, Service, Snapshot},
};

/// How many moments the sparklines go back.
pub(super) const MOMENTS: usize = 240;

/// The state of the view.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// What is shown.
    pub snapshot: Snapshot,
    /// What happened since the snapshot before; none after the first.
    pub rates: Option<Rates>,
    /// What the sparklines show, by the service's name.
    pub history: BTreeMap<String, VecDeque<Moment>>,
    /// Which table the keys move in.
    pub focus: Focus,
    /// The name of the chosen service.
    service: Option<String>,
    /// The cookie of the chosen worker's socket.
    worker: Option<u64>,
    /// How the services are sorted.
    pub service_order: ServiceOrder,
    /// How the workers are sorted.
    pub worker_order: WorkerOrder,
    /// Whether that of the services is turned round.
    pub services_reversed: bool,
    /// Whether that of the workers is turned round.
    pub workers_reversed: bool,
    /// What lies over the tables.
    pub over: Over,
    /// What came of the last key, until the next one.
    pub message: Option<Message>,
    /// Why the last look failed: what is shown is old.
    pub failure: Option<String>,
}

/// A table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Focus {
    /// The services.
    #[default]
    Services,
    /// The workers of the chosen service.
    Workers,
}

/// What lies over the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The help.
    Help,
    /// Whether an order is meant.
    Question(Order),
}

/// An order that waits for its confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The service's name.
    pub service: String,
    /// The backend's number.
    pub backend: u32,
    /// The cookie of its socket: another worker may have the number by the time of the answer.
    pub cookie: u64,
    /// Drain or undrain.
    pub drain: bool,
}

/// A sentence about what was done or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The sentence.
    pub text: String,
    /// Whether it was refused.
    pub is_bad: bool,
}

/// What the sparklines show of one moment of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Moment {
    /// Connections, or UDP flows, per second.
    pub connections: f64,
    /// Packets dropped by XDP and behind it, per second.
    pub drops: f64,
    /// What waits in the accept queues, or in the receive queues in bytes.
    pub waiting: u64,
}

impl Model {
    /// Shows this snapshot, and what happened since the last one.
    pub(super) fn look(&mut self, snapshot: Snapshot) {
        self.rates = Rates::between(&self.snapshot, &snapshot);
        self.snapshot = snapshot;
        self.failure = None;
        self.history.retain(|name, _| self.snapshot.service(name).is_some());
        for service in &self.snapshot.services {
            let rates = self.rates.as_ref().and_then(|rates| rates.services.get(&service.name));
            let moments = self.history.entry(service.name.clone()).or_default();
            if let Some(rates) = rates {
                moments.push_back(Moment::of(service, rates));
            }
            moments.drain(..moments.len().saturating_sub(MOMENTS));
        }
        self.settle();
    }

    /// The first snapshot.
    pub(super) fn of(snapshot: Snapshot) -> Self {
        let mut model = Self { snapshot, ..Self::default() };
        model.settle();
        model
    }

    /// The services as they are sorted.
    pub(super) fn services(&self) -> Vec<&Service> {
        let mut services: Vec<&Service> = self.snapshot.services.iter().collect();
        services.sort_by(|one, other| self.service_order.compare((one, self.rates_of(one)), (other, self.rates_of(other))));
        if self.services_reversed {
            services.reverse();
        }
        services
    }

    /// The chosen service's workers as they are sorted.
    pub(super) fn workers(&self) -> Vec<&Backend> {
        let Some(service) = self.chosen_service() else { return Vec::new() };
        let rates = |backend: &Backend| self.rates_of(service)?.backends.get(&backend.cookie);
        let mut workers: Vec<&Backend> = service.backends.iter().collect();
        workers.sort_by(|one, other| self.worker_order.compare(service.protocol, (one, rates(one)), (other, rates(other))));
        if self.workers_reversed {
            workers.reverse();
        }
        workers
    }

    /// The chosen service.
    pub(super) fn chosen_service(&self) -> Option<&Service> {
        self.snapshot.service(self.service.as_deref()?)
    }

    /// The chosen worker.
    pub(super) fn chosen_worker(&self) -> Option<&Backend> {
        self.chosen_service()?.backends.iter().find(|backend| Some(backend.cookie) == self.worker)
    }

    /// What happened at the service.
    pub(super) fn rates_of(&self, service: &Service) -> Option<&ServiceRates> {
        self.rates.as_ref()?.services.get(&service.name)
    }

    /// Packets lost behind XDP at the service, per second; none where nothing of it is known.
    pub(super) fn lost(&self, service: &Service) -> Option<f64> {
        self.rates_of(service)?.known_lost(&self.snapshot.watch, service.protocol)
    }

    /// The same at one of its workers.
    pub(super) fn lost_at(&self, service: &Service, backend: &Backend) -> Option<f64> {
        self.rates_of(service)?.backends.get(&backend.cookie)?.known_lost(&self.snapshot.watch, service.protocol)
    }

    /// Chooses another row of the table in focus, so many further; it stops at the ends.
    pub(super) fn step(&mut self, by: isize) {
        match self.focus {
            Focus::Services => {
                let services = self.services();
                let at = services.iter().position(|service| Some(service.name.as_str()) == self.service.as_deref());
                self.service = moved(&services, at, by).map(|service| service.name.clone());
                self.worker = None;
            }
            Focus::Workers => {
                let workers = self.workers();
                let at = workers.iter().position(|backend| Some(backend.cookie) == self.worker);
                self.worker = moved(&workers, at, by).map(|backend| backend.cookie);
            }
        }
        self.settle();
    }

    /// What is chosen may have gone: then the first is.
    fn settle(&mut self) {
        if self.chosen_service().is_none() {
            self.service = self.services().first().map(|service| service.name.clone());
            self.worker = None;
        }
        if self.chosen_worker().is_none() {
            self.worker = self.workers().first().map(|backend| backend.cookie);
        }
    }
}

impl Moment {
    fn of(service: &Service, rates: &ServiceRates) -> Self {
        let waiting = queues(service).filter_map(|queues| queues.accept_queue.or(queues.receive_queue));
        Self {
            connections: rates.connections,
            drops: rates.dropped.packets + rates.lost(service.protocol),
            waiting: waiting.map(|queue| u64::from(queue.length)).sum(),
        }
    }
}

fn moved<'a, T>(rows: &[&'a T], at: Option<usize>, by: isize) -> Option<&'a T> {
    let last = rows.len().checked_sub(1)?;
    let to = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
    rows.get(to).copied()
}

/// The queues of all sockets of a service.
pub(super) fn queues(service: &Service) -> impl Iterator<Item = &Queues> {
    service.backends.iter().map(|backend| &backend.queues).chain(service.listening.iter().map(|socket| &socket.queues))
}

/// The fullest of the queues.
pub(super) fn fullest(queues: impl Iterator<Item = Option<Queue>>) -> Option<Queue> {
    queues.flatten().max_by(|one, other| fill(*one).total_cmp(&fill(*other)))
}

/// Where connections wait for a worker: the accept queue, or UDP's receive queue.
pub(super) fn entrance(queues: &Queues) -> Option<Queue> {
    queues.accept_queue.or(queues.receive_queue)
}

/// How full a queue is; above 1 when it is over its limit.
pub(super) fn fill(queue: Queue) -> f64 {
    f64::from(queue.length) / f64::from(queue.limit.max(1))
}

/// How long connections wait for a worker, in seconds: the 99th percentile of the accepts since the last look (the mean where each accept
/// is not measured), or the wait of the connection at the head of the queue if that is longer, as it is when nobody accepts.
pub(super) fn wait(backend: &Backend, rates: Option<&BackendRates>) -> Option<f64> {
    let accepted = rates.and_then(|rates| match &rates.accept_latency {
        Some(times) => quantile(times, 0.99),
        None => rates.mean_wait(),
    });
    [accepted, backend.queues.oldest_wait].into_iter().flatten().reduce(f64::max)
}
