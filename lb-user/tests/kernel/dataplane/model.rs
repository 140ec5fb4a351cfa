//! What the program should do with a frame, worked out on the host: the parser of lb-common, and plain lookups in plain collections.

mod defence;

use std::collections::{HashMap, HashSet};

use lb_common::{
    Address, FlowKey, Reason,
    abi::service_flags,
    packet::Window,
    wire::{self, Kind, tcp, udp},
};

use self::defence::Way;
use super::{
    defended::{self, DEAF, METERED, State},
    world::{BRIDGE_MAC, GENERATION, NONE, SLOTS, Service, World},
};
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

/// What a frame looks like when it leaves the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// As it came. (One that is dropped may look like anything.)
    Unchanged,
    /// Like this.
    Becomes(Vec<u8>),
    /// As it came, with this metadata in front.
    Metadata(Vec<u8>),
    /// Nobody can say: it holds a cookie of the kernel's.
    Unforeseen,
}

/// The port of a service whose listener has gone.
const DEAF_PORT: u16 = defended::port(DEAF);

/// The model: the world, with what the program looks up by hash, and what the program has seen since the state was made.
pub struct Model<'a> {
    world: &'a World,
    ports: HashSet<(u8, u16)>,
    services: HashMap<(Address, u16, u8, u32), &'a Service>,
    /// Where somebody listens, among the defended services.
    listening: HashSet<(Address, u16)>,
    /// Flows that have proven a connection.
    known: HashSet<FlowKey>,
    /// What sources have taken of a service's limits: by service, limit, prefix.
    taken: HashMap<(u32, &'static str, (bool, u128)), u32>,
    /// Cookies that the kernel made: the flow, the SYN's sequence number and its own.
    pub kernel_cookies: HashSet<(FlowKey, u32, u32)>,
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
            listening: defended::services()
                .iter()
                .filter(|service| !matches!(service.index, DEAF | METERED))
                .flat_map(|service| service.addresses.iter().map(|address| (*address, service.port)))
                .collect(),
            known: HashSet::new(),
            taken: HashMap::new(),
            kernel_cookies: HashSet::new(),
        }
    }

    /// Forgets what it has seen, as the programs do when their state is made anew.
    pub fn forget(&mut self) {
        self.known.clear();
        self.taken.clear();
    }

    /// What becomes of a frame whose first buffer holds these bytes, of a service without a defence.
    pub fn fate(&mut self, bytes: &[u8], interface: u32) -> Fate {
        self.judge(bytes, bytes, interface, State::Awake).0
    }

    /// What becomes of a whole frame whose first buffer holds these bytes.
    pub fn judge(&mut self, bytes: &[u8], whole: &[u8], interface: u32, state: State) -> (Fate, Effect) {
        match self.admitted(bytes, whole, interface, state) {
            Ok((service, flow, way)) => {
                let effect = if let Way::OwnCookie(effect) = &way { effect.clone() } else { Effect::Unchanged };
                (self.balanced(service, &flow, bytes, &way), effect)
            }
            Err(end) => end,
        }
    }

    fn admitted(
        &mut self,
        bytes: &[u8],
        whole: &[u8],
        interface: u32,
        state: State,
    ) -> Result<(&'a Service, wire::Flow, Way), (Fate, Effect)> {
        let passed = |reason| (Fate::passed(reason), Effect::Unchanged);
        let flow = wire::flow(&Window::of(bytes)).map_err(passed)?;
        let key = &flow.key;
        if !self.ports.contains(&(key.protocol_number(), key.destination_port)) {
            return Err(passed(Reason::NotAPort));
        }
        let Some(service) = self.services.get(&(key.destination, key.destination_port, key.protocol_number(), interface)).copied() else {
            return Err(passed(Reason::NotAnAddress));
        };
        if bytes[..6] != SERVER_MAC && bytes[..6] != BRIDGE_MAC {
            return Err(passed(Reason::OtherHost));
        }
        match self.defend(service, &flow, bytes, whole, state) {
            Way::Ends(reason, effect) => Err((Fate::of(service.index, reason), effect)),
            way => Ok((service, flow, way)),
        }
    }

    fn balanced(&self, service: &Service, flow: &wire::Flow, bytes: &[u8], way: &Way) -> Fate {
        match flow.kind {
            Kind::Segment(_) if !matches!(way, Way::Plain) => self.opened(service, flow, bytes, Reason::CookieAccepted),
            Kind::Segment(flags) if tcp::opens(flags) => self.opened(service, flow, bytes, Reason::TcpOpened),
            Kind::Segment(_) => Fate::of(service.index, Reason::TcpEstablished),
            Kind::FirstFragment => Fate::of(service.index, Reason::FirstFragment),
            Kind::Error => Fate::of(service.index, Reason::IcmpError),
            Kind::Datagram if self.is_known(&flow.key) => Fate::of(service.index, Reason::UdpEstablished),
            Kind::Datagram => self.opened(service, flow, bytes, Reason::UdpOpened),
        }
    }

    fn opened(&self, service: &Service, flow: &wire::Flow, bytes: &[u8], reason: Reason) -> Fate {
        if service.flags & service_flags::UNBALANCED != 0 {
            return Fate::of(service.index, reason);
        }
        let named = self.worker(service, &bytes[flow.transport..]);
        match named.or_else(|| self.world.slot_by_hash(service.index, &flow.key)) {
            Some(slot) => Fate { service: service.index, reason, slot: Some(slot) },
            // Nobody chooses, but its metadata must not be lost: the kernel made no request for it.
            None if reason == Reason::CookieAccepted => Fate::of(service.index, reason),
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

    fn is_known(&self, key: &FlowKey) -> bool {
        self.world.udp_flows.get(key).is_some_and(|flow| flow.slot < SLOTS && flow.generation == GENERATION)
    }
}
