//! Counting what speaks for a flood, and writing down that there is one.

use aya_ebpf::helpers::bpf_map_lookup_percpu_elem;
use lb_common::{
    abi::{DefencePolicy, Event, EventKind},
    flood::{FloodState, FloodWindow, Mode, Sign},
};

use crate::maps::{DEFENCE, EVENTS, FLOOD_WINDOWS, FLOODS, LIVE};

/// The most CPUs whose counts are added up; those of others count where they are seen.
const MAX_CPUS: u32 = 256;

/// Counts a sign of a flood. Answers whether there is a flood of it, which this one may have begun.
#[inline(always)]
pub fn count(service: u32, policy: &DefencePolicy, flood: &FloodState, sign: Sign, now: u64) -> bool {
    let is_on = policy.is_on(flood, sign, now);
    let Some(window) = FLOOD_WINDOWS.get_ptr_mut(service) else { return is_on };
    // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
    let counted = unsafe { (*window).count(now, sign) };
    let Some(live) = LIVE.get(0) else { return is_on };
    if !policy.thresholds.should_add_up(counted, sign, is_on, live.cpus.max(1)) {
        return is_on;
    }
    let strays = if let Sign::Strays(number) = sign { number } else { 0 };
    added_up(service, strays, now, live.cpus) != 0 || is_on
}

/// Whether this segment is one of those that are looked up in calm.
#[inline(always)]
pub fn is_sample(service: u32) -> bool {
    let Some(window) = FLOOD_WINDOWS.get_ptr_mut(service) else { return false };
    // SAFETY: as above.
    unsafe { (*window).is_sample() }
}

/// Adds up the counts of all CPUs, of SYNs or (if their number is not 0) of segments of no connection, and writes down a flood if they are
/// enough for one. Answers whether they are: 0 or 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn added_up(service: u32, strays: u32, now: u64, cpus: u32) -> u32 {
    let (Some(policy), Some(flood)) = (DEFENCE.get(service), FLOODS.get_ptr_mut(service)) else { return 0 };
    let sign = if strays == 0 { Sign::Syn } else { Sign::Strays(strays) };
    let mut total = 0_u32;
    let mut cpu = 0;
    while cpu < MAX_CPUS && cpu < cpus {
        total = total.saturating_add(of_cpu(service, cpu).map_or(0, |window| window.fresh(now, sign)));
        cpu += 1;
    }
    // SAFETY: the map holds plain numbers. Other CPUs may write them at the same time, in plain stores: whoever reads one old and one new
    // sees a flood a little longer or shorter, and CPUs that write at once write nearly the same.
    let before = unsafe { *flood };
    let Some(next) = before.after(&policy.thresholds, sign, total, now) else { return 0 };
    // SAFETY: as above.
    unsafe { *flood = next };
    if before.mode(&policy.thresholds, now) != Mode::Flood {
        // Once a flood, from each CPU that notices at once. A full buffer loses it: the daemon looks each second as well.
        let _ = EVENTS.output(Event { cookie: service.into(), kind: EventKind::FloodStart as u32, pid: u32::from(strays != 0) }, 0);
    }
    1
}

/// What another CPU has counted. It may write at the same time: then a count is off by one.
#[inline(always)]
fn of_cpu(service: u32, cpu: u32) -> Option<FloodWindow> {
    // SAFETY: the map is one of this object's, and the key is ours.
    let window = unsafe {
        bpf_map_lookup_percpu_elem(core::ptr::from_ref(&FLOOD_WINDOWS).cast_mut().cast(), core::ptr::from_ref(&service).cast(), cpu)
    };
    // SAFETY: the kernel gave a pointer to a value of the map, which holds plain numbers.
    (!window.is_null()).then(|| unsafe { *window.cast::<FloodWindow>() })
}
