//! Counting how long things took. At most twice in a connection's life, and so by shared atomics: a table for each CPU would have
//! hundreds of bytes for each backend and CPU.

use aya_ebpf::{Global, cty::c_void};
use lb_common::abi::{SocketTag, Times, time_bucket};

use super::memory::{ABSENT, increment, read};
use crate::maps::{BACKEND_TIMES, SERVICE_TIMES};

// Offsets: see `memory`.
#[unsafe(no_mangle)]
static OFFSET_TCP_ROUND_TRIP: Global<u32> = Global::new(0xbad8);
#[unsafe(no_mangle)]
static OFFSET_TCP_RETRANSMITTED: Global<u32> = Global::new(0xbad9);

/// Counts the handshake of a connection that has just become established.
///
/// Its round trip is the kernel's own first sample, from the SYN-ACK that it sent to the ACK that came. There is none after a cookie, and
/// none that means anything after a SYN-ACK that was sent twice: which of the two was answered?
#[inline(always)]
pub fn handshake(sk: *mut c_void, tag: SocketTag) {
    if OFFSET_TCP_ROUND_TRIP.load() == ABSENT {
        return;
    }
    let Some(service) = BACKEND_TIMES.get(tag.slot).map(|times| times.service) else { return };
    let Some(times) = SERVICE_TIMES.get_ptr_mut(service) else { return };
    let retransmitted: Option<u32> = read(sk.cast_const().cast(), OFFSET_TCP_RETRANSMITTED.load());
    let eighths: Option<u32> = read(sk.cast_const().cast(), OFFSET_TCP_ROUND_TRIP.load());
    match (retransmitted, eighths) {
        // SAFETY: the pointer is to the map's value.
        (Some(1..), _) => unsafe { increment(&raw mut (*times).repeated, 1) },
        // SAFETY: as above.
        (Some(0), Some(eighths @ 1..)) => add(unsafe { &raw mut (*times).handshake }, u64::from(eighths >> 3) * 1000),
        _ => {}
    }
}

/// Counts the time that a connection of a backend waited to be accepted.
#[inline(always)]
pub fn accepted(slot: u32, nanoseconds: u64) {
    if let Some(times) = BACKEND_TIMES.get_ptr_mut(slot) {
        // SAFETY: the pointer is to the map's value.
        add(unsafe { &raw mut (*times).accept }, nanoseconds);
    }
}

#[inline(always)]
fn add(times: *mut Times, nanoseconds: u64) {
    // SAFETY: the pointer is to a map's value, and there are as many counts as there are buckets.
    unsafe {
        increment((&raw mut (*times).counts).cast::<u64>().add(time_bucket(nanoseconds)), 1);
        increment(&raw mut (*times).sum, nanoseconds);
    }
}
