//! Weir's programs in the kernel: the way of a packet on one screen.
//!
//! `ingress` (XDP) looks at each packet once and names what it is; `select_socket` (sk_reuseport) chooses the worker of a packet that
//! reached a SO_REUSEPORT group, with the same function over the same maps; `restore_request` (tc) gives the kernel the connections that
//! were opened by a cookie; the programs of [`observe`] tell the daemon which listeners
//! begin and end, and count what is accepted.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, unused_imports, reason = "on a host only the types are checked"))]

mod classify;
mod deliver;
mod maps;
mod observe;
mod parse;
mod relief;
mod reuseport;
mod select;
mod socket;
mod syn_defence;
mod trace;
mod verdict;

use aya_ebpf::{
    bindings::xdp_md,
    macros::{classifier, sk_reuseport, xdp},
    programs::{SkReuseportContext, TcContext, XdpContext},
};
use lb_common::{Reason, abi::Scratch};

use crate::{deliver::Delivered, syn_defence::restore, verdict::Verdict};

/// The XDP program: attached to each interface that Weir serves.
#[xdp(frags)]
pub fn ingress(ctx: XdpContext) -> u32 {
    let Some(packet) = parse::scratch() else { return verdict::finish(ctx.ctx, Err(Reason::MapMiss.into()), 0) };
    let result = balance(ctx.ctx, packet);
    verdict::finish(ctx.ctx, result, packet.case.length)
}

#[inline(always)]
fn balance(ctx: *mut xdp_md, packet: &mut Scratch) -> Result<Delivered, Verdict> {
    parse::headers(ctx, &mut packet.case)?;
    let service = classify::service(ctx, &mut packet.case)?;
    let admission = syn_defence::admit(ctx, packet, &service)?;
    let backend = select::backend(ctx, &packet.case, &service, admission)?;
    deliver::to(ctx, packet, &backend, admission)
}

/// The selector: attached to each SO_REUSEPORT group that is a service.
#[sk_reuseport(migrate)]
pub fn select_socket(ctx: SkReuseportContext) -> u32 {
    reuseport::select(&ctx)
}

/// What comes after `ingress`, in the stack, for the ACK of a cookie: attached to the same interfaces.
#[classifier]
pub fn restore_request(ctx: TcContext) -> i32 {
    restore::restore(&ctx)
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
