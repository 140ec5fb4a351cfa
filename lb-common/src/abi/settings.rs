//! What the programs need to know as a whole, and the UDP flow table.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{relief::Relief, tag::TagKey};

/// The one record of settings. Its first four fields lie at its start in every version, so that a new one can take them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// The key of the flow hash, from the operating system's random numbers. It lives as long as the data plane, so that flows keep
    /// their backend across a restart of the daemon.
    pub flow_hash_key: [u64; 2],
    /// [`super::ABI_VERSION`] of the daemon that made the maps.
    pub abi_version: u32,
    /// How many new UDP flows a CPU may enter in the flow table in a second.
    pub udp_new_flows_per_second: u32,
    /// When the data plane was attached, in nanoseconds of CLOCK_BOOTTIME.
    pub attached_at: u64,
    /// The number of known flows that a CPU's table holds, less one: a power of two, less one.
    pub known_flow_mask: u32,
    /// The number of buckets of source prefixes that a CPU's table holds, less one: a power of two, less one.
    pub prefix_bucket_mask: u32,
    /// The key of the tables that packets fill, from the operating system's random numbers, for the life of the data plane.
    pub tag_key: TagKey,
    /// From when on a worker is spared new connections.
    pub relief: Relief,
}

/// Which backend a UDP flow has. The key is a [`crate::FlowKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpFlow {
    /// Its slot in the socket array.
    pub slot: u32,
    /// The slot's generation when the flow was entered.
    pub generation: u32,
}
