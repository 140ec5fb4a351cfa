//! Which listener gets a packet: the kernel's rule, computed ahead for every address, so that XDP needs one exact lookup.
//!
//! Sources: `inet_lookup_listener`, `inet_lhash2_lookup` and `compute_score` in `net/ipv4/inet_hashtables.c`, their like in
//! `net/ipv6/inet6_hashtables.c`, `net/ipv4/udp.c` and `net/ipv6/udp.c`; tried out on Linux 6.18.
//!
//! The kernel looks first among the sockets bound to the exact address, then among the wildcards. In each it goes along a hash chain
//! and keeps the socket with the highest score: TCP gives a point for a bound device and one for being an IPv4 socket, UDP four for
//! the device and one for IPv4. But the first SO_REUSEPORT socket that scores higher than what it has so far ends the search: its
//! group gets the packet, even if a socket further on in the chain is bound to the device. In the chain IPv6 sockets with SO_REUSEPORT
//! stand at the end, the first bound before the later; before them stand all others, the last bound first. sock_diag walks
//! the same chains, so the order in which it lists the sockets of one family is the chain's.
//!
//! SO_INCOMING_CPU is not looked at: it depends on the packet's CPU.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::inputs::Attached;
use crate::{config::Protocol, listeners::group::GroupKey};

/// What sockets are bound to, and whose packets those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bind {
    pub key: GroupKey,
    /// The index of the service whose sockets these are.
    pub service: Option<u32>,
    /// The place of the first of its sockets in sock_diag's list; none if it has no sockets. A service that waits for its first
    /// listener has the packets that nobody else gets.
    pub place: Option<usize>,
    /// Whether its sockets have SO_REUSEPORT.
    pub reuseport: bool,
}

/// All binds of the namespace, those of a port in the order of the kernel's chain.
#[derive(Debug, Default)]
pub(super) struct Binds {
    by_port: BTreeMap<(Protocol, u16), Vec<Bind>>,
}

impl Bind {
    /// What waits for a listener at this place.
    pub fn waiting(key: GroupKey, service: Option<u32>) -> Self {
        Self { key, service, place: None, reuseport: true }
    }

    /// What sorts as the chain does. Those without sockets come last.
    fn in_chain(&self) -> (bool, bool, Option<usize>) {
        (self.place.is_none(), self.reuseport && self.key.address.is_ipv6(), self.place)
    }
}

impl Binds {
    pub fn add(&mut self, bind: Bind) {
        let on_port = self.by_port.entry((bind.key.protocol, bind.key.port)).or_default();
        let at = on_port.partition_point(|other| other.in_chain() <= bind.in_chain());
        on_port.insert(at, bind);
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

/// Who gets a packet to an address that came in by an interface, among what is bound to its port (as [`Binds::on`] gives it).
pub(super) fn winner<'a>(binds: &'a [Bind], address: IpAddr, interface: &Attached) -> Option<&'a Bind> {
    let among = |exact: bool, exists: bool| {
        let matching = move |bind: &&Bind| bind.place.is_some() == exists && matches(&bind.key, address, interface) == Some(exact);
        first_in_chain(binds.iter().filter(matching))
    };
    among(true, true).or_else(|| among(false, true)).or_else(|| among(true, false)).or_else(|| among(false, false))
}

/// One walk along a chain.
fn first_in_chain<'a>(chain: impl Iterator<Item = &'a Bind>) -> Option<&'a Bind> {
    let mut best: Option<&Bind> = None;
    for bind in chain {
        if best.is_none_or(|best| score(&bind.key) > score(&best.key)) {
            best = Some(bind);
            if bind.reuseport {
                break;
            }
        }
    }
    best
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

/// Whether a packet's address and interface match, and if so, whether the address is the exact one.
fn matches(key: &GroupKey, address: IpAddr, interface: &Attached) -> Option<bool> {
    let bound = key.address.to_canonical();
    let exact = bound == address;
    let wild = bound.is_unspecified() && (bound.is_ipv4() == address.is_ipv4() || bound.is_ipv6() && !key.v6only);
    ((exact || wild) && leads_to(interface, key.device)).then_some(exact)
}

/// The kernel's score, but for what all that match have in common.
fn score(key: &GroupKey) -> u8 {
    let for_device = match key.protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 4,
    };
    u8::from(key.device != 0) * for_device + u8::from(key.address.is_ipv4())
}
