//! How the tables are sorted. What is worst comes first.

use std::cmp::Ordering;

use super::model::{entrance, fill, fullest, queues, wait};
use crate::{
    config::Protocol,
    observe::{
        rates::{BackendRates, ServiceRates},
        snapshot::{Backend, Service},
    },
    plan::State,
};

/// How the services are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ServiceOrder {
    /// What needs a look first: a flood, then a service without a ready worker, then full queues, then drops.
    #[default]
    Trouble,
    /// By name.
    Name,
    /// By new connections.
    Rate,
    /// By what was dropped, by XDP and behind it.
    Drops,
    /// By the fullest queue of any worker.
    Queue,
}

/// How the workers are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum WorkerOrder {
    /// By number.
    #[default]
    Number,
    /// By new connections.
    Rate,
    /// By how full the queue in front of it is.
    Queue,
    /// By how long connections wait for it.
    Wait,
    /// By what was lost at it.
    Lost,
}

impl ServiceOrder {
    const ALL: [Self; 5] = [Self::Trouble, Self::Name, Self::Rate, Self::Drops, Self::Queue];

    pub(super) fn next(self) -> Self {
        next(&Self::ALL, self)
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::Rate => "new connections",
            Self::Drops => "drops",
            Self::Queue => "queue",
        }
    }

    /// Names settle what is equal.
    pub(super) fn compare(self, one: (&Service, Option<&ServiceRates>), other: (&Service, Option<&ServiceRates>)) -> Ordering {
        let numbers = |of: (&Service, Option<&ServiceRates>)| self.numbers(of.0, of.1);
        descending(&numbers(one), &numbers(other)).then_with(|| one.0.name.cmp(&other.0.name))
    }

    fn numbers(self, service: &Service, rates: Option<&ServiceRates>) -> [f64; 4] {
        let rate = rates.map_or(0.0, |rates| rates.connections);
        let drops = rates.map_or(0.0, |rates| rates.dropped.packets + rates.lost(service.protocol));
        let of_sockets = || queues(service).flat_map(|queues| [entrance(queues), queues.syn_queue]);
        let queue = fullest(of_sockets()).map_or(0.0, fill);
        match self {
            Self::Trouble => {
                let flood = service.defence.as_ref().is_some_and(|defence| defence.mode == "flood");
                let idle = !service.backends.is_empty() && service.backends.iter().all(|backend| backend.state != State::Ready);
                // In tenths: a queue that breathes is no reason for rows to jump.
                [f64::from(u8::from(flood)), f64::from(u8::from(idle)), (queue * 10.0).floor(), drops]
            }
            Self::Name => [0.0; 4],
            Self::Rate => [rate, 0.0, 0.0, 0.0],
            Self::Drops => [drops, 0.0, 0.0, 0.0],
            Self::Queue => [queue, 0.0, 0.0, 0.0],
        }
    }
}

impl WorkerOrder {
    const ALL: [Self; 5] = [Self::Number, Self::Rate, Self::Queue, Self::Wait, Self::Lost];

    pub(super) fn next(self) -> Self {
        next(&Self::ALL, self)
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Rate => "new connections",
            Self::Queue => "queue",
            Self::Wait => "wait",
            Self::Lost => "lost",
        }
    }

    /// Numbers settle what is equal.
    pub(super) fn compare(
        self,
        protocol: Protocol,
        one: (&Backend, Option<&BackendRates>),
        other: (&Backend, Option<&BackendRates>),
    ) -> Ordering {
        let number = |(backend, rates): (&Backend, Option<&BackendRates>)| match self {
            Self::Number => 0.0,
            Self::Rate => rates.map_or(0.0, |rates| rates.connections),
            Self::Queue => entrance(&backend.queues).map_or(0.0, fill),
            Self::Wait => wait(backend, rates).unwrap_or(0.0),
            Self::Lost => rates.map_or(0.0, |rates| rates.lost(protocol)),
        };
        descending(&[number(one)], &[number(other)]).then_with(|| one.0.index.cmp(&other.0.index))
    }
}

fn next<T: Copy + PartialEq>(all: &[T], one: T) -> T {
    let at = all.iter().position(|other| *other == one).map_or(0, |at| (at + 1) % all.len());
    all.get(at).copied().unwrap_or(one)
}

fn descending(one: &[f64], other: &[f64]) -> Ordering {
    let unequal = |(one, other): (&f64, &f64)| other.total_cmp(one);
    one.iter().zip(other).map(unequal).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
