//! A segment that opens nothing.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    Reason,
    abi::Scratch,
    flood::{Mode, SAMPLE, Sign},
    wire::tcp::flags,
};

use super::{cookie_ack, flows, now, rate};
use crate::{
    maps::{DEFENCE, FLOODS},
    verdict::Answer,
};

/// Settles what becomes of a segment of a defended service: one that is sampled in calm, or any in a flood. In a flood it belongs to a
/// connection, brings back a cookie (whose attributes are written), or ends. Answers an [`Answer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle_segment(ctx: *mut xdp_md, packet: *mut Scratch) -> u32 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    unsafe { packet.as_mut() }.map_or(Answer::PLAIN, |packet| settle(ctx, packet)).0
}

#[inline(always)]
fn settle(ctx: *mut xdp_md, packet: &mut Scratch) -> Answer {
    let case = &packet.case;
    let (Some(policy), Some(flood)) = (DEFENCE.get(case.service), FLOODS.get(case.service)) else { return Reason::MapMiss.into() };
    let now = now();
    if policy.mode(flood, now) == Mode::Calm {
        // Where a flood is over and nobody has cleared its record yet, every segment comes here.
        let is_sample = policy.is_calm_for_sure(flood) || rate::is_sample(case.service);
        if is_sample && flows::lookup(ctx, case) != flows::Found::Connection {
            rate::count(case.service, policy, flood, Sign::Strays(SAMPLE), now);
        }
        return Answer::PLAIN;
    }
    let Some(place) = flows::place(&case.key) else { return Reason::MapMiss.into() };
    if flows::is_known(ctx, case, &place, now) {
        if case.flags().is_some_and(|bits| bits & flags::RST != 0) {
            // It ends the connection, and the client may come back at once by the same addresses and ports.
            flows::forget(&place);
        }
        return Answer::PLAIN;
    }
    rate::count(case.service, policy, flood, Sign::Strays(1), now);
    match case.flags() {
        None => Reason::StrayFragment.into(),
        Some(bits) if bits & flags::RST != 0 => Reason::StrayReset.into(),
        Some(bits) if bits & flags::SYN != 0 => Reason::StraySynAck.into(),
        Some(_) => cookie_ack::admit(ctx, packet, policy, &place, now),
    }
}
