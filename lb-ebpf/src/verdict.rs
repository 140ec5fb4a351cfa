//! The single exit: a verdict becomes an XDP action here, and every packet is counted here.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use lb_common::{Action, Reason};

use crate::{deliver::Delivered, maps::SERVICE_COUNTERS, parse::Packet};

/// What becomes of a packet, and for whom that is counted.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// The service it belongs to, 0 for none.
    pub service: u32,
    /// Why.
    pub reason: Reason,
}

impl From<Reason> for Verdict {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { service: 0, reason }
    }
}

/// Counts the packet and answers with what XDP is to do with it.
#[inline(always)]
pub fn finish(packet: &Packet, result: Result<Delivered, Verdict>) -> u32 {
    let verdict = match result {
        Ok(Delivered { service, reason }) => Verdict { service, reason },
        Err(verdict) => verdict,
    };
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(verdict.service) {
        // SAFETY: the pointer is to this CPU's own value, and no other program or interrupt runs on this CPU within the packet's.
        let counters = unsafe { &mut *counters };
        if let Some(counter) = counters.by_reason.get_mut(verdict.reason.index()) {
            counter.packets += 1;
            counter.bytes += packet.length();
        }
    }
    match verdict.reason.action() {
        Action::Pass => XDP_PASS,
    }
}
