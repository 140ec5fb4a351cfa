//! The last stage: hand the packet to its backend.
//!
//! A backend is a socket of this host, and the way there is the kernel's own stack: the packet passes as it came. (Other hosts, later,
//! are reached from here.)

use lb_common::{Reason, abi::ServiceRecord};

use crate::{select::Backend, verdict::Verdict};

/// A packet on its way to its service.
pub struct Delivered {
    /// The service.
    pub service: u32,
    /// What kind of packet it was.
    pub reason: Reason,
}

/// Delivers the packet.
#[inline(always)]
#[expect(clippy::unnecessary_wraps, reason = "a stage: delivery to another host can fail, and the pipeline is a column of `?`")]
pub fn to(service: &ServiceRecord, backend: &Backend) -> Result<Delivered, Verdict> {
    let (Backend::Chosen(reason) | Backend::Unchosen(reason)) = *backend;
    Ok(Delivered { service: service.service, reason })
}
