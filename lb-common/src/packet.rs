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
    /// Where it starts, for helpers of the kernel that read a header as a whole.
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(&self) -> *const u8 {
        self.start
    }

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

    /// The first six bytes, such as a MAC address, as a number whose first byte is the most significant. They are read as eight.
    #[inline(always)]
    #[must_use]
    pub fn leading48(&self) -> u64 {
        u64::from_be(self.load::<u64, 0>()) >> 16
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

/// A packet's bytes, from `start` up to and without `end`, to be written.
#[derive(Debug)]
pub struct WindowMut<'a> {
    start: *mut u8,
    end: *const u8,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> WindowMut<'a> {
    /// A window on the bytes between two addresses.
    ///
    /// # Safety
    /// As for [`Window::new`], and nobody else reads or writes the bytes while this window or a header of it is in use.
    #[inline(always)]
    #[must_use]
    pub unsafe fn new(start: usize, end: usize) -> Self {
        Self { start: core::ptr::with_exposed_provenance_mut(start), end: core::ptr::with_exposed_provenance(end), bytes: PhantomData }
    }

    /// A window on a slice.
    #[must_use]
    pub fn of(bytes: &'a mut [u8]) -> Self {
        let range = bytes.as_mut_ptr_range();
        Self { start: range.start, end: range.end.cast_const(), bytes: PhantomData }
    }

    /// The `LENGTH` bytes at `offset`, if the packet has them all.
    #[inline(always)]
    #[must_use]
    pub fn header<const LENGTH: usize>(&mut self, offset: usize) -> Option<HeaderMut<'_, LENGTH>> {
        if offset > FARTHEST {
            return None;
        }
        let start = self.start.wrapping_add(offset);
        if start.wrapping_add(LENGTH).cast_const() > self.end {
            return None;
        }
        Some(HeaderMut { start, bytes: PhantomData })
    }
}

/// `LENGTH` bytes of a packet that are known to be there and may be written.
#[derive(Debug)]
pub struct HeaderMut<'a, const LENGTH: usize> {
    start: *mut u8,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<const LENGTH: usize> HeaderMut<'_, LENGTH> {
    /// Writes a `T` at the constant position `AT`, in the machine's byte order.
    #[inline(always)]
    fn store<T: Plain, const AT: usize>(&mut self, value: T) {
        const { assert!(AT + size_of::<T>() <= LENGTH, "the field lies outside its header") };
        let place = self.start.wrapping_add(AT).cast::<T>();
        // SAFETY: `WindowMut::header` found LENGTH bytes at `start` that are ours to write, and the assertion keeps AT inside them. On
        // BPF the write is not told to be unaligned, for the reason that `Header::load` has.
        unsafe { if cfg!(target_arch = "bpf") { place.write(value) } else { place.write_unaligned(value) } }
    }

    /// The same bytes, to be read.
    #[inline(always)]
    #[must_use]
    pub fn read(&self) -> Header<'_, LENGTH> {
        Header { start: self.start, bytes: PhantomData }
    }

    /// Writes one byte.
    #[inline(always)]
    pub fn set_byte<const AT: usize>(&mut self, value: u8) {
        self.store::<u8, AT>(value);
    }

    /// Writes a 16-bit number in network byte order.
    #[inline(always)]
    pub fn set_number16<const AT: usize>(&mut self, value: u16) {
        self.store::<u16, AT>(value.to_be());
    }

    /// Writes a 32-bit number in network byte order.
    #[inline(always)]
    pub fn set_number32<const AT: usize>(&mut self, value: u32) {
        self.store::<u32, AT>(value.to_be());
    }

    /// Writes four bytes as memory holds them.
    #[inline(always)]
    pub fn set_word<const AT: usize>(&mut self, value: u32) {
        self.store::<u32, AT>(value);
    }

    /// Writes sixteen bytes as memory holds them.
    #[inline(always)]
    pub fn set_words<const AT: usize>(&mut self, value: [u64; 2]) {
        self.store::<[u64; 2], AT>(value);
    }

    /// Writes six bytes, such as a MAC address, from a number whose first byte is the most significant.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "four bytes and two")]
    pub fn set_number48<const AT: usize, const TAIL: usize>(&mut self, value: u64) {
        const { assert!(TAIL == AT + 4, "six bytes are four and two") };
        self.set_number32::<AT>((value >> 16) as u32);
        self.set_number16::<TAIL>(value as u16);
    }
}

/// Types of which any bytes are a value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
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

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes() {
        let mut bytes = [0xa5; 20];
        let mut window = WindowMut::of(&mut bytes);
        assert!(window.header::<20>(1).is_none() && window.header::<1>(FARTHEST + 1).is_none());
        let mut header = window.header::<18>(1).unwrap();
        header.set_byte::<0>(1);
        header.set_number16::<1>(0x0203);
        header.set_number32::<3>(0x0405_0607);
        header.set_number48::<7, 11>(0x0809_0a0b_0c0d);
        header.set_word::<13>(u32::from_ne_bytes([14, 15, 16, 17]));
        assert_eq!((header.read().number16::<1>(), header.read().number48::<7, 11>()), (0x0203, 0x0809_0a0b_0c0d));
        let expected: [u8; 20] = core::array::from_fn(|at| if (1..18).contains(&at) { u8::try_from(at).unwrap() } else { 0xa5 });
        assert_eq!(bytes, expected);
        WindowMut::of(&mut bytes).header::<16>(4).unwrap().set_words::<0>([1, 2].map(|n: u64| n.to_be()));
        assert_eq!((bytes[11], bytes[19], bytes[3]), (1, 2, 3));
    }
}
