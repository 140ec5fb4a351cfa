//! Which groups are services.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Device, Note, defence,
    inputs::{Inputs, Member},
    lookup, notes,
    registry::{Bound, Key, Registry},
};
use crate::{
    config::{self, Protocol, Stance},
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
    /// The TCP listeners without SO_REUSEPORT, by what a service of them would be.
    alone_by_key: BTreeMap<Key, Vec<&'a Member>>,
}

/// A service to be.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub key: Key,
    /// As bound.
    pub address: IpAddr,
    pub device: Option<Device>,
    pub named: Option<&'a config::Service>,
    pub has: Has<'a>,
    pub notes: Vec<Note>,
}

/// The sockets of a service to be.
#[derive(Debug)]
pub(super) enum Has<'a> {
    /// This group in [`Groups::list`], which Weir balances.
    Group(usize),
    /// These, which Weir does not balance and which are defended all the same.
    Listeners(Vec<&'a Member>),
    /// A group that another program steers, and no defence.
    Steered,
    /// None: it waits for a listener that Weir may balance.
    Nothing,
}

impl Has<'_> {
    /// What its sockets are bound to. Of several that differ in what a service does not tell apart, one.
    fn bound(&self, groups: &Groups<'_>) -> Option<GroupKey> {
        match self {
            Self::Group(group) => groups.list.get(*group).map(|group| group.key),
            Self::Listeners(listeners) => listeners.first().map(|member| GroupKey::from(&member.listener)),
            Self::Steered | Self::Nothing => None,
        }
    }
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
        let mut alone_by_key: BTreeMap<Key, Vec<&Member>> = BTreeMap::new();
        // Most plain UDP sockets are those of clients, and they have no defence.
        for member in alone.iter().filter(|member| member.listener.protocol == Protocol::Tcp) {
            alone_by_key.entry(Key::from(&GroupKey::from(&member.listener))).or_default().push(member);
        }
        Self { list, alone, by_key, alone_by_key }
    }

    /// Everything that a service could be made of, once each.
    fn keys(&self) -> BTreeSet<&Key> {
        self.by_key.keys().chain(self.alone_by_key.keys()).collect()
    }

    /// Whether any socket has a key's packets.
    fn has_listeners(&self, key: &Key) -> bool {
        self.by_key.contains_key(key) || self.alone_by_key.contains_key(key)
    }

    /// Every socket that has a key's packets, by cookie: no matter in which group.
    pub fn listeners(&self, key: &Key) -> Vec<&'a Member> {
        let groups = self.by_key.get(key).into_iter().flatten().flat_map(|group| self.list[*group].members.iter().copied());
        let alone = self.alone_by_key.get(key).into_iter().flatten().copied();
        let mut listeners: Vec<&Member> = groups.chain(alone).collect();
        listeners.sort_by_key(|member| member.listener.cookie);
        listeners
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

/// The services to be, in the order in which they get their places: first the named, then those that Weir balances, and each time first
/// those that are services already.
pub(super) fn candidates<'a>(inputs: &Inputs<'a>, groups: &Groups<'a>, registry: &Registry) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate<'_>> =
        inputs.config.services.iter().map(|service| named(inputs, groups, registry, service)).collect();
    let taken: BTreeSet<Key> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
    let mut discovered: Vec<Candidate<'_>> = groups
        .keys()
        .into_iter()
        .filter(|key| discovers(inputs, key.protocol) && !taken.contains(*key))
        .filter_map(|key| discovered(inputs, groups, registry, key))
        .collect();
    discovered.sort_by_key(|candidate| {
        let index = registry.services.get(&candidate.key).map_or(u32::MAX, |tenure| tenure.index);
        (matches!(candidate.has, Has::Listeners(_)), index)
    });
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

fn named<'a>(inputs: &Inputs<'a>, groups: &Groups<'a>, registry: &Registry, service: &'a config::Service) -> Candidate<'a> {
    let key = key_of(inputs, service);
    let device = match &key.bound {
        Bound::Any => None,
        Bound::Device(index) => inputs.host.device(*index),
        Bound::Missing(name) => Some(Device { index: 0, name: name.clone() }),
    };
    let found = groups.of_key(&key, registry, service.takeover);
    let is_steered = found.is_some_and(|group| groups.list[group].is_steered()) && !service.takeover;
    let has = match found.filter(|_| !is_steered) {
        Some(group) => Has::Group(group),
        None if defends(inputs, &key, Some(service)) && groups.has_listeners(&key) => Has::Listeners(groups.listeners(&key)),
        None if is_steered => Has::Steered,
        None => Has::Nothing,
    };
    let mut notes = Vec::new();
    match &has {
        Has::Group(group) => notes.extend(twins(groups, &key, *group)),
        Has::Listeners(_) | Has::Steered if is_steered => notes.push(notes::steered(service)),
        Has::Listeners(_) => notes.push(notes::not_reuseport(&notes::endpoint(service.address, service.port, device.as_ref()))),
        Has::Steered | Has::Nothing => {}
    }
    let address = has.bound(groups).map_or(service.address, |bound| bound.address);
    Candidate { key, address, device, named: Some(service), has, notes }
}

fn discovered<'a>(inputs: &Inputs<'a>, groups: &Groups<'a>, registry: &Registry, key: &Key) -> Option<Candidate<'a>> {
    let found = groups.of_key(key, registry, false).filter(|group| !groups.list[*group].is_steered());
    let has = match found {
        Some(group) => Has::Group(group),
        None if defends(inputs, key, None) => Has::Listeners(groups.listeners(key)),
        None => return None,
    };
    let bound = has.bound(groups)?;
    if !inputs.host.attached.iter().any(|interface| lookup::is_reachable(&bound, interface)) {
        return None;
    }
    let notes = found.and_then(|group| twins(groups, key, group)).into_iter().collect();
    Some(Candidate { key: key.clone(), address: bound.address, device: inputs.host.device(bound.device), named: None, has, notes })
}

/// Whether a service of this key is worth having even if it is not balanced.
pub(super) fn defends(inputs: &Inputs<'_>, key: &Key, named: Option<&config::Service>) -> bool {
    defence::stance(inputs.config, key.protocol, named) != Stance::Off
}

/// What to say of the other groups of the same key.
fn twins(groups: &Groups<'_>, key: &Key, chosen: usize) -> Option<Note> {
    let others = groups.by_key.get(key)?.iter().filter(|group| **group != chosen);
    let sockets: usize = others.map(|group| groups.list[*group].members.len()).sum();
    (sockets > 0).then(|| notes::twins(sockets))
}
