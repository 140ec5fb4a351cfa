//! The layers, and the methods that change the one added last.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Packet;

/// One layer, with the fields a test has overridden.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub shape: Shape,
    pub overrides: Overrides,
}

/// Fields that are computed unless they are given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrides {
    /// Ethertype, protocol or next header.
    pub next: Option<u16>,
    /// IPv4's total length, IPv6's payload length, UDP's length, an extension header's length.
    pub length: Option<u16>,
    pub checksum: Option<u16>,
    /// IPv4's header length or TCP's data offset, in words of 4 bytes.
    pub header_words: Option<u8>,
    pub version: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Shape {
    Ethernet {
        source: [u8; 6],
        destination: [u8; 6],
    },
    Vlan {
        tpid: u16,
        tci: u16,
    },
    /// `fragment` is the whole field: three flags, then the offset in units of 8 bytes.
    Ipv4 {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        options: Vec<u8>,
        tos: u8,
        identification: u16,
        fragment: u16,
        ttl: u8,
    },
    Ipv6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
        traffic_class: u8,
        flow_label: u32,
        hop_limit: u8,
    },
    /// `body` follows the two bytes of next header and length.
    Extension {
        kind: u8,
        length: u8,
        body: Vec<u8>,
    },
    Tcp {
        source: u16,
        destination: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        window: u16,
        urgent: u16,
        options: Vec<u8>,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: u32,
    },
    Raw(Vec<u8>),
}

impl Shape {
    pub(super) fn is_ip(&self) -> bool {
        matches!(self, Self::Ipv4 { .. } | Self::Ipv6 { .. })
    }

    /// The length of the header as it is written, whatever its fields say.
    pub(super) fn header_length(&self) -> usize {
        match self {
            Self::Ethernet { .. } => 14,
            Self::Vlan { .. } => 4,
            Self::Ipv4 { options, .. } | Self::Tcp { options, .. } => 20 + options.len(),
            Self::Ipv6 { .. } => 40,
            Self::Extension { body, .. } => 2 + body.len(),
            Self::Udp { .. } | Self::Icmp { .. } => 8,
            Self::Raw(bytes) => bytes.len(),
        }
    }
}

impl Layer {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, overrides: Overrides::default() }
    }
}

/// What several kinds of layer have.
impl Packet {
    /// Puts another ethertype, protocol or next header than the layer that follows has.
    pub fn next(mut self, value: u16) -> Self {
        self.last().overrides.next = Some(value);
        self
    }

    /// Puts a length that is not the true one: total length, payload length, UDP length, or an extension header's units.
    pub fn length(mut self, value: u16) -> Self {
        self.last().overrides.length = Some(value);
        self
    }

    /// Puts a checksum that need not be right.
    pub fn checksum(mut self, value: u16) -> Self {
        self.last().overrides.checksum = Some(value);
        self
    }

    /// Puts IPv4's header length, in words of 4 bytes, whatever the options are.
    pub fn header_words(mut self, value: u8) -> Self {
        self.last().overrides.header_words = Some(value);
        self
    }

    /// Puts TCP's data offset, in words of 4 bytes, whatever the options are.
    pub fn data_offset(self, value: u8) -> Self {
        self.header_words(value)
    }

    /// Puts another IP version.
    pub fn version(mut self, value: u8) -> Self {
        self.last().overrides.version = Some(value);
        self
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, value: u8) -> Self {
        match self.shape() {
            Shape::Ipv4 { ttl, .. } => *ttl = value,
            Shape::Ipv6 { hop_limit, .. } => *hop_limit = value,
            other => panic!("ttl() after {other:?}"),
        }
        self
    }

    /// TOS or traffic class.
    pub fn traffic_class(mut self, value: u8) -> Self {
        match self.shape() {
            Shape::Ipv4 { tos, .. } => *tos = value,
            Shape::Ipv6 { traffic_class, .. } => *traffic_class = value,
            other => panic!("traffic_class() after {other:?}"),
        }
        self
    }

    /// Raw options of IPv4 or TCP; a multiple of 4 bytes, or the header's length cannot say it.
    pub fn options(mut self, bytes: &[u8]) -> Self {
        match self.shape() {
            Shape::Ipv4 { options, .. } | Shape::Tcp { options, .. } => bytes.clone_into(options),
            other => panic!("options() after {other:?}"),
        }
        self
    }

    fn last(&mut self) -> &mut Layer {
        self.layers.last_mut().expect("a layer to change")
    }

    fn shape(&mut self) -> &mut Shape {
        &mut self.last().shape
    }
}

/// IPv4 and IPv6.
impl Packet {
    /// IPv4's identification.
    pub fn identification(mut self, value: u16) -> Self {
        let Shape::Ipv4 { identification, .. } = self.shape() else { panic!("identification() after something other than ipv4()") };
        *identification = value;
        self
    }

    /// Sets IPv4's DF.
    pub fn dont_fragment(mut self) -> Self {
        let Shape::Ipv4 { fragment, .. } = self.shape() else { panic!("dont_fragment() after something other than ipv4()") };
        *fragment |= 0x4000;
        self
    }

    /// Makes it an IPv4 fragment: the offset in units of 8 bytes, and whether more follow.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        let Shape::Ipv4 { fragment, .. } = self.shape() else { panic!("fragment() after something other than ipv4()") };
        *fragment = (u16::from(more) << 13) | offset;
        self
    }

    /// IPv6's flow label.
    pub fn flow_label(mut self, value: u32) -> Self {
        let Shape::Ipv6 { flow_label, .. } = self.shape() else { panic!("flow_label() after something other than ipv6()") };
        *flow_label = value;
        self
    }
}

/// TCP.
impl Packet {
    /// The flags, as the constants of this module or-ed together.
    pub fn flags(mut self, value: u8) -> Self {
        let Shape::Tcp { flags, .. } = self.shape() else { panic!("flags() after something other than tcp()") };
        *flags = value;
        self
    }

    /// Sequence number.
    pub fn sequence(mut self, value: u32) -> Self {
        let Shape::Tcp { sequence, .. } = self.shape() else { panic!("sequence() after something other than tcp()") };
        *sequence = value;
        self
    }

    /// Acknowledgement number.
    pub fn acknowledgement(mut self, value: u32) -> Self {
        let Shape::Tcp { acknowledgement, .. } = self.shape() else { panic!("acknowledgement() after something other than tcp()") };
        *acknowledgement = value;
        self
    }

    /// Window, unscaled.
    pub fn window(mut self, value: u16) -> Self {
        let Shape::Tcp { window, .. } = self.shape() else { panic!("window() after something other than tcp()") };
        *window = value;
        self
    }

    /// Urgent pointer.
    pub fn urgent(mut self, value: u16) -> Self {
        let Shape::Tcp { urgent, .. } = self.shape() else { panic!("urgent() after something other than tcp()") };
        *urgent = value;
        self
    }
}
