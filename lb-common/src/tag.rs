//! Keyed tags: which slot of a fixed-size table something has, and whether what lies there is its own.
//!
//! The tables that packets fill are direct-mapped arrays: a slot by hash, a tag to tell whose it is, and whoever collides takes the slot.
//! An attacker who could foresee slot and tag could pass for another flow, so the hash is keyed; but nobody ever sees its value, so it
//! need not be a cipher. Multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2013, section 2) is strongly
//! universal: over the choice of the key, two different messages collide with a chance of 2⁻³², whatever they are, and no message's hash
//! says anything about another's. It costs one multiplication for each 32 bits: a third of SipHash-1-3 for an IPv4 flow.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, FlowKey};

/// 64-bit words of key: one, and one for each 32-bit word of the longest message.
const WORDS: usize = 11;

/// The key, from the operating system's random numbers: two independent ones, for the slot and for the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TagKey {
    slot: [u64; WORDS],
    tag: [u64; WORDS],
}

/// Where something belongs in a table, and what tells it from others there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// 32 bits: a table of a power of two takes as many of the lowest as it needs.
    pub slot: u32,
    /// 32 bits, never 0: an empty slot has no owner.
    pub tag: u32,
}

impl TagKey {
    /// The place of a flow.
    #[inline(always)]
    #[must_use]
    pub fn of_flow(&self, flow: &FlowKey) -> Place {
        let ports = u32::from(flow.source_port) | u32::from(flow.destination_port) << 16;
        if let (Some(source), Some(destination)) = (flow.source.ipv4_network(), flow.destination.ipv4_network()) {
            return self.place([source, destination, ports]);
        }
        let [a, b, c, d] = flow.source.network_words();
        let [e, f, g, h] = flow.destination.network_words();
        self.place([a, b, c, d, e, f, g, h, ports])
    }

    /// The place of a source prefix, for one purpose (any number that tells the purposes apart).
    #[inline(always)]
    #[must_use]
    pub fn of_prefix(&self, source: Address, purpose: u32) -> Place {
        let [a, b, c, d] = source.source_prefix().network_words();
        // The prefix of an IPv4 address stands in the last word, that of an IPv6 address in the first two.
        self.place([a, b, c ^ d, purpose])
    }

    #[inline(always)]
    fn place<const N: usize>(&self, message: [u32; N]) -> Place {
        const { assert!(N < WORDS, "each word of a message has a word of key") };
        let tag = multilinear(&self.tag, message);
        Place { slot: multilinear(&self.slot, message), tag: if tag == 0 { 1 } else { tag } }
    }
}

#[inline(always)]
fn multilinear<const N: usize>(key: &[u64; WORDS], message: [u32; N]) -> u32 {
    let mut sum = key[0];
    let mut index = 0;
    while index < N {
        sum = sum.wrapping_add(key[index + 1].wrapping_mul(u64::from(message[index])));
        index += 1;
    }
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use std::collections::HashSet;

    use super::*;

    fn key() -> TagKey {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut word = || {
            state = crate::siphash::sip24([state, 1], [state]);
            state
        };
        TagKey { slot: core::array::from_fn(|_| word()), tag: core::array::from_fn(|_| word()) }
    }

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn every_field_of_a_flow_counts() {
        for (client, server, other) in [("192.0.2.1", "198.51.100.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:1::1", "2001:db8::2")] {
            let flow = FlowKey::new(address(client), 1, address(server), 2, 6);
            let others = [
                FlowKey { source: address(other), ..flow },
                FlowKey { destination: address(other), ..flow },
                FlowKey { source_port: 3, ..flow },
                FlowKey { destination_port: 3, ..flow },
                flow.reversed(),
            ];
            for other in others {
                assert_ne!(key().of_flow(&flow), key().of_flow(&other), "{other:?}");
            }
        }
    }

    #[test]
    fn a_prefix_is_one_place_for_each_purpose() {
        let place = |text: &str, purpose| key().of_prefix(address(text), purpose);
        assert_eq!(place("192.0.2.1", 7), place("192.0.2.254", 7));
        assert_ne!(place("192.0.2.1", 7), place("192.0.3.1", 7));
        assert_ne!(place("192.0.2.1", 7), place("192.0.2.1", 8));
        assert_eq!(place("2001:db8:0:1ff::1", 7), place("2001:db8:0:100::2", 7));
        assert_ne!(place("2001:db8:0:1ff::1", 7), place("2001:db8:0:200::1", 7));
    }

    /// Neighbouring flows, as one client makes them, spread over the slots as chance would have it.
    #[test]
    fn neighbours_are_strangers() {
        let flows = (0..60_000_u16).map(|port| FlowKey::new(address("192.0.2.1"), port, address("198.51.100.1"), 443, 6));
        let slots: HashSet<u32> = flows.map(|flow| key().of_flow(&flow).slot & 0xffff).collect();
        // 60,000 random draws of 65,536 would hit 39,300; a linear hash spreads a sequence more evenly than chance, or as badly as its key.
        assert!(slots.len() > 35_000, "{}", slots.len());
    }
}
