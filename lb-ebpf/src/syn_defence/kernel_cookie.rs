//! The kernel's own cookies, made in XDP: for kernels that cannot be told of a connection by `bpf_sk_assign_tcp_reqsk` (before 6.9).
//!
//! Each is made by `bpf_tcp_gen_syncookie`, which also marks the listener, so that the kernel takes the ACK (for 120 s after the last).
//! Where that fails (net.ipv4.tcp_syncookies is 0, or 1 and the SYN queue has room; the accept queue is full) the SYN goes to the kernel,
//! so no cookie is sent that would be refused. The cheaper `bpf_tcp_raw_gen_syncookie_ipv4` leaves no mark.
//!
//! Such a cookie holds the MSS and nothing else: window scale, SACK and ECN would ride in the kernel's own timestamp, which a program
//! cannot make while net.ipv4.tcp_timestamps is 1 (the kernel subtracts a secret).

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_tcp_gen_syncookie, bpf_xdp_load_bytes},
};
use lb_common::{
    abi::{Case, Segment},
    cookie::{Agreement, Cookie},
    wire::{ipv4, ipv6, tcp},
};

use crate::{
    parse,
    socket::{Held, LISTEN},
};

/// Makes the cookie for a SYN, and says what it grants. `None` if the kernel would not honour it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the cookie is the lower, the MSS the upper half")]
pub fn make(ctx: *mut xdp_md, case: &Case, segment: &mut Segment) -> Option<(Cookie, Agreement)> {
    let made = make_kernel_cookie(ctx, case, &raw mut *segment);
    if made == u64::MAX {
        return None;
    }
    let granted = Agreement {
        maximum_segment_size: (made >> 32) as u16,
        window_scale: None,
        selective_acknowledgement: false,
        congestion_notification: false,
        timestamps: false,
    };
    Some((Cookie { sequence: made as u32, timestamp: 0 }, granted))
}

/// The cookie in its lower half and the MSS above it; all ones if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_kernel_cookie(ctx: *mut xdp_md, case: *const Case, segment: *mut Segment) -> u64 {
    // SAFETY: the verifier knows the sizes of what the pointers are to, and wants to see that they are none.
    let (Some(case), Some(segment)) = (unsafe { case.as_ref() }, unsafe { segment.as_mut() }) else { return u64::MAX };
    generate(ctx, case, segment).unwrap_or(u64::MAX)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths are at most 60")]
fn generate(ctx: *mut xdp_md, case: &Case, segment: &mut Segment) -> Option<u64> {
    let options = case.header_length.wrapping_sub(tcp::LENGTH as u32);
    if options > tcp::MAX_OPTIONS as u32 {
        return None;
    }
    let length = tcp::LENGTH as u32 + parse::opaque::<63>(options);
    // The helper reads as many bytes as it is told, and the packet may be shorter than the longest header.
    // SAFETY: the context is the kernel's, and the buffer has room for 63 bytes of options, which is what the verifier sees.
    if unsafe { bpf_xdp_load_bytes(ctx, case.transport, segment.words.as_mut_ptr().cast(), length) } != 0 {
        return None;
    }
    let listener = Held::tcp(ctx.cast(), &case.key).filter(|socket| socket.state() == LISTEN)?;
    let window = parse::window(ctx);
    let network = parse::opaque::<0xfff>(case.network) as usize;
    let (header, header_length) = if case.key.source.is_ipv4() {
        (window.header::<{ ipv4::LENGTH }>(network)?.as_ptr(), ipv4::LENGTH)
    } else {
        (window.header::<{ ipv6::LENGTH }>(network)?.as_ptr(), ipv6::LENGTH)
    };
    // SAFETY: the listener is held, the IP header is inside the packet, and the copy has as many bytes as are said.
    let made = unsafe {
        bpf_tcp_gen_syncookie(listener.as_ptr(), header.cast_mut().cast(), header_length as u32, segment.words.as_mut_ptr().cast(), length)
    };
    u64::try_from(made).ok()
}
