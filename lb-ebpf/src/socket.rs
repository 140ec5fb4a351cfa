//! A socket as a program sees it: `struct bpf_sock`.

use core::{mem::offset_of, ops::Deref};

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock},
    cty::c_void,
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use lb_common::{Address, FlowKey};

const AF_INET6: u32 = 10;

/// A TCP socket that listens (`TCP_LISTEN`, include/net/tcp_states.h).
pub const LISTEN: u32 = 10;

/// A socket that the kernel holds while the program runs.
///
/// Its fields are no memory: the verifier rewrites each load at a constant offset into a load from the real socket, and refuses a load
/// through a pointer that was moved. LLVM likes to move it ("pointer arithmetic on sock prohibited"), so each load is written out.
pub struct Socket(pub *mut bpf_sock);

impl Socket {
    /// The address it is bound to, or the wildcard.
    #[inline(always)]
    pub fn local_address(&self) -> Address {
        const V6: usize = offset_of!(bpf_sock, src_ip6);
        self.address::<{ offset_of!(bpf_sock, src_ip4) }, V6, { V6 + 4 }, { V6 + 8 }, { V6 + 12 }>()
    }

    /// The address it is connected to.
    #[inline(always)]
    pub fn remote_address(&self) -> Address {
        const V6: usize = offset_of!(bpf_sock, dst_ip6);
        self.address::<{ offset_of!(bpf_sock, dst_ip4) }, V6, { V6 + 4 }, { V6 + 8 }, { V6 + 12 }>()
    }

    /// The port it is bound to.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits")]
    pub fn local_port(&self) -> u16 {
        self.word::<{ offset_of!(bpf_sock, src_port) }>() as u16
    }

    /// The port it is connected to. Unlike the local one it is in network byte order (include/uapi/linux/bpf.h).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a port has 16 bits; the upper half is padding")]
    pub fn remote_port(&self) -> u16 {
        u16::from_be(self.word::<{ offset_of!(bpf_sock, dst_port) }>() as u16)
    }

    /// Its IP protocol number.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "TCP or UDP")]
    pub fn protocol(&self) -> u8 {
        self.word::<{ offset_of!(bpf_sock, protocol) }>() as u8
    }

    /// The device it is bound to, 0 for none.
    #[inline(always)]
    pub fn bound_device(&self) -> u32 {
        self.word::<{ offset_of!(bpf_sock, bound_dev_if) }>()
    }

    /// The state of TCP that it is in, such as [`LISTEN`].
    #[inline(always)]
    pub fn state(&self) -> u32 {
        self.word::<{ offset_of!(bpf_sock, state) }>()
    }

    #[inline(always)]
    fn address<const V4: usize, const A: usize, const B: usize, const C: usize, const D: usize>(&self) -> Address {
        if self.word::<{ offset_of!(bpf_sock, family) }>() == AF_INET6 {
            Address::from_network_words([self.word::<A>(), self.word::<B>(), self.word::<C>(), self.word::<D>()])
        } else {
            Address::from_ipv4_network(self.word::<V4>())
        }
    }

    /// The 32-bit field at a constant offset.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the register holds the 32 bits that were loaded")]
    #[cfg_attr(not(target_arch = "bpf"), expect(clippy::unused_self, reason = "a host has no such sockets"))]
    fn word<const OFFSET: usize>(&self) -> u32 {
        let word: u64;
        // SAFETY: a load of a field of a socket that the kernel holds; the verifier checks the offset.
        #[cfg(target_arch = "bpf")]
        unsafe {
            core::arch::asm!("{word} = *(u32 *)({sk} + {offset})", word = out(reg) word, sk = in(reg) self.0, offset = const OFFSET, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            word = 0;
        }
        word as u32
    }
}

/// A socket that was looked up: held until this is dropped.
pub struct Held(Socket);

impl Held {
    /// The TCP socket that a segment of the flow would reach in the namespace of the program's packet: that of its connection in whatever
    /// state, else a listener. `ctx` is the program's context.
    #[inline(always)]
    pub fn tcp(ctx: *mut c_void, flow: &FlowKey) -> Option<Self> {
        let (mut tuple, length) = flow.socket_tuple();
        let here = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
        #[expect(clippy::cast_possible_truncation, reason = "12 or 36")]
        // SAFETY: the context is the kernel's, and the tuple is ours and longer than is said.
        let sk = unsafe { bpf_skc_lookup_tcp(ctx, tuple.as_mut_ptr().cast(), length as u32, here, 0) };
        (!sk.is_null()).then(|| Self(Socket(sk)))
    }
}

impl Held {
    /// The socket, for helpers of the kernel.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.0.cast()
    }
}

impl Deref for Held {
    type Target = Socket;

    #[inline(always)]
    fn deref(&self) -> &Socket {
        &self.0
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the lookup has held it for this program, and nobody else releases it.
        unsafe { bpf_sk_release(self.0.0.cast()) };
    }
}
