//! Which listener gets a packet: the kernel's rule, computed ahead for every address, so that XDP needs one exact lookup.
//!
//! Sources: `compute_score` and `inet_lookup_listener` in `net/ipv4/inet_hashtables.c`, `compute_score` in
//! `net/ipv6/inet6_hashtables.c`, and those of `net/ipv4/udp.c` and `net/ipv6/udp.c`. A socket bound to the exact address goes before
//! every wildcard. Among the rest, TCP gives a point for a bound device and one for being an IPv4 socket; UDP gives four for the device
//! and one for IPv4. What the score leaves open is decided by the order of the kernel's hash chain, in which IPv4 sockets stand before
//! IPv6 ones with SO_REUSEPORT. SO_INCOMING_CPU is not looked at: it depends on the packet's CPU.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::inputs::Attached;
use crate::{config::Protocol, listeners::group::GroupKey};

/// What sockets are bound to, and whose packets those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bind {
    pub key: GroupKey,
    /// The index of the service whose group this is.
    pub service: Option<u32>,
    /// Whether sockets exist. A service that waits for its first listener has the packets that nobody else gets.
    pub exists: bool,
}

/// All binds of the namespace.
#[derive(Debug, Default)]
pub(super) struct Binds {
    by_port: BTreeMap<(Protocol, u16), Vec<Bind>>,
}

/// How good a match is; the greatest gets the packet.
type Rank = (bool, bool, u8, bool, Reverse<GroupKey>);

impl Binds {
    pub fn add(&mut self, bind: Bind) {
        self.by_port.entry((bind.key.protocol, bind.key.port)).or_default().push(bind);
    }

    /// Everything that is bound to a port.
    pub fn on(&self, protocol: Protocol, port: u16) -> &[Bind] {
        self.by_port.get(&(protocol, port)).map_or(&[], Vec::as_slice)
    }

    /// Every port.
    pub fn ports(&self) -> impl Iterator<Item = &[Bind]> {
        self.by_port.values().map(Vec::as_slice)
    }
}

/// Who gets a packet to an address that came in by an interface, among what is bound to its port.
pub(super) fn winner<'a>(binds: &'a [Bind], address: IpAddr, interface: &Attached) -> Option<&'a Bind> {
    binds.iter().filter_map(|bind| Some((rank(bind, address, interface)?, bind))).max_by_key(|(rank, _)| *rank).map(|(_, bind)| bind)
}

/// The addresses that packets coming in by an interface can be for: its own list, and where all of 127.0.0.0/8 is local, those
/// addresses of it that somebody is bound to.
pub(super) fn addresses(interface: &Attached, binds: &[Bind]) -> BTreeSet<IpAddr> {
    let exact = binds.iter().map(|bind| bind.key.address.to_canonical()).filter(|address| interface.loopback && is_loopback_v4(*address));
    interface.addresses.iter().copied().chain(exact).collect()
}

/// Whether packets that come in by an interface can be for what is bound so, whoever else is bound.
pub(super) fn is_reachable(key: &GroupKey, interface: &Attached) -> bool {
    let address = key.address.to_canonical();
    let is_local = address.is_unspecified() || interface.addresses.contains(&address) || interface.loopback && is_loopback_v4(address);
    is_local && leads_to(interface, key.device)
}

/// Whether a socket bound to this device gets packets that come in by the interface.
fn leads_to(interface: &Attached, device: u32) -> bool {
    device == 0 || device == interface.index || interface.devices.contains(&device)
}

fn is_loopback_v4(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_loopback())
}

/// How well a packet's address and interface match, if they do.
fn rank(bind: &Bind, address: IpAddr, interface: &Attached) -> Option<Rank> {
    let key = &bind.key;
    let bound = key.address.to_canonical();
    let exact = bound == address;
    let wild = bound.is_unspecified() && (bound.is_ipv4() == address.is_ipv4() || bound.is_ipv6() && !key.v6only);
    if !(exact || wild) || !leads_to(interface, key.device) {
        return None;
    }
    let (on_device, is_ipv4) = (key.device != 0, key.address.is_ipv4());
    let for_device = match key.protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 4,
    };
    let score = u8::from(on_device) * for_device + u8::from(is_ipv4);
    Some((bind.exists, exact, score, is_ipv4, Reverse(*key)))
}
