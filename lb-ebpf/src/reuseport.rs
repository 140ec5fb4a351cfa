//! `select_socket`: the truth about who gets a flow. It runs when a packet or a left-behind connection reaches a SO_REUSEPORT group.
//!
//! The kernel calls it for a SYN, for the ACK of a SYN cookie, for every datagram, and (with no packet at all) for each connection that
//! a closing listener leaves behind. Whatever it cannot decide it leaves to the kernel's own hash, and counts that.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_hdr_start_off::BPF_HDR_START_NET, sk_action::SK_PASS},
    helpers::{bpf_ktime_get_coarse_ns, bpf_sk_select_reuseport, bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::SkReuseportContext,
};
use lb_common::{
    Address, FlowKey,
    abi::{Cause, GroupKey, GroupRecord, MAX_STEPS, NO_SLOT, SelectionMiss, UdpFlow, service_flags, state_flags},
    packet::Window,
    wire::{ethernet, ipv4, ipv6, protocol, tcp, udp},
};

use crate::{
    maps::{BACKEND_COUNTERS, BACKENDS, GROUPS, SELECTOR_COUNTERS, SETTINGS, SOCKETS, UDP_BUDGET, UDP_FLOWS},
    relief,
    select::{Place, quic_slot},
    socket::Socket,
};

/// Selects a socket of the group, or leaves it to the kernel.
#[inline(always)]
pub fn select(ctx: &SkReuseportContext) -> u32 {
    if let Err(miss) = choose(ctx) {
        missed(miss);
    }
    SK_PASS
}

#[inline(always)]
fn choose(ctx: &SkReuseportContext) -> Result<(), SelectionMiss> {
    let group = group(ctx).ok_or(SelectionMiss::NoGroup)?;
    let (flow, cause) = flow(ctx).ok_or(SelectionMiss::Unreadable)?;
    if flow.protocol_number() == protocol::UDP {
        return choose_datagram(ctx, &group, &flow);
    }
    // The kernel drops it, at whichever listener.
    let Some(cause) = cause else { return Ok(()) };
    by_table(ctx, &group, &flow, cause).map(drop)
}

/// The group that the packet reached, told by what its sockets are bound to.
#[inline(always)]
fn group(ctx: &SkReuseportContext) -> Option<GroupRecord> {
    // SAFETY: `sk` is a socket of the group, held by the kernel while the program runs.
    let sk = Socket(unsafe { (*ctx.md).__bindgen_anon_3.sk });
    // A listener that is gone altogether has given its port back (Linux's `inet_put_port`), and the last ACK of a handshake that it left
    // half open still migrates from it: the connection knows the port.
    let port = left_behind(ctx).map_or_else(|| sk.local_port(), |connection| connection.local_port());
    let key = GroupKey::new(sk.local_address(), port, sk.protocol(), sk.bound_device());
    // SAFETY: the record is two numbers, copied at once; a record replaced meanwhile leads to another table, where the kernel refuses
    // a socket of another group.
    unsafe { GROUPS.get(key) }.copied()
}

/// The connection that a closing listener leaves behind, if the program runs for one.
#[inline(always)]
fn left_behind(ctx: &SkReuseportContext) -> Option<Socket> {
    // One copy of the pointer: the verifier ties the null check to the copy that was checked.
    // SAFETY: the field of the context is always there.
    let sk = unsafe { (*ctx.md).__bindgen_anon_4.migrating_sk };
    (!sk.is_null()).then_some(Socket(sk))
}

/// The flow and why a socket is wanted for it: no cause for a segment of which no connection comes.
#[inline(always)]
fn flow(ctx: &SkReuseportContext) -> Option<(FlowKey, Option<Cause>)> {
    if let Some(sk) = left_behind(ctx) {
        // Only TCP leaves anything behind, and the verifier shows no protocol of such a socket (PTR_TO_SOCK_COMMON).
        let flow = FlowKey::new(sk.remote_address(), sk.remote_port(), sk.local_address(), sk.local_port(), protocol::TCP);
        return Some((flow, Some(Cause::Migration)));
    }
    flow_of_packet(ctx)
}

/// The flow of the packet. The context's data begins at the transport header.
#[inline(always)]
fn flow_of_packet(ctx: &SkReuseportContext) -> Option<(FlowKey, Option<Cause>)> {
    let (source, destination) = addresses(ctx)?;
    // SAFETY: the kernel keeps the bytes between `data` and `data_end` in place while the program runs.
    let window = unsafe { Window::new(ctx.data(), ctx.data_end()) };
    if ctx.ip_protocol() == u32::from(protocol::UDP) {
        let header = window.header::<4>(0)?;
        let flow = FlowKey::new(source, header.number16::<0>(), destination, header.number16::<2>(), protocol::UDP);
        return Some((flow, Some(Cause::Udp)));
    }
    let header = window.header::<{ tcp::LENGTH }>(0)?;
    let flow = FlowKey::new(source, header.number16::<0>(), destination, header.number16::<2>(), protocol::TCP);
    // The last segments of a connection whose socket is gone come to the listener too (RFC 9293, 3.10.7.2): nothing is selected for a
    // reset. An ACK may be that of a cookie, which the kernel finds out after this.
    let cause = match header.byte::<13>() & (tcp::flags::SYN | tcp::flags::ACK | tcp::flags::RST) {
        tcp::flags::SYN => Some(Cause::Syn),
        tcp::flags::ACK => Some(Cause::CookieAck),
        _ => None,
    };
    Some((flow, cause))
}

#[inline(always)]
fn addresses(ctx: &SkReuseportContext) -> Option<(Address, Address)> {
    if ctx.eth_protocol() == u32::from(ethernet::IPV6.to_be()) {
        let words: [u64; 4] = load_network(ctx, ipv6::LENGTH - 32)?;
        return Some((Address::from_words([words[0], words[1]]), Address::from_words([words[2], words[3]])));
    }
    let words: [u32; 2] = load_network(ctx, ipv4::LENGTH - 8)?;
    Some((Address::from_ipv4_network(words[0]), Address::from_ipv4_network(words[1])))
}

/// Bytes of the network header, which lies before the context's data.
#[inline(always)]
fn load_network<T: Copy>(ctx: &SkReuseportContext, offset: usize) -> Option<T> {
    // Not set to zero before: that would be a call (LLVM makes a memset of it, and BPF has none).
    let mut value = MaybeUninit::<T>::uninit();
    #[expect(clippy::cast_possible_truncation, reason = "two constants below 40")]
    // SAFETY: the buffer is ours and as long as is said.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(
            ctx.as_ptr().cast_const(),
            offset as u32,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            BPF_HDR_START_NET,
        )
    };
    // SAFETY: the helper has written all of it; it is only ever an array of integers, of which any bytes are a value.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// Selects by the table: the flow's own place, or the next one whose socket takes new flows.
#[inline(always)]
fn by_table(ctx: &SkReuseportContext, group: &GroupRecord, flow: &FlowKey, cause: Cause) -> Result<UdpFlow, SelectionMiss> {
    let place = Place::of(flow, group.service).ok_or(SelectionMiss::NoTable)?;
    if !matches!(cause, Cause::Udp) {
        let own = place.slot(0).ok_or(SelectionMiss::NoTable)?;
        let other = relief::other_than(own, &place);
        if other != NO_SLOT
            && let Some(generation) = selected(ctx, other, true)
        {
            counted(other, Cause::Relief);
            return Ok(UdpFlow { slot: other, generation });
        }
    }
    for step in 0..MAX_STEPS {
        let slot = place.slot(step).ok_or(SelectionMiss::NoTable)?;
        if let Some(generation) = selected(ctx, slot, true) {
            // The own place of a connection that was left behind is, nearly always, the listener that left it.
            counted(slot, if step == 0 || matches!(cause, Cause::Migration) { cause } else { Cause::Override });
            return Ok(UdpFlow { slot, generation });
        }
    }
    Err(SelectionMiss::NoSocket)
}

/// A datagram: its flow's worker if it has one, else the worker its connection ID names, else the table's.
#[inline(always)]
fn choose_datagram(ctx: &SkReuseportContext, group: &GroupRecord, flow: &FlowKey) -> Result<(), SelectionMiss> {
    // SAFETY: an entry may be replaced while it is copied; the generation then fits no slot, or the kernel refuses a foreign socket.
    if let Some(entry) = unsafe { UDP_FLOWS.get(flow) }.copied()
        && BACKENDS.get(entry.slot).is_some_and(|state| state.generation == entry.generation)
        && selected(ctx, entry.slot, false).is_some()
    {
        counted(entry.slot, Cause::UdpFlow);
        return Ok(());
    }
    let entry = match by_connection_id(ctx, group) {
        Some(entry) => entry,
        None => by_table(ctx, group, flow, Cause::Udp)?,
    };
    keep(flow, &entry)
}

/// Selects the worker that a QUIC packet's connection ID names: the client has moved to another address or port.
#[inline(always)]
fn by_connection_id(ctx: &SkReuseportContext, group: &GroupRecord) -> Option<UdpFlow> {
    let position = service_flags::quic_position(group.flags)?;
    let first = payload_byte(ctx, 0)?;
    let slot = quic_slot(group.service, first, payload_byte(ctx, 1 + position)?)?;
    let generation = selected(ctx, slot, false)?;
    counted(slot, Cause::QuicConnectionId);
    Some(UdpFlow { slot, generation })
}

#[inline(always)]
fn payload_byte(ctx: &SkReuseportContext, position: usize) -> Option<u8> {
    let mut byte = 0u8;
    #[expect(clippy::cast_possible_truncation, reason = "at most 8 + 1 + 19")]
    let offset = (udp::LENGTH + position) as u32;
    // SAFETY: the buffer is ours and one byte long.
    let failed = unsafe { bpf_skb_load_bytes(ctx.as_ptr().cast_const(), offset, core::ptr::from_mut(&mut byte).cast(), 1) };
    (failed == 0).then_some(byte)
}

/// Enters the flow in the table of flows, within this CPU's share of the second.
#[inline(always)]
fn keep(flow: &FlowKey, entry: &UdpFlow) -> Result<(), SelectionMiss> {
    let (Some(settings), Some(budget)) = (SETTINGS.get(0), UDP_BUDGET.get_ptr_mut(0)) else {
        return Err(SelectionMiss::FlowNotKept);
    };
    // SAFETY: the helper has no preconditions; the pointer is to this CPU's own value.
    let granted =
        unsafe { (*budget).take(bpf_ktime_get_coarse_ns(), settings.udp_new_flows_per_second, settings.udp_new_flows_per_second) };
    if granted && UDP_FLOWS.insert(flow, entry, 0).is_ok() { Ok(()) } else { Err(SelectionMiss::FlowNotKept) }
}

/// Selects the socket in a slot, if it lives and (for a new flow) takes new ones. Answers with the slot's generation.
#[inline(always)]
fn selected(ctx: &SkReuseportContext, slot: u32, is_new: bool) -> Option<u32> {
    let state = BACKENDS.get(slot)?;
    if is_new && state.flags & state_flags::CLOSED_TO_NEW != 0 {
        return None;
    }
    let generation = state.generation;
    let mut slot = slot;
    // SAFETY: the map is one of this object's and the key is ours.
    let failed = unsafe {
        bpf_sk_select_reuseport(ctx.md, core::ptr::from_ref(&SOCKETS).cast_mut().cast(), core::ptr::from_mut(&mut slot).cast(), 0)
    };
    (failed == 0).then_some(generation)
}

#[inline(always)]
fn counted(slot: u32, cause: Cause) {
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(slot)
        // SAFETY: the pointer is to this CPU's own value; the selector runs with bottom halves off.
        && let Some(counter) = unsafe { (*counters).selected.get_mut(cause as usize) }
    {
        *counter += 1;
    }
}

#[inline(always)]
fn missed(miss: SelectionMiss) {
    if let Some(counters) = SELECTOR_COUNTERS.get_ptr_mut(0)
        // SAFETY: as above.
        && let Some(counter) = unsafe { (*counters).missed.get_mut(miss as usize) }
    {
        *counter += 1;
    }
}
