//! SipHash over whole 64-bit words: the one keyed hash of this project.
//!
//! The kernel side hashes a few fixed-size fields for each packet it looks at closely, and both sides have to come to the same number.
//! So the message is an array of words whose length is part of its type: no buffer, no tail handling, no loop that the verifier has to
//! walk. Against a message of bytes nothing is lost: [`sip13`] of `N` words is exactly SipHash-1-3 of their `8 * N` little-endian bytes.
//!
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), section 2. One compression round and three finalisation
//! rounds (SipHash-1-3) are what Rust's own hash maps use against chosen keys: enough for spreading flows, where an attacker sees no
//! hash value. A value that is sent over the wire (a SYN cookie) is better made with the paper's SipHash-2-4: [`sip24`].

/// SipHash-1-3 of the `8 * N` little-endian bytes of `words`.
///
/// `key` is the 16-byte key as two little-endian words, first half first.
#[inline(always)]
#[must_use]
pub fn sip13<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    sip::<1, 3, N>(key, words, (8 * N as u64) << 56)
}

/// SipHash-1-3 of the `8 * N` little-endian bytes of `words` and seven more, those of `tail` without its most significant byte.
///
/// The last word of any SipHash has seven bytes to spare beside the length: what fits there costs no round.
#[inline(always)]
#[must_use]
pub fn sip13_with_tail<const N: usize>(key: [u64; 2], words: [u64; N], tail: u64) -> u64 {
    sip::<1, 3, N>(key, words, (8 * N as u64 + 7) << 56 | (tail & (u64::MAX >> 8)))
}

/// SipHash-2-4 of the `8 * N` little-endian bytes of `words`; arguments as for [`sip13`].
#[inline(always)]
#[must_use]
pub fn sip24<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    sip::<2, 4, N>(key, words, (8 * N as u64) << 56)
}

/// SipHash-`C`-`D`: `C` rounds for each word and `D` rounds at the end. `last` is the last word: the length in bytes, modulo 256, in its
/// top byte, and below it the bytes of an incomplete word.
#[inline(always)]
fn sip<const C: usize, const D: usize, const N: usize>(key: [u64; 2], words: [u64; N], last: u64) -> u64 {
    let mut state = State {
        v0: key[0] ^ 0x736f_6d65_7073_6575,
        v1: key[1] ^ 0x646f_7261_6e64_6f6d,
        v2: key[0] ^ 0x6c79_6765_6e65_7261,
        v3: key[1] ^ 0x7465_6462_7974_6573,
    };
    let mut index = 0;
    while index < N {
        state.absorb::<C>(words[index]);
        index += 1;
    }
    state.absorb::<C>(last);
    state.v2 ^= 0xff;
    state.rounds::<D>();
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

/// The four words of SipHash's state, named as in the paper.
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn absorb<const C: usize>(&mut self, word: u64) {
        self.v3 ^= word;
        self.rounds::<C>();
        self.v0 ^= word;
    }

    /// `COUNT` times SipRound. The count is a constant, so that LLVM unrolls the loop.
    #[inline(always)]
    fn rounds<const COUNT: usize>(&mut self) {
        let mut round = 0;
        while round < COUNT {
            self.v0 = self.v0.wrapping_add(self.v1);
            self.v2 = self.v2.wrapping_add(self.v3);
            self.v1 = self.v1.rotate_left(13) ^ self.v0;
            self.v3 = self.v3.rotate_left(16) ^ self.v2;
            self.v0 = self.v0.rotate_left(32);
            self.v2 = self.v2.wrapping_add(self.v1);
            self.v0 = self.v0.wrapping_add(self.v3);
            self.v1 = self.v1.rotate_left(17) ^ self.v2;
            self.v3 = self.v3.rotate_left(21) ^ self.v0;
            self.v2 = self.v2.rotate_left(32);
            round += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip::{SipHasher13, SipHasher24};

    use super::*;

    /// The key of the published vectors: bytes 00 01 .. 0f.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    /// The message of the published vectors: bytes 00 01 02 .. as little-endian words.
    fn message<const N: usize>() -> [u64; N] {
        core::array::from_fn(|word| u64::from_le_bytes(core::array::from_fn(|byte| u8::try_from(8 * word + byte).unwrap())))
    }

    /// SipHash-2-4 of 0, 8, 16 .. 56 bytes, from `vectors_sip64` of the authors' reference implementation (veorq/SipHash, vectors.h).
    #[test]
    fn sip24_gives_the_published_vectors() {
        assert_eq!(sip24(KEY, message::<0>()), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip24(KEY, message::<1>()), 0x93f5_f579_9a93_2462);
        assert_eq!(sip24(KEY, message::<2>()), 0x3f2a_cc7f_57c2_9bdb);
        assert_eq!(sip24(KEY, message::<3>()), 0xb8ad_50c6_f649_af94);
        assert_eq!(sip24(KEY, message::<4>()), 0x7127_512f_72f2_7cce);
        assert_eq!(sip24(KEY, message::<5>()), 0x0e3e_a96b_5304_a7d0);
        assert_eq!(sip24(KEY, message::<6>()), 0xe612_a3cb_9ecb_a951);
        assert_eq!(sip24(KEY, message::<7>()), 0xb78d_bfaf_3a8d_83bd);
    }

    /// SipHash-1-3 of 16 and 40 bytes (an IPv4 and an IPv6 flow), from the tests of crate `siphasher` 1.0.4, `test_siphash_1_3`.
    #[test]
    fn sip13_gives_the_published_vectors() {
        assert_eq!(sip13(KEY, message::<2>()), 0xcc4f_dd1a_7d90_8b66);
        assert_eq!(sip13(KEY, message::<5>()), 0xc1d2_3632_99e4_1531);
    }

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn reference13(key: [u64; 2], words: &[u64]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
        hasher.write(&bytes(words));
        hasher.finish()
    }

    fn reference24(key: [u64; 2], words: &[u64]) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
        hasher.write(&bytes(words));
        hasher.finish()
    }

    /// The length byte is taken modulo 256: 32 words are 256 bytes.
    #[test]
    fn a_message_of_256_bytes_wraps_the_length() {
        assert_eq!(sip13(KEY, message::<32>()), reference13(KEY, &message::<32>()));
    }

    proptest! {
        #[test]
        fn sip13_of_two_words_is_the_reference(key: [u64; 2], words: [u64; 2]) {
            prop_assert_eq!(sip13(key, words), reference13(key, &words));
        }

        #[test]
        fn sip13_of_five_words_is_the_reference(key: [u64; 2], words: [u64; 5]) {
            prop_assert_eq!(sip13(key, words), reference13(key, &words));
        }

        #[test]
        fn sip13_with_a_tail_is_the_reference(key: [u64; 2], words: [u64; 2], tail: u64) {
            let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
            hasher.write(&[bytes(&words), tail.to_le_bytes()[..7].to_vec()].concat());
            prop_assert_eq!(sip13_with_tail(key, words, tail), hasher.finish());
        }

        #[test]
        fn sip24_of_three_words_is_the_reference(key: [u64; 2], words: [u64; 3]) {
            prop_assert_eq!(sip24(key, words), reference24(key, &words));
        }
    }
}
