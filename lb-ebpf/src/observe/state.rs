//! The tracepoint at which TCP sockets change their state: listeners that begin and end, connections that come and go.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_pid_tgid, bpf_get_socket_cookie},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use lb_common::abi::{BackendCounters, Event, EventKind, SocketTag};

use super::{memory::increment, tag, times};
use crate::maps::{BACKEND_COUNTERS, EVENTS};

/// The states of a TCP socket (include/net/tcp_states.h).
mod tcp {
    pub const ESTABLISHED: u64 = 1;
    pub const SYN_SENT: u64 = 2;
    pub const SYN_RECV: u64 = 3;
    pub const CLOSE: u64 = 7;
    pub const LISTEN: u64 = 10;
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: a TCP socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new): (*mut c_void, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    match (old, new) {
        (_, tcp::LISTEN) => announce(&ctx, sk, EventKind::ListenStart),
        (tcp::LISTEN, tcp::CLOSE) => announce(&ctx, sk, EventKind::ListenStop),
        (tcp::SYN_RECV, tcp::ESTABLISHED) => {
            if let Some(tag) = tag::mark(sk, SocketTag::ESTABLISHED) {
                count(tag.slot, |counters| &raw mut counters.established);
                times::handshake(sk, tag);
            }
        }
        // A connection that was never established was never counted.
        (tcp::SYN_RECV | tcp::SYN_SENT | tcp::CLOSE, _) => {}
        (_, tcp::CLOSE) => {
            if let Some(tag) = tag::mark(sk, SocketTag::ENDED) {
                count(tag.slot, |counters| &raw mut counters.closed);
            }
        }
        _ => {}
    }
    0
}

/// Counts a connection for a slot: as if others had this CPU's counters too, because a connection ends in a process, which an interrupt
/// can overtake on the same CPU in the midst of an addition. A count that is lost would be a connection that stays open for ever.
#[inline(always)]
fn count(slot: u32, which: impl FnOnce(&mut BackendCounters) -> *mut u64) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's own value in the map.
        unsafe { increment(which(&mut *counters), 1) };
    }
}

#[inline(always)]
fn announce(ctx: &BtfTracePointContext, sk: *mut c_void, kind: EventKind) {
    // SAFETY: `sk` is the tracepoint's first argument, a socket that the kernel holds.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // Where the daemon does not log at debug level it loads the programs with this switched off, and the verifier takes it out.
    debug!(ctx, "listener event {} of process {}", kind as u32, pid);
    // A full buffer loses the event: the daemon's full scan finds what happened.
    let _ = EVENTS.output(Event { cookie, kind: kind as u32, pid }, 0);
}
