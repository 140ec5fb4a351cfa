//! Whether a worker keeps up, and who gets a connection in its place: see `lb_common::relief`.
//!
//! A program of this kind is given no socket but the one that the kernel found first. So the iterator over queues notes where each
//! listener is, and its queue is read there at the very moment of the choice.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use lb_common::{
    abi::{MAX_STEPS, NO_SLOT, Settings, state_flags},
    relief::AcceptQueue,
};

use crate::{
    maps::{BACKENDS, LISTENERS, SETTINGS},
    observe::{OFFSET_SK_ACCEPT_LENGTH, OFFSET_SK_ACCEPT_LIMIT, head_since, read},
    select::Place,
};

/// How many others are looked at: the better of two drawn at random is nearly as good as the best of all (Mitzenmacher, The Power of Two
/// Choices in Randomized Load Balancing, 2001).
const CHOICES: u32 = 2;

/// The slot that gets a new connection in place of `own`, which the table names; [`NO_SLOT`] if `own` keeps up or no other does.
#[inline(always)]
pub fn other_than(own: u32, place: &Place) -> u32 {
    match SETTINGS.get(0) {
        Some(settings) if settings.relief.is_on() => relieve(own, place.service, place.hash, place.size),
        _ => NO_SLOT,
    }
}

/// [`other_than`], for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn relieve(own: u32, service: u32, hash: u64, size: u32) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return NO_SLOT };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let place = Place { service, hash, size };
    let needs_relief = queue(own, settings).is_some_and(|queue| settings.relief.is_due(&queue, now));
    if needs_relief { least_full(own, &place, settings, now) } else { NO_SLOT }
}

/// The one with the emptier queue of the next two workers in the table, if it keeps up itself.
#[inline(always)]
fn least_full(own: u32, place: &Place, settings: &Settings, now: u64) -> u32 {
    let (mut best, mut share, mut last, mut seen) = (NO_SLOT, u32::MAX, own, 0);
    for step in 1..MAX_STEPS {
        let Some(slot) = place.slot(step) else { break };
        if slot == own || slot == last || !takes_new(slot) {
            continue;
        }
        last = slot;
        seen += 1;
        if let Some(queue) = queue(slot, settings)
            && !settings.relief.is_due(&queue, now)
            && queue.share() < share
        {
            (best, share) = (slot, queue.share());
        }
        if seen == CHOICES {
            break;
        }
    }
    best
}

#[inline(always)]
fn takes_new(slot: u32) -> bool {
    BACKENDS.get(slot).is_some_and(|state| state.flags & state_flags::CLOSED_TO_NEW == 0)
}

/// What waits in a slot's accept queue. Nothing is held: a socket that closes meanwhile gives any numbers, and is not selected.
#[inline(always)]
fn queue(slot: u32, settings: &Settings) -> Option<AcceptQueue> {
    let listener = LISTENERS.get(slot)?;
    if listener.address == 0 || BACKENDS.get(slot)?.generation != listener.generation {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "an address of this machine, which has 64 bits")]
    let sk = core::ptr::with_exposed_provenance::<u8>(listener.address as usize);
    let length: u32 = read(sk, OFFSET_SK_ACCEPT_LENGTH.load())?;
    if length == 0 {
        return Some(AcceptQueue { length, limit: 0, head_since: 0 });
    }
    let limit: u32 = read(sk, OFFSET_SK_ACCEPT_LIMIT.load())?;
    let head_since = if settings.relief.stalled_after == 0 { 0 } else { head_since(sk).unwrap_or(0) };
    Some(AcceptQueue { length, limit, head_since })
}
