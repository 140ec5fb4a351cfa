//! A SYN in a flood: answered in its own bytes, or passed to the kernel where XDP must not answer.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use lb_common::{
    Address, Reason,
    abi::{Case, DefencePolicy, LiveState, Purpose, Scheme, Scratch, announced_window, policy_flags},
    cookie::{self, Agreement},
    flood::Sign,
    limiter::Bucket,
    syn_ack::{SynAck, granted},
    wire::tcp,
};

use super::{
    flows::{self, Found},
    hash, kernel_cookie, limits, now, options, rate,
};
use crate::{
    maps::{ADDRESS_FILTER, ADDRESSES, BUDGETS, DEFENCE, FLOODS, LIVE},
    parse,
    verdict::Answer,
};

/// The places of [`BUDGETS`].
mod budget {
    pub const SYN_ACKS: u32 = 0;
    pub const KERNEL_ONLY_SYNS: u32 = 1;
}

/// Counts a SYN of a defended service, and answers it in a flood. Answers an [`Answer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_syn(ctx: *mut xdp_md, packet: *mut Scratch) -> u32 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return Answer::PLAIN.0 };
    let case = &packet.case;
    let (Some(policy), Some(flood)) = (DEFENCE.get(case.service), FLOODS.get(case.service)) else { return Reason::MapMiss as u32 };
    let now = now();
    if !rate::count(case.service, policy, flood, Sign::Syn, now) {
        return Answer::PLAIN.0;
    }
    let (Ok(reason) | Err(reason)) = answer(ctx, packet, policy, now);
    reason as u32
}

/// Whether XDP may answer SYNs of the service.
#[inline(always)]
pub fn may_answer(live: &LiveState, policy: &DefencePolicy, now: u64) -> bool {
    let DefencePolicy { flags, .. } = *policy;
    live.scheme != Scheme::None as u32
        && live.is_live(now)
        && flags & (policy_flags::HAS_LISTENER | policy_flags::UNSAFE) == policy_flags::HAS_LISTENER
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an MSS has 16 bits, a scale is at most 14")]
fn answer(ctx: *mut xdp_md, packet: &mut Scratch, policy: &DefencePolicy, now: u64) -> Result<Reason, Reason> {
    let Scratch { case, offered, reply, segment, .. } = packet;
    let live = LIVE.get(0).ok_or(Reason::MapMiss)?;
    if !may_answer(live, policy, now) {
        return Err(Reason::DefenceAsleep);
    }
    if !case.is_plain() {
        return Err(Reason::SynBehindOptions);
    }
    let window = parse::window(ctx);
    let header = window.header::<{ tcp::LENGTH }>(parse::opaque::<0xfff>(case.transport) as usize).ok_or(Reason::Truncated)?;
    let (sequence, flags) = (header.number32::<4>(), header.byte::<13>());
    let options = options::read(ctx, case, offered);
    let data = (case.end as usize).saturating_sub(case.data());
    if data > 0 && !options.fast_open {
        return Err(Reason::SynWithData);
    }
    if is_own(&case.key.source)? {
        return Err(Reason::ImpossibleSource);
    }
    match flows::lookup(ctx, case) {
        Found::Listener => {}
        Found::Nothing => return Err(Reason::DefenceAsleep),
        // The kernel remembers it (in TIME_WAIT, say): the SYN is for it to judge.
        Found::Connection => return Err(Reason::FloodSyn),
    }
    let agreement = match Agreement::of(&options, flags, case.key.source.is_ipv4(), live.willing()) {
        Some(agreement) if !options.needs_kernel => agreement,
        _ if spend(budget::KERNEL_ONLY_SYNS, now, live.kernel_only_syns) => return Err(Reason::KernelOnlySyn),
        _ => return Err(Reason::KernelOnlySynOverLimit),
    };
    if !limits::take(&case.key, Purpose::SynAck as u32, now, live.syn_acks_to_prefix, 1) {
        return Err(Reason::SynAckPrefixLimit);
    }
    if !spend(budget::SYN_ACKS, now, live.syn_acks) {
        return Err(Reason::SynAckCap);
    }
    let can_restore = parse::can_carry_metadata(ctx);
    let is_kernels = live.scheme == Scheme::Kernel as u32 || policy.flags & policy_flags::KERNEL_SCHEME != 0;
    let (cookie, granted) = if is_kernels || !can_restore {
        // Also where the driver cannot carry what a cookie of ours says: the kernel's needs nothing of that.
        let why_not = if can_restore { Reason::DefenceAsleep } else { Reason::NoMetadata };
        kernel_cookie::make(ctx, case, segment).ok_or(why_not)?
    } else {
        let key = live.key(live.parity, now).ok_or(Reason::DefenceAsleep)?;
        cookie::make_with(|options| hash::of(case, key, sequence, options), live.parity & 1, case.key.source.is_ipv4(), &agreement)
    };
    *reply = SynAck {
        cookie,
        sequence,
        echo: options.timestamps.map_or(0, |(value, _)| value),
        maximum_segment_size: if options.maximum_segment_size.is_some() { case.maximum_segment_size as u16 } else { 0 },
        window: announced_window(policy.window_space, granted.maximum_segment_size),
        window_scale: policy.window_scale as u8,
        granted: granted::bits(&granted),
        padding: [0; 2],
    };
    if write_syn_ack(ctx, &raw const *case, &raw const *reply) != 0 {
        return Err(Reason::BadDataOffset);
    }
    // The header may tell of more data than there is.
    trim(ctx, u64::from(case.end).min(case.length).saturating_sub(case.data() as u64));
    Ok(Reason::CookieSent)
}

/// Whether it is an address of this host. Nearly all others are told by the filter.
#[inline(always)]
fn is_own(address: &Address) -> Result<bool, Reason> {
    let filter = ADDRESS_FILTER.get(0).ok_or(Reason::MapMiss)?;
    if !filter.may_have(address) {
        return Ok(false);
    }
    // A copy on the stack, which a volatile store forces: Linux 6.1 takes no key that is in the memory a function was handed ("R2 type=mem
    // expected=fp, pkt, pkt_meta, map_key, map_value").
    let mut key = MaybeUninit::<Address>::uninit();
    // SAFETY: the place is ours, and all of it is written; the value in the map is not read.
    Ok(unsafe {
        key.as_mut_ptr().write_volatile(*address);
        ADDRESSES.get(key.assume_init_ref())
    }
    .is_some())
}

/// Writes the answer over the SYN. Answers 0, or 1 if the packet has no room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_syn_ack(ctx: *mut xdp_md, case: *const Case, reply: *const SynAck) -> u32 {
    // SAFETY: the verifier knows the sizes of what the pointers are to, and wants to see that they are none.
    let (Some(case), Some(reply)) = (unsafe { case.as_ref() }, unsafe { reply.as_ref() }) else { return 1 };
    u32::from(reply.write(&mut parse::writer(ctx), &parse::bounded(case)).is_none())
}

/// Takes a token of this CPU's budget.
#[inline(always)]
fn spend(budget: u32, now: u64, rate: u32) -> bool {
    let Some(bucket) = BUDGETS.get_ptr_mut(budget) else { return false };
    // SAFETY: the pointer is to this CPU's own value, and XDP alone writes it.
    let bucket: &mut Bucket = unsafe { &mut *bucket };
    bucket.take(now, rate, rate)
}

/// Cuts off the data of a Fast Open SYN: the client sends it again, and an answer must not carry it. No pointer into the packet may be
/// used after this.
#[inline(always)]
fn trim(ctx: *mut xdp_md, data: u64) {
    if data == 0 || data > 9_000 {
        return;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    // SAFETY: the context is the one the kernel handed to this program. If it refuses, the data goes back as padding behind the packet.
    unsafe {
        bpf_xdp_adjust_tail(ctx, -(data as i32));
    }
}
