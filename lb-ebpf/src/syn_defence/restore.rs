//! `restore_request`: the kernel gets the connection that a cookie ACK opens, with all its options.
//!
//! `ingress` has checked the cookie and left in the packet's metadata what it says; it cannot hand the kernel a connection itself, since
//! the kernel's function for that takes a socket buffer, and XDP has none yet. A packet without metadata, which is every packet while no
//! flood is on, costs two loads and a comparison.

use core::mem::offset_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, tcp_sock, tcx_action_base::TCX_NEXT},
    cty::{c_int, c_void},
    helpers::{bpf_skb_pull_data, bpf_skc_to_tcp_sock},
    programs::TcContext,
};
use lb_common::{
    FlowKey,
    abi::{ASSIGN_PLACEHOLDER, RequestAttributes, RestoreRequest, Restored},
    packet::Window,
    wire::{self, Kind},
};

use crate::{
    maps::RESTORE_COUNTERS,
    socket::{Held, LISTEN},
};

/// How many bytes from the start of the frame hold all headers of a segment, unless it is a very odd one.
const HEADERS: u32 = 256;

/// The six words of a header from a constant position on.
macro_rules! words {
    ($header:expr, $at:expr) => {
        [
            $header.word::<{ $at }>(),
            $header.word::<{ $at + 4 }>(),
            $header.word::<{ $at + 8 }>(),
            $header.word::<{ $at + 12 }>(),
            $header.word::<{ $at + 16 }>(),
            $header.word::<{ $at + 20 }>(),
        ]
    };
}

/// Gives the kernel the connection of a cookie ACK. All packets go on, whatever comes of it.
#[inline(always)]
pub fn restore(ctx: &TcContext) -> i32 {
    if let Some((attributes, start)) = request(ctx) {
        count(assign(ctx, attributes, start));
    }
    TCX_NEXT
}

/// What a packet begins with to this program.
#[derive(Clone, Copy)]
enum Start {
    /// Its Ethernet header.
    Ethernet,
    /// Its IP header, see [`RestoreRequest`].
    Ip,
}

/// What `ingress` left in the metadata, if it did.
#[inline(always)]
fn request(ctx: &TcContext) -> Option<(RequestAttributes, Start)> {
    const LENGTH: usize = size_of::<RestoreRequest>();
    const AT: usize = RestoreRequest::AT;
    const AT_IP: usize = RestoreRequest::AT_WITHOUT_ETHERNET;
    // SAFETY: the kernel keeps the bytes between the two in place until the packet's buffer is changed, which happens after this.
    let metadata = unsafe { Window::new(load::<{ offset_of!(__sk_buff, data_meta) }>(ctx), load::<{ offset_of!(__sk_buff, data) }>(ctx)) };
    let header = metadata.header::<LENGTH>(0)?;
    if let Some(attributes) = RestoreRequest::attributes_of(words!(header, AT)) {
        return Some((attributes, Start::Ethernet));
    }
    RestoreRequest::attributes_of(words!(header, AT_IP)).map(|attributes| (attributes, Start::Ip))
}

#[inline(always)]
fn assign(ctx: &TcContext, mut attributes: RequestAttributes, start: Start) -> Restored {
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    const LENGTH: u32 = size_of::<RequestAttributes>() as u32;
    let Some(flow) = flow(ctx, start) else { return Restored::Unreadable };
    let Some(socket) = Held::tcp(ctx.as_ptr(), &flow) else { return Restored::NoListener };
    if socket.state() != LISTEN {
        return Restored::AlreadyThere;
    }
    // SAFETY: the socket is held until the end of this function.
    let listener = unsafe { bpf_skc_to_tcp_sock(socket.0.cast()) };
    if listener.is_null() {
        return Restored::NoListener;
    }
    // SAFETY: the socket is held and the attributes are ours; the kernel copies them.
    let failed = unsafe { bpf_sk_assign_tcp_reqsk(ctx.skb.skb, listener, &raw mut attributes, LENGTH) };
    if failed == 0 { Restored::Restored } else { Restored::Refused }
}

/// The flow of the segment.
#[inline(always)]
fn flow(ctx: &TcContext, start: Start) -> Option<FlowKey> {
    let wanted = ctx.len().min(HEADERS);
    if load::<{ offset_of!(__sk_buff, data_end) }>(ctx) - load::<{ offset_of!(__sk_buff, data) }>(ctx) < wanted as usize {
        // A driver may leave headers in a fragment of the buffer. What cannot be had will be missed below.
        // SAFETY: the context is the one the kernel handed to this program; no pointer into the packet is in use.
        unsafe { bpf_skb_pull_data(ctx.skb.skb, wanted) };
    }
    // SAFETY: the kernel keeps the bytes between the two in place while the program runs; nothing changes the buffer after this.
    let window = unsafe { Window::new(load::<{ offset_of!(__sk_buff, data) }>(ctx), load::<{ offset_of!(__sk_buff, data_end) }>(ctx)) };
    #[expect(clippy::cast_possible_truncation, reason = "an Ethernet type has 16 bits")]
    let flow = match start {
        Start::Ethernet => wire::flow(&window),
        // SAFETY: the field of the context is always there.
        Start::Ip => wire::flow_at(&window, u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16), 0),
    };
    let flow = flow.ok()?;
    matches!(flow.kind, Kind::Segment(_)).then_some(flow.key)
}

/// A pointer of the context; written out for the reason that `parse` gives.
#[inline(always)]
fn load<const OFFSET: usize>(ctx: &TcContext) -> usize {
    let pointer: usize;
    #[cfg(target_arch = "bpf")]
    // SAFETY: a load of a field of the context that the kernel handed to this program; the verifier checks the offset.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx.skb.skb,
            offset = const OFFSET,
            options(readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer = if OFFSET == 0 { ctx.data() } else { ctx.data_end() };
    }
    pointer
}

#[inline(always)]
fn count(outcome: Restored) {
    if let Some(counters) = RESTORE_COUNTERS.get_ptr_mut(0)
        // SAFETY: the pointer is to this CPU's own value; the program runs with bottom halves off.
        && let Some(counter) = unsafe { (*counters).by_outcome.get_mut(outcome as usize) }
    {
        *counter += 1;
    }
}

/// The kernel function of that name (net/core/filter.c, Linux 6.9): the packet, when it reaches TCP, completes the handshake of a
/// connection with these options. It refuses what a handshake could not have agreed on under the namespace's settings.
///
/// # Safety
/// The listener is held, and `length` is that of the attributes.
#[inline(always)]
unsafe fn bpf_sk_assign_tcp_reqsk(skb: *mut __sk_buff, listener: *mut tcp_sock, attributes: *mut RequestAttributes, length: u32) -> c_int {
    type Function = unsafe extern "C" fn(*mut __sk_buff, *mut c_void, *mut RequestAttributes, u32) -> c_int;
    // SAFETY: a call of a number, as aya's own helpers are; the daemon makes it a call of the function before the kernel sees it.
    let function = unsafe { core::mem::transmute::<usize, Function>(ASSIGN_PLACEHOLDER as usize) };
    // SAFETY: the caller's promise.
    unsafe { function(skb, listener.cast(), attributes, length) }
}
