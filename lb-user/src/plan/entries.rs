//! What XDP recognises each service by.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Entry, Plan, Service,
    build::Owners,
    choice::Groups,
    inputs::{Attached, Inputs},
    lookup::{self, Bind, Binds},
    notes,
    registry::Key,
};
use crate::listeners::group::GroupKey;

/// Everything that takes packets or waits for them.
fn binds(inputs: &Inputs<'_>, groups: &Groups<'_>, owners: &Owners, plan: &Plan) -> Binds {
    let mut binds = Binds::default();
    let mut places: HashMap<GroupKey, usize> = HashMap::new();
    for (place, member) in inputs.members.iter().enumerate() {
        places.entry(GroupKey::from(&member.listener)).or_insert(place);
    }
    let mut seen = BTreeSet::new();
    for (index, group) in groups.list.iter().enumerate() {
        let service = owners.by_group.get(&index).or_else(|| owners.unbalanced.get(&Key::from(&group.key))).copied();
        binds.add(Bind { key: group.key, service, place: places.get(&group.key).copied(), reuseport: true });
        seen.insert(group.key);
    }
    for member in &groups.alone {
        let key = GroupKey::from(&member.listener);
        if seen.insert(key) {
            let service = owners.unbalanced.get(&Key::from(&key)).copied();
            binds.add(Bind { key, service, place: places.get(&key).copied(), reuseport: false });
        }
    }
    for service in plan.services.iter().filter(|service| owners.waiting.contains(&service.index)) {
        if !is_device_missing(service) {
            binds.add(Bind::waiting(group_key(service), Some(service.index)));
        }
    }
    binds
}

fn is_device_missing(service: &Service) -> bool {
    service.device.as_ref().is_some_and(|device| device.index == 0)
}

/// What the listeners of a service are bound to.
fn group_key(service: &Service) -> GroupKey {
    GroupKey {
        protocol: service.protocol,
        address: service.address,
        port: service.port,
        v6only: false,
        device: service.device.as_ref().map_or(0, |device| device.index),
    }
}

/// Gives every service its entries, and a note where packets do not come to it. The services are in the order of their indexes.
pub(super) fn enter(inputs: &Inputs<'_>, groups: &Groups<'_>, owners: &Owners, plan: &mut Plan) {
    let binds = binds(inputs, groups, owners, plan);
    for on_port in binds.ports().filter(|on_port| on_port.iter().any(|bind| bind.service.is_some())) {
        for interface in &inputs.host.attached {
            for address in lookup::addresses(interface, on_port) {
                let winner = lookup::winner(on_port, address, interface).and_then(|bind| bind.service);
                let place = winner.and_then(|index| plan.services.binary_search_by_key(&index, |service| service.index).ok());
                if let Some(service) = place.and_then(|place| plan.services.get_mut(place)) {
                    service.entries.push(entry(address, interface));
                }
            }
        }
    }
    for service in &mut plan.services {
        service.entries.sort_unstable();
        let on_port = binds.on(service.protocol, service.port);
        if owners.waiting.contains(&service.index) {
            let note = if is_device_missing(service) {
                notes::no_device(service)
            } else {
                notes::no_listener(inputs, service, &rivals(inputs, on_port, service))
            };
            service.notes.push(note);
        } else if let Some(own) = on_port.iter().find(|bind| bind.service == Some(service.index)).filter(|_| service.entries.is_empty()) {
            let reachable = inputs.host.attached.iter().any(|interface| lookup::is_reachable(&own.key, interface));
            service.notes.push(if reachable { notes::all_taken(service) } else { notes::unreachable(service) });
        }
    }
}

fn entry(address: IpAddr, interface: &Attached) -> Entry {
    Entry {
        address,
        interface: interface.index,
        macs: interface.macs,
        maximum_segment_size: announced_segment(address, interface.mtu),
        loopback: interface.loopback,
    }
}

/// The MSS that the kernel announces on a device of this MTU: what is left without both headers, within 256 and what 16 bits hold
/// (`ipv4_default_advmss`, net/ipv4/route.c; `ip6_default_advmss`, net/ipv6/route.c).
fn announced_segment(address: IpAddr, mtu: u32) -> u16 {
    let headers = if address.is_ipv4() { 40 } else { 60 };
    u16::try_from(mtu.saturating_sub(headers).clamp(256, 65_535 - headers)).unwrap_or(u16::MAX)
}

/// Who gets the packets that a service without listeners waits for.
fn rivals(inputs: &Inputs<'_>, on_port: &[Bind], service: &Service) -> BTreeSet<GroupKey> {
    let own = [Bind::waiting(group_key(service), None)];
    let mut rivals = BTreeSet::new();
    for interface in &inputs.host.attached {
        for address in lookup::addresses(interface, &own) {
            if lookup::winner(&own, address, interface).is_some() {
                rivals.extend(lookup::winner(on_port, address, interface).filter(|bind| bind.place.is_some()).map(|bind| bind.key));
            }
        }
    }
    rivals
}
