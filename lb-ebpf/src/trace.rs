//! What `weir trace` sees: packets that it asks for, once their verdict is known.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_ktime_get_ns, bpf_xdp_load_bytes},
};
use lb_common::{
    Action,
    abi::{TRACE_BYTES, TraceFilter, TraceRecord, traced_client},
};

use crate::{
    maps::{SCRATCH, TRACE, TRACE_STATE, TRACED},
    parse,
    verdict::{Answer, Verdict},
};

/// Writes a record of the packet if somebody wants it. Nobody does most of the time: a load and a branch.
#[inline(always)]
pub fn observe(ctx: *mut xdp_md, verdict: &Verdict) {
    if TRACE.get(0).is_some_and(|filter| filter.until != 0) {
        let is_answer = matches!(verdict.reason.action(), Action::Transmit);
        trace_packet(ctx, verdict.service, verdict.reason as u32, is_answer.into());
    }
}

/// A function that the verifier looks at by itself. Answers 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn trace_packet(ctx: *mut xdp_md, service: u32, reason: u32, is_answer: u32) -> u32 {
    let (Some(filter), Some(state)) = (TRACE.get(0), TRACE_STATE.get_ptr_mut(0)) else { return 0 };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !filter.wants(service, reason, now) || (filter.names_client() && !is_of_client(ctx, filter, is_answer != 0)) {
        return 0;
    }
    // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
    let state = unsafe { &mut *state };
    if !state.bucket.take(now, filter.rate, filter.rate) {
        state.above_rate += 1;
        return 0;
    }
    let Some(mut entry) = TRACED.reserve(0) else {
        state.no_room += 1;
        return 0;
    };
    // SAFETY: the context is the one the kernel handed to this program.
    let interface = unsafe { (*ctx).ingress_ifindex };
    let length = parse::length_of(ctx);
    let captured = captured(length);
    let record = entry.write(TraceRecord { time: now, service, reason, interface, length, captured, padding: 0, bytes: [0; TRACE_BYTES] });
    // SAFETY: the context is the kernel's, and the buffer has room for what is read.
    if unsafe { bpf_xdp_load_bytes(ctx, 0, record.bytes.as_mut_ptr().cast(), captured) } != 0 {
        record.captured = 0;
    }
    entry.submit(0);
    0
}

/// Whether the packet is from a client whose packets are wanted. The headers are read again: not every verdict has needed them.
#[inline(always)]
fn is_of_client(ctx: *mut xdp_md, filter: &TraceFilter, is_answer: bool) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is to this CPU's own value, and the packet at hand needs it no more.
    let case = unsafe { &mut (*scratch).case };
    if Answer(parse::read_headers(ctx, &raw mut *case)) != Answer::PLAIN {
        return false;
    }
    filter.wants_client(traced_client(case.key.source, case.key.destination, is_answer))
}

/// The number, brought between 1 and [`TRACE_BYTES`], in the words of the verifier.
///
/// No frame has no bytes, but the helper takes no length that may be 0, and Linux before 6.8 learns nothing from a comparison of equality, nor
/// keeps what it knows of the lower half when all 64 bits are compared ("R3 min value is outside of the allowed memory range"). So both
/// comparisons are ones of order and of 64 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 192")]
#[cfg_attr(not(target_arch = "bpf"), expect(unused_mut, reason = "it is on BPF that the number is compared"))]
fn captured(length: u32) -> u32 {
    let mut captured = u64::from(length);
    #[cfg(target_arch = "bpf")]
    // SAFETY: four instructions on the number alone.
    unsafe {
        core::arch::asm!(
            "if {0} > 0 goto +1",
            "{0} = 1",
            "if {0} < {most} goto +1",
            "{0} = {most}",
            inout(reg) captured,
            most = const TRACE_BYTES,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    captured as u32
}
