//! The window on a packet's bytes: the only pointer arithmetic of the project, and the only unsafe code of this crate.
//!
//! The kernel side makes a [`Window`] of a program's `data` and `data_end`, the host makes one of a slice. Both then run the same
//! code: [`Window::header`] checks once that a header of `LENGTH` bytes lies inside the packet, and the [`Header`] it gives has
//! reads whose position is a constant, checked against `LENGTH` when the code is compiled. Nothing reads outside the packet.
#![expect(unsafe_code, reason = "the one module that turns checked positions into reads")]

use core::marker::PhantomData;

/// No header that Weir reads starts farther into a packet than this. The verifier needs a bound on every position before it will let a
/// pointer be moved by it; the farthest is the transport header in the packet that an ICMPv6 error quotes, behind extension headers in both.
pub const FARTHEST: usize = 2048;

/// A packet's bytes, from `start` up to and without `end`.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    start: *const u8,
    end: *const u8,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Window<'a> {
    /// A window on the bytes between two addresses.
    ///
    /// # Safety
    /// Every byte from `start` up to `end` stays readable for `'a`, and nothing moves the packet's start or end meanwhile
    /// (`bpf_xdp_adjust_head` and its like end the lifetime).
    #[inline(always)]
    #[must_use]
    pub unsafe fn new(start: usize, end: usize) -> Self {
        Self { start: core::ptr::with_exposed_provenance(start), end: core::ptr::with_exposed_provenance(end), bytes: PhantomData }
    }

    /// A window on a slice.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let range = bytes.as_ptr_range();
        Self { start: range.start, end: range.end, bytes: PhantomData }
    }

    /// How many bytes there are. Of a packet in several buffers (XDP "frags") this is the first.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> usize {
        self.end as usize - self.start as usize
    }

    /// The `LENGTH` bytes at `offset`, if the packet has them all.
    #[inline(always)]
    #[must_use]
    pub fn header<const LENGTH: usize>(&self, offset: usize) -> Option<Header<'a, LENGTH>> {
        if offset > FARTHEST {
            return None;
        }
        let start = self.start.wrapping_add(offset);
        if start.wrapping_add(LENGTH) > self.end {
            return None;
        }
        Some(Header { start, bytes: PhantomData })
    }
}

/// `LENGTH` bytes of a packet that are known to be there.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a, const LENGTH: usize> {
    start: *const u8,
    bytes: PhantomData<&'a [u8]>,
}

impl<const LENGTH: usize> Header<'_, LENGTH> {
    /// Reads a `T` at the constant position `AT`, in the machine's byte order.
    #[inline(always)]
    fn load<T: Plain, const AT: usize>(&self) -> T {
        const { assert!(AT + size_of::<T>() <= LENGTH, "the field lies outside its header") };
        let place = self.start.wrapping_add(AT).cast::<T>();
        // SAFETY: `Window::header` found LENGTH readable bytes at `start`, the assertion above keeps AT inside them, and any bytes make a T.
        // On BPF the read is not told to be unaligned, because that makes it a read per byte: the machines that Weir runs on load
        // unaligned words, and the verifier refuses the program on one that does not.
        unsafe { if cfg!(target_arch = "bpf") { place.read() } else { place.read_unaligned() } }
    }

    /// One byte.
    #[inline(always)]
    #[must_use]
    pub fn byte<const AT: usize>(&self) -> u8 {
        self.load::<u8, AT>()
    }

    /// A 16-bit number in network byte order.
    #[inline(always)]
    #[must_use]
    pub fn number16<const AT: usize>(&self) -> u16 {
        u16::from_be(self.load::<u16, AT>())
    }

    /// A 32-bit number in network byte order.
    #[inline(always)]
    #[must_use]
    pub fn number32<const AT: usize>(&self) -> u32 {
        u32::from_be(self.load::<u32, AT>())
    }

    /// Four bytes as memory holds them, for [`crate::Address::from_ipv4_network`].
    #[inline(always)]
    #[must_use]
    pub fn word<const AT: usize>(&self) -> u32 {
        self.load::<u32, AT>()
    }

    /// Sixteen bytes as memory holds them, for [`crate::Address::from_words`].
    #[inline(always)]
    #[must_use]
    pub fn words<const AT: usize>(&self) -> [u64; 2] {
        self.load::<[u64; 2], AT>()
    }

    /// Six bytes, such as a MAC address, as a number: the first byte is the most significant.
    #[inline(always)]
    #[must_use]
    pub fn number48<const AT: usize, const TAIL: usize>(&self) -> u64 {
        const { assert!(TAIL == AT + 4, "six bytes are four and two") };
        u64::from(self.number32::<AT>()) << 16 | u64::from(self.number16::<TAIL>())
    }
}

/// Types of which any bytes are a value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for [u64; 2] {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_there_or_it_is_not() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        let window = Window::of(&bytes);
        assert_eq!(window.length(), 8);
        assert!(window.header::<8>(0).is_some());
        assert!(window.header::<8>(1).is_none());
        assert!(window.header::<1>(8).is_none());
        assert!(window.header::<1>(FARTHEST + 1).is_none());
        assert!(window.header::<1>(usize::MAX).is_none());
    }

    #[test]
    fn numbers_are_in_network_byte_order_and_words_are_as_in_memory() {
        let bytes: [u8; 17] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let header = Window::of(&bytes).header::<16>(1).unwrap();
        assert_eq!(header.byte::<0>(), 1);
        assert_eq!(header.number16::<0>(), 0x0102);
        assert_eq!(header.number32::<2>(), 0x0304_0506);
        assert_eq!(header.number48::<0, 4>(), 0x0102_0304_0506);
        assert_eq!(header.word::<0>().to_ne_bytes(), [1, 2, 3, 4]);
        assert_eq!(header.words::<0>()[1].to_ne_bytes(), [9, 10, 11, 12, 13, 14, 15, 16]);
    }
}
