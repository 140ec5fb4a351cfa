//! The current network namespace: its devices, the addresses it holds itself, and news of their changes.
//!
//! Everything is asked through rtnetlink, never from `/sys/class/net`: a mounted sysfs goes on showing the devices of the namespace in
//! which it was mounted. A socket belongs to the namespace in which it was opened. [`read`](Network::read) takes the picture,
//! [`watch`] says when it is out of date, and the questions that the plan asks of it are pure.

mod above;
pub mod card;
mod exchange;
pub mod genetlink;
mod pair;
mod read;
pub mod watch;

use std::{collections::BTreeSet, fs, io, net::IpAddr};

use serde::{Deserialize, Serialize};

pub use pair::other_end_runs_program;
pub use read::connect;

/// Why the network could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink socket could not be opened, bound, written or read.
    #[error("netlink: cannot {action}: {source}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel refused a request, or answered something that cannot be read.
    #[error("rtnetlink: cannot list {what}: {source}")]
    Request {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A generic netlink request was refused.
    #[error("netlink family {family}: the kernel refused the request: {source}")]
    Refused {
        /// The family asked.
        family: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A generic netlink reply does not have the documented layout.
    #[error("netlink family {family}: malformed reply")]
    Malformed {
        /// The family asked.
        family: &'static str,
    },
}

/// The devices and addresses of one network namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Every device, in the kernel's order: by index.
    pub interfaces: Vec<Interface>,
    /// Every address that the namespace holds itself, with the index of the device that it is configured on. IPv6 addresses whose duplicate detection has not ended well are not: the kernel does not answer for them.
    /// A prefix that the loopback device makes local as a whole (`127.0.0.0/8`, "any IP") appears by its configured address only.
    pub addresses: BTreeSet<(IpAddr, u32)>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index in the namespace, above 0.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its MAC address, with the first byte on the wire as the most significant of 48 bits; 0 for the loopback device. None where a
    /// link-layer address does not have six bytes (tun, tunnels, InfiniBand).
    pub mac: Option<u64>,
    /// The bridge, bond, team or VRF that it is a port of.
    pub master: Option<u32>,
    /// The device below it in this namespace, as that of a VLAN or a macvlan. The other end of a veth pair is not below it.
    pub link: Option<u32>,
    /// What kind of virtual device it is, by `ip link`'s names (`veth`, `bridge`, `vlan`); none for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// The largest packet without its link-layer header, in bytes.
    pub mtu: u32,
    /// The hardware it sits on, as `(bus, name)`: `("pci", "0000:00:03.0")`. Kernels before 5.14 do not say.
    pub parent: Option<(String, String)>,
    /// The XDP program on it.
    pub xdp: Option<Attached>,
}

/// An XDP program on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The program's id. In the rare case that one runs in the driver and another on the card, the driver's.
    pub program_id: u32,
    /// How it is attached.
    pub mode: AttachedMode,
}

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachedMode {
    /// In the driver's receive path.
    Native,
    /// In the stack, after the packet was copied into a socket buffer.
    Generic,
    /// On the card.
    Offload,
}

impl Network {
    /// The device of that name.
    #[must_use]
    pub fn interface_by_name(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The device of that index.
    #[must_use]
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The MAC addresses that a frame for this host carries when it comes in by a device: the device's own, and that of the bridge, bond
    /// or team that it is a port of, the topmost of several; its own twice without one. A port of a VRF routes, so it is addressed by its
    /// own MAC. 0 and 0 for the loopback device, for a device without a MAC, and for an unknown index.
    #[must_use]
    pub fn macs_on(&self, ifindex: u32) -> [u64; 2] {
        let mac_of = |index| self.interface(index).and_then(|interface| interface.mac);
        let own = mac_of(ifindex).unwrap_or(0);
        let top = self.switches_above(ifindex).last().copied().and_then(mac_of);
        [own, top.unwrap_or(own)]
    }

    /// The addresses that packets coming in by a device can be for.
    ///
    /// By the loopback device: all. By any other: all but the loopback ones (`127.0.0.0/8`, `::1`), and an IPv6 link-local one only by its
    /// own device and by those below that: the ports of a bridge, the parent of a VLAN. The host accepts a packet for any of its addresses
    /// on any device; an address stays its own while the device that it is configured on is down.
    #[must_use]
    pub fn local_addresses(&self, ifindex: u32) -> BTreeSet<IpAddr> {
        let by_loopback = self.interface(ifindex).is_some_and(|interface| interface.loopback);
        let above = self.above(ifindex);
        let reachable = |address: IpAddr, on: u32| match address {
            _ if by_loopback => true,
            IpAddr::V4(v4) => !v4.is_loopback(),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => above.contains(&on),
            IpAddr::V6(v6) => !v6.is_loopback(),
        };
        self.addresses.iter().filter(|(address, on)| reachable(*address, *on)).map(|(address, _)| *address).collect()
    }
}

/// Reads a kernel setting by its name in `sysctl`'s form (`net.ipv4.tcp_syncookies`), without its line end. None if the kernel does not
/// have it or does not show it. `net.*` settings are those of the calling thread's network namespace.
#[must_use]
pub fn sysctl(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(value.trim_end().to_owned())
}

/// Sets a kernel setting; see [`sysctl`].
pub fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
}

/// How often a SYN queue of the calling thread's network namespace was full: how many SYNs the kernel answered with cookies or dropped for
/// that (TCPReqQFullDoCookies and TCPReqQFullDrop). None if the kernel does not say.
#[must_use]
pub fn syn_queue_overflows() -> Option<u64> {
    let counters = tcp_counters()?;
    let overflows = counters.iter().filter(|(name, _)| matches!(name.as_str(), "TCPReqQFullDoCookies" | "TCPReqQFullDrop"));
    Some(overflows.map(|(_, value)| value).sum())
}

/// What TCP counts beyond the standard (`TcpExt`), by the kernel's names, in the network namespace of the calling thread.
pub fn tcp_counters() -> Option<Vec<(String, u64)>> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let counters = names.split(' ').zip(values.split(' '));
    Some(counters.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

#[cfg(test)]
mod tests;
