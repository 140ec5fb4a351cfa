//! Random segments, written byte by byte: a million of them take no time. Their checksums are wrong, which no program looks at.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{
    Address, FlowKey,
    cookie::{self, Agreement},
    wire::protocol::{TCP, UDP},
};

use crate::{
    dataplane::{
        defended::{CALM, EMPTIED, FLOODED, KEYS, LIMITED, LINGERING, LOCAL, METERED, RISING, UNBALANCED, port},
        ground::{CLOSED_PORT, CONNECTED_PORT},
        harness::DataPlane,
        world::{CLIENT, CLIENT6, NEW_PORT, SECOND_SERVER, SECOND_SERVER6, SERVER, SERVER6},
    },
    support::packet::{ACK, CLIENT_MAC, CWR, ECE, FIN, PSH, RST, SERVER_MAC, SYN},
};

/// How many flows there are besides those of connections.
const FLOWS: usize = 120;

/// SplitMix64 (Steele, Lea and Flood, 2014), and the flows that it draws from.
pub struct Generator {
    pub seed: u64,
    state: u64,
    flows: Vec<FlowKey>,
}

/// A segment before it is bytes.
struct Draft {
    flow: FlowKey,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    options: Vec<u8>,
    data: usize,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed, flows: flows() }
    }

    /// The flows whose segments are right: those that may be known.
    pub fn flows(&self) -> &[FlowKey] {
        &self.flows
    }

    /// The next frame.
    pub fn frame(&mut self) -> Vec<u8> {
        let flow = self.flow();
        let draft = match self.below(20) {
            0..=6 => self.syn(flow),
            // Not of an odd source: what it would make known has no place of its own.
            7..=12 => {
                let flow = self.any_flow();
                self.cookie(flow)
            }
            13 => Draft { flags: self.byte(), ..self.stray(flow) },
            _ => self.stray(flow),
        };
        let mut frame = self.bytes(&draft);
        if self.below(8) == 0 {
            self.change(&mut frame);
        }
        frame
    }

    fn any_flow(&mut self) -> FlowKey {
        let at = self.below(self.flows.len());
        self.flows[at]
    }

    /// A flow whose source is odd now and then.
    fn flow(&mut self) -> FlowKey {
        let mut flow = self.any_flow();
        if self.below(16) == 0 {
            let v4 = [
                Ipv4Addr::LOCALHOST,
                Ipv4Addr::BROADCAST,
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::new(224, 0, 0, 5),
                Ipv4Addr::new(250, 1, 1, 1),
                Ipv4Addr::new(223, 255, 255, 255),
                Ipv4Addr::new(1, 0, 0, 0),
                Ipv4Addr::new(203, 0, 113, 9),
                Ipv4Addr::new(203, 0, 113, 129),
                SERVER,
                SECOND_SERVER,
            ];
            let v6 = [
                Ipv6Addr::LOCALHOST,
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 9, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 1),
                SERVER6,
                SECOND_SERVER6,
            ];
            let source: IpAddr = if flow.source.is_ipv4() { v4[self.below(v4.len())].into() } else { v6[self.below(v6.len())].into() };
            flow.source = source.into();
        }
        flow
    }

    fn syn(&mut self, flow: FlowKey) -> Draft {
        let data = if self.below(8) == 0 { self.below(40) } else { 0 };
        let ecn = if self.below(4) == 0 { [ECE | CWR, ECE, CWR, PSH][self.below(4)] } else { 0 };
        Draft { flow, sequence: self.number(), acknowledged: 0, flags: SYN | ecn, options: self.options(), data }
    }

    /// Options in any order, padded in front or behind or not at all, mostly sound.
    fn options(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.below(7) {
            let number = self.number().to_be_bytes();
            let option: &[u8] = match self.below(16) {
                0..=3 => &[2, 4, [0, 2, 4, 5, 5, 0x23, 0xff][self.below(7)], number[0]],
                4..=6 => &[3, 3, number[0] % 16],
                7 | 8 => &[4, 2],
                9..=11 => &[&[8, 10][..], &number, &[0; 4]].concat(),
                12 => &[1, 1],
                13 => &[[30, 4, number[0], 1], [34, 4, 1, 2], [29, 4, 1, 1], [19, 4, 1, 1], [254, 4, 1, 1]][self.below(5)],
                14 => &[34, 2],
                _ => &number[..self.below(5)],
            };
            if bytes.len() + option.len() <= 40 {
                bytes.extend_from_slice(option);
            }
            if self.below(3) == 0 && bytes.len() < 40 {
                bytes.push(1);
            }
        }
        let fill = u8::from(self.below(2) == 0);
        bytes.resize(bytes.len().next_multiple_of(4), fill);
        bytes
    }

    /// A segment that brings a cookie back: right, nearly right, or another flow's.
    fn cookie(&mut self, flow: FlowKey) -> Draft {
        let agreed = Agreement {
            maximum_segment_size: if flow.source.is_ipv4() { [536, 1300, 1400, 1460, 8960] } else { [1220, 1360, 1400, 1440, 8940] }
                [self.below(5)],
            window_scale: [None, Some(0), Some(2), Some(7), Some(8), Some(14)][self.below(6)],
            selective_acknowledgement: self.below(2) == 0,
            congestion_notification: self.below(4) == 0,
            timestamps: self.below(2) == 0,
        };
        let (sequence, parity) = (self.number(), u32::from(self.below(3) != 0));
        let of = if self.below(12) == 0 { self.any_flow() } else { flow };
        let key = KEYS[usize::from((parity == 1) != (self.below(24) == 0))];
        let (cookie, _) = cookie::make(key, parity, &of, sequence, &agreed);
        let (mut numbers, value) = ([sequence, cookie.sequence, cookie.timestamp], self.number());
        if self.below(3) == 0 {
            numbers[self.below(3)] ^= 1 << self.below(32);
        }
        let [sequence, acknowledged, echoed] = numbers;
        let timestamps = [&[8, 10][..], &value.to_be_bytes(), &echoed.to_be_bytes()].concat();
        let options = match (agreed.timestamps != (self.below(24) == 0), self.below(4)) {
            (false, _) => Vec::new(),
            (true, 0) => [&timestamps, &[0, 0][..]].concat(),
            (true, 1) => [&[1, 1], &timestamps[..], &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat(),
            (true, _) => [&[1, 1], &timestamps[..]].concat(),
        };
        let flags = ACK | [0, 0, PSH, FIN][self.below(4)];
        let data = if self.below(3) == 0 { self.below(60) } else { 0 };
        Draft { flow, sequence: sequence.wrapping_add(1), acknowledged: acknowledged.wrapping_add(1), flags, options, data }
    }

    fn stray(&mut self, flow: FlowKey) -> Draft {
        let flags = [ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, SYN | ACK, SYN | FIN, SYN | RST, 0, FIN | PSH, SYN][self.below(11)];
        let (sequence, acknowledged, data) = (self.number(), self.number(), self.below(30));
        Draft { flow, sequence, acknowledged, flags, options: Vec::new(), data }
    }

    /// The frame: in a VLAN or two, behind IP options or extension headers, or a first fragment, now and then.
    fn bytes(&mut self, draft: &Draft) -> Vec<u8> {
        let Draft { flow, .. } = draft;
        let is_ipv4 = flow.source.is_ipv4();
        let mut frame = [&SERVER_MAC[..], &CLIENT_MAC].concat();
        for _ in 0..[0, 0, 0, 0, 0, 0, 1, 2][self.below(8)] {
            frame.extend([0x81, 0, 0, 7]);
        }
        let upper = self.upper(draft);
        let protocol = flow.protocol_number();
        let odd = self.below(16);
        if is_ipv4 {
            let options = if odd == 0 { 4 * self.below(11) } else { 0 };
            let length = u16::try_from(20 + options + upper.len()).expect("a short packet");
            let fragment = if odd == 1 { 0x20 } else { 0 };
            frame.extend([8, 0, 0x45 + u8::try_from(options / 4).expect("10 words"), 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([0, 1, fragment, 0, 64, protocol, 0, 0]);
            frame.extend(&flow.source.bytes()[12..]);
            frame.extend(&flow.destination.bytes()[12..]);
            frame.extend(vec![1; options]);
        } else {
            let extension: &[u8] = match odd {
                0 => &[protocol, 0, 1, 4, 0, 0, 0, 0],
                1 => &[protocol, 0, 0, 1, 0, 0, 0, 9],
                _ => &[],
            };
            let length = u16::try_from(extension.len() + upper.len()).expect("a short packet");
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([if odd < 2 { [60, 44][odd] } else { protocol }, 64]);
            frame.extend(flow.source.bytes());
            frame.extend(flow.destination.bytes());
            frame.extend(extension);
        }
        frame.extend(upper);
        // As Ethernet pads short frames.
        if self.below(2) == 0 && frame.len() < 60 {
            frame.resize(60, 0x5a);
        }
        frame
    }

    fn upper(&mut self, draft: &Draft) -> Vec<u8> {
        let Draft { flow, sequence, acknowledged, flags, options, data } = draft;
        let mut bytes = [flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes()].concat();
        if flow.protocol_number() == UDP {
            bytes.extend([0, 28, 0, 0]);
            bytes.resize(28, 0);
            return bytes;
        }
        let words = 5 + u8::try_from(options.len() / 4).expect("10 words");
        let words = if self.below(64) == 0 { self.byte() >> 4 } else { words };
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(acknowledged.to_be_bytes());
        bytes.extend([words << 4, *flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.resize(bytes.len() + data, 0x5a);
        bytes
    }

    /// A bit turned, a byte exchanged, the end cut off.
    fn change(&mut self, frame: &mut Vec<u8>) {
        let at = self.below(frame.len());
        match self.below(4) {
            0 => frame.truncate(at.max(14)),
            1 => frame[at] = self.byte(),
            _ => frame[at] ^= 1 << self.below(8),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.word() >> 33).expect("31 bits") % bound
    }

    fn byte(&mut self) -> u8 {
        self.word().to_le_bytes()[0]
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.word() >> 32).expect("32 bits")
    }

    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// The flows: those of connections, and others, each of which has a place of its own in the table of known flows. The model knows nothing of
/// places, where one flow would put out another.
fn flows() -> Vec<FlowKey> {
    let families: [(IpAddr, IpAddr); 2] = [(CLIENT.into(), SERVER.into()), (CLIENT6.into(), SERVER6.into())];
    let services = FLOODED..=EMPTIED;
    let protocol = |service| if service == METERED { UDP } else { TCP };
    let flow = |(client, server): (IpAddr, IpAddr), source_port, service| {
        FlowKey::new(Address::from(client), source_port, Address::from(server), port(service), protocol(service))
    };
    let connections = services.clone().filter(|service| *service != METERED).flat_map(|service| {
        families.into_iter().flat_map(move |family| [CONNECTED_PORT, CLOSED_PORT].map(|source_port| flow(family, source_port, service)))
    });
    let connections: Vec<_> = connections.collect();
    // Half of all is of the service where most happens.
    let weighted =
        [FLOODED, FLOODED, FLOODED, FLOODED, FLOODED, LINGERING, UNBALANCED, CALM, LIMITED, LOCAL, METERED].into_iter().chain(services);
    let weighted: Vec<_> = weighted.filter(|service| *service != RISING).collect();
    let others = (0_u16..).zip(weighted.iter().cycle()).map(|(number, service)| {
        let (client, server) = families[usize::from(number / 32 % 2)];
        let client: IpAddr = match client {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + u32::from(number % 3)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + u128::from(number % 3)).into(),
        };
        flow((client, server), NEW_PORT + number % 500, *service)
    });
    let mut places = HashSet::new();
    let mut has_own_place = |flow: &FlowKey| places.insert(DataPlane::place(flow).slot);
    let apart: Vec<_> = connections.iter().filter(|flow| has_own_place(flow)).copied().collect();
    assert_eq!(apart.len(), connections.len(), "two connections of the test have one place: take another key");
    apart.into_iter().chain(others.filter(|flow| has_own_place(flow)).take(FLOWS)).collect()
}
