//! The bound on series: backends beyond a number are shown together, for each service.

use std::borrow::Cow;

use crate::{
    observe::snapshot::{Backend, Histogram, KernelDrop, Queues, Service, Snapshot},
    plan::State,
};

/// What the label `backend` says of those that are shown together.
pub(super) const LABEL: &str = "other";
/// How many have series of their own where nothing else is said.
const DEFAULT: u32 = 2000;
/// The index of the backend that stands for them. No backend has it: a service has at most 65,536.
const INDEX: u32 = u32::MAX;

/// The services as the metrics show them.
pub(super) struct Folded<'a> {
    pub services: Cow<'a, [Service]>,
    /// How many backends are in one that stands for them.
    pub backends: f64,
}

/// Whether this stands for others.
pub(super) fn is_fold(backend: &Backend) -> bool {
    backend.index == INDEX
}

/// Folds the backends beyond the limit, in the order of the services.
pub(super) fn fold(snapshot: &Snapshot) -> Folded<'_> {
    let mut left = snapshot.watch.backend_series.unwrap_or(DEFAULT) as usize;
    let all: usize = snapshot.services.iter().map(|service| service.backends.len()).sum();
    if all <= left {
        return Folded { services: Cow::Borrowed(&snapshot.services), backends: 0.0 };
    }
    let mut folded = 0_u32;
    let fold_one = |service: &Service| {
        let own = service.backends.len().min(left);
        left -= own;
        let (shown, others) = service.backends.split_at(own);
        let mut service = Service { backends: shown.to_vec(), ..service.clone() };
        if let Some((first, rest)) = others.split_first() {
            folded = folded.saturating_add(u32::try_from(others.len()).unwrap_or(u32::MAX));
            let first = Backend { index: INDEX, ..first.clone() };
            service.backends.push(rest.iter().fold(first, and));
        }
        service
    };
    let services = snapshot.services.iter().map(fold_one).collect();
    Folded { services: Cow::Owned(services), backends: folded.into() }
}

/// Two backends as one.
fn and(mut sum: Backend, other: &Backend) -> Backend {
    let Backend {
        index: _,
        slot: _,
        cookie: _,
        inode: _,
        state: _,
        weight,
        share,
        servers: _,
        queues,
        accept_latency,
        kernel_drops,
        chosen,
        selected,
        established,
        open,
    } = other;
    sum.state = State::Ready;
    sum.weight += weight;
    sum.share += share;
    sum.queues = sum.queues.and(*queues);
    sum.accept_latency = match (sum.accept_latency, accept_latency) {
        (Some(sum), Some(times)) => Some(added(sum, times)),
        (sum, times) => sum.or_else(|| times.clone()),
    };
    for dropped in kernel_drops {
        match sum.kernel_drops.iter_mut().find(|one| one.reason == dropped.reason) {
            Some(KernelDrop { packets, .. }) => *packets += dropped.packets,
            None => sum.kernel_drops.push(dropped.clone()),
        }
    }
    sum.chosen += chosen;
    for (cause, count) in selected {
        *sum.selected.entry(cause.clone()).or_default() += count;
    }
    sum.established += established;
    sum.open += open;
    sum
}

fn added(mut sum: Histogram, times: &Histogram) -> Histogram {
    for (count, more) in sum.counts.iter_mut().zip(&times.counts) {
        *count += more;
    }
    sum.sum += times.sum;
    sum
}

impl Queues {
    /// Two sockets as one: lengths and limits added up, and the oldest of both.
    pub(super) fn and(self, other: Self) -> Self {
        let add = |sum: &mut Option<crate::observe::snapshot::Queue>, other: Option<crate::observe::snapshot::Queue>| {
            if let (Some(sum), Some(other)) = (sum.as_mut(), other) {
                sum.length = sum.length.saturating_add(other.length);
                sum.limit = sum.limit.saturating_add(other.limit);
            } else {
                *sum = sum.or(other);
            }
        };
        let mut sum = self;
        add(&mut sum.accept_queue, other.accept_queue);
        add(&mut sum.syn_queue, other.syn_queue);
        add(&mut sum.receive_queue, other.receive_queue);
        sum.oldest_wait = [sum.oldest_wait, other.oldest_wait].into_iter().flatten().reduce(f64::max);
        sum.waited = [sum.waited, other.waited].into_iter().flatten().reduce(|a, b| a + b);
        if let (Some(sum), Some(other)) = (sum.overflows.as_mut(), other.overflows) {
            sum.accept_queue += other.accept_queue;
            sum.syn_queue += other.syn_queue;
            sum.receive_queue += other.receive_queue;
            sum.unknown += other.unknown;
        } else {
            sum.overflows = sum.overflows.or(other.overflows);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use crate::observe::{prometheus::render, sample};

    fn sum(text: &str, family: &str) -> f64 {
        let samples = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    #[test]
    fn folding_loses_no_count_and_bounds_the_series() {
        let mut snapshot = sample::large(10, 8);
        let whole = render(&snapshot).unwrap();
        snapshot.watch.backend_series = Some(20);
        let folded = render(&snapshot).unwrap();
        for family in [
            "weir_backend_connections_total",
            "weir_backend_selections_total",
            "weir_backend_chosen_total",
            "weir_backend_accept_queue_length",
            "weir_backend_syn_queue_limit",
            "weir_backend_overflows_total",
            "weir_backend_accept_wait_seconds_total",
            "weir_backend_accept_latency_seconds_count",
            "weir_backend_kernel_dropped_packets_total",
            "weir_backends",
        ] {
            assert!(sum(&whole, family) > 0.0, "{family}");
            assert!((sum(&whole, family) - sum(&folded, family)).abs() < 1e-6, "{family}");
        }
        let of = |text: &str, family: &str| text.lines().filter(|line| line.starts_with(&format!("{family}{{"))).count();
        // Two services whole, half of the third, and one row for each of those that are not.
        assert_eq!((of(&whole, "weir_backend_chosen_total"), of(&folded, "weir_backend_chosen_total")), (80, 28));
        assert_eq!(of(&folded, "weir_backend_info"), 20);
        assert!(whole.contains("\nweir_folded_backends 0\n") && folded.contains("\nweir_folded_backends 60\n"));
        assert!(folded.contains("backend=\"other\""));
    }
}
