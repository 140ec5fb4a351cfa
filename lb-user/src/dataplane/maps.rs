//! The maps, typed: each one opened once, by the name it has in lb-ebpf's `maps.rs`.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
};

use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage},
};
use aya_obj::generated::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use lb_common::{
    FlowKey,
    abi::{
        BackendCounters, BackendState, GroupKey, GroupRecord, PortBitmap, RestoreCounters, SelectorCounters, ServiceCounters, ServiceKey,
        ServiceRecord, Settings, SocketTag, UdpFlow,
    },
    relief::Relief,
};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::{Error, SOCKETS, defence::DefenceMaps, pins::Pins, sys, watch::WatchMaps};

/// A value of `lb_common::abi` as aya wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: zerocopy has checked that any bytes are a `T` and that a `T` is all bytes, without padding; `Plain` is the same bytes.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Pod for Plain<T> {}

/// The bitmap of ports: 16 KiB, and so no `Copy` type in lb_common.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Bits(pub [u64; 2048]);

// SAFETY: an array of integers.
unsafe impl Pod for Bits {}

/// The maps of one version.
pub struct Maps {
    settings: Array<MapData, Plain<Settings>>,
    ports: Array<MapData, Bits>,
    services: HashMap<MapData, Plain<ServiceKey>, Plain<ServiceRecord>>,
    service_changes: Array<MapData, u64>,
    groups: HashMap<MapData, Plain<GroupKey>, Plain<GroupRecord>>,
    tables: ArrayOfMaps<MapData, Array<MapData, u32>>,
    /// The same map: for the batch update, which aya lacks.
    tables_data: MapData,
    pub(super) sockets: MapData,
    pub(super) backends: Array<MapData, Plain<BackendState>>,
    pub(super) backend_counters: PerCpuArray<MapData, Plain<BackendCounters>>,
    pub(super) service_counters: PerCpuArray<MapData, Plain<ServiceCounters>>,
    pub(super) selector_counters: PerCpuArray<MapData, Plain<SelectorCounters>>,
    pub(super) restore_counters: PerCpuArray<MapData, Plain<RestoreCounters>>,
    udp_flows: HashMap<MapData, Plain<FlowKey>, Plain<UdpFlow>>,
    pub(super) socket_tags: SkStorage<MapData, Plain<SocketTag>>,
    service_capacity: u64,
    /// Those of the SYN defence.
    pub defence: DefenceMaps,
    /// Those of what is watched.
    pub watch: WatchMaps,
}

/// The names of the maps that are pinned: all of them.
pub(super) const NAMES: [&str; 39] = [
    "SETTINGS",
    "PORTS",
    "SERVICES",
    "SERVICE_CHANGES",
    "SEEN_SERVICES",
    "GROUPS",
    "TABLES",
    SOCKETS,
    "BACKENDS",
    "LISTENERS",
    "BACKEND_COUNTERS",
    "SERVICE_COUNTERS",
    "SELECTOR_COUNTERS",
    "RESTORE_COUNTERS",
    "UDP_FLOWS",
    "UDP_BUDGET",
    "SOCKET_TAGS",
    "EVENTS",
    "DEFENCE",
    "FLOODS",
    "FLOOD_WINDOWS",
    "LIVE",
    "KNOWN_FLOWS",
    "ENDED_FLOWS",
    "PREFIX_BUCKETS",
    "PREFIXES",
    "BUDGETS",
    "ADDRESSES",
    "ADDRESS_FILTER",
    "SCRATCH",
    "TRACE",
    "TRACE_STATE",
    "TRACED",
    "WATCHED",
    "BACKEND_TIMES",
    "SERVICE_TIMES",
    "DROP_REASONS",
    "KERNEL_DROPS",
    "DROPS_FOLDED",
];

impl Maps {
    /// Opens the pinned maps of a version.
    pub fn pinned(pins: &Pins, version: u32) -> Result<Self, Error> {
        let at = |name| (pins, version, name);
        Ok(Self {
            settings: open(at("SETTINGS"))?,
            ports: open(at("PORTS"))?,
            services: open(at("SERVICES"))?,
            service_changes: open(at("SERVICE_CHANGES"))?,
            groups: open(at("GROUPS"))?,
            tables: open(at("TABLES"))?,
            tables_data: open_data(at("TABLES"))?,
            sockets: open_data(at(SOCKETS))?,
            backends: open(at("BACKENDS"))?,
            backend_counters: open(at("BACKEND_COUNTERS"))?,
            service_counters: open(at("SERVICE_COUNTERS"))?,
            selector_counters: open(at("SELECTOR_COUNTERS"))?,
            restore_counters: open(at("RESTORE_COUNTERS"))?,
            udp_flows: open(at("UDP_FLOWS"))?,
            socket_tags: open(at("SOCKET_TAGS"))?,
            defence: DefenceMaps::pinned(at)?,
            watch: WatchMaps::pinned(at)?,
            service_capacity: open_data(at("SERVICES"))?.info().map_err(Error::map("SERVICES"))?.max_entries().into(),
        })
    }

    /// The settings.
    pub fn settings(&self) -> Result<Settings, Error> {
        self.settings.get(&0, 0).map(|Plain(settings)| settings).map_err(Error::map("SETTINGS"))
    }

    /// Says from when on a worker is spared new connections.
    pub fn set_relief(&mut self, relief: Relief) -> Result<(), Error> {
        let settings = self.settings()?;
        self.set_settings(Settings { relief, ..settings })
    }

    /// Writes the settings.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), Error> {
        self.settings.set(0, Plain(settings), 0).map_err(Error::map("SETTINGS"))
    }

    /// Writes the bitmap of ports.
    pub fn set_ports(&mut self, ports: &PortBitmap) -> Result<(), Error> {
        self.ports.set(0, Bits(ports.words), 0).map_err(Error::map("PORTS"))
    }

    /// Enters a service, or replaces its record.
    pub fn set_service(&mut self, key: ServiceKey, record: ServiceRecord) -> Result<(), Error> {
        self.services.insert(Plain(key), Plain(record), 0).map_err(Error::map("SERVICES"))?;
        self.count_service_change()
    }

    /// The service of a key.
    pub fn service(&self, key: &ServiceKey) -> Result<Option<ServiceRecord>, Error> {
        found(self.services.get(&Plain(*key), 0)).map(|found| found.map(|Plain(record)| record)).map_err(Error::map("SERVICES"))
    }

    /// Removes a service; that it was not there is no error.
    pub fn remove_service(&mut self, key: &ServiceKey) -> Result<(), Error> {
        found(self.services.remove(&Plain(*key))).map(drop).map_err(Error::map("SERVICES"))?;
        self.count_service_change()
    }

    /// Makes the programs look up anew what they have seen of the services.
    fn count_service_change(&mut self) -> Result<(), Error> {
        let changes = self.service_changes.get(&0, 0).map_err(Error::map("SERVICE_CHANGES"))?;
        self.service_changes.set(0, changes.wrapping_add(1), 0).map_err(Error::map("SERVICE_CHANGES"))
    }

    /// Enters a group, or replaces its record.
    pub fn set_group(&mut self, key: GroupKey, record: GroupRecord) -> Result<(), Error> {
        self.groups.insert(Plain(key), Plain(record), 0).map_err(Error::map("GROUPS"))
    }

    /// Removes a group; that it was not there is no error.
    pub fn remove_group(&mut self, key: &GroupKey) -> Result<(), Error> {
        found(self.groups.remove(&Plain(*key))).map(drop).map_err(Error::map("GROUPS"))
    }

    /// Swaps tables: each service gets the table given, or none. One call for all, and when it returns no program reads an old one.
    pub fn swap_tables(&mut self, tables: &[(u32, Option<Vec<u32>>)]) -> Result<(), Error> {
        let mut services = Vec::new();
        let mut inner = Vec::new();
        for (service, table) in tables {
            if let Some(table) = table {
                services.push(*service);
                inner.push(make_table(table)?);
            }
        }
        let descriptors: Vec<i32> = inner.iter().map(|map| map.fd().as_fd().as_raw_fd()).collect();
        sys::update_batch(self.tables_data.fd(), &services, &descriptors).map_err(Error::call("swap the tables of services"))?;
        for (service, _) in tables.iter().filter(|(_, table)| table.is_none()) {
            sys::delete(self.tables_data.fd(), *service).map_err(Error::call("remove the table of a service"))?;
        }
        Ok(())
    }

    /// The table of a service as it stands in the kernel; `None` if it has none.
    pub fn table(&self, service: u32) -> Result<Option<Vec<u32>>, Error> {
        let Some(table) = found(self.tables.get(&service, 0)).map_err(Error::map("TABLES"))? else { return Ok(None) };
        table.iter().collect::<Result<Vec<_>, _>>().map(Some).map_err(Error::map("TABLES"))
    }

    /// The state of a slot.
    pub fn backend(&self, slot: u32) -> Result<BackendState, Error> {
        self.backends.get(&slot, 0).map(|Plain(state)| state).map_err(Error::map("BACKENDS"))
    }

    /// Writes the state of a slot.
    pub fn set_backend(&mut self, slot: u32, state: BackendState) -> Result<(), Error> {
        self.backends.set(slot, Plain(state), 0).map_err(Error::map("BACKENDS"))
    }

    /// Removes services, groups and tables that are not among those given: what a daemon that was killed left half done.
    pub fn prune(&mut self, services: &[ServiceKey], groups: &[GroupKey], tables: &[u32]) -> Result<(), Error> {
        let keys: Vec<ServiceKey> = self.services.keys().filter_map(|key| Some(key.ok()?.0)).collect();
        for key in keys.iter().filter(|key| !services.contains(key)) {
            self.remove_service(key)?;
        }
        let keys: Vec<GroupKey> = self.groups.keys().filter_map(|key| Some(key.ok()?.0)).collect();
        for key in keys.iter().filter(|key| !groups.contains(key)) {
            self.remove_group(key)?;
        }
        for index in self.tables_there().map_err(Error::call("read the tables"))? {
            if !tables.contains(&index) {
                sys::delete(self.tables_data.fd(), index).map_err(Error::call("remove the table of a service"))?;
            }
        }
        Ok(())
    }

    /// The services that have a table.
    ///
    /// In Linux 6.1 each lookup in a map of maps waits until no program runs that has begun before it, some 10 ms. Lookups of several
    /// threads share one such wait: one after the other, a thousand would take ten seconds.
    fn tables_there(&self) -> io::Result<Vec<u32>> {
        const AT_A_TIME: usize = 32;
        let count = self.tables.len();
        let of_one = |first: usize| {
            let indexes = (0..count).skip(first).step_by(AT_A_TIME);
            let looked_up = indexes.map(|index| Ok(sys::lookup(self.tables_data.fd(), index)?.map(|_| index)));
            looked_up.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_A_TIME).map(|first| scope.spawn(move || of_one(first))).collect();
            let found = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())));
            found.collect::<io::Result<Vec<_>>>().map(|found| found.concat())
        })
    }

    /// How many entries of services there can be.
    #[must_use]
    pub fn service_capacity(&self) -> u64 {
        self.service_capacity
    }

    /// How many slots have counters: no backend gets a slot beyond.
    pub fn countable_backends(&self) -> u32 {
        self.backend_counters.len()
    }

    /// The UDP flow of a key.
    pub fn udp_flow(&self, key: &FlowKey) -> Result<Option<UdpFlow>, Error> {
        found(self.udp_flows.get(&Plain(*key), 0)).map(|entry| entry.map(|Plain(flow)| flow)).map_err(Error::map("UDP_FLOWS"))
    }

    /// How many flows the UDP flow table holds. This walks the whole table: a system call for each flow.
    pub fn udp_flow_count(&self) -> u64 {
        self.udp_flows.keys().flatten().count() as u64
    }

    /// Takes over what a data plane of another version has that must not be lost: its settings as far as both have them, and its UDP
    /// flows. A flow whose entry cannot be copied is hashed anew. Of the other maps' layouts nothing is known.
    pub fn inherit(&mut self, pins: &Pins, version: u32) -> Result<Settings, Error> {
        let data = open_data((pins, version, "SETTINGS"))?;
        let mut value = vec![0; data.info().map_err(Error::map("SETTINGS"))?.value_size() as usize];
        sys::lookup_bytes(data.fd(), 0, &mut value).map_err(Error::call("read the settings of another version"))?;
        let mut settings = Settings::new_zeroed();
        let both = value.len().min(size_of::<Settings>());
        settings.as_mut_bytes()[..both].copy_from_slice(&value[..both]);
        let flows: HashMap<MapData, Plain<FlowKey>, Plain<UdpFlow>> = open((pins, version, "UDP_FLOWS"))?;
        for (key, flow) in flows.iter().flatten() {
            // The table being full is no reason to stop: the least recently used make room.
            let _ = self.udp_flows.insert(key, flow, 0);
        }
        Ok(settings)
    }
}

/// Makes an inner map with these elements.
fn make_table(elements: &[u32]) -> Result<MapData, Error> {
    let length = u32::try_from(elements.len()).map_err(|error| Error::call("size a table")(io::Error::other(error)))?;
    // The flags must be those of the template in the object, or the map of maps refuses it.
    let flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE;
    let map = MapData::create(aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, 4, length, flags), "table", None)
        .map_err(Error::map("TABLES"))?;
    sys::write_array(map.fd(), elements).map_err(Error::call("fill a table"))?;
    Ok(map)
}

/// Where a map is: the instance's pins, the version, the name.
pub(super) type At<'a> = (&'a Pins, u32, &'static str);

pub(super) fn open_data((pins, version, name): At<'_>) -> Result<MapData, Error> {
    MapData::from_pin(pins.map_of(version, name)).map_err(Error::map(name))
}

pub(super) fn open<T: TryFrom<Map, Error = MapError>>(at: At<'_>) -> Result<T, Error> {
    Map::from_map_data(open_data(at)?).and_then(T::try_from).map_err(Error::map(at.2))
}

/// That a key is not there is an answer.
pub(super) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
