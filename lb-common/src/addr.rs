//! The one address type.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The half word `::ffff` before an IPv4 address in an IPv4-mapped IPv6 address, in network byte order (RFC 4291, section 2.5.5.2).
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

/// An IPv4 or IPv6 address in 16 bytes; IPv4 is held as IPv4-mapped IPv6, so that every key and every table has one shape.
///
/// In memory it is the address's 16 bytes in network byte order. They are held as two words so that the kernel side copies an address
/// in two instructions; the words' values depend on the machine's byte order and mean nothing by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    words: [u64; 2],
}

impl Address {
    /// The IPv6 wildcard, `::`. The IPv4 wildcard is another address: `::ffff:0.0.0.0`.
    pub const UNSPECIFIED: Self = Self { words: [0; 2] };

    /// From the 16 bytes in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self { words: [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])] }
    }

    /// From two words as they were loaded from a packet, with no conversion of byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// From four 32-bit words as they were loaded from a packet or a `bpf_sock`, with no conversion of byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_network_words(words: [u32; 4]) -> Self {
        Self { words: [pair(words[0], words[1]), pair(words[2], words[3])] }
    }

    /// From an IPv4 address as it was loaded from a packet, with no conversion of byte order.
    #[inline(always)]
    #[must_use]
    pub const fn from_ipv4_network(word: u32) -> Self {
        Self { words: [0, pair(u32::from_ne_bytes(MAPPED), word)] }
    }

    /// The IPv4 address in network byte order if this is one.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4_network(&self) -> Option<u32> {
        let (head, tail) = split(self.words[1]);
        if self.words[0] == 0 && head == u32::from_ne_bytes(MAPPED) { Some(tail) } else { None }
    }

    /// The two words as memory holds them, for writing them to a packet.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        self.words
    }

    /// The 16 bytes in network byte order.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.words[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&self.words[1].to_ne_bytes());
        bytes
    }

    /// The 16 bytes as two little-endian words: what a hash takes, the same on every machine.
    #[inline(always)]
    #[must_use]
    pub const fn hash_words(&self) -> [u64; 2] {
        [self.words[0].to_le(), self.words[1].to_le()]
    }

    /// A hash that spreads addresses over its upper bits. It has no key: only for tables that nobody fills from outside.
    #[inline(always)]
    #[must_use]
    pub const fn spread(&self) -> u64 {
        let [first, second] = self.words;
        first.wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_add(second).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Whether this is the wildcard of either family.
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] == 0 && (self.words[1] == 0 || self.words[1] == pair(u32::from_ne_bytes(MAPPED), 0))
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.ipv4_network().is_some()
    }

    /// Whether no packet can come from this address over a wire: unspecified, loopback, multicast, broadcast, and IPv4's 0.0.0.0/8 and
    /// 240.0.0.0/4 (RFC 6890; RFC 4291, section 2.5 and 2.7).
    #[inline(always)]
    #[must_use]
    pub const fn is_impossible_source(&self) -> bool {
        if let Some(word) = self.ipv4_network() {
            let first = word.to_ne_bytes()[0];
            return first == 0 || first == 127 || first >= 224;
        }
        let one = u64::from_be_bytes([0, 0, 0, 0, 0, 0, 0, 1]).to_be();
        (self.words[0] == 0 && (self.words[1] == 0 || self.words[1] == one)) || self.words[0].to_ne_bytes()[0] == 0xff
    }

    /// The address's prefix that counts as one source: /24 of IPv4, /56 of IPv6, what a provider gives one customer at the most.
    #[inline(always)]
    #[must_use]
    pub const fn source_prefix(&self) -> Self {
        match self.ipv4_network() {
            Some(word) => Self::from_ipv4_network(word & u32::from_ne_bytes([255, 255, 255, 0])),
            None => Self { words: [self.words[0] & u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 0]), 0] },
        }
    }

    /// The address as four 32-bit words, first to last, each as memory holds it.
    #[inline(always)]
    #[must_use]
    pub const fn network_words(&self) -> [u32; 4] {
        let ((a, b), (c, d)) = (split(self.words[0]), split(self.words[1]));
        [a, b, c, d]
    }

    /// The address as people write it.
    #[must_use]
    pub fn to_ip(&self) -> IpAddr {
        match self.ipv4_network() {
            Some(word) => IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())),
            None => IpAddr::V6(Ipv6Addr::from(self.bytes())),
        }
    }
}

/// Two words that follow each other in memory as one.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    #[cfg(target_endian = "little")]
    return first as u64 | (second as u64) << 32;
    #[cfg(target_endian = "big")]
    return (first as u64) << 32 | second as u64;
}

/// The reverse of [`pair`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "each half is what is wanted")]
const fn split(word: u64) -> (u32, u32) {
    #[cfg(target_endian = "little")]
    return (word as u32, (word >> 32) as u32);
    #[cfg(target_endian = "big")]
    return ((word >> 32) as u32, word as u32);
}

/// By the bytes in network byte order, on every machine the same.
impl Ord for Address {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.bytes().cmp(&other.bytes())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_ipv4_network(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.to_ip(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::7", "fe80::1", "::192.0.2.1"] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            assert_eq!(address.to_ip(), ip, "{text}");
            assert_eq!(address.is_ipv4(), ip.is_ipv4(), "{text}");
            assert_eq!(address.is_unspecified(), ip.is_unspecified(), "{text}");
            assert_eq!(Address::from_bytes(address.bytes()), address, "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from("192.0.2.1".parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn the_two_wildcards_differ() {
        let v4 = Address::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert_ne!(v4, Address::UNSPECIFIED);
        assert!(v4.is_unspecified() && Address::UNSPECIFIED.is_unspecified());
    }

    #[test]
    fn sources_that_cannot_be_real() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
        ] {
            assert!(Address::from(text.parse::<IpAddr>().unwrap()).is_impossible_source(), "{text}");
        }
        for text in
            ["1.0.0.0", "10.0.0.1", "126.1.1.1", "128.0.0.1", "192.168.0.1", "223.255.255.255", "::2", "fe80::1", "fd00::1", "2001:db8::1"]
        {
            assert!(!Address::from(text.parse::<IpAddr>().unwrap()).is_impossible_source(), "{text}");
        }
    }

    #[test]
    fn a_source_prefix_is_what_one_customer_has() {
        let prefix = |text: &str| Address::from(text.parse::<IpAddr>().unwrap()).source_prefix().to_string();
        assert_eq!(prefix("192.0.2.129"), "192.0.2.0");
        assert_eq!(prefix("2001:db8:1:2ff:3::4"), "2001:db8:1:200::");
    }

    #[test]
    fn words_come_in_as_memory_holds_them() {
        let bytes: [u8; 16] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let word = |i: usize| u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!(Address::from_network_words([word(0), word(1), word(2), word(3)]).bytes(), bytes);
        assert_eq!(Address::from_bytes(bytes).hash_words()[0], u64::from_le_bytes(bytes[..8].try_into().unwrap()));
    }
}
