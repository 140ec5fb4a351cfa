//! What has to be done to come from one plan to the next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
};

use lb_common::{
    Address,
    abi::{BackendState, GroupKey, GroupRecord, PortBitmap, ServiceKey, ServiceRecord, service_flags, state_flags},
    wire::protocol,
};
use zerocopy::FromZeros;

use super::{Backend, Plan, Service, State, Tables, table};
use crate::{config::Protocol, listeners::Holder};

/// What has to be done, in the order of the fields, each as a whole before the next begins.
///
/// What is added is there before anything points to it: the generation of a slot before its socket (else UDP flows of the slot's last
/// socket would be taken for flows of the new one), the socket before the table that names its slot, the table before the group and
/// the services that lead to it, the services before the bit of their port. What goes away goes in the reverse order: bits, services,
/// groups, tables, slots. The bitmap stands in the middle, so it is written once.
///
/// A plan and its equal have no changes. From `Plan::default()` the changes are all that a new data plane needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// States to write, by slot: the generation, and whether new flows may come.
    pub states: Vec<(u32, BackendState)>,
    /// Sockets to take and to put in their slots. After an adoption a socket may sit in its slot already.
    pub fill: Vec<SlotFill>,
    /// Tables to put, by service index, all in one batch.
    pub tables: Vec<(u32, Vec<u32>)>,
    /// Groups to put.
    pub groups: Vec<(GroupKey, GroupRecord)>,
    /// Groups that are new, and so have no program of Weir yet. Attach through any of the sockets, once all slots are filled.
    pub attach: Vec<GroupSockets>,
    /// Services to put.
    pub services: Vec<(ServiceKey, ServiceRecord)>,
    /// The bits of all ports, if any differs.
    pub ports: Option<Box<PortBitmap>>,
    /// Services to remove.
    pub services_removed: Vec<ServiceKey>,
    /// Groups that lose their program if any of these sockets lives. Detach only if the program is Weir's: another may have replaced it.
    pub detach: Vec<GroupSockets>,
    /// Groups to remove.
    pub groups_removed: Vec<GroupKey>,
    /// The service indexes whose tables are to be removed.
    pub tables_removed: Vec<u32>,
    /// Slots to empty in the socket array, with the cookie that they had. The kernel has done it already where the socket is closed.
    /// They stay in quarantine until `Registry::release`.
    pub slots_left: Vec<(u32, u64)>,
}

/// A socket to take and to put in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFill {
    /// The slot.
    pub slot: u32,
    /// How many sockets have had the slot, this one included.
    pub generation: u32,
    /// The socket's cookie: what has been taken is to be compared with it.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u32,
    /// The descriptors to take it from; any one will do.
    pub holders: Vec<Holder>,
    /// The index of the service.
    pub service: u32,
}

/// A group and its sockets: a program is attached to a group, or detached, through any one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSockets {
    /// The group.
    pub group: GroupKey,
    /// The index of the service.
    pub service: u32,
    /// Whether a program of somebody else may be replaced.
    pub takeover: bool,
    /// Its sockets, as `(cookie, inode, descriptors)`.
    pub sockets: Vec<(u64, u32, Vec<Holder>)>,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What has to be done to come from `previous` to `next`.
#[must_use]
pub fn changes(previous: &Plan, next: &Plan) -> Changes {
    let mut changes = Changes::default();
    slots(previous, next, &mut changes);
    tables(previous, next, &mut changes);
    groups(previous, next, &mut changes);
    (changes.services, changes.services_removed) = difference(&records(previous), &records(next));
    let bits = ports(next);
    changes.ports = (ports(previous) != bits).then_some(bits);
    changes
}

/// The key of a service's group in the kernel's map. It is there while the service has backends.
#[must_use]
pub fn group_key(service: &Service) -> GroupKey {
    let device = service.device.as_ref().map_or(0, |device| device.index);
    GroupKey::new(Address::from(service.address), service.port, number(service.protocol), device)
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

/// What a slot's state says of a backend.
fn state(backend: &Backend) -> BackendState {
    let flags = if backend.state == State::Ready { 0 } else { state_flags::CLOSED_TO_NEW };
    BackendState { generation: backend.generation, flags }
}

fn by_slot(plan: &Plan) -> BTreeMap<u32, (&Service, &Backend)> {
    plan.services.iter().flat_map(|service| service.backends.iter().map(move |backend| (backend.slot, (service, backend)))).collect()
}

fn slots(previous: &Plan, next: &Plan, changes: &mut Changes) {
    let (before, after) = (by_slot(previous), by_slot(next));
    for (&slot, &(service, backend)) in &after {
        let old = before.get(&slot).map(|(_, old)| *old);
        if old.map(state) != Some(state(backend)) {
            changes.states.push((slot, state(backend)));
        }
        if old.map(|old| old.cookie) != Some(backend.cookie) {
            let &Backend { generation, cookie, inode, ref holders, .. } = backend;
            changes.fill.push(SlotFill { slot, generation, cookie, inode, holders: holders.clone(), service: service.index });
        }
    }
    let left = before.iter().filter(|(slot, _)| !after.contains_key(slot));
    changes.slots_left = left.map(|(slot, (_, backend))| (*slot, backend.cookie)).collect();
}

/// What decides the contents of a table.
#[derive(PartialEq)]
struct TableInputs {
    size: u32,
    workers: BTreeSet<(u32, u32)>,
    ready: BTreeSet<(u32, u32, u32)>,
}

fn table_inputs(plan: &Plan) -> BTreeMap<u32, (&Service, TableInputs)> {
    let inputs = |service: &Service| TableInputs {
        size: service.table_size,
        workers: service.backends.iter().map(|backend| (backend.index, backend.slot)).collect(),
        ready: table::ready(service).collect(),
    };
    with_backends(plan).map(|service| (service.index, (service, inputs(service)))).collect()
}

fn tables(previous: &Plan, next: &Plan, changes: &mut Changes) {
    let (before, after) = (table_inputs(previous), table_inputs(next));
    let mut tables = Tables::default();
    for (index, (service, inputs)) in &after {
        if before.get(index).is_none_or(|(_, old)| old != inputs) {
            changes.tables.push((*index, tables.table(service)));
        }
    }
    changes.tables_removed = before.keys().filter(|index| !after.contains_key(index)).copied().collect();
}

fn with_backends(plan: &Plan) -> impl Iterator<Item = &Service> {
    plan.services.iter().filter(|service| !service.backends.is_empty())
}

fn groups(previous: &Plan, next: &Plan, changes: &mut Changes) {
    let records = |plan: &Plan| -> Vec<(GroupKey, GroupRecord)> {
        with_backends(plan).map(|service| (group_key(service), GroupRecord { service: service.index, flags: service.flags })).collect()
    };
    (changes.groups, changes.groups_removed) = difference(&records(previous), &records(next));
    let sockets = |service: &Service| GroupSockets {
        group: group_key(service),
        service: service.index,
        takeover: service.takeover,
        sockets: service.backends.iter().map(|backend| (backend.cookie, backend.inode, backend.holders.clone())).collect(),
    };
    let (before, after) = (cookies_by_group(previous), cookies_by_group(next));
    // Where no socket of the old group is left, the sockets are those of a new one, which has no program.
    let is_new = |service: &&Service| {
        let old = before.get(&group_key(service));
        old.is_none_or(|old| service.backends.iter().all(|backend| !old.contains(&backend.cookie)))
    };
    changes.attach = with_backends(next).filter(is_new).map(sockets).collect();
    changes.detach = with_backends(previous).filter(|service| !after.contains_key(&group_key(service))).map(sockets).collect();
}

fn cookies_by_group(plan: &Plan) -> HashMap<GroupKey, HashSet<u64>> {
    with_backends(plan).map(|service| (group_key(service), service.backends.iter().map(|backend| backend.cookie).collect())).collect()
}

fn records(plan: &Plan) -> Vec<(ServiceKey, ServiceRecord)> {
    let mut records = Vec::new();
    for service in &plan.services {
        for entry in &service.entries {
            let key = ServiceKey::new(Address::from(entry.address), service.port, number(service.protocol), entry.interface);
            let record = ServiceRecord {
                macs: entry.macs,
                service: service.index,
                flags: service.flags | if entry.loopback { service_flags::LOOPBACK } else { 0 },
                maximum_segment_size: entry.maximum_segment_size,
                padding: [0; 6],
            };
            records.push((key, record));
        }
    }
    records
}

/// What is to be put, and what is to be removed.
fn difference<K: Copy + Eq + Hash, V: Copy + PartialEq>(before: &[(K, V)], after: &[(K, V)]) -> (Vec<(K, V)>, Vec<K>) {
    let old: HashMap<K, V> = before.iter().copied().collect();
    let new: HashSet<K> = after.iter().map(|(key, _)| *key).collect();
    let put = after.iter().filter(|(key, value)| old.get(key) != Some(value)).copied().collect();
    let removed = before.iter().map(|(key, _)| *key).filter(|key| !new.contains(key)).collect();
    (put, removed)
}

/// A bit for each port that has an entry.
fn ports(plan: &Plan) -> Box<PortBitmap> {
    let mut bitmap = Box::new(PortBitmap::new_zeroed());
    for service in plan.services.iter().filter(|service| !service.entries.is_empty()) {
        let (word, bit) = PortBitmap::position(number(service.protocol), service.port);
        bitmap.words[word] |= bit;
    }
    bitmap
}
