//! The second stage: is it a service's packet?

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    FlowKey, Reason,
    abi::{Case, ServiceKey, ServiceRecord},
};

use crate::{
    maps::{PORTS, SERVICES},
    verdict::Verdict,
};

/// Whether a service has the port that the packet goes to.
///
/// This comes first: it lets nearly everything that is not ours leave before anything is hashed.
#[inline(always)]
pub fn port(key: &FlowKey) -> Result<(), Reason> {
    let ports = PORTS.get(0).ok_or(Reason::MapMiss)?;
    if ports.has(key.protocol_number(), key.destination_port) { Ok(()) } else { Err(Reason::NotAPort) }
}

/// The service that the packet goes to, whose port is one of a service's.
#[inline(always)]
pub fn service(ctx: *mut xdp_md, case: &mut Case) -> Result<ServiceRecord, Verdict> {
    let key = &case.key;
    // SAFETY: the context is the one the kernel handed to this program.
    let interface = unsafe { (*ctx).ingress_ifindex };
    let key = ServiceKey::new(key.destination, key.destination_port, key.protocol_number(), interface);
    // SAFETY: a record's place may be given to another record while this one is read (the daemon removed a service at that moment);
    // the values are plain numbers, and the packet passes whatever they are.
    let service = *unsafe { SERVICES.get(key) }.ok_or(Reason::NotAnAddress)?;
    if !service.macs.contains(&case.destination_mac) {
        return Err(Reason::OtherHost.into());
    }
    case.service = service.service;
    case.maximum_segment_size = service.maximum_segment_size.into();
    Ok(service)
}
