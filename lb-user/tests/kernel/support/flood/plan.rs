//! What a flood consists of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::support::packet::{ACK, FIN, RST, SYN};

/// No flood sends more, or lasts longer, whatever its plan says.
const MOST_PACKETS: u64 = 50_000_000;
const LONGEST: Duration = Duration::from_secs(60);

/// What every packet of the flood is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloodKind {
    /// A SYN, with the options of real clients in turn.
    Syn,
    /// A segment of no connection.
    Ack,
    /// The answer to a SYN that nobody sent: a reflected flood.
    SynAck,
    Rst,
    /// FIN and ACK.
    Fin,
    /// A segment of no connection with just these flags.
    Flags(u8),
    /// A small datagram.
    Udp,
}

impl FloodKind {
    /// The TCP flags of the flood's segments; none for datagrams.
    pub(super) fn flags(self) -> Option<u8> {
        match self {
            Self::Syn => Some(SYN),
            Self::Ack => Some(ACK),
            Self::SynAck => Some(SYN | ACK),
            Self::Rst => Some(RST),
            Self::Fin => Some(FIN | ACK),
            Self::Flags(flags) => Some(flags),
            Self::Udp => None,
        }
    }
}

/// The addresses that begin with these bits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    pub const fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length }
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, other) = (octets(self.address), octets(address));
        own.len() == other.len() && own.iter().zip(&other).zip(self.free_bits()).all(|((own, other), free)| own & !free == other & !free)
    }

    /// Which bits of the address are left free, byte by byte.
    pub(super) fn free_bits(&self) -> Vec<u8> {
        let fixed = |byte: usize| usize::from(self.length).saturating_sub(byte * 8).min(8);
        (0..octets(self.address).len()).map(|byte| u8::try_from(0xff_usize >> fixed(byte)).expect("eight bits")).collect()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Sources that can be real and that nobody here has: 16.0.0.0 to 95.255.255.255.
const SOURCES_V4: [Prefix; 3] = [
    Prefix::new(IpAddr::V4(Ipv4Addr::new(16, 0, 0, 0)), 4),
    Prefix::new(IpAddr::V4(Ipv4Addr::new(32, 0, 0, 0)), 3),
    Prefix::new(IpAddr::V4(Ipv4Addr::new(64, 0, 0, 0)), 3),
];
const SOURCES_V6: [Prefix; 1] = [Prefix::new(IpAddr::V6(Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 0)), 12)];

/// A flood: a million packets as fast as they go, for at most ten seconds, unless it is told otherwise.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FloodPlan {
    pub kind: FloodKind,
    pub target: SocketAddr,
    /// Of the target's device, or of the router before it.
    pub destination_mac: [u8; 6],
    pub packets: u64,
    /// Packets per second.
    pub rate: Option<u64>,
    pub duration: Duration,
    pub sources: Vec<Prefix>,
}

impl FloodPlan {
    pub fn new(kind: FloodKind, target: SocketAddr, destination_mac: [u8; 6]) -> Self {
        let sources = if target.is_ipv4() { SOURCES_V4.to_vec() } else { SOURCES_V6.to_vec() };
        Self { kind, target, destination_mac, packets: 1_000_000, rate: None, duration: Duration::from_secs(10), sources }
    }

    /// How many packets.
    pub fn packets(self, packets: u64) -> Self {
        Self { packets, ..self }
    }

    /// How many of them a second.
    pub fn rate(self, per_second: u64) -> Self {
        Self { rate: Some(per_second), ..self }
    }

    /// When it ends, though not all packets are sent.
    pub fn lasting(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// From where the packets claim to be, of the target's family.
    pub fn coming_from(self, sources: &[Prefix]) -> Self {
        Self { sources: sources.to_vec(), ..self }
    }

    /// The same within the bounds that no flood exceeds.
    pub(super) fn bounded(&self) -> Self {
        let family = self.target.is_ipv4();
        assert!(
            !self.sources.is_empty() && self.sources.iter().all(|one| one.address.is_ipv4() == family),
            "sources of the target's family"
        );
        Self { packets: self.packets.min(MOST_PACKETS), duration: self.duration.min(LONGEST), ..self.clone() }
    }
}
