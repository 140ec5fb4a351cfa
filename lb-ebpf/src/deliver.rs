//! The last stage: hand the packet to its backend.
//!
//! A backend is a socket of this host, and the way there is the kernel's own stack: the packet passes as it came. Where it brings back a
//! cookie, what the cookie says goes with it as metadata, for `restore_request`. (Other hosts, later, are reached from here.)

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_meta};
use lb_common::{
    Reason,
    abi::{RequestAttributes, RestoreRequest, Scratch},
};

use crate::{parse, select::Backend, syn_defence::Admission, verdict::Verdict};

/// A packet on its way to its service.
pub struct Delivered {
    /// The service.
    pub service: u32,
    /// What kind of packet it was.
    pub reason: Reason,
}

/// Delivers the packet.
#[inline(always)]
pub fn to(ctx: *mut xdp_md, packet: &Scratch, backend: &Backend, admission: Admission) -> Result<Delivered, Verdict> {
    let (Backend::Chosen(reason) | Backend::Unchosen(reason)) = *backend;
    let service = packet.case.service;
    if admission == Admission::OwnCookie {
        attach(ctx, &packet.attributes).ok_or(Verdict { service, reason: Reason::NoMetadata })?;
    }
    Ok(Delivered { service, reason })
}

/// Puts the request in front of the packet. No pointer into the packet may be used after this.
#[inline(always)]
fn attach(ctx: *mut xdp_md, attributes: &RequestAttributes) -> Option<()> {
    const LENGTH: usize = size_of::<RestoreRequest>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "40")]
    // SAFETY: the context is the one the kernel handed to this program.
    let failed = unsafe { bpf_xdp_adjust_meta(ctx, -(LENGTH as i32)) };
    if failed != 0 {
        return None;
    }
    let words = RestoreRequest::new(*attributes).words();
    let mut metadata = parse::metadata(ctx);
    let mut header = metadata.header::<LENGTH>(0)?;
    header.set_word::<0>(words[0]);
    header.set_word::<4>(words[1]);
    header.set_word::<8>(words[2]);
    header.set_word::<12>(words[3]);
    header.set_word::<16>(words[4]);
    header.set_word::<20>(words[5]);
    header.set_word::<24>(words[6]);
    header.set_word::<28>(words[7]);
    header.set_word::<32>(words[8]);
    header.set_word::<36>(words[9]);
    Some(())
}
