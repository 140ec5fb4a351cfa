//! The second stage: is it a service's packet?

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    FlowKey, Reason,
    abi::{Case, SeenService, ServiceKey, ServiceRecord},
};

use crate::{
    maps::{PORTS, SEEN_SERVICES, SERVICE_CHANGES, SERVICES},
    parse,
    verdict::Verdict,
};

/// Whether a service has the port that the packet goes to.
///
/// This comes first: it lets nearly everything that is not ours leave before anything is hashed.
#[inline(always)]
pub fn port(key: &FlowKey) -> Result<(), Reason> {
    match is_served(key.protocol_number(), key.destination_port) {
        Some(true) => Ok(()),
        Some(false) => Err(Reason::NotAPort),
        None => Err(Reason::MapMiss),
    }
}

/// Whether a service has the port; none if nobody knows.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is masked")]
pub fn is_served(protocol: u8, port: u16) -> Option<bool> {
    // LLVM knows that a number whose bytes it has swapped has 16 bits. The verifier of Linux 6.12 and before does not ("R0 max value is
    // outside of the allowed memory range").
    let port = parse::opaque::<0xffff>(port.into()) as u16;
    PORTS.get(0).map(|ports| ports.has(protocol, port))
}

/// The service that the packet goes to, whose port is one of a service's.
#[inline(always)]
pub fn service(ctx: *mut xdp_md, case: &mut Case) -> Result<ServiceRecord, Verdict> {
    let key = &case.key;
    // SAFETY: the context is the one the kernel handed to this program.
    let interface = unsafe { (*ctx).ingress_ifindex };
    let key = ServiceKey::new(key.destination, key.destination_port, key.protocol_number(), interface);
    let service = find(&key)?;
    if !service.macs.contains(&case.destination_mac) {
        return Err(Reason::OtherHost.into());
    }
    case.service = service.service;
    case.maximum_segment_size = service.maximum_segment_size.into();
    Ok(*service)
}

/// The record of a key: as this CPU has seen it lately, else by the hash table, whose lookup costs ten times as much.
#[inline(always)]
fn find<'a>(key: &ServiceKey) -> Result<&'a ServiceRecord, Reason> {
    let (Some(&changes), Some(seen)) = (SERVICE_CHANGES.get(0), SEEN_SERVICES.get_ptr_mut(key.slot())) else { return Err(Reason::MapMiss) };
    // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
    let seen = unsafe { &mut *seen };
    if !seen.is(key, changes) {
        // SAFETY: a record's place may be given to another record while this one is read (the daemon removed a service at that moment);
        // the values are plain numbers, the packet passes whatever they are, and what is kept is good until the daemon counts the change.
        let record = *unsafe { SERVICES.get(key) }.ok_or(Reason::NotAnAddress)?;
        *seen = SeenService::new(key, changes, record);
    }
    Ok(&seen.record)
}
