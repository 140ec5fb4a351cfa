//! What the configuration says of each service's defence, once the service's own word and that for all are put together.

use serde::{Deserialize, Serialize};

use crate::config::{self, Config, Prefix, Protocol, Stance};

/// The defence of one service, apart from its stance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDefence {
    /// SYNs per second, all CPUs together, that begin a flood.
    pub flood_syns_per_second: u32,
    /// Segments of no flow per second that begin one.
    pub flood_strays_per_second: u32,
    /// Sources that neither the defence nor a limit touches.
    pub allow: Vec<Prefix>,
    /// Sources whose packets are dropped; none of them is in `allow`.
    pub deny: Vec<Prefix>,
    /// Most new connections per second and source prefix; 0 is no limit.
    pub new_connections_per_prefix: u32,
    /// Most packets per second and source prefix; 0 is no limit. 0 for TCP.
    pub udp_packets_per_prefix: u32,
    /// Most bytes per second and source prefix; 0 is no limit. 0 for TCP.
    pub udp_bytes_per_prefix: u32,
}

/// When the SYNs of a service are answered by cookie: as it says itself if it is named and says so, else as all do. UDP has none.
pub(super) fn stance(config: &Config, protocol: Protocol, named: Option<&config::Service>) -> Stance {
    match protocol {
        Protocol::Tcp => named.and_then(|named| named.defence.syn_defence).unwrap_or(config.defence.syn_defence),
        Protocol::Udp => Stance::Off,
    }
}

/// The rest of its defence.
pub(super) fn of_service(config: &Config, named: Option<&config::Service>) -> ServiceDefence {
    let silent = config::ServiceDefence::default();
    let own = named.map_or(&silent, |named| &named.defence);
    ServiceDefence {
        flood_syns_per_second: own.flood_syns_per_second.unwrap_or(config.defence.flood_syns_per_second),
        flood_strays_per_second: own.flood_strays_per_second.unwrap_or(config.defence.flood_strays_per_second),
        allow: own.allow.clone(),
        deny: own.deny.clone(),
        new_connections_per_prefix: own.new_connections_per_prefix,
        udp_packets_per_prefix: own.udp_packets_per_prefix,
        udp_bytes_per_prefix: own.udp_bytes_per_prefix,
    }
}
