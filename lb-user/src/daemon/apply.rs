//! Carrying out a plan: from what has changed to system calls, in the order that `plan::Changes` lays down.

use std::{os::fd::OwnedFd, path::Path};

use super::{Daemon, status};
use crate::{
    config::Mode,
    dataplane::{Attached, Error, Occupant, XdpMode, probe},
    exit::{Exit, Failure, fail},
    network::{AttachedMode, Network},
    observe::{reader, snapshot::Interface},
    plan::{self, Changes, Device, GroupSockets, Host, Plan, SlotFill},
};

impl Daemon {
    /// Carries out what has changed. Answers whether all of it could be done; what could not is tried again.
    pub(super) fn apply(&mut self, previous: &Plan, next: &Plan) -> bool {
        let mut changes = plan::changes(previous, next);
        changes.fill.append(&mut self.unfilled);
        changes.attach.append(&mut self.unattached);
        if changes.is_empty() {
            return true;
        }
        match self.carry_out(changes, next) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!("{:#}; a full scan tries again", anyhow::Error::from(error));
                // The maps may be anywhere between the two plans: the next scan writes everything.
                self.rewrite = true;
            }
        }
        self.unfilled.is_empty() && self.unattached.is_empty()
    }

    /// Lets the counters of services that are new to their index begin at zero, and their defence calm. Those of a service that was
    /// adopted go on.
    pub(super) fn clear_counters(&mut self, before: &plan::Registry) {
        let new: Vec<u32> = self.registry.new_tenants(before).collect();
        for index in new {
            let cleared = self.dataplane.maps.clear_service(index).and_then(|()| self.dismiss(index));
            if let Err(error) = cleared {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
    }

    fn carry_out(&mut self, changes: Changes, next: &Plan) -> Result<(), Error> {
        let Changes {
            states,
            fill,
            tables,
            groups,
            attach,
            services,
            ports,
            services_removed,
            detach,
            groups_removed,
            tables_removed,
            slots_left,
        } = changes;
        for (slot, state) in states {
            self.dataplane.maps.set_backend(slot, state)?;
        }
        for socket in fill {
            self.fill(socket, next)?;
        }
        self.swap(tables, &tables_removed, next)?;
        for (key, record) in groups {
            self.dataplane.maps.set_group(key, record)?;
        }
        for group in attach {
            self.attach_selector(group, next);
        }
        for (key, record) in services {
            self.dataplane.maps.set_service(key, record)?;
        }
        if let Some(ports) = ports {
            self.dataplane.maps.set_ports(&ports)?;
        }
        for key in services_removed {
            self.dataplane.maps.remove_service(&key)?;
        }
        for group in detach {
            self.detach_selector(&group);
        }
        for key in groups_removed {
            self.dataplane.maps.remove_group(&key)?;
        }
        for (slot, cookie) in slots_left {
            self.dataplane.empty(slot, cookie)?;
        }
        // The swap has returned, so no program reads a table that names these slots.
        let free: Vec<u32> = self.registry.quarantined().collect();
        self.registry.release(&free);
        Ok(())
    }

    /// Removes what a daemon before this one may have left in the maps.
    pub(super) fn prune(&mut self) -> Result<(), Error> {
        let Changes { services, groups, tables, .. } = plan::changes(&Plan::default(), &self.plan);
        let services: Vec<_> = services.into_iter().map(|(key, _)| key).collect();
        let groups: Vec<_> = groups.into_iter().map(|(key, _)| key).collect();
        let tables: Vec<_> = tables.into_iter().map(|(index, _)| index).collect();
        self.dataplane.maps.prune(&services, &groups, &tables)
    }

    /// Puts a socket into its slot. A worker that has ended in the meantime is no error: its listener is gone, and the next plan knows.
    fn fill(&mut self, socket: SlotFill, next: &Plan) -> Result<(), Error> {
        let wanted = |slot: u32, cookie: u64| {
            next.services.iter().flat_map(|service| &service.backends).any(|backend| (backend.slot, backend.cookie) == (slot, cookie))
        };
        if !wanted(socket.slot, socket.cookie) {
            return Ok(());
        }
        let Some(fd) = self.survey.take(socket.inode, socket.cookie, &socket.holders) else {
            tracing::debug!("cannot take the socket for slot {} from any of its holders", socket.slot);
            self.unfilled.push(socket);
            return Ok(());
        };
        match self.dataplane.fill(socket.service, socket.slot, socket.generation, socket.cookie, &fd) {
            // The socket is in another array or another slot: the array of an instance that was taken down a moment ago, or another
            // program's. EINVAL: it has stopped listening.
            Err(Error::Call { what, source }) if matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EINVAL)) => {
                tracing::debug!("cannot {what}: {source}");
                self.unfilled.push(socket);
                Ok(())
            }
            other => other,
        }
    }

    /// Swaps tables in one batch, and remembers the shares that they give.
    fn swap(&mut self, tables: Vec<(u32, Vec<u32>)>, removed: &[u32], next: &Plan) -> Result<(), Error> {
        for (index, table) in &tables {
            if let Some(service) = next.services.iter().find(|service| service.index == *index) {
                self.shares.extend(reader::shares(service, table));
            }
        }
        let swaps = tables.into_iter().map(|(index, table)| (index, Some(table)));
        let swaps: Vec<_> = swaps.chain(removed.iter().map(|index| (*index, None))).collect();
        if swaps.is_empty() {
            return Ok(());
        }
        self.dataplane.maps.swap_tables(&swaps)
    }

    fn attach_selector(&mut self, group: GroupSockets, next: &Plan) {
        let exists = |index: u32| next.services.iter().any(|service| service.index == index && !service.backends.is_empty());
        if !exists(group.service) {
            return;
        }
        let attached = match self.any_of(&group) {
            Some(fd) => self.dataplane.attach_selector(&fd).map_err(anyhow::Error::from),
            None => Err(anyhow::anyhow!("none of its sockets can be taken")),
        };
        if let Err(error) = attached {
            tracing::debug!("cannot attach the selector to the group of service {}: {error:#}", group.service);
            self.unattached.push(group);
        }
    }

    /// Leaves a group to the kernel's own hash, unless another program than Weir's has it by now.
    fn detach_selector(&mut self, group: &GroupSockets) {
        let Some(fd) = self.any_of(group) else { return };
        let foreign = self.dataplane.steered_by_another().is_ok_and(|steered| steered.values().any(|foreign| *foreign));
        if foreign {
            return;
        }
        if let Err(error) = self.dataplane.detach_selector(&fd) {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
    }

    fn any_of(&self, group: &GroupSockets) -> Option<OwnedFd> {
        group.sockets.iter().find_map(|(cookie, inode, holders)| self.survey.take(*inode, *cookie, holders))
    }

    /// The interfaces that the configuration names, as they are now.
    pub(super) fn interfaces(&self) -> Result<Vec<Interface>, Failure> {
        self.config
            .daemon
            .interfaces
            .iter()
            .map(|name| {
                let interface = self.network.interface_by_name(name);
                let interface = interface.ok_or_else(|| no_interface(name))?;
                let mode = self.attached.iter().find(|attached| attached.index == interface.index).map(|attached| attached.mode.clone());
                Ok(Interface { name: name.clone(), index: interface.index, mode: mode.unwrap_or_default() })
            })
            .collect()
    }

    /// The interfaces that were attached, as they are now: one that is gone stays in the list, and is taken up again when it comes back.
    pub(super) fn interfaces_left(&self) -> Vec<Interface> {
        let now = |interface: &Interface| {
            let found = self.network.interface_by_name(&interface.name);
            let Some(index) = found.map(|found| found.index) else {
                if !interface.is_gone() {
                    tracing::warn!("{} is gone: nothing is balanced there until it comes back", interface.name);
                }
                return Interface { mode: Interface::GONE.to_owned(), ..interface.clone() };
            };
            if index == interface.index && !interface.is_gone() {
                return interface.clone();
            }
            Interface { index, mode: String::new(), ..interface.clone() }
        };
        self.attached.iter().map(now).collect()
    }

    /// Attaches the XDP program to the interfaces, and takes it off others. If it cannot be attached to one of them, those that had it
    /// before have it, and no others.
    pub(super) fn attach(&mut self) -> Result<(), Failure> {
        let before = self.dataplane.pins.linked_interfaces();
        let attached = self.attach_each();
        if attached.is_err() {
            for interface in self.dataplane.pins.linked_interfaces().into_iter().filter(|linked| !before.contains(linked)) {
                // The first error is the one to tell.
                let _ = self.dataplane.detach(interface);
            }
        }
        attached
    }

    fn attach_each(&mut self) -> Result<(), Failure> {
        for interface in self.attached.iter_mut().filter(|interface| !interface.is_gone()) {
            let mode = self.config.daemon.mode;
            let attached = self.dataplane.attach(interface.index, &interface.name, mode);
            let attached = attached.map_err(|error| status::failure(named(error, &self.network, self.dataplane.pins.root())))?;
            let found = self.network.interface(interface.index).and_then(|one| one.xdp).map(|xdp| xdp.mode);
            let mode_now = match (attached, found) {
                (Attached::New(XdpMode::Native), _) | (Attached::Adopted, Some(AttachedMode::Native)) => "native",
                (Attached::New(XdpMode::Generic), _) | (Attached::Adopted, Some(AttachedMode::Generic)) => Interface::GENERIC,
                (Attached::Adopted, Some(AttachedMode::Offload)) => "offload",
                (Attached::Adopted, None) if interface.mode.is_empty() => "unknown",
                (Attached::Adopted, None) => continue,
            };
            if interface.mode != mode_now {
                mode_now.clone_into(&mut interface.mode);
                tracing::info!("{}: XDP in {mode_now} mode", interface.name);
            }
            if attached == Attached::New(XdpMode::Generic) && mode == Mode::Auto {
                tracing::warn!("{}: its driver does not run XDP; generic mode costs more for each packet", interface.name);
            }
        }
        let present = self.attached.iter().filter(|interface| !interface.is_gone());
        let indexes: Vec<u32> = present.map(|interface| interface.index).collect();
        self.dataplane.detach_others(&indexes).map_err(status::failure)
    }

    /// The network namespace as the plan wants it.
    pub(super) fn host(&self) -> Host {
        let present = self.attached.iter().filter(|interface| !interface.is_gone());
        let attached = present.map(|interface| plan::Attached {
            index: interface.index,
            loopback: self.network.interface(interface.index).is_some_and(|one| one.loopback),
            mtu: self.network.interface(interface.index).map_or(0, |one| one.mtu),
            macs: self.network.macs_on(interface.index),
            addresses: self.network.local_addresses(interface.index),
            devices: self.network.above(interface.index),
        });
        let devices = self.network.interfaces.iter().map(|one| Device { index: one.index, name: one.name.clone() });
        Host { attached: attached.collect(), devices: devices.collect() }
    }

    /// Takes the data plane away: groups back to the kernel's hash, programs off the interfaces, pins removed.
    pub(super) fn stop(&mut self) -> crate::api::protocol::Response {
        let groups = plan::changes(&self.plan, &Plan::default()).detach;
        for group in &groups {
            self.detach_selector(group);
        }
        super::guard::restore_syncookies(&mut self.guard.live);
        let removed = self.dataplane.pins.remove_all();
        let forgotten = std::fs::remove_file(&self.state_file);
        match removed {
            Ok(()) => {
                // That there was no state file is as good.
                drop(forgotten);
                crate::api::protocol::Response::Done { message: "detached; nothing is left in the kernel".to_owned() }
            }
            Err(error) => status::refused(&status::failure(error)),
        }
    }
}

/// An error about an interface that is taken, with what is known of the program that has it.
fn named(error: Error, network: &Network, pin_root: &Path) -> Error {
    let Error::Occupied { interface, .. } = error else { return error };
    let found = network.interface_by_name(&interface).and_then(|found| found.xdp);
    let occupant = found.map(|found| Occupant {
        id: found.program_id,
        name: probe::program(found.program_id).map(|program| program.name).unwrap_or_default(),
        mode: found.mode,
        instance: probe::instance_of(found.program_id, pin_root),
    });
    Error::Occupied { interface, occupant }
}

/// The failure for an interface that is not there.
pub(crate) fn no_interface(name: &str) -> Failure {
    fail(Exit::Interface, format!("there is no interface {name}"), "`ip link` lists the interfaces; inside a namespace use --netns")
}
