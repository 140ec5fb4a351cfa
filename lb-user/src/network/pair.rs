//! The other end of a veth pair, which may be in another network namespace.
//!
//! A frame that XDP sends back by a veth in native mode reaches the other end only if that has an XDP program of its own: the receiver's
//! ring is emptied by its NAPI, which is woken for such frames only while a program is attached (`veth_xdp_flush`, drivers/net/veth.c).

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{AttachedMode, Error, exchange, read};

const FAMILY: &str = "route";

/// Whether the other end of the pair runs an XDP program in its driver. An error where that cannot be seen.
pub fn other_end_runs_program(index: u32) -> Result<bool, Error> {
    let socket = exchange::open(NETLINK_ROUTE)?;
    let (other, namespace) = other_end(&device(&socket, index, None)?).ok_or(Error::Malformed { family: FAMILY })?;
    Ok(runs_program(&device(&socket, other, namespace)?))
}

/// One device by its index, in the namespace that has this number in ours.
fn device(socket: &Socket, index: u32, namespace: Option<i32>) -> Result<LinkMessage, Error> {
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Unspec;
    request.header.index = index;
    // IFLA_TARGET_NETNSID is the later name of the same number.
    request.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(request));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let reply = exchange::exchange(socket, &bytes, FAMILY)?;
    LinkMessage::parse(reply.as_slice()).map_err(|_| Error::Malformed { family: FAMILY })
}

/// The index of a pair's other end, and the number of its namespace if that is not this one.
fn other_end(message: &LinkMessage) -> Option<(u32, Option<i32>)> {
    let (mut other, mut namespace) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::LinkNetNsId(number) => namespace = Some(*number),
            _ => {}
        }
    }
    Some((other.filter(|&index| index != 0)?, namespace))
}

fn runs_program(message: &LinkMessage) -> bool {
    let xdp = message.attributes.iter().find_map(|attribute| if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None });
    xdp.and_then(|xdp| read::attached(xdp)).is_some_and(|attached| attached.mode == AttachedMode::Native)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkXdp, XdpAttached};

    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        message
    }

    #[test]
    fn the_other_end_has_an_index_and_may_have_a_namespace() {
        assert_eq!(other_end(&message(vec![LinkAttribute::Link(7)])), Some((7, None)));
        assert_eq!(other_end(&message(vec![LinkAttribute::Link(7), LinkAttribute::LinkNetNsId(3)])), Some((7, Some(3))));
        assert_eq!(other_end(&message(vec![LinkAttribute::Link(0)])), None);
        assert_eq!(other_end(&message(Vec::new())), None);
    }

    #[test]
    fn only_a_program_in_the_driver_counts() {
        let runs = |xdp| runs_program(&message(vec![LinkAttribute::Xdp(xdp)]));
        assert!(runs(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(3)]));
        assert!(!runs(vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(3)]));
        assert!(!runs(vec![LinkXdp::Attached(XdpAttached::None)]));
        assert!(!runs_program(&message(Vec::new())));
    }

    #[test]
    fn a_device_is_asked_for_and_read() {
        let socket = exchange::open(NETLINK_ROUTE).unwrap();
        let loopback = device(&socket, 1, None).unwrap();
        assert_eq!(loopback.header.index, 1);
        assert!(matches!(device(&socket, u32::MAX / 2, None), Err(Error::Refused { .. })));
        assert!(other_end_runs_program(1).is_err(), "the loopback device has no other end");
    }
}
