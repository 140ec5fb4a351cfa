//! The first stage: whose packet is this?

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_get_buff_len, programs::XdpContext};
use lb_common::{packet::Window, wire};

use crate::verdict::Verdict;

/// The packet that the XDP program looks at.
pub struct Packet<'a> {
    ctx: &'a XdpContext,
    /// The bytes of its first buffer, where all headers are.
    pub window: Window<'a>,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: the kernel keeps the bytes between `data` and `data_end` in place while the program runs; nothing here resizes them.
        Self { ctx, window: unsafe { Window::new(ctx.data(), ctx.data_end()) } }
    }

    /// The length of the frame with all its buffers.
    #[inline(always)]
    pub fn length(&self) -> u64 {
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
    Ok(Flow { wire, interface: packet.interface() })
}
