//! Reads devices and addresses through rtnetlink.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::Handle;

use super::{Attached, AttachedMode, Error, Interface, Network};

/// Opens an rtnetlink socket in the network namespace of the calling thread. It is served by a task of the current tokio runtime, which
/// ends when the last clone of the handle is gone.
pub fn connect() -> Result<Handle, Error> {
    let (connection, handle, _messages) =
        rtnetlink::new_connection().map_err(|source| Error::Socket { action: "open an rtnetlink socket", source })?;
    tokio::spawn(connection);
    Ok(handle)
}

impl Network {
    /// Lists the devices and addresses. A change meanwhile may be missed: a [`Watch`](super::watch::Watch) that was opened before reports
    /// it.
    pub async fn read(handle: &Handle) -> Result<Self, Error> {
        let request = |what| move |source| Error::Request { what, source };
        let links = handle.link().get().execute().try_collect::<Vec<_>>().await.map_err(request("the devices"))?;
        let addresses = handle.address().get().execute().try_collect::<Vec<_>>().await.map_err(request("the addresses"))?;
        let mut interfaces: Vec<Interface> = links.into_iter().filter_map(interface).collect();
        interfaces.sort_unstable_by_key(|interface| interface.index);
        Ok(Self { interfaces, addresses: addresses.iter().filter_map(address).collect() })
    }
}

/// A device from its message; none for a message without a name, which the kernel does not send.
pub(super) fn interface(message: LinkMessage) -> Option<Interface> {
    let LinkMessage { header, attributes, .. } = message;
    let (mut name, mut mac, mut master, mut link, mut kind, mut mtu, mut xdp) = (None, None, None, None, None, 0, None);
    let (mut parent_bus, mut parent_name, mut link_is_elsewhere) = (None, None, false);
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value),
            LinkAttribute::Address(value) => mac = mac_from(&value),
            LinkAttribute::Mtu(value) => mtu = value,
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => link = Some(index),
            LinkAttribute::LinkNetNsId(_) => link_is_elsewhere = true,
            LinkAttribute::ParentDevBusName(value) => parent_bus = Some(value),
            LinkAttribute::ParentDevName(value) => parent_name = Some(value),
            LinkAttribute::Xdp(attributes) => xdp = attached(&attributes),
            LinkAttribute::LinkInfo(info) => {
                kind = info.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None });
            }
            _ => {}
        }
    }
    // The "link" of a pair is its other end, and index 0 is none.
    let is_pair = matches!(kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
    let link = link.filter(|&index| index != 0 && index != header.index && !link_is_elsewhere && !is_pair);
    Some(Interface {
        index: header.index,
        name: name?,
        mac,
        master: master.filter(|&index| index != 0),
        link,
        kind,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu,
        parent: parent_bus.zip(parent_name),
        xdp,
    })
}

/// Six bytes as a number, the first the most significant.
fn mac_from(bytes: &[u8]) -> Option<u64> {
    let bytes: [u8; 6] = bytes.try_into().ok()?;
    Some(bytes.iter().fold(0, |mac, &byte| mac << 8 | u64::from(byte)))
}

pub(super) fn attached(attributes: &[LinkXdp]) -> Option<Attached> {
    let (mut any, mut driver, mut card, mut generic, mut mode) = (None, None, None, None, None);
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(value) => mode = Some(*value),
            LinkXdp::ProgId(id) => any = Some(*id),
            LinkXdp::DrvProgId(id) => driver = Some(*id),
            LinkXdp::SkbProgId(id) => generic = Some(*id),
            LinkXdp::HwProgId(id) => card = Some(*id),
            _ => {}
        }
    }
    let (id, mode) = match mode? {
        XdpAttached::Driver => (driver.or(any), AttachedMode::Native),
        XdpAttached::SocketBuffer => (generic.or(any), AttachedMode::Generic),
        XdpAttached::Hardware => (card.or(any), AttachedMode::Offload),
        XdpAttached::Multiple if driver.is_some() => (driver, AttachedMode::Native),
        XdpAttached::Multiple => (generic.or(card), AttachedMode::Generic),
        _ => return None,
    };
    Some(Attached { program_id: id?, mode })
}

/// An address and its device, if the kernel accepts packets for it.
pub(super) fn address(message: &AddressMessage) -> Option<(IpAddr, u32)> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut local, mut other) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // Only IPv6 has these states; IPv4 has other meanings for none of the three bits (if_addr.h). An optimistic address is still being
    // checked, and used already (RFC 4429).
    let unchecked = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if unchecked || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    // On a point-to-point link IFA_ADDRESS is the other end.
    Some((local.or(other)?, message.header.index))
}
