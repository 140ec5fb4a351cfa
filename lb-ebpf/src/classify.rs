//! The second stage: is it a service's packet?

use lb_common::{
    Reason,
    abi::{ServiceKey, ServiceRecord},
};

use crate::{
    maps::{PORTS, SERVICES},
    parse::Flow,
    verdict::Verdict,
};

/// The service that the flow goes to.
///
/// The bitmap of ports comes first: it lets nearly everything that is not ours leave before anything is hashed.
#[inline(always)]
pub fn service(flow: &Flow) -> Result<ServiceRecord, Verdict> {
    let key = &flow.wire.key;
    let ports = PORTS.get(0).ok_or(Reason::MapMiss)?;
    if !ports.has(key.protocol_number(), key.destination_port) {
        return Err(Reason::NotAPort.into());
    }
    let key = ServiceKey::new(key.destination, key.destination_port, key.protocol_number(), flow.interface);
    // SAFETY: a record's place may be given to another record while this one is read (the daemon removed a service at that moment);
    // the values are plain numbers, and the packet passes whatever they are.
    let service = *unsafe { SERVICES.get(key) }.ok_or(Reason::NotAnAddress)?;
    if !service.macs.contains(&flow.wire.destination_mac) {
        return Err(Reason::OtherHost.into());
    }
    Ok(service)
}
