//! From layers to bytes: from the inside out, because lengths and checksums cover what is inside.

use std::net::IpAddr;

use super::checksum::{internet, with_pseudo_header};
use super::layer::{Layer, Shape};

/// Protocol number of no next header (RFC 8200, section 4.7), put where nothing follows an IPv6 header.
const NO_NEXT_HEADER: u8 = 59;

pub(super) fn bytes(layers: &[Layer]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (place, layer) in layers.iter().enumerate().rev() {
        let mut header = header(layers, place, &inner);
        header.append(&mut inner);
        inner = header;
        put_checksum(layers, place, layer, &mut inner);
    }
    inner
}

/// One header, its checksum still zero.
fn header(layers: &[Layer], place: usize, inner: &[u8]) -> Vec<u8> {
    let Layer { shape, overrides } = &layers[place];
    let follows = layers.get(place + 1).map(|layer| &layer.shape);
    let over_ipv6 = matches!(enclosing_ip(layers, place), Some((IpAddr::V6(_), _)));
    let ethertype = overrides.next.unwrap_or_else(|| follows.map_or(0, ethertype)).to_be_bytes();
    let protocol = |inside_ipv6| overrides.next.map_or_else(|| protocol(follows, inside_ipv6), low_byte);
    let length = |true_length: usize| overrides.length.unwrap_or_else(|| u16::try_from(true_length).unwrap_or(0)).to_be_bytes();
    let words = |options: &Vec<u8>| overrides.header_words.unwrap_or_else(|| low_byte(5 + options.len().div_ceil(4)));

    let mut bytes = Vec::new();
    match shape {
        Shape::Ethernet { source, destination } => {
            bytes.extend(destination);
            bytes.extend(source);
            // The tag's protocol number stands where the ethertype would.
            bytes.extend(ethertype);
        }
        Shape::Vlan { tci, .. } => {
            bytes.extend(tci.to_be_bytes());
            bytes.extend(ethertype);
        }
        Shape::Ipv4 { source, destination, options, tos, identification, fragment, ttl } => {
            bytes.extend([(overrides.version.unwrap_or(4) << 4) | words(options), *tos]);
            bytes.extend(length(shape.header_length() + inner.len()));
            bytes.extend(identification.to_be_bytes());
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([*ttl, protocol(false), 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(options);
        }
        Shape::Ipv6 { source, destination, traffic_class, flow_label, hop_limit } => {
            let first = (u32::from(overrides.version.unwrap_or(6)) << 28) | (u32::from(*traffic_class) << 20) | flow_label;
            bytes.extend(first.to_be_bytes());
            bytes.extend(length(inner.len()));
            bytes.extend([protocol(true), *hop_limit]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        Shape::Extension { length, body, .. } => {
            bytes.extend([protocol(over_ipv6), overrides.length.map_or(*length, low_byte)]);
            bytes.extend(body);
        }
        Shape::Tcp { source, destination, sequence, acknowledgement, flags, window, urgent, options } => {
            bytes.extend(source.to_be_bytes());
            bytes.extend(destination.to_be_bytes());
            bytes.extend(sequence.to_be_bytes());
            bytes.extend(acknowledgement.to_be_bytes());
            bytes.extend([words(options) << 4, *flags]);
            bytes.extend(window.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(urgent.to_be_bytes());
            bytes.extend(options);
        }
        Shape::Udp { source, destination } => {
            bytes.extend(source.to_be_bytes());
            bytes.extend(destination.to_be_bytes());
            bytes.extend(length(8 + inner.len()));
            bytes.extend([0, 0]);
        }
        Shape::Icmp { kind, code, rest } => {
            bytes.extend([*kind, *code, 0, 0]);
            bytes.extend(rest.to_be_bytes());
        }
        Shape::Raw(raw) => bytes.extend(raw),
    }
    bytes
}

/// Writes the checksum of the layer at `place` into `bytes`, which begin with it.
fn put_checksum(layers: &[Layer], place: usize, layer: &Layer, bytes: &mut [u8]) {
    let enclosing = enclosing_ip(layers, place);
    let pseudo =
        |protocol, bytes: &[u8]| enclosing.map_or(0, |(source, destination)| with_pseudo_header(source, destination, protocol, bytes));
    let (at, computed) = match &layer.shape {
        Shape::Ipv4 { .. } => (10, internet(&bytes[..layer.shape.header_length()])),
        Shape::Tcp { .. } => (16, pseudo(6, bytes)),
        // 0 says "no checksum" (RFC 768), so a sum of 0 is sent as its other form.
        Shape::Udp { .. } => (6, Some(pseudo(17, bytes)).filter(|sum| *sum != 0).unwrap_or(0xffff)),
        Shape::Icmp { .. } if matches!(enclosing, Some((IpAddr::V6(_), _))) => (2, pseudo(58, bytes)),
        Shape::Icmp { .. } => (2, internet(bytes)),
        _ => return,
    };
    let checksum = layer.overrides.checksum.unwrap_or(computed);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Source and destination of the nearest IP header outside `place`.
fn enclosing_ip(layers: &[Layer], place: usize) -> Option<(IpAddr, IpAddr)> {
    layers[..place].iter().rev().find_map(|layer| match layer.shape {
        Shape::Ipv4 { source, destination, .. } => Some((source.into(), destination.into())),
        Shape::Ipv6 { source, destination, .. } => Some((source.into(), destination.into())),
        _ => None,
    })
}

fn ethertype(follows: &Shape) -> u16 {
    match follows {
        Shape::Vlan { tpid, .. } => *tpid,
        Shape::Ipv4 { .. } => 0x0800,
        Shape::Ipv6 { .. } => 0x86dd,
        // Local experimental (IEEE 802): nobody's protocol.
        _ => 0x88b5,
    }
}

fn protocol(follows: Option<&Shape>, inside_ipv6: bool) -> u8 {
    match follows {
        Some(Shape::Ipv4 { .. }) => 4,
        Some(Shape::Ipv6 { .. }) => 41,
        Some(Shape::Extension { kind, .. }) => *kind,
        Some(Shape::Tcp { .. }) => 6,
        Some(Shape::Udp { .. }) => 17,
        Some(Shape::Icmp { .. }) if inside_ipv6 => 58,
        Some(Shape::Icmp { .. }) => 1,
        None if inside_ipv6 => NO_NEXT_HEADER,
        // RFC 3692: for experiments and tests.
        _ => 253,
    }
}

/// Fields of one byte and less, from wherever they were counted.
fn low_byte(value: impl TryInto<u8>) -> u8 {
    value.try_into().unwrap_or_else(|_| panic!("a field of one byte"))
}
