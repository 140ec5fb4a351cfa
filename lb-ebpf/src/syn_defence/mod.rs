//! The defence against floods: what a service's packet has to pass before a worker is chosen for it.
//!
//! In calm it only counts. In a flood a SYN is answered with a cookie ([`answer`]), and a segment must belong to a connection or bring a
//! cookie back ([`segment`]). What no stack sends is refused always (`lb_common::sane`).
//!
//! The steps that not every packet takes are functions that the verifier looks at once, by themselves (global functions): inlined, it would
//! walk them anew for each of the ways that lead there, a million instructions and more. They take
//! the context and the scratch of the packet, and look for the packet's bytes themselves.

mod answer;
mod cookie_ack;
mod flows;
mod hash;
mod kernel_cookie;
mod limits;
mod options;
mod rate;
pub mod restore;
mod segment;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_ktime_get_coarse_ns};
use lb_common::{
    Reason,
    abi::{DefencePolicy, Scratch, ServiceRecord, policy_flags, service_flags},
    sane,
    wire::{Kind, protocol, tcp},
};

use crate::{
    maps::{DEFENCE, FLOODS},
    verdict::{Answer, Verdict},
};

/// How a packet was let through.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// As it came.
    Plain,
    /// It brings back a cookie that the kernel made and will check itself.
    KernelCookie,
    /// It brings back a cookie of ours: the kernel has to be told of the connection, whose attributes are in the scratch.
    OwnCookie,
}

/// Lets a packet through, or says what becomes of it instead.
#[inline(always)]
pub fn admit(ctx: *mut xdp_md, packet: &mut Scratch, service: &ServiceRecord) -> Result<Admission, Verdict> {
    let index = service.service;
    let Some(policy) = DEFENCE.get(index) else { return Err(Reason::MapMiss.into()) };
    let (kind, protocol) = (packet.case.kind(), packet.case.key.protocol_number());
    let opens = matches!(kind, Kind::Segment(bits) if tcp::opens(bits));
    if is_limited(policy) && (opens || matches!(kind, Kind::Datagram)) {
        Answer(limits::admit_new(&raw const packet.case)).go_on(index)?;
    }
    if !policy.is_defended() || protocol != protocol::TCP || matches!(kind, Kind::Error) {
        return Ok(Admission::Plain);
    }
    let is_loopback = service.flags & service_flags::LOOPBACK != 0;
    sane::check(&packet.case, is_loopback).map_err(|reason| Verdict { service: index, reason })?;
    if is_loopback {
        // By a loopback device there comes only what this host itself sends, from addresses that would be forged anywhere else.
        return Ok(Admission::Plain);
    }
    if opens {
        Answer(answer::answer_syn(ctx, &raw mut *packet)).go_on(index)?;
        return Ok(Admission::Plain);
    }
    let Some(flood) = FLOODS.get(index) else { return Err(Reason::MapMiss.into()) };
    if policy.is_calm_for_sure(flood) && !(matches!(kind, Kind::Segment(_)) && rate::is_sample(index)) {
        return Ok(Admission::Plain);
    }
    match Answer(segment::settle_segment(ctx, &raw mut *packet)) {
        Answer::OWN_COOKIE => Ok(Admission::OwnCookie),
        Answer::KERNEL_COOKIE => Ok(Admission::KernelCookie),
        other => other.go_on(index).map(|()| Admission::Plain),
    }
}

#[inline(always)]
fn is_limited(policy: &DefencePolicy) -> bool {
    policy.flags & policy_flags::HAS_PREFIXES | policy.new_connections | policy.datagrams | policy.datagram_bytes != 0
}

/// Nanoseconds of CLOCK_MONOTONIC, as of the last tick: 1 to 10 ms old, for a tenth of the price.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
