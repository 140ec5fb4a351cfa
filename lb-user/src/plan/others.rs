//! The listeners that are not balanced, and why. They may be a service all the same, which is then counted and defended.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    net::IpAddr,
};

use super::{
    OtherListener, Unbalanced,
    build::Owners,
    choice::{self, Groups},
    inputs::{Inputs, Member},
    lookup,
    registry::Key,
};
use crate::{config::Protocol, listeners::group::GroupKey};

/// Every listener that is no service's backend, once for each protocol, address and port.
///
/// Plain UDP sockets are left out unless a service names their place: most are those of clients, which come and go by the thousand.
pub(super) fn list(inputs: &Inputs<'_>, groups: &Groups<'_>, owners: &Owners, beyond: &BTreeSet<Key>) -> Vec<OtherListener> {
    let named: BTreeSet<Key> = inputs.config.services.iter().map(|service| choice::key_of(inputs, service)).collect();
    // By key: what a service's note says of the twins of its group is enough.
    let balanced: BTreeSet<Key> =
        owners.by_group.keys().filter_map(|group| groups.list.get(*group)).map(|group| Key::from(&group.key)).collect();
    let mut found = Found::new();
    for group in &groups.list {
        let key = Key::from(&group.key);
        let why = match () {
            () if balanced.contains(&key) => continue,
            () if !group.is_reachable(inputs) => Unbalanced::Unreachable,
            () if group.is_steered() => Unbalanced::SteeredByAnother,
            () if beyond.contains(&key) => Unbalanced::OverLimit,
            () => Unbalanced::NotNamed,
        };
        for member in &group.members {
            add(&mut found, member, why);
        }
    }
    for member in &groups.alone {
        let key = GroupKey::from(&member.listener);
        if key.protocol == Protocol::Udp && !named.contains(&Key::from(&key)) {
            continue;
        }
        let reachable = inputs.host.attached.iter().any(|interface| lookup::is_reachable(&key, interface));
        add(&mut found, member, if reachable { Unbalanced::NotReuseport } else { Unbalanced::Unreachable });
    }
    found.into_values().collect()
}

/// By protocol, address and port.
type Found = BTreeMap<(Protocol, IpAddr, u16), OtherListener>;

fn add(found: &mut Found, member: &Member, why: Unbalanced) {
    let listener = &member.listener;
    let other = match found.entry((listener.protocol, listener.address, listener.port)) {
        btree_map::Entry::Occupied(entry) => entry.into_mut(),
        btree_map::Entry::Vacant(entry) => entry.insert(OtherListener {
            protocol: listener.protocol,
            address: listener.address,
            port: listener.port,
            commands: Vec::new(),
            why,
        }),
    };
    for command in member.commands() {
        if !other.commands.iter().any(|known| known == command) {
            other.commands.push(command.to_owned());
        }
    }
    other.commands.sort_unstable();
}
