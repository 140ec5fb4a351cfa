//! Services, as the XDP program finds them, and groups, as the selector finds them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Address, Reason, wire::protocol};

/// What makes a packet one of a service: the exact address it goes to, its port and protocol, and the interface it came in by.
///
/// A wildcard listener is entered once for every address that the network namespace holds, a listener bound to a device only for
/// that device, and where several listeners match, the daemon enters the one that the kernel would choose. So the program needs
/// one lookup, and the rule of precedence is code that the host tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceKey {
    /// The address that the packet goes to, never a wildcard.
    pub address: Address,
    /// The interface it came in by.
    pub interface: u32,
    /// The port it goes to.
    pub port: u16,
    /// The IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}

impl ServiceKey {
    /// A key from its four fields.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16, protocol: u8, interface: u32) -> Self {
        Self { address, interface, port, protocol, padding: 0 }
    }

    /// The slot of the key among [`SeenService`]s.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> u32 {
        let rest = (self.port as u64) | (self.protocol as u64) << 16 | (self.interface as u64) << 32;
        (self.address.spread().wrapping_add(rest).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u32
    }
}

/// An entry of the table of services, as a CPU has found it there, good until the table changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SeenService {
    /// What was looked up.
    key: ServiceKey,
    /// How often the table had changed by then, plus one: 0 in a slot that is empty.
    changes: u64,
    /// What was found.
    pub record: ServiceRecord,
}

impl SeenService {
    /// How many of them a CPU keeps.
    pub const SLOTS: u32 = 256;

    /// What was found when the table had changed so often.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: &ServiceKey, changes: u64, record: ServiceRecord) -> Self {
        Self { key: *key, changes: changes.wrapping_add(1), record }
    }

    /// Whether it is the entry of this key, now that the table has changed so often.
    #[inline(always)]
    #[must_use]
    pub fn is(&self, key: &ServiceKey, changes: u64) -> bool {
        self.key == *key && self.changes == changes.wrapping_add(1)
    }
}

/// What the XDP program knows of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceRecord {
    /// The MAC addresses that a frame for this host carries on the key's interface, each with its first byte as the most significant
    /// of 48 bits: the interface's own, and that of the bridge it is a port of (or its own again).
    pub macs: [u64; 2],
    /// The index of the service's counters and of its table: 1 up to [`super::MAX_SERVICES`].
    pub service: u32,
    /// [`service_flags`].
    pub flags: u32,
    /// The MSS that this host announces to clients of the entry: the interface's MTU less the headers of the address's family.
    pub maximum_segment_size: u16,
    /// Zero.
    pub padding: [u8; 6],
}

/// A SO_REUSEPORT group, as its program sees it: what its sockets are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GroupKey {
    /// The bound address: a wildcard, or exact. `0.0.0.0` and `::` are different groups.
    pub address: Address,
    /// The bound device, 0 for none.
    pub device: u32,
    /// The bound port.
    pub port: u16,
    /// The IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}

impl GroupKey {
    /// A key from its four fields.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16, protocol: u8, device: u32) -> Self {
        Self { address, device, port, protocol, padding: 0 }
    }
}

/// What the selector knows of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GroupRecord {
    /// The service whose table holds the group's sockets.
    pub service: u32,
    /// [`service_flags`].
    pub flags: u32,
}

/// The flags of a service, the same in [`ServiceRecord`] and [`GroupRecord`].
pub mod service_flags {
    /// The entry's interface is a loopback device, where this host's own addresses are real sources.
    pub const LOOPBACK: u32 = 4;
    /// QUIC: a short-header packet of an unknown flow follows its connection ID.
    pub const QUIC: u32 = 1;
    /// Its listeners are the kernel's to choose from: it has no table, and its packets are counted and defended, not balanced.
    pub const UNBALANCED: u32 = 2;
    /// Where the byte with the position of the worker's index in the connection ID begins.
    pub const QUIC_POSITION_SHIFT: u32 = 8;
    /// The largest such position: a connection ID has at most 20 bytes (RFC 9000, section 17.2).
    pub const QUIC_POSITION_MAX: u32 = 19;

    /// The flags of a QUIC service whose workers' indexes stand at this position of the connection ID.
    #[must_use]
    pub const fn quic(position: u8) -> u32 {
        QUIC | (position as u32) << QUIC_POSITION_SHIFT
    }

    /// That position, if the service is QUIC.
    #[inline(always)]
    #[must_use]
    pub const fn quic_position(flags: u32) -> Option<usize> {
        let position = (flags >> QUIC_POSITION_SHIFT) & 0xff;
        if flags & QUIC != 0 && position <= QUIC_POSITION_MAX { Some(position as usize) } else { None }
    }
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// How many packets.
    pub packets: u64,
    /// How many bytes of frames, from the Ethernet header on.
    pub bytes: u64,
}

/// One CPU's counters of one service: one for each [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceCounters {
    /// Indexed by [`Reason::index`].
    pub by_reason: [Counter; Reason::ALL.len()],
}

/// One bit for every port of TCP and UDP that a service has: what lets all other packets leave early.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortBitmap {
    /// First TCP's 65,536 bits, then UDP's; a port's bit is bit `port % 64` of word `port / 64`.
    pub words: [u64; 2 * 1024],
}

impl PortBitmap {
    /// The word and the bit of a port.
    #[inline(always)]
    #[must_use]
    pub const fn position(protocol: u8, port: u16) -> (usize, u64) {
        let base = if protocol == protocol::UDP { 1024 } else { 0 };
        (base + (port >> 6) as usize, 1 << (port & 63))
    }

    /// Whether a service has this port.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, protocol: u8, port: u16) -> bool {
        let (word, bit) = Self::position(protocol, port);
        self.words[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        let mut seen = [0u64; 2048];
        for protocol in [protocol::TCP, protocol::UDP] {
            for port in 0..=u16::MAX {
                let (word, bit) = PortBitmap::position(protocol, port);
                assert_eq!(seen[word] & bit, 0, "{protocol} {port}");
                seen[word] |= bit;
            }
        }
        assert!(seen.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn quic_flags_hold_the_position() {
        for position in 0..=19 {
            assert_eq!(service_flags::quic_position(service_flags::quic(position)), Some(usize::from(position)));
        }
        assert_eq!(service_flags::quic_position(service_flags::quic(20)), None);
        assert_eq!(service_flags::quic_position(0), None);
        assert_eq!(service_flags::quic_position(service_flags::UNBALANCED), None);
        assert_eq!(service_flags::quic(19) & service_flags::UNBALANCED, 0);
    }
}
