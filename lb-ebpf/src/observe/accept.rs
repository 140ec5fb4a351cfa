//! The moment of accept(2), where the kernel lets a program attach to the exit of a function.

use aya_ebpf::{EbpfContext as _, Global, cty::c_void, helpers::bpf_ktime_get_ns, macros::fexit, programs::FExitContext};

use super::{memory::established_at, tag, times};

/// How many arguments `inet_csk_accept` has: four up to Linux 6.9, two from 6.10 on. What it returns comes behind them. (See `memory`.)
#[unsafe(no_mangle)]
static ACCEPT_ARGUMENTS: Global<u32> = Global::new(0xbadb);

/// `inet_csk_accept`: a connection leaves the accept queue of its listener.
#[fexit(function = "inet_csk_accept")]
pub fn accepted(ctx: FExitContext) -> i32 {
    let connection = if ACCEPT_ARGUMENTS.load() == 4 { argument::<4>(&ctx) } else { argument::<2>(&ctx) };
    if connection.is_null() {
        return 0;
    }
    if let Some(tag) = tag::of(connection)
        && let Some(since) = established_at(connection.cast_const().cast())
        && since != 0
    {
        // SAFETY: the helper only returns the time.
        let now = unsafe { bpf_ktime_get_ns() };
        times::accepted(tag.slot, now.saturating_sub(since));
    }
    0
}

/// The argument of this number, or, behind the last one, what the function returns.
///
/// Written out, because of two loads at constant places LLVM makes one at a place that varies ("dereference of modified ctx ptr"): so the
/// verifier takes the one out that the daemon's number rules out.
#[inline(always)]
fn argument<const NUMBER: usize>(ctx: &FExitContext) -> *mut c_void {
    let value: usize;
    #[cfg(target_arch = "bpf")]
    // SAFETY: a load of a word of the context that the kernel handed to this program; the verifier checks the offset.
    unsafe {
        core::arch::asm!(
            "{value} = *(u64 *)({ctx} + {offset})",
            value = out(reg) value,
            ctx = in(reg) ctx.as_ptr(),
            offset = const NUMBER * 8,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = ctx.as_ptr();
        value = NUMBER;
    }
    core::ptr::with_exposed_provenance_mut(value)
}
