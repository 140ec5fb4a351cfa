//! Which connections exist: a table of flows seen lately, before one lookup among the kernel's sockets.
//!
//! The table is needed for more than speed: XDP sees a whole batch of packets before the stack has made the socket of the first, so the
//! second segment of a client's first flight would find none.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    FlowKey,
    abi::{Case, KnownFlow},
    tag::Place,
};

use crate::{
    maps::{ENDED_FLOWS, KNOWN_FLOWS, SETTINGS},
    socket::{Held, LISTEN},
};

/// Where the flow belongs in the table.
#[inline(always)]
pub fn place(key: &FlowKey) -> Option<Place> {
    let settings = SETTINGS.get(0)?;
    let place = settings.tag_key.of_flow(key);
    Some(Place { slot: place.slot & settings.known_flow_mask, ..place })
}

/// Whether the flow has a connection, or had one within the last seconds.
#[inline(always)]
pub fn is_known(ctx: *mut xdp_md, case: &Case, place: &Place, now: u64) -> bool {
    // The second table is read for flows that the first may have: a flood's are in neither.
    if let Some(entry) = KNOWN_FLOWS.get(place.slot)
        && entry.lives(now)
        && let Some(ended) = ENDED_FLOWS.get(place.slot)
        && entry.is_of(place.tag, *ended)
    {
        return true;
    }
    let found = lookup(ctx, case) == Found::Connection;
    if found {
        remember(place, now);
    }
    found
}

/// Takes the flow for known from now on.
#[inline(always)]
pub fn remember(place: &Place, now: u64) {
    if let Some(entry) = KNOWN_FLOWS.get_ptr_mut(place.slot)
        && let Some(ended) = ENDED_FLOWS.get(place.slot)
    {
        // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
        unsafe { *entry = KnownFlow::from_now(place.tag, *ended, now) };
    }
}

/// Takes the flow for known no longer, on any CPU: the next segment may come by another.
#[inline(always)]
pub fn forget(place: &Place) {
    if let Some(ended) = ENDED_FLOWS.get_ptr_mut(place.slot) {
        // SAFETY: the pointer is into the map's value. Of two CPUs that count at once one may count for both: the number is another one.
        unsafe { *ended = (*ended).wrapping_add(1) };
    }
}

/// What the kernel has for a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No socket at all.
    Nothing,
    /// A listener.
    Listener,
    /// A socket of the flow's own: a connection in any state.
    Connection,
}

/// Looks among the kernel's sockets.
#[inline(always)]
pub fn lookup(ctx: *mut xdp_md, case: &Case) -> Found {
    match find_socket(ctx, case) {
        0 => Found::Nothing,
        1 => Found::Listener,
        _ => Found::Connection,
    }
}

/// [`lookup`], for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_socket(ctx: *mut xdp_md, case: *const Case) -> u32 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let Some(socket) = Held::tcp(ctx.cast(), &case.key) else { return 0 };
    if socket.state() == LISTEN { 1 } else { 2 }
}
