//! The last stage: hand the packet to its backend.
//!
//! A backend is a socket of this host, and the way there is the kernel's own stack: the packet passes as it came. Where it brings back a
//! cookie, what the cookie says goes with it as metadata, for `restore_request`, and the segment is marked as one to be handed on at once.
//! (Other hosts, later, are reached from here.)

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_meta};
use lb_common::{
    Reason,
    abi::{Case, RequestAttributes, RestoreRequest, Scratch},
    checksum::update16,
    wire::tcp::{self, flags},
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
        push(ctx, &packet.case);
        attach(ctx, &packet.attributes).ok_or(Verdict { service, reason: Reason::NoMetadata })?;
    }
    Ok(Delivered { service, reason })
}

/// Sets PSH in a segment with data, so that GRO does not keep it.
///
/// GRO joins no segments whose metadata differ. So it would keep this one, join those behind it into another, and hand that one on first if
/// its last segment has PSH: to the listener, which answers it with a reset because the connection is still to be made of this one.
#[inline(always)]
fn push(ctx: *mut xdp_md, case: &Case) {
    if case.end as usize <= case.data() {
        return;
    }
    let mut packet = parse::writer(ctx);
    let Some(mut header) = packet.header::<{ tcp::LENGTH }>(parse::opaque::<0xfff>(case.transport) as usize) else { return };
    let (before, checksum) = (header.read().number16::<12>(), header.read().number16::<16>());
    let after = before | u16::from(flags::PSH);
    header.set_number16::<12>(after);
    header.set_number16::<16>(update16(checksum, before, after));
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
