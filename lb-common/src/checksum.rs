//! The Internet checksum: RFC 1071, its incremental update RFC 1624, and the pseudo-headers of RFC 9293 section 3.1 and RFC 8200 section 8.1.
//!
//! A checksum here is the number that stands in the header's field, read in network byte order (`u16::from_be_bytes`), and a [`Sum`] is
//! what leads to it. To make one: start with the pseudo-header where the protocol has one, add the bytes with the checksum's field
//! zero, and [`Sum::checksum`]. To check one: add the bytes as they came, and [`Sum::is_valid`].
//!
//! UDP over IPv4 has two peculiarities (RFC 768): a field of 0 means that there is no checksum, so it is neither checked nor updated, and
//! a checksum that comes out as 0 is sent as 0xffff, which is the same number in one's complement: [`not_zero`].

#![expect(clippy::cast_possible_truncation, reason = "Sum::fold ends below 2^16, as its test shows for every shape of sum")]

/// A one's complement sum of 16-bit words under way, in 64 bits whose carries are folded in only at the end (RFC 1071, section 2 (2)).
///
/// There is room for 2³¹ words of 32 bits. All parts but the last must be of even length, since each starts on a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// The pseudo-header of IPv4: addresses, protocol, and the length of the TCP or UDP header with its data in bytes.
    #[inline(always)]
    #[must_use]
    pub fn ipv4_pseudo_header(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> Self {
        Self(u64::from(protocol) + u64::from(length)).add_bytes(&source).add_bytes(&destination)
    }

    /// The pseudo-header of IPv6: addresses, the length of the upper-layer header with its data in bytes, and its protocol (that
    /// header's own number, whatever extension headers stand before it).
    #[inline(always)]
    #[must_use]
    pub fn ipv6_pseudo_header(source: [u8; 16], destination: [u8; 16], protocol: u8, length: u32) -> Self {
        Self(u64::from(protocol) + u64::from(length)).add_bytes(&source).add_bytes(&destination)
    }

    /// With a 16-bit word more.
    #[inline(always)]
    #[must_use]
    pub const fn add_word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// With two 16-bit words more that stand together, as a number in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn add_number32(self, number: u32) -> Self {
        Self(self.0 + number as u64)
    }

    /// With these bytes more, four at a time: 2¹⁶ is 1 in this arithmetic, so a sum of 32-bit words folds to that of 16-bit words. A last
    /// odd byte counts as the upper half of a word (RFC 1071, section 1).
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let sum = words.iter().fold(self.0, |sum, &word| sum + u64::from(u32::from_be_bytes(word)));
        let mut last = [0; 4];
        last.iter_mut().zip(rest).for_each(|(last, &byte)| *last = byte);
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// The checksum of what was added.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether what was added, its checksum included, arrived as it was sent.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    #[inline(always)]
    const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

/// The checksum of a header after one of its 16-bit words changed from `old` to `new`: RFC 1624, equation 3, `HC' = ~(~HC + ~m + m')`.
///
/// It equals the checksum made anew, except that of data that is all zero (after the change), where the sum made anew has the other
/// zero: 0xffff instead of 0. No header is all zero.
#[inline(always)]
#[must_use]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    Sum(!checksum as u64).add_word(!old).add_word(new).checksum()
}

/// [`update16`] for two words that stand together, such as an IPv4 address or a TCP sequence number: numbers in network byte order.
#[inline(always)]
#[must_use]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    Sum(!checksum as u64 + !old as u64 + new as u64).checksum()
}

/// A checksum as UDP sends it: 0xffff for 0, which would mean that there is none.
#[inline(always)]
#[must_use]
pub const fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const UDP: u8 = 17;
    const TCP: u8 = 6;

    // Sent by Linux 6.18 over a veth pair without checksum offload.
    const IPV4_HEADER: [u8; 20] = [69, 0, 0, 31, 0xee, 0x7c, 0x40, 0, 64, 17, 0xc8, 0x4d, 192, 0, 2, 1, 192, 0, 2, 2];
    const UDP_ODD: [u8; 11] = [0x9c, 0x40, 0, 53, 0, 11, 0x0b, 0xfa, b'o', b'd', b'd'];
    const TCP_SYN: [u8; 40] = [
        0x9c, 0x41, 0x01, 0xbb, 0x65, 0xa0, 0x58, 0x12, 0, 0, 0, 0, 0xa0, 0x02, 0xfd, 0x20, 0x57, 0x2e, 0, 0, 2, 4, 5, 0xa0, 4, 2, 8, 10,
        0x9b, 0x97, 0xa1, 6, 0, 0, 0, 0, 1, 3, 3, 10,
    ];
    const CLIENT: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const SERVER: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

    /// The definition, word by word with end-around carry (RFC 1071, section 1).
    fn by_definition(bytes: &[u8]) -> u16 {
        !bytes.chunks(2).fold(0_u16, |sum, word| {
            let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
            sum + u16::from(carry)
        })
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), !0xddf2);
        assert_eq!(Sum::ZERO.checksum(), 0xffff);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn packets_of_a_real_stack_are_valid_and_made_the_same() {
        assert!(Sum::ZERO.add_bytes(&IPV4_HEADER).is_valid());

        let ipv4 = Sum::ipv4_pseudo_header([192, 0, 2, 1], [192, 0, 2, 2], UDP, 11);
        assert!(ipv4.add_bytes(&UDP_ODD).is_valid());
        let mut datagram = UDP_ODD;
        datagram[6..8].fill(0);
        assert_eq!(ipv4.add_bytes(&datagram).checksum(), 0x0bfa);

        let ipv6 = Sum::ipv6_pseudo_header(CLIENT, SERVER, TCP, 40);
        assert!(ipv6.add_bytes(&TCP_SYN).is_valid());
        let mut segment = TCP_SYN;
        segment[16..18].fill(0);
        assert_eq!(ipv6.add_bytes(&segment).checksum(), 0x572e);
        assert!(!Sum::ipv6_pseudo_header(CLIENT, SERVER, UDP, 40).add_bytes(&TCP_SYN).is_valid());
    }

    #[test]
    fn one_flipped_bit_is_noticed() {
        for bit in 0..8 * IPV4_HEADER.len() {
            let mut header = IPV4_HEADER;
            header[bit / 8] ^= 1 << (bit % 8);
            assert!(!Sum::ZERO.add_bytes(&header).is_valid(), "bit {bit}");
        }
    }

    #[test]
    fn carries_fold_however_many_there_are() {
        let longest = vec![0xff; 65_535];
        assert_eq!(Sum::ZERO.add_bytes(&longest).checksum(), by_definition(&longest));
        assert_eq!(Sum(u64::MAX).checksum(), 0);
        assert_eq!(Sum(0xffff_ffff_ffff_0001).checksum(), !1);
        assert_eq!((not_zero(0), not_zero(1), not_zero(0xffff)), (0xffff, 1, 0xffff));
    }

    proptest! {
        #[test]
        fn a_sum_is_the_definition(bytes in vec(any::<u8>(), 0..100), split in 0..50_usize) {
            let (head, tail) = bytes.split_at((2 * split).min(bytes.len() / 2 * 2));
            prop_assert_eq!(Sum::ZERO.add_bytes(head).add_bytes(tail).checksum(), by_definition(&bytes));
        }

        #[test]
        fn a_fold_is_a_remainder(sum: u64) {
            // One's complement arithmetic is arithmetic modulo 0xffff with two zeros; only a sum of nothing folds to the zero 0.
            let expected = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
            prop_assert_eq!(u64::from(Sum(sum).fold()), expected);
        }

        #[test]
        fn an_update_is_the_checksum_made_anew(words in vec(any::<u16>(), 2..40), at: prop::sample::Index, new: [u16; 2]) {
            let sum = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, &word| sum.add_word(word));
            prop_assume!(words.iter().any(|&word| word != 0) && new != [0; 2]);
            let (at, mut changed) = (at.index(words.len() - 1), words.clone());
            changed[at] = new[0];
            let one = update16(sum(&words).checksum(), words[at], new[0]);
            if changed.iter().any(|&word| word != 0) {
                prop_assert_eq!(one, sum(&changed).checksum());
            }
            changed[at + 1] = new[1];
            prop_assert_eq!(update16(one, words[at + 1], new[1]), sum(&changed).checksum());
            let pair = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
            let both = update32(sum(&words).checksum(), pair(words[at], words[at + 1]), pair(new[0], new[1]));
            prop_assert_eq!(both, sum(&changed).checksum());
        }
    }
}
