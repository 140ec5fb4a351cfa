//! An ACK of no connection, in a flood: it brings a cookie back, or it is dropped.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6},
};
use lb_common::{
    Reason,
    abi::{Case, DefencePolicy, LiveState, Offered, Purpose, RequestAttributes, Scheme, Scratch},
    cookie::{self, Agreement},
    packet::Window,
    tag::Place,
    wire::{ipv4, ipv6, tcp},
};

use super::{answer, flows, hash, limits, options};
use crate::{maps::LIVE, parse, verdict::Answer};

/// Admits the ACK if its cookie is right, and writes down the attributes of its connection.
#[inline(always)]
pub fn admit(ctx: *mut xdp_md, packet: &mut Scratch, policy: &DefencePolicy, place: &Place, now: u64) -> Answer {
    let Scratch { case, attributes, offered, .. } = packet;
    let Some(live) = LIVE.get(0) else { return Reason::MapMiss.into() };
    if !answer::may_answer(live, policy, now) {
        // The kernel answers SYNs, with cookies of its own if it has to: what comes back is for it to judge.
        return Answer::PLAIN;
    }
    let rate = live.wrong_cookies;
    let mut guesses = limits::bucket(&case.key, Purpose::WrongCookie as u32, now, rate);
    if guesses.as_mut().is_some_and(|bucket| !bucket.has_one(now, rate, rate)) {
        return Reason::CookieGuessing.into();
    }
    let answer = match own(ctx, case, offered, live, policy, now) {
        Ok(of_cookie) => {
            *attributes = of_cookie;
            Answer::OWN_COOKIE
        }
        // One that the kernel has sent before the flood was noticed, or sends for what it alone can answer.
        Err(_) if is_of_kernel(&parse::window(ctx), case) => Answer::KERNEL_COOKIE,
        Err(reason) => {
            // There is one.
            let _ = guesses.is_some_and(|bucket| bucket.take(now, rate, rate));
            return reason.into();
        }
    };
    flows::remember(place, now);
    answer
}

/// The connection that a cookie of ours stands for.
#[inline(always)]
fn own(
    ctx: *mut xdp_md,
    case: &Case,
    offered: &mut Offered,
    live: &LiveState,
    policy: &DefencePolicy,
    now: u64,
) -> Result<RequestAttributes, Reason> {
    if live.scheme != Scheme::Own as u32 {
        return Err(Reason::CookieRefused);
    }
    let window = parse::window(ctx);
    let header = window.header::<{ tcp::LENGTH }>(parse::opaque::<0xfff>(case.transport) as usize).ok_or(Reason::Truncated)?;
    let (sequence, acknowledged) = (header.number32::<4>().wrapping_sub(1), header.number32::<8>().wrapping_sub(1));
    let key = live.key(cookie::parity(acknowledged), now).ok_or(Reason::CookieExpired)?;
    let timestamps = options::timestamps(ctx, case, offered);
    let echoed = timestamps.map(|(_, echoed)| echoed);
    let hash = |options| hash::of(case, key, sequence, options);
    let agreement = cookie::check_with(hash, case.key.source.is_ipv4(), acknowledged, echoed).ok_or(Reason::CookieRefused)?;
    Ok(attributes(&agreement, timestamps.unwrap_or_default(), policy))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a scale is at most 14")]
fn attributes(agreement: &Agreement, (value, echoed): (u32, u32), policy: &DefencePolicy) -> RequestAttributes {
    let scale = agreement.window_scale;
    RequestAttributes {
        received_timestamp: value,
        echoed_timestamp: echoed,
        maximum_segment_size: agreement.maximum_segment_size,
        receive_window_scale: if scale.is_some() { policy.window_scale as u8 } else { 0 },
        send_window_scale: scale.unwrap_or(0),
        has_ecn: agreement.congestion_notification.into(),
        has_window_scale: scale.is_some().into(),
        has_selective_acknowledgement: agreement.selective_acknowledgement.into(),
        has_timestamps: agreement.timestamps.into(),
        has_microsecond_timestamps: 0,
        reserved: [0; 3],
    }
}

/// Whether the kernel itself would take the cookie.
#[inline(always)]
fn is_of_kernel(window: &Window<'_>, case: &Case) -> bool {
    let Some(segment) = window.header::<{ tcp::LENGTH }>(parse::opaque::<0xfff>(case.transport) as usize) else { return false };
    let network = parse::opaque::<0xfff>(case.network) as usize;
    if case.key.source.is_ipv4() {
        let Some(header) = window.header::<{ ipv4::LENGTH }>(network) else { return false };
        // SAFETY: both headers are inside the packet, which the helper reads.
        return unsafe { bpf_tcp_raw_check_syncookie_ipv4(header.as_ptr().cast_mut().cast(), segment.as_ptr().cast_mut().cast()) } == 0;
    }
    let Some(header) = window.header::<{ ipv6::LENGTH }>(network) else { return false };
    // SAFETY: as above.
    unsafe { bpf_tcp_raw_check_syncookie_ipv6(header.as_ptr().cast_mut().cast(), segment.as_ptr().cast_mut().cast()) == 0 }
}
