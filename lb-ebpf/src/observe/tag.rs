//! The tag of a socket: which backend it is, or was made from.

use aya_ebpf::{cty::c_void, helpers::bpf_sk_storage_get};
use lb_common::abi::SocketTag;

use crate::maps::{BACKENDS, SOCKET_TAGS};

/// The tag of a listener that is a backend, or of a connection made from one, as long as its slot is still that socket's.
///
/// `sk` is a socket that the kernel has given to the program as an argument.
#[inline(always)]
pub fn of(sk: *mut c_void) -> Option<SocketTag> {
    // SAFETY: the pointer is to the socket's own storage, which lives as long as the socket.
    current(unsafe { *stored(sk)? })
}

/// The same of a connection that does not have this mark, and has it from now on: so that of two programs at the tracepoint, which run one
/// after the other, one counts it.
#[inline(always)]
pub fn mark(sk: *mut c_void, mark: u32) -> Option<SocketTag> {
    let stored = stored(sk)?;
    // SAFETY: as above; nobody else writes to a connection's copy.
    let tag = unsafe { *stored };
    if tag.slot & mark != 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { (*stored).slot = tag.slot | mark };
    current(tag)
}

#[inline(always)]
fn stored(sk: *mut c_void) -> Option<*mut SocketTag> {
    // SAFETY: the map is this object's, and `sk` is what the caller says; the helper answers null for a socket without a tag.
    let tag = unsafe { bpf_sk_storage_get(core::ptr::from_ref(&SOCKET_TAGS).cast_mut().cast(), sk, core::ptr::null_mut(), 0) };
    (!tag.is_null()).then_some(tag.cast::<SocketTag>())
}

#[inline(always)]
fn current(tag: SocketTag) -> Option<SocketTag> {
    let tag = tag.unmarked();
    BACKENDS.get(tag.slot).is_some_and(|backend| backend.generation == tag.generation).then_some(tag)
}
