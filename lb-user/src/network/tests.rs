//! The questions to a picture, on pictures made by hand; and the reading of messages.
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};

use super::*;

fn device(index: u32, name: &str, mac: u64) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        mac: Some(mac),
        master: None,
        link: None,
        kind: None,
        up: true,
        loopback: false,
        mtu: 1500,
        parent: None,
        xdp: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// lo, eth0, eth1 (a port of br0), br0, br0.7 (a VLAN), eth2 (a port of bond0, itself a port of br1), a VRF with eth3, a tun device.
fn host() -> Network {
    let kind = |mut made: Interface, kind: &str| {
        made.kind = Some(kind.to_owned());
        made
    };
    let port = |mut made: Interface, master| {
        made.master = Some(master);
        made
    };
    let interfaces = vec![
        Interface { loopback: true, ..device(1, "lo", 0) },
        device(2, "eth0", 0xa2),
        port(device(3, "eth1", 0xa3), 4),
        kind(device(4, "br0", 0xb4), "bridge"),
        Interface { link: Some(4), ..kind(device(5, "br0.7", 0xb4), "vlan") },
        port(device(6, "eth2", 0xa6), 7),
        port(kind(device(7, "bond0", 0xa6), "bond"), 8),
        kind(device(8, "br1", 0xb8), "bridge"),
        port(device(9, "eth3", 0xa9), 10),
        kind(device(10, "blue", 0xc0), "vrf"),
        Interface { mac: None, ..kind(device(11, "tun0", 0), "tun") },
        Interface { up: false, ..device(12, "eth4", 0xac) },
    ];
    let addresses = [
        ("127.0.0.1", 1),
        ("::1", 1),
        ("192.0.2.2", 1),
        ("192.0.2.1", 2),
        ("fe80::2", 2),
        ("198.51.100.4", 4),
        ("fe80::4", 4),
        ("fe80::5", 5),
        ("2001:db8::5", 5),
        ("203.0.113.12", 12),
    ];
    Network { interfaces, addresses: addresses.into_iter().map(|(address, on)| (ip(address), on)).collect() }
}

#[test]
fn a_frame_for_this_host_carries_the_own_mac_or_that_of_the_topmost_switch() {
    let host = host();
    assert_eq!(host.macs_on(2), [0xa2, 0xa2]);
    assert_eq!(host.macs_on(3), [0xa3, 0xb4], "a port of a bridge");
    assert_eq!(host.macs_on(6), [0xa6, 0xb8], "a port of a bond that is a port of a bridge");
    assert_eq!(host.macs_on(9), [0xa9, 0xa9], "a VRF routes: its own MAC is never in a frame");
    assert_eq!(host.macs_on(1), [0, 0], "loopback");
    assert_eq!(host.macs_on(11), [0, 0], "a device without a MAC");
    assert_eq!(host.macs_on(99), [0, 0], "no such device");
}

#[test]
fn a_circle_of_masters_is_not_walked_for_ever() {
    let mut host = host();
    host.interfaces[7].master = Some(7);
    assert_eq!(host.macs_on(6)[0], 0xa6);
    assert!(host.above(6).contains(&8));
}

#[test]
fn any_device_brings_packets_for_the_addresses_of_all_but_loopback_and_link_local_ones() {
    let host = host();
    let by_eth0 = host.local_addresses(2);
    let expected = ["192.0.2.1", "192.0.2.2", "198.51.100.4", "203.0.113.12", "2001:db8::5", "fe80::2"];
    assert_eq!(by_eth0, expected.into_iter().map(ip).collect(), "with that of eth4, which is down");
}

#[test]
fn a_link_local_address_is_reached_by_its_own_device_and_by_those_below() {
    let host = host();
    let link_local = |index| host.local_addresses(index).into_iter().filter(|address| address.to_string().starts_with("fe80")).collect();
    let addresses = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect::<Vec<_>>();
    let by: fn(Vec<IpAddr>) -> Vec<IpAddr> = |found| found;
    assert_eq!(by(link_local(3)), addresses(&["fe80::4", "fe80::5"]), "by a port: the bridge's, and that of the VLAN over it");
    assert_eq!(by(link_local(4)), addresses(&["fe80::4", "fe80::5"]));
    assert_eq!(by(link_local(5)), addresses(&["fe80::5"]));
    assert_eq!(by(link_local(9)), addresses(&[]));
}

#[test]
fn the_loopback_device_brings_packets_for_every_address() {
    let host = host();
    let by_loopback = host.local_addresses(1);
    assert_eq!(by_loopback, host.addresses.iter().map(|(address, _)| *address).collect());
}

#[test]
fn devices_are_found_by_name_and_index() {
    let host = host();
    assert_eq!(host.interface_by_name("br0.7").map(|found| found.index), Some(5));
    assert_eq!(host.interface(5).map(|found| found.name.as_str()), Some("br0.7"));
    assert_eq!((host.interface_by_name("eth9"), host.interface(0)), (None, None));
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.attributes = attributes;
    message
}

#[test]
fn a_device_is_read_from_its_message() {
    let read = read::interface(message(
        5,
        vec![
            LinkAttribute::IfName("eth0.7".to_owned()),
            LinkAttribute::Address(vec![0x02, 0, 0, 0, 0xab, 0xcd]),
            LinkAttribute::Link(2),
            LinkAttribute::Controller(4),
            LinkAttribute::Mtu(9000),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]),
            LinkAttribute::ParentDevName("virtio1".to_owned()),
            LinkAttribute::ParentDevBusName("virtio".to_owned()),
            LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(77), LinkXdp::SkbProgId(77)]),
        ],
    ));
    let expected = Interface {
        master: Some(4),
        link: Some(2),
        kind: Some("vlan".to_owned()),
        mtu: 9000,
        parent: Some(("virtio".to_owned(), "virtio1".to_owned())),
        xdp: Some(Attached { program_id: 77, mode: AttachedMode::Generic }),
        ..device(5, "eth0.7", 0x0200_0000_abcd)
    };
    assert_eq!(read, Some(expected));
}

#[test]
fn the_other_end_of_a_pair_and_a_device_of_another_namespace_are_not_below() {
    let name = || LinkAttribute::IfName("x".to_owned());
    let veth =
        read::interface(message(5, vec![name(), LinkAttribute::Link(6), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])]));
    assert_eq!(veth.unwrap().link, None);
    let moved = read::interface(message(5, vec![name(), LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(0)]));
    assert_eq!(moved.unwrap().link, None);
    assert_eq!(read::interface(message(5, vec![])), None, "a message without a name");
}

#[test]
fn the_program_and_mode_are_those_of_the_driver_when_a_card_has_one_too() {
    let xdp = |attributes| {
        let made = read::interface(message(5, vec![LinkAttribute::IfName("x".to_owned()), LinkAttribute::Xdp(attributes)]));
        made.unwrap().xdp.map(|xdp| (xdp.program_id, xdp.mode))
    };
    assert_eq!(xdp(vec![LinkXdp::Attached(XdpAttached::None)]), None);
    assert_eq!(xdp(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(3)]), Some((3, AttachedMode::Native)));
    let both = vec![LinkXdp::Attached(XdpAttached::Multiple), LinkXdp::DrvProgId(3), LinkXdp::HwProgId(4)];
    assert_eq!(xdp(both), Some((3, AttachedMode::Native)));
    assert_eq!(xdp(vec![LinkXdp::Attached(XdpAttached::Hardware), LinkXdp::HwProgId(4)]), Some((4, AttachedMode::Offload)));
}

#[test]
fn an_address_is_the_local_end_and_left_out_while_it_is_not_usable() {
    let read = |attributes: Vec<AddressAttribute>| {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.attributes = attributes;
        read::address(&message)
    };
    let (own, peer) = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(read(vec![AddressAttribute::Address(peer), AddressAttribute::Local(own)]), Some((own, 7)), "a point-to-point link");
    let v6 = || AddressAttribute::Address(ip("2001:db8::1"));
    assert_eq!(read(vec![v6(), AddressAttribute::Flags(AddressFlags::Permanent)]), Some((ip("2001:db8::1"), 7)));
    assert_eq!(read(vec![v6(), AddressAttribute::Flags(AddressFlags::Tentative)]), None);
    assert_eq!(read(vec![v6(), AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Dadfailed)]), None);
    let optimistic = AddressFlags::Tentative | AddressFlags::Optimistic;
    assert_eq!(read(vec![v6(), AddressAttribute::Flags(optimistic)]), Some((ip("2001:db8::1"), 7)), "used while it is checked");
}

#[test]
fn a_setting_is_read_by_its_name() {
    assert_eq!(sysctl("kernel.ostype").as_deref(), Some("Linux"));
    assert_eq!(sysctl("kernel.no_such_setting"), None);
}
