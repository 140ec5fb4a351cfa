//! The choice of a backend: the same function for the XDP program and for the selector.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    FlowKey, Reason,
    abi::{Case, NO_SLOT, ServiceRecord, TableHeader, entry_index, service_flags},
    wire::{Kind, tcp, udp},
};

use crate::{
    maps::{BACKEND_COUNTERS, BACKENDS, SETTINGS, TABLES, UDP_FLOWS},
    parse,
    syn_defence::Admission,
    verdict::Verdict,
};

/// A service's table and a flow's place in it.
pub struct Place {
    pub service: u32,
    pub hash: u64,
    pub size: u32,
}

impl Place {
    /// Where the flow falls in the service's table; `None` if the service has no table.
    #[inline(always)]
    pub fn of(flow: &FlowKey, service: u32) -> Option<Self> {
        let size = *TABLES.get_value(service, &TableHeader::SIZE)?;
        let settings = SETTINGS.get(0)?;
        Some(Self { service, hash: flow.hash(settings.flow_hash_key), size })
    }

    /// The slot `step` places on from there.
    #[inline(always)]
    pub fn slot(&self, step: u32) -> Option<u32> {
        let slot = *TABLES.get_value(self.service, &entry_index(self.hash, self.size, step))?;
        (slot != NO_SLOT).then_some(slot)
    }
}

/// The slot of the worker that a QUIC packet's connection ID names.
///
/// A short header is one byte (its top bit clear), then the destination connection ID, which the server chose (RFC 9000, section
/// 17.3.1). `first` and `worker` are the payload's first byte and the byte at the service's position in the connection ID.
#[inline(always)]
pub fn quic_slot(service: u32, first: u8, worker: u8) -> Option<u32> {
    if first & 0x80 != 0 {
        return None;
    }
    let slot = *TABLES.get_value(service, &TableHeader::worker(worker))?;
    (slot != NO_SLOT).then_some(slot)
}

/// What the packet means for the balance.
pub enum Backend {
    /// It opens a flow, whose choice has been made and counted.
    Chosen(Reason),
    /// It needs no choice.
    Unchosen(Reason),
}

/// Chooses the backend of a packet that opens a flow. The selector chooses again, and its choice is the one that holds.
#[inline(always)]
pub fn backend(ctx: *mut xdp_md, case: &Case, service: &ServiceRecord, admission: Admission) -> Result<Backend, Verdict> {
    let key = &case.key;
    let opened = match case.kind() {
        Kind::Segment(_) if !matches!(admission, Admission::Plain) => Reason::CookieAccepted,
        Kind::Segment(flags) if tcp::opens(flags) => Reason::TcpOpened,
        Kind::Segment(_) => return Ok(Backend::Unchosen(Reason::TcpEstablished)),
        Kind::FirstFragment => return Ok(Backend::Unchosen(Reason::FirstFragment)),
        Kind::Error => return Ok(Backend::Unchosen(Reason::IcmpError)),
        Kind::Datagram if is_known(key) => return Ok(Backend::Unchosen(Reason::UdpEstablished)),
        Kind::Datagram => Reason::UdpOpened,
    };
    if service.flags & service_flags::UNBALANCED != 0 {
        return Ok(Backend::Unchosen(opened));
    }
    let none = Verdict { service: service.service, reason: Reason::NoBackend };
    let slot = match quic(ctx, case, service).or_else(|| Place::of(key, service.service)?.slot(0)) {
        Some(slot) => slot,
        // The kernel chooses here too, but has to be told of the connection, whose SYN it has not seen.
        None if !matches!(admission, Admission::Plain) => return Ok(Backend::Unchosen(opened)),
        None => return Err(none),
    };
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's own value, see `verdict::finish`.
        unsafe { (*counters).chosen += 1 };
    }
    Ok(Backend::Chosen(opened))
}

/// Whether the flow table has a living worker for the flow.
#[inline(always)]
fn is_known(key: &FlowKey) -> bool {
    // SAFETY: an entry may be replaced while it is read; its two numbers are then those of another flow, and only a count is wrong.
    let Some(entry) = (unsafe { UDP_FLOWS.get(key) }) else { return false };
    BACKENDS.get(entry.slot).is_some_and(|state| state.generation == entry.generation)
}

#[inline(always)]
fn quic(ctx: *mut xdp_md, case: &Case, service: &ServiceRecord) -> Option<u32> {
    let position = service_flags::quic_position(service.flags)?;
    let payload = parse::opaque::<0xfff>(case.transport) as usize + udp::LENGTH;
    let window = parse::window(ctx);
    let first = window.header::<1>(payload)?.byte::<0>();
    let worker = window.header::<1>(payload + 1 + position)?.byte::<0>();
    quic_slot(service.service, first, worker)
}
