//! The single exit: a verdict becomes an XDP action here, and every packet is counted here.

use aya_ebpf::bindings::{
    xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    xdp_md,
};
use lb_common::{Action, Reason};

use crate::{deliver::Delivered, maps::SERVICE_COUNTERS, trace};

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

/// The index of a reason's counter, of which LLVM does not know that it is small.
///
/// A reason that another function answered is a number to the verifier. LLVM knows that a `Reason` is below their number and leaves out the
/// comparison that the verifier wants to see ("unbounded memory access").
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 64")]
fn index(reason: Reason) -> usize {
    #[cfg_attr(not(target_arch = "bpf"), expect(unused_mut, reason = "it is on BPF that the number is made opaque"))]
    let mut index = reason as u64;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction that changes no index: there are fewer reasons than 64. (One there must be: an empty one gives two lines of
    // the source the same place in the program, which the kernel refuses.)
    unsafe {
        core::arch::asm!("{0} &= 63", inout(reg) index, options(pure, nomem, nostack, preserves_flags));
    }
    index as usize
}

/// Counts the packet, of so many bytes, and answers with what XDP is to do with it.
#[inline(always)]
pub fn finish(ctx: *mut xdp_md, result: Result<Delivered, Verdict>, length: u64) -> u32 {
    let verdict = match result {
        Ok(Delivered { service, reason }) => Verdict { service, reason },
        Err(verdict) => verdict,
    };
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(verdict.service) {
        // SAFETY: the pointer is to this CPU's own value, and no other program or interrupt runs on this CPU within the packet's.
        let counters = unsafe { &mut *counters };
        if let Some(counter) = counters.by_reason.get_mut(index(verdict.reason)) {
            counter.packets += 1;
            counter.bytes += length;
        }
    }
    trace::observe(ctx, &verdict);
    match verdict.reason.action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Transmit => XDP_TX,
    }
}

/// What a function that the verifier looks at by itself answers: a reason that ends the packet's way, or one of the ways on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answer(pub u32);

impl Answer {
    /// Go on.
    pub const PLAIN: Self = Self(1 << 16);
    /// Go on: the kernel's own cookie came back.
    pub const KERNEL_COOKIE: Self = Self(2 << 16);
    /// Go on: a cookie of ours came back, and its attributes have been written.
    pub const OWN_COOKIE: Self = Self(3 << 16);

    /// The end of a packet of a service, or nothing if it goes on.
    #[inline(always)]
    pub fn go_on(self, service: u32) -> Result<(), Verdict> {
        // Not by the list of reasons: a table in memory would be a map of the program.
        if (self.0 as usize) < Reason::ALL.len() {
            // SAFETY: the discriminants are 0 up to the number of reasons less one (a test of lb-common), in 32 bits.
            return Err(Verdict { service, reason: unsafe { core::mem::transmute::<u32, Reason>(self.0) } });
        }
        Ok(())
    }
}

impl From<Reason> for Answer {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(reason as u32)
    }
}
