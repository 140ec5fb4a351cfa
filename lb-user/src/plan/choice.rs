//! Which groups are services.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Device, Note,
    inputs::{Inputs, Member},
    lookup, notes,
    registry::{Bound, Key, Registry},
};
use crate::{
    config::{self, Protocol},
    listeners::{
        Holder, Listener,
        group::{self, GroupKey},
    },
};

/// The sockets of one SO_REUSEPORT group, in the order in which new workers are numbered.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub key: GroupKey,
    pub members: Vec<&'a Member>,
}

/// All listeners, sorted.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    pub list: Vec<Group<'a>>,
    /// The listeners without SO_REUSEPORT.
    pub alone: Vec<&'a Member>,
    by_key: BTreeMap<Key, Vec<usize>>,
}

/// A service to be.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub key: Key,
    /// As bound.
    pub address: IpAddr,
    pub device: Option<Device>,
    pub named: Option<&'a config::Service>,
    /// Its group in [`Groups::list`]; none if it has no listener that Weir may steer.
    pub group: Option<usize>,
    /// Whether it has no group only because another program steers it.
    pub steered: bool,
    pub notes: Vec<Note>,
}

impl Group<'_> {
    /// Whether a program that is not Weir's steers it.
    pub fn is_steered(&self) -> bool {
        self.members.iter().any(|member| member.foreign_program)
    }

    /// Whether packets can come to it by an interface of Weir.
    pub fn is_reachable(&self, inputs: &Inputs<'_>) -> bool {
        inputs.host.attached.iter().any(|interface| lookup::is_reachable(&self.key, interface))
    }
}

impl<'a> Groups<'a> {
    pub fn of(inputs: &Inputs<'a>) -> Self {
        let (shared, alone): (Vec<&Member>, Vec<&Member>) = inputs.members.iter().partition(|member| member.reuseport);
        let listeners: Vec<Listener> = shared.iter().map(|member| member.listener).collect();
        // The order needs only the lowest holder, and there may be hundreds for each socket.
        let lowest = |member: &Member| member.holders.iter().min_by_key(|holder| (holder.pid, holder.fd)).cloned();
        let holders: HashMap<u32, Vec<Holder>> =
            shared.iter().map(|member| (member.listener.inode, lowest(member).into_iter().collect())).collect();
        let by_cookie: HashMap<u64, &Member> = shared.iter().map(|member| (member.listener.cookie, *member)).collect();
        let list: Vec<Group<'a>> = group::groups(&listeners, &holders)
            .into_iter()
            .map(|(key, listeners)| {
                let members = listeners.iter().filter_map(|listener| by_cookie.get(&listener.cookie).copied()).collect();
                Group { key, members }
            })
            .collect();
        let mut by_key: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (index, group) in list.iter().enumerate() {
            by_key.entry(Key::from(&group.key)).or_default().push(index);
        }
        Self { list, alone, by_key }
    }

    /// The group of a key, if there is one.
    ///
    /// Groups that differ only in IPV6_V6ONLY, or in an IPv4 address being written as an IPv6 one, are one to the programs in the
    /// kernel: only one of them can be balanced. It is one that Weir may steer, and of those the one that it steers already.
    fn of_key(&self, key: &Key, registry: &Registry, takeover: bool) -> Option<usize> {
        let is_known = |group: &Group<'_>| group.members.iter().any(|member| registry.seats.contains_key(&member.listener.cookie));
        let preference = |index: &usize| {
            let group = &self.list[*index];
            (takeover || !group.is_steered(), is_known(group), Reverse(*index))
        };
        self.by_key.get(key)?.iter().copied().max_by_key(preference)
    }
}

/// The services to be, in the order in which they get their places: first the named, then the discovered that are services already.
pub(super) fn candidates<'a>(inputs: &Inputs<'a>, groups: &Groups<'_>, registry: &Registry) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate<'_>> =
        inputs.config.services.iter().map(|service| named(inputs, groups, registry, service)).collect();
    let taken: BTreeSet<Key> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
    let mut discovered: Vec<Candidate<'_>> = groups
        .by_key
        .keys()
        .filter(|key| discovers(inputs, key.protocol) && !taken.contains(key))
        .filter_map(|key| discovered(inputs, groups, registry, key))
        .collect();
    discovered.sort_by_key(|candidate| registry.services.get(&candidate.key).map_or(u32::MAX, |tenure| tenure.index));
    candidates.append(&mut discovered);
    candidates
}

/// Whether groups of this protocol become services by themselves.
pub(super) fn discovers(inputs: &Inputs<'_>, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => inputs.config.discovery.tcp,
        Protocol::Udp => inputs.config.discovery.udp,
    }
}

/// What a `[[service]]` names.
pub(super) fn key_of(inputs: &Inputs<'_>, service: &config::Service) -> Key {
    let bound = match &service.interface {
        None => Bound::Any,
        Some(name) => match inputs.host.devices.iter().find(|device| device.name == *name) {
            Some(device) => Bound::Device(device.index),
            None => Bound::Missing(name.clone()),
        },
    };
    Key { protocol: service.protocol, address: service.address.to_canonical(), port: service.port, bound }
}

fn named<'a>(inputs: &Inputs<'a>, groups: &Groups<'_>, registry: &Registry, service: &'a config::Service) -> Candidate<'a> {
    let key = key_of(inputs, service);
    let device = match &key.bound {
        Bound::Any => None,
        Bound::Device(index) => inputs.host.device(*index),
        Bound::Missing(name) => Some(Device { index: 0, name: name.clone() }),
    };
    let found = groups.of_key(&key, registry, service.takeover);
    let mut notes = Vec::new();
    let steered = found.is_some_and(|group| groups.list[group].is_steered()) && !service.takeover;
    if steered {
        notes.push(notes::steered(service));
    }
    let group = found.filter(|_| !steered);
    let address = group.map_or(service.address, |group| groups.list[group].key.address);
    notes.extend(group.and_then(|group| twins(groups, &key, group)));
    Candidate { key, address, device, named: Some(service), group, steered, notes }
}

fn discovered<'a>(inputs: &Inputs<'a>, groups: &Groups<'_>, registry: &Registry, key: &Key) -> Option<Candidate<'a>> {
    let index = groups.of_key(key, registry, false)?;
    let group = &groups.list[index];
    if group.is_steered() || !group.is_reachable(inputs) {
        return None;
    }
    let notes = twins(groups, key, index).into_iter().collect();
    let device = inputs.host.device(group.key.device);
    Some(Candidate { key: key.clone(), address: group.key.address, device, named: None, group: Some(index), steered: false, notes })
}

/// What to say of the other groups of the same key.
fn twins(groups: &Groups<'_>, key: &Key, chosen: usize) -> Option<Note> {
    let others = groups.by_key.get(key)?.iter().filter(|group| **group != chosen);
    let sockets: usize = others.map(|group| groups.list[*group].members.len()).sum();
    (sockets > 0).then(|| notes::twins(sockets))
}
