//! The first stage: whose packet is this?

use core::{cell::Cell, mem::offset_of};

use aya_ebpf::{EbpfContext as _, bindings::xdp_md, helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use lb_common::{packet::Window, wire};

use crate::verdict::Verdict;

/// The packet that the XDP program looks at.
pub struct Packet<'a> {
    ctx: &'a XdpContext,
    /// The bytes of its first buffer, where all headers are.
    pub window: Window<'a>,
    /// Where the packet ends, as its IP header says: see [`Packet::length`].
    end: Cell<usize>,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: the kernel keeps the bytes between `data` and `data_end` in place while the program runs; nothing here resizes them.
        let window = unsafe { Window::new(load::<{ offset_of!(xdp_md, data) }>(ctx), load::<{ offset_of!(xdp_md, data_end) }>(ctx)) };
        Self { ctx, window, end: Cell::new(usize::MAX) }
    }

    /// The length of the frame with all its buffers.
    ///
    /// The kernel is asked for it only if the IP header tells of more than the first buffer holds: the call costs 5 ns. So padding behind
    /// the packet that lies in another buffer goes uncounted.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        let first = self.window.length();
        if first >= self.end.get() {
            return first as u64;
        }
        // SAFETY: the context is the one the kernel handed to this program.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) }
    }

    /// The interface that it came in by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the context is the one the kernel handed to this program.
        unsafe { (*self.ctx.ctx).ingress_ifindex }
    }
}

/// A pointer of the context.
///
/// The context declares its pointers as 32-bit words, and the verifier makes pointers of what is loaded. So LLVM believes that 32 bits
/// are all there is, and when it runs out of registers it stores only those ("invalid size of register spill"). It cannot believe that of
/// what an instruction that is written out has loaded.
#[inline(always)]
fn load<const OFFSET: usize>(ctx: &XdpContext) -> usize {
    let pointer: usize;
    #[cfg(target_arch = "bpf")]
    // SAFETY: a load of a field of the context that the kernel handed to this program; the verifier checks the offset.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx.ctx,
            offset = const OFFSET,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer = if OFFSET == 0 { ctx.data() } else { ctx.data_end() };
    }
    pointer
}

/// A packet of a flow.
pub struct Flow {
    /// What its headers say.
    pub wire: wire::Flow,
    /// The interface that it came in by.
    pub interface: u32,
}

/// Reads the headers.
#[inline(always)]
pub fn flow(packet: &Packet) -> Result<Flow, Verdict> {
    let wire = wire::flow(&packet.window)?;
    packet.end.set(wire.end);
    Ok(Flow { wire, interface: packet.interface() })
}
