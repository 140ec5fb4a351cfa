//! What a network device and its driver say of themselves: XDP, offloads, the driver's name.
//!
//! XDP support comes from the generic netlink family `netdev` (Linux 6.3, `Documentation/netlink/specs/netdev.yaml`), offloads from
//! `ethtool` (5.6, `include/uapi/linux/ethtool_netlink.h`). The driver's name and the features that a hypervisor offers are in the part
//! of sysfs that lists buses, which is the same in every network namespace.

use std::{fs, path::PathBuf};

use super::{
    Error, Interface,
    genetlink::{Family, all, attribute, find, nested},
};

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_RX_SG: u64 = 32;

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
/// `large-receive-offload` of `ethtool -k`, by the kernel's own name.
const LRO: &[u8] = b"rx-lro\0";

/// virtio-net's driver can turn off what the host does to received packets. Section 5.1.3 of the virtio specification 1.2.
const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: u32 = 2;
/// What the host may do to received packets and XDP cannot live with: GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_UFO,
/// GUEST_USO4, GUEST_USO6 (`guest_offloads` in `drivers/net/virtio_net.c`).
const VIRTIO_NET_GUEST_OFFLOADS: [u32; 7] = [1, 7, 8, 9, 10, 54, 55];

/// What is known of a device beyond what [`Interface`] has. A field is none where this kernel does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// The driver's name, as `virtio_net`; none for virtual devices.
    pub driver: Option<String>,
    /// What the driver can do with XDP.
    pub xdp: Option<XdpSupport>,
    /// Large receive offload: the card joins packets before XDP sees them.
    pub lro: Option<Offload>,
    /// Whether the hypervisor joins or half-checks packets and the driver cannot stop it, so that it refuses native XDP.
    pub host_offloads_fixed: bool,
}

/// What a driver can do with XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpSupport {
    /// Whether the driver runs programs itself.
    pub native: bool,
    /// Whether its programs may see packets of several fragments: frames above a page, and joined ones.
    pub fragments: bool,
}

/// The state of one offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Whether it is on.
    pub on: bool,
    /// Whether it can be changed.
    pub changeable: bool,
}

impl Card {
    /// Asks for all that is known of a device.
    pub fn read(interface: &Interface) -> Result<Self, Error> {
        let mut card = Self { xdp: xdp_support(interface.index)?, lro: lro(interface.index)?, ..Self::default() };
        if let Some((bus, name)) = &interface.parent {
            let device = PathBuf::from(format!("/sys/bus/{bus}/devices/{name}"));
            let driver = fs::read_link(device.join("driver")).ok();
            card.driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
            if card.driver.as_deref() == Some("virtio_net") {
                let features = fs::read_to_string(device.join("features")).unwrap_or_default();
                card.host_offloads_fixed = host_offloads_fixed(&features);
            }
        }
        Ok(card)
    }
}

fn xdp_support(index: u32) -> Result<Option<XdpSupport>, Error> {
    let Some(family) = Family::open("netdev")? else { return Ok(None) };
    let reply = family.ask(NETDEV_CMD_DEV_GET, &attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes()))?;
    let bits = find(&reply, NETDEV_A_DEV_XDP_FEATURES).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes);
    let bits = bits.ok_or(Error::Malformed { family: "netdev" })?;
    Ok(Some(XdpSupport { native: bits & NETDEV_XDP_ACT_BASIC != 0, fragments: bits & NETDEV_XDP_ACT_RX_SG != 0 }))
}

fn lro(index: u32) -> Result<Option<Offload>, Error> {
    let Some(family) = Family::open("ethtool")? else { return Ok(None) };
    let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &index.to_ne_bytes());
    let reply = match family.ask(ETHTOOL_MSG_FEATURES_GET, &nested(ETHTOOL_A_FEATURES_HEADER, &device)) {
        Err(Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
        other => other?,
    };
    Ok(offload(&reply, LRO))
}

/// One offload out of a reply. The set of what is on has no mask and lists only set bits; the set of what can be changed has the changeable
/// ones as set bits and all that are supported at all as its mask.
fn offload(reply: &[u8], name: &[u8]) -> Option<Offload> {
    let bit = |set: u16| {
        let bits = find(reply, set).and_then(|set| find(set, ETHTOOL_A_BITSET_BITS)).unwrap_or_default();
        all(bits, ETHTOOL_A_BITSET_BITS_BIT).find(|bit| find(bit, ETHTOOL_A_BITSET_BIT_NAME) == Some(name))
    };
    find(reply, ETHTOOL_A_FEATURES_ACTIVE)?;
    let changeable = bit(ETHTOOL_A_FEATURES_HW).is_some_and(|bit| find(bit, ETHTOOL_A_BITSET_BIT_VALUE).is_some());
    Some(Offload { on: bit(ETHTOOL_A_FEATURES_ACTIVE).is_some(), changeable })
}

/// `features` is sysfs's form of the features that device and driver agreed on: one character each, the lowest first.
fn host_offloads_fixed(features: &str) -> bool {
    let has = |bit: u32| features.as_bytes().get(bit as usize) == Some(&b'1');
    !has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) && VIRTIO_NET_GUEST_OFFLOADS.into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(name: &[u8], on: bool) -> Vec<u8> {
        let value = if on { attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]) } else { Vec::new() };
        nested(ETHTOOL_A_BITSET_BITS_BIT, &[attribute(1, &0_u32.to_ne_bytes()), attribute(ETHTOOL_A_BITSET_BIT_NAME, name), value].concat())
    }

    #[test]
    fn an_offload_is_on_when_it_is_listed_and_changeable_when_its_bit_is_set() {
        let set = |kind, bits: &[Vec<u8>]| nested(kind, &nested(ETHTOOL_A_BITSET_BITS, &bits.concat()));
        let other = bit(b"rx-gro\0", true);
        let changeable = set(ETHTOOL_A_FEATURES_HW, &[other.clone(), bit(LRO, true)]);
        let fixed = set(ETHTOOL_A_FEATURES_HW, &[other.clone(), bit(LRO, false)]);
        let on = set(ETHTOOL_A_FEATURES_ACTIVE, &[other.clone(), bit(LRO, true)]);
        let off = set(ETHTOOL_A_FEATURES_ACTIVE, &[other]);
        let state = |sets: [&Vec<u8>; 2]| offload(&sets.map(Clone::clone).concat(), LRO).map(|found| (found.on, found.changeable));
        assert_eq!(state([&changeable, &on]), Some((true, true)));
        assert_eq!(state([&changeable, &off]), Some((false, true)));
        assert_eq!(state([&fixed, &on]), Some((true, false)));
        assert_eq!(offload(&fixed, LRO), None, "a reply that does not say what is on");
    }

    #[test]
    fn a_driver_that_may_turn_the_hosts_offloads_off_is_no_obstacle() {
        let features = |bits: &[usize]| (0..128).map(|bit| if bits.contains(&bit) { '1' } else { '0' }).collect::<String>();
        assert!(host_offloads_fixed(&features(&[0, 1, 5, 7])), "checksums and joined TCP, for ever");
        assert!(host_offloads_fixed(&features(&[55])));
        assert!(!host_offloads_fixed(&features(&[0, 1, 2, 7])), "it can turn them off");
        assert!(!host_offloads_fixed(&features(&[0, 5, 11])), "there are none");
        assert!(!host_offloads_fixed(""), "nothing is known");
    }

    #[test]
    fn the_loopback_device_runs_no_program_in_its_driver() {
        let support = xdp_support(1).unwrap();
        assert_ne!(support.map(|support| support.native), Some(true));
        let lro = lro(1).unwrap().expect("every kernel since 5.6 says");
        assert_eq!(lro, Offload { on: false, changeable: false });
    }
}
