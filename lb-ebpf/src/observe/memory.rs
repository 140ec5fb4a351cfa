//! Reading the kernel's structures at offsets that the daemon has found in its BTF, since Rust's BPF has no CO-RE.
//!
//! What the offsets hold in the object is odd on purpose: LLVM gives a constant of the programs (such as the key 0 of a map) the address
//! of a global that holds the same value, and the daemon's number would then change that constant as well. (Odd, and small: they are
//! added to pointers. No two hold the same, or they would be one.)

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{bpf_probe_read_kernel, bpf_seq_write},
};

/// What an offset is where the kernel has no such member.
pub const ABSENT: u32 = u16::MAX as u32;

#[unsafe(no_mangle)]
pub static OFFSET_SK_COOKIE: Global<u32> = Global::new(0xbad2);
#[unsafe(no_mangle)]
pub static OFFSET_TCP_ESTABLISHED_AT: Global<u32> = Global::new(0xbad7);

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
pub struct IteratorMeta {
    pub seq: *mut c_void,
}

/// Reads kernel memory at an offset.
#[inline(always)]
pub fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// Writes a record to what the daemon reads from an iterator. A full buffer makes the kernel call again.
#[inline(always)]
pub fn write<T>(seq: *mut c_void, record: &T) {
    #[expect(clippy::cast_possible_truncation, reason = "a few dozen bytes")]
    // SAFETY: the records are plain bytes of their length, without padding.
    unsafe {
        bpf_seq_write(seq.cast(), core::ptr::from_ref(record).cast_mut().cast(), size_of::<T>() as u32)
    };
}

/// Adds to a number by the processor's atomic addition, which the compiler does not offer for this target: others may change the number at
/// the same moment, or an interrupt on this CPU.
///
/// # Safety
/// The pointer is to an aligned number in a map's value.
#[inline(always)]
pub unsafe fn increment(counter: *mut u64, by: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller has a pointer into a map's value; the verifier checks it.
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {by}", counter = in(reg) counter, by = in(reg) by, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (counter, by);
}

/// When a TCP connection was established, in nanoseconds of CLOCK_MONOTONIC, as long as nothing was read from it; 0 where the kernel
/// has not noted it yet.
///
/// The kernel starts the measure of how fast a connection is read (`rcvq_space.time`) as the last thing before it calls it established
/// (`tcp_init_buffer_space`), and moves it when data is read: so for a connection that nobody has accepted it stands.
#[inline(always)]
pub fn established_at(connection: *const u8) -> Option<u64> {
    let microseconds: u64 = read(connection, OFFSET_TCP_ESTABLISHED_AT.load())?;
    Some(microseconds.wrapping_mul(1000))
}
