//! The first stage: whose packet is this? And where its bytes are.
//!
//! The usual headers are read on the spot ([`wire::usual`]), with the few comparisons that they need. All others are read by a function that
//! the verifier looks at once, by itself (a global function, BTF_FUNC_GLOBAL): inlined, every way through them would be walked again for each
//! way on. Either way what they say goes on in numbers, in the [`Case`].

use core::mem::offset_of;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len};
use lb_common::{
    Reason,
    abi::{Case, Scratch},
    packet::{Window, WindowMut},
    wire,
};

use crate::{
    classify,
    maps::SCRATCH,
    verdict::{Answer, Verdict},
};

/// The memory for the packet at hand.
#[inline(always)]
pub fn scratch<'a>() -> Option<&'a mut Scratch> {
    // SAFETY: the pointer is to this CPU's own value, and no other program or interrupt runs on this CPU within the packet's way.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Writes what the headers say to `case`, if the packet goes to a port that a service has; else the length alone.
#[inline(always)]
pub fn headers(ctx: *mut xdp_md, case: &mut Case) -> Result<(), Verdict> {
    let window = window(ctx);
    match wire::usual(&window) {
        Some(Ok(flow)) => {
            let length = length(ctx, &window, flow.end);
            // Before anything else is written: most of what is not ours ends here.
            if let Err(reason) = classify::port(&flow.key) {
                case.length = length;
                return Err(reason.into());
            }
            *case = Case::new(&flow, length);
            Ok(())
        }
        Some(Err(reason)) => {
            case.length = length(ctx, &window, usize::MAX);
            Err(reason.into())
        }
        None => {
            Answer(read_headers(ctx, &raw mut *case)).go_on(0)?;
            classify::port(&case.key).map_err(Into::into)
        }
    }
}

/// Writes what the headers say to `case`. Answers an [`Answer`]; where the packet has no flow, only the length is written.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_headers(ctx: *mut xdp_md, case: *mut Case) -> u32 {
    // SAFETY: the verifier knows the size of what the pointer is to, and wants to see that it is none.
    let Some(case) = (unsafe { case.as_mut() }) else { return Reason::MapMiss as u32 };
    let window = window(ctx);
    match wire::flow(&window) {
        Ok(flow) => {
            *case = Case::new(&flow, length(ctx, &window, flow.end));
            Answer::PLAIN.0
        }
        Err(reason) => {
            case.length = length(ctx, &window, usize::MAX);
            reason as u32
        }
    }
}

/// The length of the frame with all its buffers.
///
/// The kernel is asked for it only if the IP header tells of more than the first buffer holds: the call costs 5 ns. So padding behind the
/// packet that lies in another buffer goes uncounted.
#[inline(always)]
fn length(ctx: *mut xdp_md, window: &Window<'_>, end: usize) -> u64 {
    let first = window.length();
    // SAFETY: the context is the one the kernel handed to this program.
    if first >= end { first as u64 } else { unsafe { bpf_xdp_get_buff_len(ctx) } }
}

/// The length of the frame with all its buffers, as the kernel says.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a frame has less than 4 GiB")]
pub fn length_of(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the context is the one the kernel handed to this program.
    unsafe { bpf_xdp_get_buff_len(ctx) as u32 }
}

/// The bytes of the packet's first buffer.
#[inline(always)]
pub fn window<'a>(ctx: *mut xdp_md) -> Window<'a> {
    // SAFETY: the kernel keeps the bytes between `data` and `data_end` in place while the program runs, until a helper resizes them; then
    // the verifier refuses every pointer from before.
    unsafe { Window::new(load::<{ offset_of!(xdp_md, data) }>(ctx), load::<{ offset_of!(xdp_md, data_end) }>(ctx)) }
}

/// The bytes of the packet's first buffer, to be written. Nothing that was read from them before is looked at again.
#[inline(always)]
pub fn writer<'a>(ctx: *mut xdp_md) -> WindowMut<'a> {
    // SAFETY: as above; the packet is this program's alone.
    unsafe { WindowMut::new(load::<{ offset_of!(xdp_md, data) }>(ctx), load::<{ offset_of!(xdp_md, data_end) }>(ctx)) }
}

/// The metadata in front of the packet, to be written: what `bpf_xdp_adjust_meta` has made room for.
#[inline(always)]
pub fn metadata<'a>(ctx: *mut xdp_md) -> WindowMut<'a> {
    // SAFETY: as above, for the bytes before the packet.
    unsafe { WindowMut::new(load::<{ offset_of!(xdp_md, data_meta) }>(ctx), load::<{ offset_of!(xdp_md, data) }>(ctx)) }
}

/// Whether the driver has room for metadata: one that has not says so by a start behind its end (`xdp_data_meta_unsupported`,
/// include/net/xdp.h).
#[inline(always)]
pub fn can_carry_metadata(ctx: *mut xdp_md) -> bool {
    load::<{ offset_of!(xdp_md, data_meta) }>(ctx) <= load::<{ offset_of!(xdp_md, data) }>(ctx)
}

/// The case with positions of which LLVM does not know how they hang together.
///
/// It leaves out a comparison that follows from another (the IP header starts 20 bytes before the transport header, which has been compared),
/// but the verifier does not see what follows ("R2 offset is outside of the packet").
#[inline(always)]
pub fn bounded(case: &Case) -> Case {
    let mut bounded = *case;
    bounded.network = opaque::<0xfff>(case.network);
    bounded.transport = opaque::<0xfff>(case.transport);
    bounded
}

/// A number that fits the mask, and of which LLVM does not know where it comes from; the verifier sees that it fits.
#[inline(always)]
#[cfg_attr(not(target_arch = "bpf"), expect(unused_mut, reason = "it is on BPF that the number is made opaque"))]
pub fn opaque<const MASK: i32>(number: u32) -> u32 {
    let mut wide = u64::from(number);
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction on the number alone.
    unsafe {
        core::arch::asm!("{0} &= {mask}", inout(reg) wide, mask = const MASK, options(pure, nomem, nostack, preserves_flags));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the mask has fewer bits")]
    {
        wide as u32
    }
}

/// A pointer of the context.
///
/// The context declares its pointers as 32-bit words, and the verifier makes pointers of what is loaded. So LLVM believes that 32 bits
/// are all there is, and when it runs out of registers it stores only those ("invalid size of register spill"). It cannot believe that of
/// what an instruction that is written out has loaded.
#[inline(always)]
fn load<const OFFSET: usize>(ctx: *mut xdp_md) -> usize {
    let pointer: usize;
    #[cfg(target_arch = "bpf")]
    // SAFETY: a load of a field of the context that the kernel handed to this program; the verifier checks the offset.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx,
            offset = const OFFSET,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = ctx;
        pointer = OFFSET;
    }
    pointer
}
