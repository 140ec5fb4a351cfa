//! What the daemon is told: listeners that begin and end, connections that are accepted, and what a socket is.
//!
//! These are tracing programs. None of them is on a packet's way, and Weir works without them: the daemon then finds listeners by its
//! regular scan alone and leaves out what it cannot count.

use aya_ebpf::{
    cty::c_void,
    helpers::{bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_sk_storage_get},
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use lb_common::abi::{Event, EventKind, SocketTag};

use crate::maps::{BACKEND_COUNTERS, EVENTS, SOCKET_TAGS};

/// `inet_csk_listen_start(sk)` has returned: a TCP socket listens.
#[fexit(function = "inet_csk_listen_start")]
pub fn listen_start(ctx: FExitContext) -> i32 {
    if ctx.ret::<i32>() == Ok(0) {
        announce(ctx.arg(0), EventKind::ListenStart);
    }
    0
}

/// `inet_csk_listen_stop(sk)` begins: a TCP socket stops listening.
#[fentry(function = "inet_csk_listen_stop")]
pub fn listen_stop(ctx: FEntryContext) -> i32 {
    announce(ctx.arg(0), EventKind::ListenStop);
    0
}

/// `reuseport_alloc(sk, bind_inany)` has returned: a socket founded a group.
#[fexit(function = "reuseport_alloc")]
pub fn group_found(ctx: FExitContext) -> i32 {
    announce(ctx.arg(0), EventKind::GroupJoin);
    0
}

/// `reuseport_add_sock(sk, sk2, bind_inany)` has returned: a socket joined a group.
#[fexit(function = "reuseport_add_sock")]
pub fn group_join(ctx: FExitContext) -> i32 {
    announce(ctx.arg(0), EventKind::GroupJoin);
    0
}

/// `reuseport_detach_sock(sk)` begins: a socket leaves its group.
#[fentry(function = "reuseport_detach_sock")]
pub fn group_leave(ctx: FEntryContext) -> i32 {
    announce(ctx.arg(0), EventKind::GroupLeave);
    0
}

/// `inet_csk_accept(sk, ..)` has returned: a connection was accepted from `sk`, or none was there.
#[fexit(function = "inet_csk_accept")]
pub fn accepted(ctx: FExitContext) -> i32 {
    // `bpf_get_func_ret` (5.17) and not an argument's number: Linux 6.10 changed how many arguments there are.
    if !ctx.ret::<u64>().is_ok_and(|connection| connection != 0) {
        return 0;
    }
    let listener: *mut c_void = ctx.arg(0);
    // SAFETY: the map is this object's, and the kernel holds the listener while it accepts from it.
    let tag = unsafe { bpf_sk_storage_get(core::ptr::from_ref(&SOCKET_TAGS).cast_mut().cast(), listener, core::ptr::null_mut(), 0) };
    if tag.is_null() {
        return 0;
    }
    // SAFETY: it is not null, and a storage's value lives as long as its socket.
    let slot = unsafe { (*tag.cast::<SocketTag>()).slot };
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's own value. An accept that is preempted by another on the same CPU can lose one count:
        // the price of no shared atomic.
        unsafe { (*counters).accepted += 1 };
    }
    0
}

#[inline(always)]
fn announce(sk: *mut c_void, kind: EventKind) {
    // SAFETY: `sk` is the traced function's first argument, a socket that the kernel holds.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is the process")]
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let event = Event { cookie, kind: kind as u32, pid };
    // A full buffer loses the event: the daemon's full scan finds what happened.
    let _ = EVENTS.output(event, 0);
}
