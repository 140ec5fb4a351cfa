//! Reading what the programs count.

use lb_common::{
    Reason,
    abi::{BackendCounters, Counter, Restored, SelectionMiss},
};

use super::{
    Error,
    maps::{Maps, Plain},
};

/// The reasons of SYNs that would open a flow, whatever becomes of them.
pub const SYNS: [Reason; 13] = [
    Reason::TcpOpened,
    Reason::NoBackend,
    Reason::CookieSent,
    Reason::SynWithData,
    Reason::SynBehindOptions,
    Reason::KernelOnlySyn,
    Reason::KernelOnlySynOverLimit,
    Reason::SynAckPrefixLimit,
    Reason::SynAckCap,
    Reason::DefenceAsleep,
    Reason::NoMetadata,
    Reason::FloodSyn,
    Reason::NewFlowsOverLimit,
];

/// A service's packets and bytes, all CPUs together, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTotals {
    /// Indexed by [`Reason::index`].
    pub by_reason: [Counter; Reason::ALL.len()],
}

impl ServiceTotals {
    /// How many SYNs came, whatever became of them.
    #[must_use]
    pub fn syns(&self) -> u64 {
        SYNS.iter().map(|reason| self.by_reason[reason.index()].packets).sum()
    }
}

/// A backend's counters, all CPUs together.
pub type BackendTotals = BackendCounters;

impl Maps {
    /// The counters of a service; 0 stands for packets of no service.
    pub fn service_totals(&self, service: u32) -> Result<ServiceTotals, Error> {
        let values = self.service_counters.get(&service, 0).map_err(Error::map("SERVICE_COUNTERS"))?;
        let mut totals = ServiceTotals { by_reason: [Counter::default(); Reason::ALL.len()] };
        for Plain(of_cpu) in values.iter() {
            for (total, counter) in totals.by_reason.iter_mut().zip(of_cpu.by_reason) {
                total.packets += counter.packets;
                total.bytes += counter.bytes;
            }
        }
        Ok(totals)
    }

    /// The counters of a slot.
    pub fn backend_totals(&self, slot: u32) -> Result<BackendTotals, Error> {
        let values = self.backend_counters.get(&slot, 0).map_err(Error::map("BACKEND_COUNTERS"))?;
        let mut totals = BackendCounters::default();
        for Plain(of_cpu) in values.iter() {
            let BackendCounters { chosen, selected, established, closed } = of_cpu;
            totals.chosen += chosen;
            for (total, count) in totals.selected.iter_mut().zip(selected) {
                *total += count;
            }
            totals.established += established;
            totals.closed += closed;
        }
        Ok(totals)
    }

    /// How often the selector left the choice to the kernel.
    pub fn selection_misses(&self) -> Result<[u64; SelectionMiss::ALL.len()], Error> {
        let values = self.selector_counters.get(&0, 0).map_err(Error::map("SELECTOR_COUNTERS"))?;
        let mut totals = [0; SelectionMiss::ALL.len()];
        for Plain(of_cpu) in values.iter() {
            for (total, count) in totals.iter_mut().zip(of_cpu.missed) {
                *total += count;
            }
        }
        Ok(totals)
    }

    /// What became of the ACKs of cookies, indexed by [`Restored`].
    pub fn restored(&self) -> Result<[u64; Restored::ALL.len()], Error> {
        let values = self.restore_counters.get(&0, 0).map_err(Error::map("RESTORE_COUNTERS"))?;
        let mut totals = [0; Restored::ALL.len()];
        for Plain(of_cpu) in values.iter() {
            for (total, count) in totals.iter_mut().zip(of_cpu.by_outcome) {
                *total += count;
            }
        }
        Ok(totals)
    }

    /// Sets the counters of a slot to zero, before a new socket gets it.
    pub(super) fn clear_backend(&mut self, slot: u32) -> Result<(), Error> {
        let zeros = self.backend_counters.get(&slot, 0).map(|values| values.iter().map(|_| Plain(BackendCounters::default())).collect());
        let zeros: Vec<_> = zeros.map_err(Error::map("BACKEND_COUNTERS"))?;
        let values = zeros.try_into().map_err(Error::call("count the CPUs"))?;
        self.backend_counters.set(slot, values, 0).map_err(Error::map("BACKEND_COUNTERS"))
    }

    /// Sets the counters of a service to zero, before a new service gets its index.
    pub fn clear_service(&mut self, service: u32) -> Result<(), Error> {
        let none = lb_common::abi::ServiceCounters { by_reason: [Counter::default(); Reason::ALL.len()] };
        let zeros = self.service_counters.get(&service, 0).map(|values| values.iter().map(|_| Plain(none)).collect());
        let zeros: Vec<_> = zeros.map_err(Error::map("SERVICE_COUNTERS"))?;
        let values = zeros.try_into().map_err(Error::call("count the CPUs"))?;
        self.service_counters.set(service, values, 0).map_err(Error::map("SERVICE_COUNTERS"))?;
        self.watch.clear_service(service)
    }
}
