//! What has to be kept from one plan to the next, so that nothing moves that need not: who has which index and which slot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{Plan, Service};
use crate::{config::Protocol, listeners::group::GroupKey};

/// Which indexes and slots are taken, and by whom.
///
/// A slot that lost its socket is in quarantine until [`release`](Self::release): the tables that the kernel holds still name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    pub(super) services: BTreeMap<Key, Tenure>,
    /// By cookie.
    pub(super) seats: HashMap<u64, Seat>,
    /// The last generation of every slot that was ever used.
    pub(super) generations: BTreeMap<u32, u32>,
    pub(super) quarantine: BTreeSet<u32>,
}

/// What tells services apart: the same as a group's key in the kernel's map, so an IPv4-mapped address is the IPv4 address, and
/// whether an IPv6 socket takes IPv4 makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    pub bound: Bound,
}

/// What device a service's sockets are bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Bound {
    Any,
    Device(u32),
    /// The user named it, and there is none of that name.
    Missing(String),
}

/// What a service keeps while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenure {
    pub index: u32,
    pub table_size: u32,
}

/// What a socket keeps while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub slot: u32,
    /// Its worker index in a service; none if it was found in the socket array and nowhere else.
    pub worker: Option<(Key, u32)>,
}

impl From<&GroupKey> for Key {
    fn from(group: &GroupKey) -> Self {
        let bound = if group.device == 0 { Bound::Any } else { Bound::Device(group.device) };
        Self { protocol: group.protocol, address: group.address.to_canonical(), port: group.port, bound }
    }
}

impl From<&Service> for Key {
    fn from(service: &Service) -> Self {
        let bound = match &service.device {
            None => Bound::Any,
            Some(device) if device.index == 0 => Bound::Missing(device.name.clone()),
            Some(device) => Bound::Device(device.index),
        };
        Self { protocol: service.protocol, address: service.address.to_canonical(), port: service.port, bound }
    }
}

impl Registry {
    /// The registry of a data plane that another daemon left: `previous` is its state file, `slots` are the socket array's entries as
    /// `(slot, cookie)`, `generations` are those of all slots that were ever used, as `(slot, generation)`.
    ///
    /// The socket array is right where the two disagree: a socket keeps the slot that it sits in, and a slot that the state file names
    /// but that is empty goes into quarantine, because a table may still name it.
    #[must_use]
    pub fn adopt(previous: &Plan, slots: &[(u32, u64)], generations: &[(u32, u32)]) -> Self {
        let mut registry = Self::default();
        let mut workers = HashMap::new();
        for service in &previous.services {
            let key = Key::from(service);
            for backend in &service.backends {
                workers.insert(backend.cookie, (key.clone(), backend.index));
                registry.generations.insert(backend.slot, backend.generation);
                registry.quarantine.insert(backend.slot);
            }
            registry.services.insert(key, Tenure { index: service.index, table_size: service.table_size });
        }
        registry.generations.extend(generations.iter().copied());
        for &(slot, cookie) in slots {
            registry.generations.entry(slot).or_default();
            registry.quarantine.insert(slot);
            registry.seats.entry(cookie).or_insert_with(|| Seat { slot, worker: workers.remove(&cookie) });
        }
        for seat in registry.seats.values() {
            registry.quarantine.remove(&seat.slot);
        }
        registry
    }

    /// The indexes that belong to another service than before, or to one where there was none: their counters begin anew.
    pub fn new_tenants(&self, before: &Self) -> impl Iterator<Item = u32> {
        let had = |key: &Key, index: u32| before.services.get(key).is_some_and(|tenure| tenure.index == index);
        self.services.iter().filter(move |(key, tenure)| !had(key, tenure.index)).map(|(_, tenure)| tenure.index)
    }

    /// The slots that left and may not be used again yet.
    ///
    /// The daemon carries out the changes to the plan that came with this registry, deletes these slots from the socket array (the
    /// socket may live on without being a backend), and then calls [`release`](Self::release). If a limit of backends left somebody
    /// out, the plan is worth making again after that.
    pub fn quarantined(&self) -> impl Iterator<Item = u32> {
        self.quarantine.iter().copied()
    }

    /// Takes slots out of quarantine: no table names them any more, and each is empty. Slots that are not in quarantine stay as they are.
    pub fn release(&mut self, slots: &[u32]) {
        for slot in slots {
            self.quarantine.remove(slot);
        }
    }
}
