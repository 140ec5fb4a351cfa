//! The tag of a socket: which backend it is, or was made from.

use aya_ebpf::{cty::c_void, helpers::bpf_sk_storage_get};
use lb_common::abi::SocketTag;

use crate::maps::{BACKENDS, SOCKET_TAGS};

/// The tag of a listener that is a backend, or of a connection made from one, as long as its slot is still that socket's.
///
/// `sk` is a socket that the kernel has given to the program as an argument.
#[inline(always)]
pub fn of(sk: *mut c_void) -> Option<SocketTag> {
    // SAFETY: the map is this object's, and `sk` is what the caller says; the helper answers null for a socket without a tag.
    let tag = unsafe { bpf_sk_storage_get(core::ptr::from_ref(&SOCKET_TAGS).cast_mut().cast(), sk, core::ptr::null_mut(), 0) };
    if tag.is_null() {
        return None;
    }
    // SAFETY: it is not null, and a socket's storage lives as long as the socket.
    let tag = unsafe { *tag.cast::<SocketTag>() };
    BACKENDS.get(tag.slot).is_some_and(|backend| backend.generation == tag.generation).then_some(tag)
}
