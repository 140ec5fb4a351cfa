//! The moment of accept(2), where the kernel lets a program attach to the exit of a function.

use aya_ebpf::{Global, cty::c_void, helpers::bpf_ktime_get_ns, macros::fexit, programs::FExitContext};

use super::{memory::established_at, tag, times};

/// How many arguments `inet_csk_accept` has: four up to Linux 6.9, two from 6.10 on. What it returns comes behind them. (See `memory`.)
#[unsafe(no_mangle)]
static ACCEPT_ARGUMENTS: Global<u32> = Global::new(0xbadb);

/// `inet_csk_accept`: a connection leaves the accept queue of its listener.
#[fexit(function = "inet_csk_accept")]
pub fn accepted(ctx: FExitContext) -> i32 {
    // Two loads at constant places: the verifier takes the one out that the daemon's number rules out.
    let connection: *mut c_void = if ACCEPT_ARGUMENTS.load() == 4 { ctx.arg(4) } else { ctx.arg(2) };
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
