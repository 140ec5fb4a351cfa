//! Who gets which index and which slot: those who have one keep it, the others get the lowest that is free.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::SOCKET_SLOTS;

use super::{
    choice::{Candidate, Groups, Has},
    inputs::{Inputs, Member},
    registry::{Key, Registry, Seat, Tenure},
};

/// The index of each service: the one it had, or the lowest that nobody had before. Only when there is none left, one whose service
/// has just gone: for a moment its packets are then counted for the wrong one.
pub(super) fn indexes(candidates: &[Candidate<'_>], registry: &Registry, limit: u32) -> BTreeMap<Key, Tenure> {
    let kept = |candidate: &Candidate<'_>| registry.services.get(&candidate.key).copied().filter(|tenure| tenure.index <= limit);
    let keeping: BTreeSet<u32> = candidates.iter().filter_map(kept).map(|tenure| tenure.index).collect();
    let had: BTreeSet<u32> = registry.services.values().map(|tenure| tenure.index).collect();
    let (unused, left): (Vec<u32>, Vec<u32>) = (1..=limit).filter(|index| !keeping.contains(index)).partition(|index| !had.contains(index));
    let mut free = unused.into_iter().chain(left);
    let mut given = BTreeSet::new();
    let mut services = BTreeMap::new();
    for candidate in candidates {
        let old = kept(candidate).filter(|tenure| given.insert(tenure.index));
        let table_size = old.map_or(0, |tenure| tenure.table_size);
        if let Some(index) = old.map(|tenure| tenure.index).or_else(|| free.next()) {
            services.insert(candidate.key.clone(), Tenure { index, table_size });
        }
    }
    services
}

/// A member with its place.
pub(super) struct Seated<'a> {
    pub member: &'a Member,
    pub slot: u32,
    pub worker: u32,
}

/// The members of one service.
#[derive(Default)]
pub(super) struct SeatedService<'a> {
    pub backends: Vec<Seated<'a>>,
    /// How many are left out because the service, or all services together, have as many backends as they may.
    pub over_limit: usize,
    /// How many of those are beyond the limit of a single service.
    pub over_own_limit: usize,
    /// How many cannot be taken because no descriptor of them is known.
    pub without_holder: usize,
}

/// Who sits where.
pub(super) struct Seating<'a> {
    pub services: Vec<SeatedService<'a>>,
    /// How many are left out because all services together have as many backends as they may.
    pub over_limit: usize,
    /// With the seats, generations and quarantine of the next registry, and no services.
    pub registry: Registry,
}

impl<'a> Seating<'a> {
    /// Members that have a slot keep it, before anybody new gets one; the new ones follow in the order of their group.
    pub fn of(inputs: &Inputs<'a>, groups: &Groups<'a>, candidates: &[Candidate<'_>], registry: &Registry) -> Self {
        let limits = &inputs.config.limits;
        let mut next =
            Registry { generations: registry.generations.clone(), quarantine: registry.quarantine.clone(), ..Registry::default() };
        let mut services = Vec::new();
        let mut waiting = Vec::new();
        for candidate in candidates {
            let members = if let Has::Group(group) = candidate.has { &groups.list[group].members[..] } else { &[] };
            let (mut old, new): (Vec<&Member>, Vec<&Member>) =
                members.iter().partition(|member| registry.seats.contains_key(&member.listener.cookie));
            let worker =
                |member: &Member| registry.seats.get(&member.listener.cookie)?.worker.as_ref().filter(|(key, _)| *key == candidate.key);
            old.sort_by_key(|member| worker(member).map_or(u32::MAX, |(_, index)| *index));
            let mut seated = SeatedService::default();
            let most = limits.backends_per_service as usize;
            seated.over_own_limit = old.split_off(most.min(old.len())).len();
            let mut new: Vec<&Member> = new.into_iter().filter(|member| !member.holders.is_empty()).collect();
            seated.without_holder = members.len() - seated.over_own_limit - old.len() - new.len();
            seated.over_own_limit += new.split_off(new.len().min(most - old.len())).len();
            seated.over_limit = seated.over_own_limit;

            let mut workers = Workers::new(old.iter().filter_map(|member| worker(member).map(|(_, index)| *index)));
            for member in old {
                let Some(seat) = registry.seats.get(&member.listener.cookie) else { continue };
                let worker = workers.keep_or_take(worker(member).map(|(_, index)| *index));
                seated.backends.push(Seated { member, slot: seat.slot, worker });
                next.seats.insert(member.listener.cookie, Seat { slot: seat.slot, worker: Some((candidate.key.clone(), worker)) });
            }
            waiting.push((new, workers));
            services.push(seated);
        }

        let left = registry.seats.iter().filter(|(cookie, _)| !next.seats.contains_key(*cookie)).map(|(_, seat)| seat.slot);
        next.quarantine.extend(left);
        let taken: BTreeSet<u32> = next.seats.values().map(|seat| seat.slot).chain(next.quarantine.iter().copied()).collect();
        let places = (limits.backends as usize).saturating_sub(next.seats.len());
        let mut free = (0..limits.backends).filter(|slot| !taken.contains(slot)).take(places);
        let mut over_limit = 0;
        for ((candidate, seated), (new, mut workers)) in candidates.iter().zip(&mut services).zip(waiting) {
            for member in new {
                let Some(slot) = free.next() else {
                    seated.over_limit += 1;
                    over_limit += 1;
                    continue;
                };
                let worker = workers.keep_or_take(None);
                let generation = next.generations.entry(slot).or_default();
                *generation = generation.wrapping_add(1);
                next.seats.insert(member.listener.cookie, Seat { slot, worker: Some((candidate.key.clone(), worker)) });
                seated.backends.push(Seated { member, slot, worker });
            }
            seated.backends.sort_by_key(|seated| seated.worker);
        }
        Self { services, over_limit, registry: next }
    }
}

/// The worker indexes of one service.
struct Workers {
    /// Kept by members that live, and not handed back yet.
    kept: BTreeSet<u32>,
    given: BTreeSet<u32>,
    next: u32,
}

impl Workers {
    fn new(kept: impl Iterator<Item = u32>) -> Self {
        Self { kept: kept.filter(|index| *index < SOCKET_SLOTS).collect(), given: BTreeSet::new(), next: 0 }
    }

    /// The old index if it has one that nobody else got, else the lowest that is free.
    fn keep_or_take(&mut self, old: Option<u32>) -> u32 {
        if let Some(old) = old.filter(|old| self.kept.contains(old) && self.given.insert(*old)) {
            return old;
        }
        while self.kept.contains(&self.next) || !self.given.insert(self.next) {
            self.next += 1;
        }
        self.next
    }
}
