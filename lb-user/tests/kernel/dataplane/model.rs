//! What the program should do with a frame, worked out on the host: the parser of lb-common, and plain lookups in plain collections.

use std::collections::{HashMap, HashSet};

use lb_common::{
    Address, Reason,
    abi::service_flags,
    packet::Window,
    wire::{self, Kind, tcp, udp},
};

use super::world::{BRIDGE_MAC, GENERATION, NONE, SLOTS, Service, World};
use crate::support::packet::SERVER_MAC;

/// What becomes of a frame: whose it is, why, and the slot chosen for the flow it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fate {
    pub service: u32,
    pub reason: Reason,
    pub slot: Option<u32>,
}

impl Fate {
    /// A frame that is no service's.
    pub const fn passed(reason: Reason) -> Self {
        Self { service: NONE, reason, slot: None }
    }

    /// A service's frame that needs no choice.
    pub const fn of(service: u32, reason: Reason) -> Self {
        Self { service, reason, slot: None }
    }
}

/// The model: the world, with what the program looks up by hash.
pub struct Model<'a> {
    world: &'a World,
    ports: HashSet<(u8, u16)>,
    services: HashMap<(Address, u16, u8, u32), &'a Service>,
}

impl<'a> Model<'a> {
    pub fn new(world: &'a World) -> Self {
        let keys = |service: &'a Service| {
            service.addresses.iter().map(move |address| ((*address, service.port, service.protocol, service.interface), service))
        };
        Self {
            world,
            ports: world.services.iter().map(|service| (service.protocol, service.port)).collect(),
            services: world.services.iter().flat_map(keys).collect(),
        }
    }

    /// What becomes of a frame whose first buffer holds these bytes.
    pub fn fate(&self, bytes: &[u8], interface: u32) -> Fate {
        let flow = match wire::flow(&Window::of(bytes)) {
            Ok(flow) => flow,
            Err(reason) => return Fate::passed(reason),
        };
        let key = &flow.key;
        if !self.ports.contains(&(key.protocol_number(), key.destination_port)) {
            return Fate::passed(Reason::NotAPort);
        }
        let Some(service) = self.services.get(&(key.destination, key.destination_port, key.protocol_number(), interface)) else {
            return Fate::passed(Reason::NotAnAddress);
        };
        if bytes[..6] != SERVER_MAC && bytes[..6] != BRIDGE_MAC {
            return Fate::passed(Reason::OtherHost);
        }
        match flow.kind {
            Kind::Segment(flags) if tcp::opens(flags) => self.opened(service, &flow, bytes, Reason::TcpOpened),
            Kind::Segment(_) => Fate::of(service.index, Reason::TcpEstablished),
            Kind::FirstFragment => Fate::of(service.index, Reason::FirstFragment),
            Kind::Error => Fate::of(service.index, Reason::IcmpError),
            Kind::Datagram if self.is_known(key) => Fate::of(service.index, Reason::UdpEstablished),
            Kind::Datagram => self.opened(service, &flow, bytes, Reason::UdpOpened),
        }
    }

    fn opened(&self, service: &Service, flow: &wire::Flow, bytes: &[u8], reason: Reason) -> Fate {
        let named = self.worker(service, &bytes[flow.transport..]);
        match named.or_else(|| self.world.slot_by_hash(service.index, &flow.key)) {
            Some(slot) => Fate { service: service.index, reason, slot: Some(slot) },
            None => Fate::of(service.index, Reason::NoBackend),
        }
    }

    /// The slot that the connection ID of a short QUIC header names.
    fn worker(&self, service: &Service, transport: &[u8]) -> Option<u32> {
        let position = service_flags::quic_position(service.flags)?;
        let payload = transport.get(udp::LENGTH..)?;
        let is_short = payload.first()? & 0x80 == 0;
        let worker = *payload.get(1 + position)?;
        if is_short { self.world.slot_of_worker(service.index, worker) } else { None }
    }

    fn is_known(&self, key: &lb_common::FlowKey) -> bool {
        self.world.udp_flows.get(key).is_some_and(|flow| flow.slot < SLOTS && flow.generation == GENERATION)
    }
}
