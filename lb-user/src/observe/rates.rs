//! What happened between two snapshots: counters become rates, histograms become the times of that while. Pure.

use std::collections::BTreeMap;

use lb_common::{
    Action, Reason,
    abi::{Cause, time_bounds},
};
use serde::{Deserialize, Serialize};

use super::snapshot::{Backend, Histogram, KernelDrop, Overflows, ReasonCount, Service, Snapshot, Watch};
use crate::{config::Protocol, dataplane::SYNS};

/// What happened between two snapshots. All rates are per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The time between the two, in seconds.
    pub seconds: f64,
    /// The services of the later snapshot, by name.
    pub services: BTreeMap<String, ServiceRates>,
    /// Packets of no service, by reason; those with none are left out.
    pub passed: BTreeMap<String, Flow>,
}

/// The rates of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceRates {
    /// All that XDP saw for it.
    pub seen: Flow,
    /// Packets that would open a flow, whatever became of them: SYNs, or datagrams of flows that are not known.
    pub opening: f64,
    /// Connections established, or UDP flows given to a worker.
    pub connections: f64,
    /// Packets that XDP answered itself.
    pub answered: Flow,
    /// Packets that XDP dropped.
    pub dropped: Flow,
    /// All packets by reason; those with none are left out.
    pub reasons: BTreeMap<String, Flow>,
    /// Packets that the kernel dropped behind XDP, by its reason; those with none are left out.
    pub kernel_drops: BTreeMap<String, f64>,
    /// What the sockets themselves dropped for want of room; none where one of the snapshots does not say.
    pub overflows: Option<f64>,
    /// How long accepts took that happened in between, all backends together; none where it is not measured.
    pub accept_latency: Option<Histogram>,
    /// How long handshakes took that ended in between; none where it is not measured.
    pub handshake_time: Option<Histogram>,
    /// Its backends, by the cookie of their socket.
    pub backends: BTreeMap<u64, BackendRates>,
}

/// The rates of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendRates {
    /// How often the selector selected it.
    pub selected: f64,
    /// Connections established, or UDP flows given to it.
    pub connections: f64,
    /// Packets for it that the kernel dropped.
    pub kernel_drops: f64,
    /// What its socket dropped for want of room; none where one of the snapshots does not say.
    pub overflows: Option<f64>,
    /// How long accepts took that happened in between; none where it is not measured.
    pub accept_latency: Option<Histogram>,
    /// How many connections waited in the accept queue on average; none where one of the snapshots does not say.
    pub waiting: Option<f64>,
}

/// Packets and bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Packets.
    pub packets: f64,
    /// Bytes.
    pub bytes: f64,
}

impl Rates {
    /// What happened from `before` to `after`; none if no time passed, or if the data plane was replaced in between.
    ///
    /// The time is the data plane's own, which no step of the wall clock disturbs. A counter that fell began anew: what it shows is
    /// what it gained. What is new in `after` gained all that it shows, except at sockets, which may be older than Weir's knowledge.
    #[must_use]
    pub fn between(before: &Snapshot, after: &Snapshot) -> Option<Self> {
        let seconds = after.dataplane.uptime - before.dataplane.uptime;
        if !seconds.is_finite() || seconds <= 0.0 {
            return None;
        }
        let span = Span { seconds };
        let known: BTreeMap<&str, &Service> = before.services.iter().map(|service| (service.name.as_str(), service)).collect();
        let services = after.services.iter().map(|service| {
            let earlier = known.get(service.name.as_str()).copied();
            (service.name.clone(), span.of_service(earlier, service))
        });
        Some(Self { seconds, services: services.collect(), passed: span.of_reasons(&before.passed, &after.passed) })
    }
}

impl ServiceRates {
    /// Packets that were lost behind XDP: see [`BackendRates::lost`].
    #[must_use]
    pub fn lost(&self, protocol: Protocol) -> f64 {
        lost(protocol, self.kernel_dropped(), self.overflows)
    }

    /// The same, or none where nothing of it is known.
    #[must_use]
    pub fn known_lost(&self, watch: &Watch, protocol: Protocol) -> Option<f64> {
        (watch.kernel_drops || self.overflows.is_some()).then(|| self.lost(protocol))
    }

    /// Packets that found no room at the sockets and that the kernel does not name among its drops; none where it is not known.
    #[must_use]
    pub fn no_room(&self, protocol: Protocol) -> Option<f64> {
        self.overflows.map(|overflows| if names_overflows(protocol) && !self.kernel_drops.is_empty() { 0.0 } else { overflows })
    }

    /// All that the kernel dropped behind XDP, in packets per second.
    #[must_use]
    pub fn kernel_dropped(&self) -> f64 {
        self.kernel_drops.values().sum()
    }

    /// Packets that did not go on, by reason: first XDP's, then the kernel's; within each the largest first.
    #[must_use]
    pub fn drops(&self) -> Vec<(&str, f64)> {
        let refused = self.reasons.iter().filter(|(reason, _)| action(reason) == Some(Action::Drop));
        let mut all: Vec<(&str, f64)> = refused.map(|(reason, flow)| (reason.as_str(), flow.packets)).collect();
        let of_xdp = all.len();
        all.extend(self.kernel_drops.iter().map(|(reason, rate)| (reason.as_str(), *rate)));
        let (xdp, kernel) = all.split_at_mut(of_xdp);
        for part in [xdp, kernel] {
            part.sort_by(|one, other| other.1.total_cmp(&one.1));
        }
        all
    }
}

impl BackendRates {
    /// How long a connection waited until it was accepted, on average, in seconds: by Little's law from how many waited. None where
    /// there was no connection.
    #[must_use]
    pub fn mean_wait(&self) -> Option<f64> {
        (self.connections > 0.0).then(|| self.waiting.map(|waiting| waiting / self.connections)).flatten()
    }

    /// Packets that were lost behind XDP, in packets per second: what the kernel dropped on the way and what found no room at the socket.
    #[must_use]
    pub fn lost(&self, protocol: Protocol) -> f64 {
        lost(protocol, self.kernel_drops, self.overflows)
    }

    /// The same, or none where nothing of it is known.
    #[must_use]
    pub fn known_lost(&self, watch: &Watch, protocol: Protocol) -> Option<f64> {
        (watch.kernel_drops_by_backend || self.overflows.is_some()).then(|| self.lost(protocol))
    }
}

/// The kernel names no drop at a full listener; a datagram that finds no room it counts at the socket and names too.
const fn names_overflows(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Udp)
}

fn lost(protocol: Protocol, kernel: f64, overflows: Option<f64>) -> f64 {
    let overflows = overflows.unwrap_or_default();
    if names_overflows(protocol) { kernel.max(overflows) } else { kernel + overflows }
}

/// What becomes of packets under the reason of this label; none for a label of another version.
#[must_use]
pub fn action(label: &str) -> Option<Action> {
    Reason::ALL.into_iter().find(|reason| reason.label() == label).map(Reason::action)
}

/// The time in seconds below which the share `q` (0 to 1) of all lie, as Prometheus' `histogram_quantile` has it: evenly spread within
/// a bucket, and the last bound for what lies above it. None if there are none.
#[must_use]
pub fn quantile(histogram: &Histogram, q: f64) -> Option<f64> {
    let bounds = time_bounds();
    let rank = q.clamp(0.0, 1.0) * float(histogram.count());
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in histogram.counts.iter().map(|count| float(*count)).zip(bounds) {
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * ((rank - below) / count).max(0.0));
        }
        (below, lower) = (below + count, upper);
    }
    (histogram.count() > 0).then_some(lower)
}

/// The time between two snapshots.
#[derive(Clone, Copy)]
struct Span {
    seconds: f64,
}

impl Span {
    /// A counter's rate.
    fn rate(self, before: u64, after: u64) -> f64 {
        float(gain(before, after)) / self.seconds
    }

    fn of_service(self, before: Option<&Service>, after: &Service) -> ServiceRates {
        let known: BTreeMap<u64, &Backend> = before.iter().flat_map(|service| &service.backends).map(|one| (one.cookie, one)).collect();
        let udp = after.protocol == Protocol::Udp;
        let of_backend = |backend: &Backend| {
            let earlier = known.get(&backend.cookie).copied();
            (backend.cookie, self.of_backend(earlier, backend, udp))
        };
        let backends: BTreeMap<u64, BackendRates> = after.backends.iter().map(of_backend).collect();
        let reasons = self.of_reasons(before.map_or(&[], |service| &service.packets), &after.packets);
        let sum = |wanted: &dyn Fn(&str) -> bool| {
            let flows = reasons.iter().filter(|(reason, _)| wanted(reason)).map(|(_, flow)| *flow);
            flows.fold(Flow::default(), |all, one| Flow { packets: all.packets + one.packets, bytes: all.bytes + one.bytes })
        };
        let opens = |label: &str| if udp { label == Reason::UdpOpened.label() } else { SYNS.iter().any(|reason| reason.label() == label) };
        let handshakes = before.and_then(|service| service.handshake_time.as_ref());
        ServiceRates {
            seen: sum(&|_| true),
            opening: sum(&opens).packets,
            connections: backends.values().map(|backend| backend.connections).sum(),
            answered: sum(&|reason| action(reason) == Some(Action::Transmit)),
            dropped: sum(&|reason| action(reason) == Some(Action::Drop)),
            kernel_drops: self.of_kernel(before.map_or(&[], |service| &service.kernel_drops), &after.kernel_drops),
            overflows: self.of_sockets(before, after),
            accept_latency: merged(backends.values().filter_map(|backend| backend.accept_latency.as_ref())),
            handshake_time: after.handshake_time.as_ref().map(|times| since(handshakes, times)),
            reasons,
            backends,
        }
    }

    fn of_backend(self, before: Option<&Backend>, after: &Backend, udp: bool) -> BackendRates {
        let all = |drops: &[KernelDrop]| drops.iter().map(|drop| drop.packets).sum();
        let selected = self.rate(before.map_or(0, Backend::selections), after.selections());
        let flows = |backend: &Backend| backend.selections() - backend.selected.get(Cause::UdpFlow.label()).copied().unwrap_or(0);
        let established = self.rate(before.map_or(0, |backend| backend.established), after.established);
        BackendRates {
            selected,
            connections: if udp { self.rate(before.map_or(0, flows), flows(after)) } else { established },
            kernel_drops: self.rate(before.map_or(0, |backend| all(&backend.kernel_drops)), all(&after.kernel_drops)),
            overflows: self.of_socket(before.and_then(|backend| backend.queues.overflows), after.queues.overflows),
            waiting: before
                .and_then(|backend| backend.queues.waited)
                .zip(after.queues.waited)
                .map(|(before, after)| (if after < before { after } else { after - before }) / self.seconds),
            accept_latency: after
                .accept_latency
                .as_ref()
                .map(|times| since(before.and_then(|backend| backend.accept_latency.as_ref()), times)),
        }
    }

    fn of_reasons(self, before: &[ReasonCount], after: &[ReasonCount]) -> BTreeMap<String, Flow> {
        let known: BTreeMap<&str, &ReasonCount> = before.iter().map(|count| (count.reason.as_str(), count)).collect();
        let flow = |count: &ReasonCount| {
            let earlier = known.get(count.reason.as_str());
            let packets = self.rate(earlier.map_or(0, |count| count.packets), count.packets);
            (packets > 0.0).then(|| Flow { packets, bytes: self.rate(earlier.map_or(0, |count| count.bytes), count.bytes) })
        };
        after.iter().filter_map(|count| Some((count.reason.clone(), flow(count)?))).collect()
    }

    fn of_kernel(self, before: &[KernelDrop], after: &[KernelDrop]) -> BTreeMap<String, f64> {
        let known: BTreeMap<&str, u64> = before.iter().map(|drop| (drop.reason.as_str(), drop.packets)).collect();
        let rate = |drop: &KernelDrop| self.rate(known.get(drop.reason.as_str()).copied().unwrap_or(0), drop.packets);
        after.iter().map(|drop| (drop.reason.clone(), rate(drop))).filter(|(_, rate)| *rate > 0.0).collect()
    }

    /// What all sockets of the service dropped, those that are no backends included.
    fn of_sockets(self, before: Option<&Service>, after: &Service) -> Option<f64> {
        let known: BTreeMap<u64, Option<Overflows>> = before.into_iter().flat_map(sockets).collect();
        sockets(after)
            .filter_map(|(cookie, overflows)| self.of_socket(known.get(&cookie).copied().flatten(), overflows))
            .reduce(|all, one| all + one)
    }

    fn of_socket(self, before: Option<Overflows>, after: Option<Overflows>) -> Option<f64> {
        Some(self.rate(total(before?), total(after?)))
    }
}

fn sockets(service: &Service) -> impl Iterator<Item = (u64, Option<Overflows>)> {
    let backends = service.backends.iter().map(|backend| (backend.cookie, backend.queues.overflows));
    backends.chain(service.listening.iter().map(|socket| (socket.cookie, socket.queues.overflows)))
}

/// Which queue it was may be settled anew between two looks: only the sum is sure to grow.
fn total(Overflows { accept_queue, syn_queue, receive_queue, unknown }: Overflows) -> u64 {
    accept_queue + syn_queue + receive_queue + unknown
}

/// What a counter gained; one that fell began anew.
fn gain(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

/// The times that came to `before` and made it `after`. If one count fell, all began anew.
fn since(before: Option<&Histogram>, after: &Histogram) -> Histogram {
    let Some(before) = before else { return after.clone() };
    let pairs = || after.counts.iter().zip(before.counts.iter().chain(std::iter::repeat(&0)));
    if pairs().any(|(now, earlier)| now < earlier) {
        return after.clone();
    }
    Histogram { counts: pairs().map(|(now, earlier)| now - earlier).collect(), sum: (after.sum - before.sum).max(0.0) }
}

/// All together; none if there are none.
fn merged<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Option<Histogram> {
    histograms.fold(None, |all, one| {
        let Some(all) = all else { return Some(one.clone()) };
        let length = all.counts.len().max(one.counts.len());
        let at = |histogram: &Histogram, index: usize| histogram.counts.get(index).copied().unwrap_or(0);
        Some(Histogram { counts: (0..length).map(|index| at(&all, index) + at(one, index)).collect(), sum: all.sum + one.sum })
    })
}

#[expect(clippy::cast_precision_loss, reason = "a rate above 2^53 a second is not shown to the packet")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
