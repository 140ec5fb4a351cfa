//! Making a plan: which groups are services, who has which slot, and what XDP recognises each service by.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::service_flags;

use super::{
    Backend, Listener, Plan, Service, State,
    choice::{self, Candidate, Groups, Has},
    defence, entries,
    inputs::{Inputs, Member},
    notes, others,
    registry::{Key, Registry, Tenure},
    seating::{self, Seated, SeatedService, Seating},
    size,
};

/// Plans: the plan, and the registry to make the next one with.
///
/// It needs nothing but its arguments, and gives the same for the same. Every member of a group that becomes a service either is a
/// backend or is counted in a note that says why it is not.
#[must_use]
pub fn plan(inputs: &Inputs<'_>, registry: &Registry) -> (Plan, Registry) {
    let groups = Groups::of(inputs);
    let mut candidates = choice::candidates(inputs, &groups, registry);
    let mut plan = Plan::default();

    let most = inputs.config.limits.services as usize;
    let over: Vec<Candidate<'_>> = candidates.split_off(most.min(candidates.len()));
    if !over.is_empty() {
        plan.notes.push(notes::services_over_limit(over.len(), most));
    }
    let mut beyond: BTreeSet<Key> = over.into_iter().map(|candidate| candidate.key).collect();

    let seating = Seating::of(inputs, &groups, &candidates, registry);
    let mut next = Registry { services: seating::indexes(&candidates, registry, inputs.config.limits.services), ..seating.registry };
    if seating.over_limit > 0 {
        plan.notes.push(notes::backends_over_limit(seating.over_limit, inputs.config.limits.backends));
    }
    let mut owners = Owners::default();
    for (mut candidate, mut seated) in candidates.into_iter().zip(seating.services) {
        if candidate.named.is_none() && seated.backends.is_empty() && seated.over_limit > 0 {
            beyond.insert(candidate.key.clone());
            if !choice::defends(inputs, &candidate.key, None) {
                next.services.remove(&candidate.key);
                continue;
            }
            // None of its sockets has a place, so the kernel's own hash goes on to choose among all of them.
            (candidate.has, seated) = (Has::Listeners(groups.listeners(&candidate.key)), SeatedService::default());
        }
        let Some(mut tenure) = next.services.get(&candidate.key).copied() else { continue };
        match candidate.has {
            Has::Group(group) => drop(owners.by_group.insert(group, tenure.index)),
            Has::Listeners(_) => drop(owners.unbalanced.insert(candidate.key.clone(), tenure.index)),
            Has::Steered => {}
            Has::Nothing => drop(owners.waiting.insert(tenure.index)),
        }
        let key = candidate.key.clone();
        plan.services.push(service(inputs, &next, candidate, &seated, &mut tenure));
        next.services.insert(key, tenure);
    }
    plan.services.sort_by_key(|service| service.index);
    entries::enter(inputs, &groups, &owners, &mut plan);
    plan.others = others::list(inputs, &groups, &owners, &beyond);
    (plan, next)
}

/// Which sockets belong to which services, by index.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// The groups that are balanced, by place in [`Groups::list`].
    pub by_group: BTreeMap<usize, u32>,
    /// The services that are not: each has all sockets of its key.
    pub unbalanced: BTreeMap<Key, u32>,
    /// The services that wait for a listener.
    pub waiting: BTreeSet<u32>,
}

/// A service as the plan has it, but for its entries. Its table's size goes into the registry.
fn service(inputs: &Inputs<'_>, registry: &Registry, candidate: Candidate<'_>, seated: &SeatedService<'_>, tenure: &mut Tenure) -> Service {
    let Candidate { key, address, device, named, has, mut notes } = candidate;
    let (table_size, size_note) = size::choose(named.and_then(|named| named.table_size), seated.backends.len(), tenure.table_size);
    tenure.table_size = table_size;
    notes.extend(size_note);
    // To take out everybody would help nobody.
    let somebody_serves = seated.backends.iter().any(|seated| !seated.member.unserved);
    let state = |member: &Member| match member {
        _ if inputs.drains.contains(&member.listener.cookie) => State::Draining,
        _ if member.unserved && somebody_serves => State::Unserved,
        _ => State::Ready,
    };
    let weight = |worker: u32| named.and_then(|named| named.weights.get(worker as usize)).copied().unwrap_or(1);
    let backends: Vec<Backend> = seated
        .backends
        .iter()
        .map(|&Seated { member, slot, worker }| Backend {
            index: worker,
            slot,
            generation: registry.generations.get(&slot).copied().unwrap_or_default(),
            cookie: member.listener.cookie,
            inode: member.listener.inode,
            weight: weight(worker),
            state: state(member),
            servers: member.servers.clone(),
            holders: member.holders.clone(),
        })
        .collect();
    let listeners: Option<Vec<Listener>> = match has {
        Has::Listeners(members) => Some(members.into_iter().map(Member::identity).collect()),
        Has::Group(_) | Has::Steered | Has::Nothing => None,
    };
    let quic = named.and_then(|named| named.quic);
    let flags = quic.map_or(0, |quic| service_flags::quic(quic.worker_byte));
    notes.extend(notes::of_backends(&backends, seated, somebody_serves, quic.is_some(), &inputs.config.limits));
    Service {
        index: tenure.index,
        name: named.map_or_else(|| notes::place(key.protocol, address, key.port, device.as_ref()), |named| named.name.clone()),
        protocol: key.protocol,
        address,
        port: key.port,
        device,
        configured: named.is_some(),
        takeover: named.is_some_and(|named| named.takeover),
        balanced: listeners.is_none(),
        stance: defence::stance(inputs.config, key.protocol, named),
        defence: defence::of_service(inputs.config, named),
        flags: if listeners.is_none() { flags } else { flags | service_flags::UNBALANCED },
        table_size,
        entries: Vec::new(),
        backends,
        listeners: listeners.unwrap_or_default(),
        notes,
    }
}
