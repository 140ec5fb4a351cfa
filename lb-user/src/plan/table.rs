//! What a service's table holds, see `lb_common::abi` for the layout.
//!
//! A backend is known to Maglev by its worker index alone. So a worker that is started in the place of another (it gets the lowest free
//! index) takes over exactly its predecessor's flows, where its cookie would deal a share of all flows anew at every restart; a service
//! that is renamed keeps its table; and services with the same indexes and weights share one computation.

use std::collections::HashMap;

use lb_common::{
    abi::{NO_SLOT, QUIC_WORKERS, SOCKET_SLOTS, TABLE_HEADER},
    maglev,
};

use super::{Service, State};

/// What decides a table, apart from the slots: its size, and the worker indexes and weights.
type Pattern = (u32, Vec<(u32, u32)>);

/// Tables as they are filled, remembering what services have in common.
#[derive(Debug, Default)]
pub struct Tables {
    /// Each entry is a worker index, or [`NO_SLOT`].
    patterns: HashMap<Pattern, Vec<u32>>,
}

/// What a service's table holds: the size, the slots of the workers 0 to 255, and the Maglev entries. A service whose backends all have
/// no weight or get no new flows has a table whose entries are all [`NO_SLOT`]: the kernel's own hash decides.
#[must_use]
pub fn table(service: &Service) -> Vec<u32> {
    Tables::default().table(service)
}

/// The share of flows that a slot gets by a table as [`table`] lays it out, 0 to 1.
#[must_use]
pub fn share(table: &[u32], slot: u32) -> f64 {
    let entries = table.get(TABLE_HEADER as usize..).unwrap_or_default();
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    if entries.is_empty() { 0.0 } else { count(entries.iter().filter(|entry| **entry == slot).count()) / count(entries.len()) }
}

impl Tables {
    /// The same as [`table`].
    #[must_use]
    pub fn table(&mut self, service: &Service) -> Vec<u32> {
        let size = service.table_size;
        let weights: Vec<(u32, u32)> = ready(service).map(|(index, _, weight)| (index, weight)).collect();
        let slots = slots_by_worker(service);
        let slot_of = |worker: u32| slots.get(worker as usize).copied().unwrap_or(NO_SLOT);
        let pattern = self.patterns.entry((size, weights)).or_insert_with_key(fill);
        let mut table = Vec::with_capacity(TABLE_HEADER as usize + pattern.len());
        table.push(size);
        table.extend((0..QUIC_WORKERS).map(slot_of));
        table.extend(pattern.iter().map(|worker| slot_of(*worker)));
        table
    }
}

/// The backends that a table's entries may name: index, slot, weight.
pub(super) fn ready(service: &Service) -> impl Iterator<Item = (u32, u32, u32)> {
    let ready = service.backends.iter().filter(|backend| backend.state == State::Ready && backend.weight > 0);
    ready.map(|backend| (backend.index, backend.slot, backend.weight))
}

/// The slot of each worker. A list, because a table asks it thousands of times; bounded, because a state file may say anything.
fn slots_by_worker(service: &Service) -> Vec<u32> {
    let known = || service.backends.iter().filter(|backend| backend.index < SOCKET_SLOTS);
    let mut slots = vec![NO_SLOT; known().map(|backend| backend.index as usize + 1).max().unwrap_or(0)];
    for backend in known() {
        slots[backend.index as usize] = backend.slot;
    }
    slots
}

fn fill((size, weights): &Pattern) -> Vec<u32> {
    let backends: Vec<maglev::Backend> =
        weights.iter().map(|&(index, weight)| maglev::Backend { id: u64::from(index), slot: index, weight }).collect();
    let mut entries = vec![NO_SLOT; *size as usize];
    // It fails only for sizes that no plan has; the table then names nobody, which leaves the choice to the kernel.
    if maglev::fill(&mut entries, &backends, &mut vec![maglev::Turn::default(); backends.len()]).is_err() {
        entries.fill(NO_SLOT);
    }
    entries
}
