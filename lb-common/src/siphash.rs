//! SipHash-1-3.
#[inline(always)]
pub fn sip13<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let [mut a, mut b, mut c, mut d] =
        [key[0] ^ 0x736f_6d65_7073_6575, key[1] ^ 0x646f_7261_6e64_6f6d, key[0] ^ 0x6c79_6765_6e65_7261, key[1] ^ 0x7465_6462_7974_6573];
    macro_rules! round {
        () => {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32);
            c = c.wrapping_add(b);
            a = a.wrapping_add(d);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        };
    }
    for w in words {
        d ^= w;
        round!();
        a ^= w;
    }
    let last = ((8 * N) as u64) << 56;
    d ^= last;
    round!();
    a ^= last;
    c ^= 0xff;
    round!();
    round!();
    round!();
    a ^ b ^ c ^ d
}
