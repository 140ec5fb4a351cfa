//! One moment: what the page shows now.

use std::net::SocketAddr;

use lb_common::flood::Mode;
use serde::Serialize;

use super::super::{
    rates::{Flow, Rates, ServiceRates, quantile},
    snapshot::{Backend, Queue, Queues, Service, ServiceDefence, Snapshot, Watch},
};
use crate::{config::Protocol, plan::Note};

/// How many services a moment shows.
pub const SERVICES: usize = 50;
/// How many workers a moment shows, of all services together; each service shows [`FEW`] at least.
pub const WORKERS: usize = 512;
const FEW: usize = 4;
/// How many reasons of drops are shown for a service: the largest.
const REASONS: usize = 16;

/// What the numbers of a [`Row`] are.
pub(super) const COLUMNS: [&str; 10] =
    ["connections", "opening", "answered", "dropped", "kernel", "no_room", "accept", "syn", "receive", "mode"];

/// What is remembered of a moment of a service: rates per second, lengths, and the defence's mode (0 calm, 1 lingering, 2 flood). What is
/// not known is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Row([Option<f32>; COLUMNS.len()]);

/// What the page shows now. All rates are per second.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Moment {
    /// Seconds since 1970.
    pub(super) at: f64,
    instance: String,
    version: Option<String>,
    uptime: f64,
    /// Why new connections are not balanced as they should be; none if they are.
    not_ready: Option<&'static str>,
    interfaces: Vec<String>,
    /// How cookies are made.
    scheme: String,
    /// Whether XDP may answer SYNs.
    live: bool,
    accept_latency: Option<String>,
    /// All packets that XDP sees; none before there are rates, as with those below.
    seen: Option<Flow>,
    /// Of those, what is no service's and passes untouched.
    passed: Option<Flow>,
    notes: Vec<Note>,
    /// In the snapshot's order.
    pub(super) services: Vec<Lane>,
    /// Services that are left out.
    folded: usize,
}

/// A service.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Lane {
    pub(super) name: String,
    protocol: Protocol,
    address: SocketAddr,
    balanced: bool,
    defence: Option<ServiceDefence>,
    rates: Option<Way>,
    /// All its sockets together.
    queues: Depth,
    /// What is remembered of it.
    pub(super) row: Row,
    workers: Vec<Worker>,
    /// Workers that are left out.
    folded: usize,
    notes: Vec<Note>,
}

/// What becomes of a service's packets.
#[derive(Debug, PartialEq, Serialize)]
struct Way {
    seen: Flow,
    opening: f64,
    connections: f64,
    answered: Flow,
    dropped: Flow,
    kernel_dropped: f64,
    /// What sockets dropped for want of room, whether the kernel has named it or not.
    overflows: Option<f64>,
    /// What of that the kernel has not named.
    no_room: Option<f64>,
    /// All that was lost behind XDP.
    lost: Option<f64>,
    /// In seconds, as in [`Worker`].
    accept_median: Option<f64>,
    accept_p99: Option<f64>,
    handshake_median: Option<f64>,
    handshake_p99: Option<f64>,
    /// What did not go on: XDP's drops by reason, then the kernel's.
    drops: Vec<Loss>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Loss {
    reason: String,
    by: &'static str,
    rate: f64,
}

/// What waits.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Depth {
    accept: Option<Queue>,
    syn: Option<Queue>,
    receive: Option<Queue>,
    /// In seconds.
    oldest_wait: Option<f64>,
}

/// A worker: a socket and who serves it.
#[derive(Debug, PartialEq, Serialize)]
struct Worker {
    index: u32,
    state: &'static str,
    server: Option<String>,
    share: f64,
    /// None of UDP, which has no connections.
    open: Option<u64>,
    queues: Depth,
    connections: Option<f64>,
    overflows: Option<f64>,
    kernel_drops: Option<f64>,
    lost: Option<f64>,
    accept_median: Option<f64>,
    accept_p99: Option<f64>,
}

impl Moment {
    /// What is shown of a snapshot; `rates` are what happened since the one before.
    #[must_use]
    pub fn new(snapshot: &Snapshot, rates: Option<&Rates>) -> Self {
        let mut shown: Vec<&Service> = snapshot.services.iter().collect();
        if shown.len() > SERVICES {
            shown.sort_by_cached_key(|service| std::cmp::Reverse(trouble(service, of(rates, service))));
            shown.truncate(SERVICES);
            // As they stand in the snapshot: what is looked at must not change its place by itself.
            let place = |service: &&Service| std::ptr::from_ref(*service).addr();
            shown.sort_by_key(place);
        }
        let workers = (WORKERS / shown.len().max(1)).max(FEW);
        let passed = rates.map(|rates| total(rates.passed.values()));
        Self {
            at: snapshot.taken_at,
            instance: snapshot.instance.clone(),
            version: snapshot.daemon.as_ref().map(|daemon| daemon.version.clone()),
            uptime: snapshot.dataplane.uptime,
            not_ready: snapshot.readiness().err(),
            interfaces: snapshot.dataplane.interfaces.iter().map(|interface| format!("{} ({})", interface.name, interface.mode)).collect(),
            scheme: snapshot.defence.scheme.clone(),
            live: snapshot.defence.live,
            accept_latency: snapshot.watch.accept_latency.clone(),
            seen: rates.map(|rates| total(rates.services.values().map(|service| &service.seen).chain(rates.passed.values()))),
            passed,
            notes: snapshot.notes.clone(),
            folded: snapshot.services.len() - shown.len(),
            services: shown.into_iter().map(|service| Lane::new(service, of(rates, service), &snapshot.watch, workers)).collect(),
        }
    }
}

fn of<'a>(rates: Option<&'a Rates>, service: &Service) -> Option<&'a ServiceRates> {
    rates?.services.get(&service.name)
}

/// What makes a service worth showing before others: a flood, then losses, then load.
fn trouble(service: &Service, rates: Option<&ServiceRates>) -> (u8, u64, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, to the packet")]
    let whole = |rate: f64| rate as u64;
    let lost = rates.map_or(0.0, |rates| rates.dropped.packets + rates.lost(service.protocol));
    (mode(service.defence.as_ref()), whole(lost), whole(rates.map_or(0.0, |rates| rates.seen.packets)))
}

fn mode(defence: Option<&ServiceDefence>) -> u8 {
    match defence.map(|defence| defence.mode.as_str()) {
        Some(mode) if mode == Mode::Flood.label() => 2,
        Some(mode) if mode == Mode::Lingering.label() => 1,
        _ => 0,
    }
}

impl Lane {
    fn new(service: &Service, rates: Option<&ServiceRates>, watch: &Watch, most: usize) -> Self {
        let listening = service.listening.iter().map(|socket| &socket.queues);
        let queues = Depth::of(service.backends.iter().map(|backend| &backend.queues).chain(listening));
        let mut workers: Vec<&Backend> = service.backends.iter().collect();
        if workers.len() > most {
            let waiting = |backend: &&Backend| Depth::of([&backend.queues].into_iter()).waiting();
            workers.sort_by_key(|backend| std::cmp::Reverse(waiting(backend)));
            workers.truncate(most);
            workers.sort_by_key(|backend| backend.index);
        }
        Self {
            name: service.name.clone(),
            protocol: service.protocol,
            address: SocketAddr::new(service.address, service.port),
            balanced: service.balanced,
            defence: service.defence.clone(),
            rates: rates.map(|rates| Way::new(service.protocol, rates, watch)),
            row: Row::new(service, rates, &queues),
            folded: service.backends.len() - workers.len(),
            workers: workers.into_iter().map(|backend| Worker::new(service.protocol, backend, rates, watch)).collect(),
            queues,
            notes: service.notes.clone(),
        }
    }
}

impl Way {
    fn new(protocol: Protocol, rates: &ServiceRates, watch: &Watch) -> Self {
        let of_xdp = |reason: &str| rates.reasons.contains_key(reason);
        let drops = rates.drops().into_iter().take(REASONS).map(|(reason, rate)| Loss {
            reason: reason.to_owned(),
            by: if of_xdp(reason) { "weir" } else { "kernel" },
            rate,
        });
        let time = |times: &Option<_>, share| quantile(times.as_ref()?, share);
        Self {
            seen: rates.seen,
            opening: rates.opening,
            connections: rates.connections,
            answered: rates.answered,
            dropped: rates.dropped,
            kernel_dropped: rates.kernel_dropped(),
            overflows: rates.overflows,
            no_room: rates.no_room(protocol),
            lost: rates.known_lost(watch, protocol),
            accept_median: time(&rates.accept_latency, 0.5),
            accept_p99: time(&rates.accept_latency, 0.99),
            handshake_median: time(&rates.handshake_time, 0.5),
            handshake_p99: time(&rates.handshake_time, 0.99),
            drops: drops.collect(),
        }
    }
}

impl Worker {
    fn new(protocol: Protocol, backend: &Backend, rates: Option<&ServiceRates>, watch: &Watch) -> Self {
        let rates = rates.and_then(|rates| rates.backends.get(&backend.cookie));
        let time = |share| quantile(rates?.accept_latency.as_ref()?, share);
        Self {
            index: backend.index,
            state: backend.state.label(),
            server: backend.servers.first().map(|server| format!("{} ({})", server.command, server.pid)),
            share: backend.share,
            open: (protocol == Protocol::Tcp).then_some(backend.open),
            queues: Depth::of([&backend.queues].into_iter()),
            connections: rates.map(|rates| rates.connections),
            overflows: rates.and_then(|rates| rates.overflows),
            kernel_drops: rates.map(|rates| rates.kernel_drops),
            lost: rates.and_then(|rates| rates.known_lost(watch, protocol)),
            accept_median: time(0.5),
            accept_p99: time(0.99),
        }
    }
}

impl Depth {
    /// All together.
    fn of<'a>(all: impl Iterator<Item = &'a Queues>) -> Self {
        fn add(to: &mut Option<Queue>, more: Option<Queue>) {
            if let Some(Queue { length, limit }) = more {
                let sum = to.unwrap_or_default();
                *to = Some(Queue { length: sum.length.saturating_add(length), limit: sum.limit.saturating_add(limit) });
            }
        }
        all.fold(Self::default(), |mut sum, queues| {
            add(&mut sum.accept, queues.accept_queue);
            add(&mut sum.syn, queues.syn_queue);
            add(&mut sum.receive, queues.receive_queue);
            sum.oldest_wait = [sum.oldest_wait, queues.oldest_wait].into_iter().flatten().reduce(f64::max);
            sum
        })
    }

    fn waiting(&self) -> u32 {
        [self.accept, self.syn, self.receive].into_iter().flatten().map(|queue| queue.length).fold(0, u32::saturating_add)
    }
}

impl Row {
    fn new(service: &Service, rates: Option<&ServiceRates>, queues: &Depth) -> Self {
        let rate = |of: fn(&ServiceRates) -> f64| rates.map(|rates| short(of(rates)));
        let length = |queue: Option<Queue>| queue.map(|queue| short(f64::from(queue.length)));
        Self([
            rate(|rates| rates.connections),
            rate(|rates| rates.opening),
            rate(|rates| rates.answered.packets),
            rate(|rates| rates.dropped.packets),
            rate(ServiceRates::kernel_dropped),
            rates.and_then(|rates| rates.no_room(service.protocol)).map(short),
            length(queues.accept),
            length(queues.syn),
            length(queues.receive),
            service.defence.as_ref().map(|defence| f32::from(mode(Some(defence)))),
        ])
    }
}

/// To a tenth: what a chart can show, in few characters.
#[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a chart")]
fn short(value: f64) -> f32 {
    // The sum of nothing is -0.0.
    ((value * 10.0).round() / 10.0 + 0.0) as f32
}

fn total<'a>(flows: impl Iterator<Item = &'a Flow>) -> Flow {
    flows.fold(Flow::default(), |all, one| Flow { packets: all.packets + one.packets, bytes: all.bytes + one.bytes })
}
