//! The flow: five fields that name a conversation, and the keyed hash that chooses its backend.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, siphash};

/// A flow as the service's host sees it: the client is the source. The key of the UDP flow table, hence the fixed layout (40 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub source: Address,
    /// The service's address, as the packet names it (never a wildcard).
    pub destination: Address,
    /// The client's port, in the machine's byte order.
    pub source_port: u16,
    /// The service's port, in the machine's byte order.
    pub destination_port: u16,
    /// The IP protocol number, 6 or 17: wider than it need be, so that there is no padding to clear.
    pub protocol: u32,
}

impl FlowKey {
    /// A flow from its five fields.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: Address, source_port: u16, destination: Address, destination_port: u16, protocol: u8) -> Self {
        Self { source, destination, source_port, destination_port, protocol: protocol as u32 }
    }

    /// The IP protocol number, as a header holds it.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "it was made from 8 bits")]
    pub const fn protocol_number(&self) -> u8 {
        self.protocol as u8
    }

    /// The same conversation, seen from the other end.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    /// The flow as the kernel's socket lookups take it (`struct bpf_sock_tuple`, seen from the client), and how many of the bytes count.
    #[inline(always)]
    #[must_use]
    pub const fn socket_tuple(&self) -> ([u32; 9], usize) {
        let ports = network_pair(self.source_port, self.destination_port);
        if let (Some(source), Some(destination)) = (self.source.ipv4_network(), self.destination.ipv4_network()) {
            return ([source, destination, ports, 0, 0, 0, 0, 0, 0], 12);
        }
        let [a, b, c, d] = self.source.network_words();
        let [e, f, g, h] = self.destination.network_words();
        ([a, b, c, d, e, f, g, h, ports], 36)
    }

    /// The keyed hash of the flow: SipHash-1-3 (Aumasson and Bernstein, 2012) over little-endian words.
    ///
    /// The last word holds source port, destination port and protocol, from the least significant bits on. Before it stand, for two
    /// IPv4 addresses, one word with the source in its lower and the destination in its upper half; for IPv6, the two words of the
    /// source and the two of the destination. The lengths differ, so the two forms never hash the same message. Hashing 16 bytes
    /// instead of 40 for IPv4 saves a third of the rounds: in the kernel a round is about 32 instructions, BPF having no rotate.
    ///
    /// SipHash-1-3 and not 2-4: an attacker sees no hash value, only which worker answered, and what a collision buys is load on one
    /// worker; Rust's and Python's own tables rest on 1-3 for the same purpose.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: [u64; 2]) -> u64 {
        let ports = u64::from(self.source_port) | u64::from(self.destination_port) << 16 | u64::from(self.protocol) << 32;
        if let (Some(source), Some(destination)) = (self.source.ipv4_network(), self.destination.ipv4_network()) {
            return siphash::sip13(key, [u64::from(source.to_le()) | u64::from(destination.to_le()) << 32, ports]);
        }
        let [s0, s1] = self.source.hash_words();
        let [d0, d1] = self.destination.hash_words();
        siphash::sip13(key, [s0, s1, d0, d1, ports])
    }
}

/// Two numbers of 16 bits as they stand in a header, one after the other.
#[inline(always)]
const fn network_pair(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use core::{hash::Hasher, net::IpAddr};

    use siphasher::sip::SipHasher13;

    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn flow(source: &str, destination: &str, protocol: u8) -> FlowKey {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        FlowKey::new(address(source), 40000, address(destination), 443, protocol)
    }

    #[test]
    fn the_hash_is_siphash_1_3_of_the_documented_bytes() {
        let mut v4 = SipHasher13::new_with_keys(KEY[0], KEY[1]);
        v4.write(&[198, 51, 100, 7, 192, 0, 2, 1, 0x40, 0x9c, 0xbb, 0x01, 6, 0, 0, 0]);
        assert_eq!(flow("198.51.100.7", "192.0.2.1", 6).hash(KEY), v4.finish());

        let mut bytes = Vec::new();
        for text in ["2001:db8::7", "2001:db8:1::1"] {
            bytes.extend_from_slice(&text.parse::<core::net::Ipv6Addr>().unwrap().octets());
        }
        bytes.extend_from_slice(&[0x40, 0x9c, 0xbb, 0x01, 17, 0, 0, 0]);
        let mut v6 = SipHasher13::new_with_keys(KEY[0], KEY[1]);
        v6.write(&bytes);
        assert_eq!(flow("2001:db8::7", "2001:db8:1::1", 17).hash(KEY), v6.finish());
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(flow("198.51.100.7", "192.0.2.1", 6).hash(KEY), GOLDEN[0], "the hash must never change within an ABI version");
        assert_eq!(flow("198.51.100.7", "192.0.2.1", 17).hash(KEY), GOLDEN[1]);
        assert_eq!(flow("2001:db8::7", "2001:db8:1::1", 6).hash(KEY), GOLDEN[2]);
    }

    /// Computed once with the reference implementation, see the test above for the bytes.
    const GOLDEN: [u64; 3] = [0x8798_c9bf_15f4_228f, 0x5e3d_1d42_c979_de85, 0xcff0_c3e4_05f5_4158];

    #[test]
    fn every_field_counts() {
        let base = flow("2001:db8::7", "2001:db8:1::1", 6);
        let others = [
            FlowKey { source_port: 40001, ..base },
            FlowKey { destination_port: 444, ..base },
            FlowKey { protocol: 17, ..base },
            flow("2001:db8::8", "2001:db8:1::1", 6),
            flow("2001:db8::7", "2001:db8:1::2", 6),
            base.reversed(),
        ];
        for other in others {
            assert_ne!(base.hash(KEY), other.hash(KEY), "{other:?}");
        }
        assert_ne!(base.hash(KEY), base.hash([KEY[0] ^ 1, KEY[1]]));
    }
}
