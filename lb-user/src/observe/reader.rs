//! Makes the snapshot: names from the plan, figures from the maps.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lb_common::{
    Reason,
    abi::{Cause, NO_SLOT, Restored, SOCKET_SLOTS, Scheme, SelectionMiss, TABLE_HEADER, Times, policy_flags},
    flood::Mode,
};

use super::snapshot::{
    Backend, Daemon, Dataplane, Defence, Histogram, Interface, KernelDrop, Listening, MapFill, Program, Queues, ReasonCount, Service,
    ServiceDefence, Snapshot, Watch,
};
use crate::{
    api::protocol::Order,
    config::Protocol,
    dataplane::{Error, Maps, ReasonNames, ServiceTotals, monotonic_time},
    plan::{self, Note, Plan},
};

/// What the reader is told beside the plan and the maps.
#[derive(Debug, Default)]
pub struct Facts {
    /// The instance's name.
    pub instance: String,
    /// The daemon; none when it is not running.
    pub daemon: Option<Daemon>,
    /// The interfaces with the XDP program.
    pub interfaces: Vec<Interface>,
    /// The programs.
    pub programs: Vec<Program>,
    /// The maps whose fill matters.
    pub maps: Vec<MapFill>,
    /// What waits at sockets, by cookie.
    pub queues: HashMap<u64, Queues>,
    /// How it is watched.
    pub watch: Watch,
    /// Whether handshakes are timed.
    pub handshakes: bool,
    /// The kernel's names for the reasons of drops, by number.
    pub drop_reasons: ReasonNames,
    /// What TCP counts for the whole namespace.
    pub tcp_counters: BTreeMap<String, u64>,
    /// The share of each slot in its service's table, 0 to 1.
    pub shares: HashMap<u32, f64>,
}

/// The shares of all slots in the tables that the plan asks for.
///
/// The same as [`plan::share`] of each slot, by one pass over the table: with 1,000 workers and 65,537 entries a pass for each takes
/// longer than to make the table.
#[must_use]
pub fn shares(service: &plan::Service, table: &[u32]) -> Vec<(u32, f64)> {
    let entries = table.get(TABLE_HEADER as usize..).unwrap_or_default();
    let slots = || service.backends.iter().map(|backend| backend.slot);
    let end = slots().max().map_or(0, |slot| slot.min(SOCKET_SLOTS) as usize + 1);
    let mut counts = vec![0_u32; end];
    for entry in entries {
        if let Some(count) = counts.get_mut(*entry as usize) {
            *count += 1;
        }
    }
    let all = f64::from(u32::try_from(entries.len()).unwrap_or(u32::MAX)).max(1.0);
    slots().map(|slot| (slot, f64::from(counts.get(slot as usize).copied().unwrap_or(0)) / all)).collect()
}

/// Seconds since 1970.
#[must_use]
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Makes a snapshot.
pub fn snapshot(plan: &Plan, maps: &Maps, facts: Facts) -> Result<Snapshot, Error> {
    let kernel_drops = KernelDrops::read(maps, &facts)?;
    let Facts { instance, daemon, interfaces, programs, maps: fills, watch, tcp_counters, .. } = &facts;
    let settings = maps.settings()?;
    let now = crate::dataplane::boot_time();
    let uptime = Duration::from_nanos(now.saturating_sub(settings.attached_at)).as_secs_f64();
    let services: Result<Vec<_>, Error> =
        plan.services.iter().map(|service| of_service(service, order(plan, service), maps, &facts, &kernel_drops)).collect();
    let misses = maps.selection_misses()?;
    Ok(Snapshot {
        taken_at: unix_time(),
        instance: instance.clone(),
        daemon: daemon.clone(),
        dataplane: Dataplane {
            abi_version: settings.abi_version,
            uptime,
            interfaces: interfaces.clone(),
            programs: programs.clone(),
            maps: fills.clone(),
        },
        services: services?,
        others: plan.others.clone(),
        passed: reasons(&maps.service_totals(0)?, |reason| !reason.is_of_service()),
        selector_misses: SelectionMiss::ALL.iter().map(|miss| (miss.label().to_owned(), misses[*miss as usize])).collect(),
        defence: defence(maps)?,
        watch: watch.clone(),
        kernel_drops_folded: kernel_drops.folded,
        tcp_counters: tcp_counters.clone(),
        notes: plan.notes.clone(),
    })
}

/// The defence as a whole, by the record that the daemon renews.
fn defence(maps: &Maps) -> Result<Defence, Error> {
    let (live, now) = (maps.defence.live()?, monotonic_time());
    let current = live.keys[(live.parity & 1) as usize].honoured_until;
    let scheme = [Scheme::Own, Scheme::Kernel].into_iter().find(|scheme| *scheme as u32 == live.scheme).unwrap_or_default();
    let restored = maps.restored()?;
    let key_age = (current != 0).then(|| Duration::from_nanos(now.saturating_sub(live.key_made_at)).as_secs_f64());
    Ok(Defence {
        scheme: scheme.label().to_owned(),
        live: live.is_live(now),
        key_age,
        sysctl_changed: live.syncookies_before != 0,
        restored: Restored::ALL.iter().map(|outcome| (outcome.label().to_owned(), restored[*outcome as usize])).collect(),
    })
}

fn of_defence(service: &plan::Service, order: Order, maps: &Maps) -> Result<Option<ServiceDefence>, Error> {
    if service.protocol != Protocol::Tcp {
        return Ok(None);
    }
    let (policy, flood, now) = (maps.defence.policy(service.index)?, maps.defence.flood(service.index)?, monotonic_time());
    let mode = if policy.is_defended() { policy.mode(&flood, now) } else { Mode::Calm };
    let end = if mode == Mode::Flood { now } else { flood.hot };
    Ok(Some(ServiceDefence {
        stance: service.stance,
        order,
        mode: mode.label().to_owned(),
        flood_seconds: (mode != Mode::Calm && flood.entered != 0)
            .then(|| Duration::from_nanos(end.saturating_sub(flood.entered)).as_secs()),
        answers_syns: policy.answers_syns(&flood, now),
        is_unsafe: policy.flags & policy_flags::UNSAFE != 0,
        kernels_only: policy.flags & policy_flags::KERNEL_SCHEME != 0,
    }))
}

/// What an operator has ordered of the service's defence.
fn order(plan: &Plan, service: &plan::Service) -> Order {
    plan.orders.get(&service.name).copied().unwrap_or(Order::Auto)
}

fn of_service(service: &plan::Service, order: Order, maps: &Maps, facts: &Facts, drops: &KernelDrops) -> Result<Service, Error> {
    let totals = maps.service_totals(service.index)?;
    let backends: Result<Vec<_>, Error> =
        service.backends.iter().map(|backend| of_backend(backend, service.protocol, maps, facts, drops)).collect();
    let backends = backends?;
    // A service that is not balanced has no backend that its connections could be told by.
    let timed = facts.handshakes && service.protocol == Protocol::Tcp && service.balanced;
    let handshakes = timed.then(|| maps.watch.service_times(service.index)).transpose()?;
    let mut notes = service.notes.clone();
    notes.extend(missing_packets(service.protocol, &totals, &backends));
    Ok(Service {
        name: service.name.clone(),
        protocol: service.protocol,
        address: service.address,
        port: service.port,
        device: service.device.as_ref().map(|device| device.name.clone()),
        configured: service.configured,
        balanced: service.balanced,
        listeners: service.listeners.len() as u64,
        table_size: service.table_size,
        backends,
        listening: service
            .listeners
            .iter()
            .map(|one| Listening {
                cookie: one.cookie,
                inode: one.inode,
                queues: facts.queues.get(&one.cookie).copied().unwrap_or_default(),
            })
            .collect(),
        handshake_time: handshakes.map(|times| histogram(&times.handshake)),
        handshakes_repeated: handshakes.map_or(0, |times| times.repeated),
        kernel_drops: drops.by_service.get(&service.index).cloned().unwrap_or_default(),
        defence: of_defence(service, order, maps)?,
        packets: reasons(&totals, |reason| totals.by_reason[reason.index()].packets > 0),
        notes,
    })
}

fn of_backend(backend: &plan::Backend, protocol: Protocol, maps: &Maps, facts: &Facts, drops: &KernelDrops) -> Result<Backend, Error> {
    let measured = facts.watch.accept_latency.as_deref() == Some("measured") && protocol == Protocol::Tcp;
    let totals = maps.backend_totals(backend.slot)?;
    Ok(Backend {
        index: backend.index,
        slot: backend.slot,
        cookie: backend.cookie,
        inode: backend.inode,
        state: backend.state,
        weight: backend.weight,
        share: facts.shares.get(&backend.slot).copied().unwrap_or(0.0),
        servers: backend.servers.clone(),
        queues: facts.queues.get(&backend.cookie).copied().unwrap_or_default(),
        accept_latency: measured.then(|| maps.watch.backend_times(backend.slot)).transpose()?.map(|times| histogram(&times.accept)),
        kernel_drops: drops.by_backend.get(&(backend.slot, backend.generation)).cloned().unwrap_or_default(),
        chosen: totals.chosen,
        selected: Cause::ALL.iter().map(|cause| (cause.label().to_owned(), totals.selected[*cause as usize])).collect(),
        established: totals.established,
        open: totals.established.saturating_sub(totals.closed),
    })
}

fn histogram(times: &Times) -> Histogram {
    Histogram { counts: times.counts.to_vec(), sum: Duration::from_nanos(times.sum).as_secs_f64() }
}

/// The kernel's drops, sorted.
#[derive(Default)]
struct KernelDrops {
    by_service: HashMap<u32, Vec<KernelDrop>>,
    /// By slot and generation.
    by_backend: HashMap<(u32, u32), Vec<KernelDrop>>,
    folded: u64,
}

impl KernelDrops {
    fn read(maps: &Maps, facts: &Facts) -> Result<Self, Error> {
        let mut sorted = Self::default();
        if !facts.watch.kernel_drops {
            return Ok(sorted);
        }
        let (mut rows, folded) = maps.watch.kernel_drops()?;
        rows.sort_unstable_by_key(|(key, _)| key.reason);
        sorted.folded = folded;
        for (key, packets) in rows {
            // A reason of another kernel's, before this one was started: there is none, since maps do not outlive the machine.
            let Some(reason) = facts.drop_reasons.get(&key.reason).cloned() else { continue };
            let list = match key.slot {
                NO_SLOT => sorted.by_service.entry(key.service).or_default(),
                slot => sorted.by_backend.entry((slot, key.generation)).or_default(),
            };
            list.push(KernelDrop { reason, packets });
        }
        Ok(sorted)
    }
}

fn reasons(totals: &ServiceTotals, wanted: impl Fn(Reason) -> bool) -> Vec<ReasonCount> {
    let count = |reason: &Reason| {
        let counter = totals.by_reason[reason.index()];
        ReasonCount { reason: reason.label().to_owned(), packets: counter.packets, bytes: counter.bytes }
    };
    Reason::ALL.iter().filter(|reason| wanted(**reason)).map(count).collect()
}

/// A service that is "started, silently does nothing" says so: what the card sees and what the workers get must fit together.
fn missing_packets(protocol: Protocol, totals: &ServiceTotals, backends: &[Backend]) -> Option<Note> {
    /// So many opening packets without a single selection are no accident.
    const ENOUGH: u64 = 10;
    let packets = |reason: Reason| totals.by_reason[reason.index()].packets;
    // SYNs that XDP has answered or dropped in a flood are seen, and none of them has to reach a worker.
    let (seen, passed) = match protocol {
        Protocol::Tcp => (totals.syns(), packets(Reason::TcpOpened)),
        Protocol::Udp => (packets(Reason::UdpOpened), packets(Reason::UdpOpened)),
    };
    let selected: u64 = backends.iter().flat_map(|backend| backend.selected.values()).sum();
    match (seen, passed, selected) {
        (0, _, 1..) => Some(Note {
            text: format!("{selected} flows reached the workers and XDP saw none of them: they came by another way than Weir's interfaces"),
            remedy:
                "clients on this host itself never pass the card; for others add the interface that their packets come in by with --iface"
                    .to_owned(),
        }),
        (_, ENOUGH.., 0) if !backends.is_empty() => Some(Note {
            text: format!("XDP passed {passed} packets that open a flow and none reached a worker"),
            remedy: "look for what drops or redirects them behind the card: `nft list ruleset`, `ip route get`, reverse path filter"
                .to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Backend, State};

    #[test]
    fn one_pass_gives_the_same_shares() {
        let backend = |index: u32| Backend {
            index,
            slot: 3 * index,
            generation: 1,
            cookie: index.into(),
            inode: index,
            weight: index % 4,
            state: if index == 2 { State::Draining } else { State::Ready },
            servers: Vec::new(),
            holders: Vec::new(),
        };
        let mut service = plan::Service {
            index: 1,
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            port: 80,
            device: None,
            configured: false,
            takeover: false,
            balanced: true,
            stance: crate::config::Stance::Auto,
            defence: plan::ServiceDefence::default(),
            flags: 0,
            table_size: 251,
            entries: Vec::new(),
            backends: (0..9).map(backend).collect(),
            listeners: Vec::new(),
            notes: Vec::new(),
        };
        let table = plan::table(&service);
        let found = shares(&service, &table);
        let expected: Vec<_> = service.backends.iter().map(|backend| (backend.slot, plan::share(&table, backend.slot))).collect();
        assert_eq!(found, expected);
        assert!((found.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        service.backends.clear();
        assert!(shares(&service, &table).is_empty());
        assert!(shares(&service, &[]).is_empty());
    }
}
