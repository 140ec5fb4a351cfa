//! The services that the packet tests have, the tables behind them, and the flows that the UDP flow table knows.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{
    Address, FlowKey,
    abi::{DefencePolicy, NO_SLOT, QUIC_WORKERS, TABLE_HEADER, UdpFlow, entry_index, service_flags},
    maglev::{self, Backend, Turn},
    wire::protocol::{TCP, UDP},
};

use super::defended;

/// The key of the flow hash in the tests: any will do, as long as both sides have it.
pub const HASH_KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
/// The interface of a test run that names none: the loopback interface.
pub const LOOPBACK: u32 = 1;
/// An interface that [`ELSEWHERE`] is on and test runs do not come in by.
pub const OTHER_INTERFACE: u32 = 77;
/// The MAC of the bridge that the services' interface is a port of, as the tests pretend.
pub const BRIDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xb1];

/// The addresses of services.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const SECOND_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const SECOND_SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
/// An address that no service has.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);

/// The client's port of a flow that the UDP flow table does not hold.
pub const NEW_PORT: u16 = 40_000;
/// The client's port of a flow that it holds.
pub const KNOWN_PORT: u16 = 40_001;
/// The client's port of a flow whose worker has gone: its slot has had another socket since.
pub const STALE_PORT: u16 = 40_002;
/// The client's port of a flow whose slot does not exist.
pub const LOST_PORT: u16 = 40_003;

/// The services by their index. 0 is none.
pub const NONE: u32 = 0;
pub const WEB: u32 = 1;
pub const WEB6: u32 = 2;
/// Port 443 of two addresses of each family: what a wildcard listener becomes.
pub const WILDCARD: u32 = 3;
pub const DNS: u32 = 4;
/// Port 443, UDP, with the worker's index at [`QUIC_POSITION`].
pub const QUIC: u32 = 5;
/// Ports 8080 and 8053: a service that has no table at all.
pub const TABLELESS: u32 = 6;
/// Port 8443 on [`OTHER_INTERFACE`] only.
pub const ELSEWHERE: u32 = 7;
/// Port 8081: a service whose table has no backend.
pub const EMPTY: u32 = 8;
/// Port 8444, UDP: a QUIC service that has no table.
pub const QUIC_TABLELESS: u32 = 9;
/// How many there are, with none and with those of [`defended`].
pub const SERVICES: usize = defended::EMPTIED as usize + 1;

/// Where the worker's index stands in the connection IDs of [`QUIC`].
pub const QUIC_POSITION: u8 = 3;
/// The generation of every slot.
pub const GENERATION: u32 = 7;
/// How many slots the services have together.
pub const SLOTS: u32 = 8 * (defended::EMPTIED + 1);
/// Workers of a service: the slots `8 * service` and up.
const WORKERS: u32 = 5;
/// A small size for the tables: what is tested here is the way to them.
const SIZE: usize = 251;

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    pub index: u32,
    pub protocol: u8,
    pub port: u16,
    pub addresses: Vec<Address>,
    pub interface: u32,
    pub flags: u32,
}

/// All of it, as plain collections: what the maps are filled from, and what the host's model looks things up in.
#[derive(Clone, Debug)]
pub struct World {
    pub services: Vec<Service>,
    /// Service -> the elements of its table.
    pub tables: HashMap<u32, Vec<u32>>,
    pub udp_flows: HashMap<FlowKey, UdpFlow>,
    /// Service -> how it is defended.
    pub policies: BTreeMap<u32, DefencePolicy>,
    /// The addresses of this host.
    pub addresses: Vec<Address>,
}

impl World {
    /// The one that every packet test runs in.
    pub fn new() -> Self {
        let v4 = |address: Ipv4Addr| Address::from(IpAddr::V4(address));
        let v6 = |address: Ipv6Addr| Address::from(IpAddr::V6(address));
        let (server, server6) = (v4(SERVER), v6(SERVER6));
        let all = vec![server, v4(SECOND_SERVER), server6, v6(SECOND_SERVER6)];
        let addresses = all.clone();
        let service = |index, protocol, port, addresses| Service { index, protocol, port, addresses, interface: LOOPBACK, flags: 0 };
        let quic = service_flags::quic(QUIC_POSITION);
        let mut services = vec![
            service(WEB, TCP, 80, vec![server]),
            service(WEB6, TCP, 80, vec![server6]),
            service(WILDCARD, TCP, 443, all),
            service(DNS, UDP, 53, vec![server, server6]),
            Service { flags: quic, ..service(QUIC, UDP, 443, vec![server, server6]) },
            service(TABLELESS, TCP, 8080, vec![server, server6]),
            service(TABLELESS, UDP, 8053, vec![server, server6]),
            Service { interface: OTHER_INTERFACE, ..service(ELSEWHERE, TCP, 8443, vec![server, server6]) },
            service(EMPTY, TCP, 8081, vec![server, server6]),
            Service { flags: quic, ..service(QUIC_TABLELESS, UDP, 8444, vec![server]) },
        ];
        services.extend(defended::services());
        let mut tables: HashMap<_, _> = [WEB, WEB6, WILDCARD, DNS, QUIC, ELSEWHERE].map(|index| (index, table(index))).into();
        tables.extend(
            (defended::FLOODED..defended::EMPTIED).filter(|index| *index != defended::UNBALANCED).map(|index| (index, table(index))),
        );
        for empty in [EMPTY, defended::EMPTIED] {
            tables.insert(empty, [vec![0], vec![NO_SLOT; QUIC_WORKERS as usize]].concat());
        }
        let udp_flows = [(v4(CLIENT), server), (v6(CLIENT6), server6)].into_iter().flat_map(|(client, server)| {
            [(53, DNS), (443, QUIC)].into_iter().flat_map(move |(port, service)| {
                let key = move |client_port| FlowKey::new(client, client_port, server, port, UDP);
                [
                    (key(KNOWN_PORT), UdpFlow { slot: 8 * service, generation: GENERATION }),
                    (key(STALE_PORT), UdpFlow { slot: 8 * service, generation: GENERATION - 1 }),
                    (key(LOST_PORT), UdpFlow { slot: lb_common::abi::SOCKET_SLOTS, generation: GENERATION }),
                ]
            })
        });
        Self { services, tables, udp_flows: udp_flows.collect(), policies: defended::policies(), addresses }
    }

    /// The slot that the service's table has for the flow.
    pub fn slot_by_hash(&self, service: u32, flow: &FlowKey) -> Option<u32> {
        let table = self.tables.get(&service)?;
        let slot = *table.get(entry_index(flow.hash(HASH_KEY), table[0], 0) as usize)?;
        (slot != NO_SLOT).then_some(slot)
    }

    /// The slot of a QUIC worker.
    pub fn slot_of_worker(&self, service: u32, worker: u8) -> Option<u32> {
        self.tables.get(&service).map(|table| table[1 + usize::from(worker)]).filter(|slot| *slot != NO_SLOT)
    }
}

/// A table of five workers, the first three of which (0, 1 and 200) have an index that a connection ID may name.
fn table(service: u32) -> Vec<u32> {
    let backends: Vec<_> =
        (0..WORKERS).map(|worker| Backend { id: u64::from(100 * service + worker), slot: 8 * service + worker, weight: 1 }).collect();
    let mut elements = vec![NO_SLOT; TABLE_HEADER as usize + SIZE];
    elements[0] = u32::try_from(SIZE).expect("a small size");
    for (worker, slot) in [(0, 0), (1, 1), (200, 2)] {
        elements[1 + worker] = 8 * service + slot;
    }
    let mut scratch = [Turn::default(); WORKERS as usize];
    maglev::fill(&mut elements[TABLE_HEADER as usize..], &backends, &mut scratch).expect("a table");
    elements
}
