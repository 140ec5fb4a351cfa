//! The SYN defence, worked out on the host: written from what it is to do, not from how the programs do it. Of lb-common it takes where
//! the headers lie ([`wire::flow`]) and what a cookie is ([`cookie`]); a SYN-ACK is built by the tests' own builder.

use std::net::IpAddr;

use lb_common::{
    FlowKey, Reason,
    abi::{DefencePolicy, Stance, policy_flags, service_flags},
    cookie::{self, Agreement},
    wire::{Flow, Kind, protocol},
};

use super::{Effect, Model, Service};
use crate::{
    dataplane::{
        defended::{ANNOUNCED_SEGMENT, KEYS, LIMITED, LINGERING, LISTS, PARITY, State, WINDOW_SCALE, WINDOW_SPACE},
        ground::{CLOSED_PORT, CONNECTED_PORT},
        world::{CLIENT, CLIENT6},
    },
    support::packet::{ACK, CWR, ECE, FIN, PSH, Packet, RST, SYN, URG},
};

/// How the defence ends its part.
pub(super) enum Way {
    /// The packet's way ends here.
    Ends(Reason, Effect),
    /// It goes on as it came.
    Plain,
    /// It goes on: the kernel's cookie came back.
    KernelCookie,
    /// It goes on: our cookie came back, and this is said of its connection.
    OwnCookie(Effect),
}

/// The options of a segment, as the kernel reads them.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    segment: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamps: Option<(u32, u32)>,
    is_for_kernel: bool,
    fast_open: bool,
}

const fn drops(reason: Reason) -> Way {
    Way::Ends(reason, Effect::Unchanged)
}

impl Model<'_> {
    pub(super) fn defend(&mut self, service: &Service, flow: &Flow, bytes: &[u8], whole: &[u8], state: State) -> Way {
        let Some(policy) = self.world.policies.get(&service.index).copied() else { return Way::Plain };
        let flags = if let Kind::Segment(flags) = flow.kind { Some(flags) } else { None };
        let is_syn = flags.is_some_and(|flags| flags & (SYN | ACK | RST | FIN) == SYN);
        if (is_syn || flow.kind == Kind::Datagram)
            && let Some(reason) = self.limited(service.index, &policy, flow, whole.len())
        {
            return drops(reason);
        }
        if policy.stance == Stance::Off as u32 || flow.key.protocol_number() != protocol::TCP || flow.kind == Kind::Error {
            return Way::Plain;
        }
        let is_loopback = service.flags & service_flags::LOOPBACK != 0;
        if let Some(reason) = nonsense(flow, is_loopback) {
            return drops(reason);
        }
        if is_loopback {
            return Way::Plain;
        }
        let is_flood = policy.stance == Stance::Always as u32;
        if is_syn {
            return if is_flood { self.syn(&policy, flow, bytes, whole, state) } else { Way::Plain };
        }
        if !is_flood && service.index != LINGERING {
            return Way::Plain;
        }
        if self.known.contains(&flow.key) || is_connected(&flow.key) {
            if flags.is_some_and(|flags| flags & RST != 0) {
                self.known.remove(&flow.key);
            } else {
                self.known.insert(flow.key);
            }
            return Way::Plain;
        }
        match flags {
            None => drops(Reason::StrayFragment),
            Some(flags) if flags & RST != 0 => drops(Reason::StrayReset),
            Some(flags) if flags & SYN != 0 => drops(Reason::StraySynAck),
            Some(_) => self.stray_ack(&policy, flow, bytes, state),
        }
    }

    /// Why a packet that would open a flow is not let in, by lists and limits of the service.
    fn limited(&mut self, service: u32, policy: &DefencePolicy, flow: &Flow, bytes: usize) -> Option<Reason> {
        let source = flow.key.source.to_ip();
        if service == LIMITED {
            let matching = LISTS
                .iter()
                .filter(|(prefix, length, _)| prefix_of(source, *length).is_some_and(|of| Some(of) == prefix_of(*prefix, *length)));
            match matching.max_by_key(|(_, length, _)| *length) {
                Some((_, _, true)) => return None,
                Some(_) => return Some(Reason::DeniedSource),
                None => {}
            }
        }
        let length = if source.is_ipv4() { 24 } else { 56 };
        let prefix = prefix_of(source, length).expect("a length of the family");
        let mut take = |what, limit: u32, amount: u32| {
            let taken = self.taken.entry((service, what, prefix)).or_default();
            let has = limit == 0 || u64::from(*taken) + u64::from(amount) <= u64::from(limit);
            *taken += if has && limit != 0 { amount } else { 0 };
            has
        };
        if flow.kind == Kind::Datagram {
            let bytes = u32::try_from(bytes).expect("a packet");
            let is_within = take("datagrams", policy.datagrams, 1) && take("bytes", policy.datagram_bytes, bytes);
            return (!is_within).then_some(Reason::DatagramsOverLimit);
        }
        (!take("connections", policy.new_connections, 1)).then_some(Reason::NewFlowsOverLimit)
    }

    fn syn(&self, policy: &DefencePolicy, flow: &Flow, bytes: &[u8], whole: &[u8], state: State) -> Way {
        let key = &flow.key;
        if !may_answer(policy, state) {
            return drops(Reason::DefenceAsleep);
        }
        if flow.transport != flow.network + if key.source.is_ipv4() { 20 } else { 40 } {
            return drops(Reason::SynBehindOptions);
        }
        let header_end = flow.transport + flow.header_length;
        let options = options(bytes, flow.transport + 20, header_end);
        let data = flow.end.min(u32::MAX as usize) - header_end;
        if data > 0 && !options.fast_open {
            return drops(Reason::SynWithData);
        }
        if self.world.addresses.contains(&key.source) {
            return drops(Reason::ImpossibleSource);
        }
        if is_connected(key) {
            return drops(Reason::FloodSyn);
        }
        if !self.listening.contains(&(key.destination, key.destination_port)) {
            return drops(Reason::DefenceAsleep);
        }
        let Some(agreed) = agreement(&options, bytes[flow.transport + 13], key, state).filter(|_| !options.is_for_kernel) else {
            return drops(if state == State::NoKernelOnly { Reason::KernelOnlySynOverLimit } else { Reason::KernelOnlySyn });
        };
        match state {
            State::PrefixCapped => return drops(Reason::SynAckPrefixLimit),
            State::Capped => return drops(Reason::SynAckCap),
            _ => {}
        }
        if state == State::KernelScheme && header_end > whole.len() {
            // The kernel makes no cookie for half a header.
            return drops(Reason::DefenceAsleep);
        }
        if header_end > bytes.len() {
            return drops(Reason::BadDataOffset);
        }
        if state == State::KernelScheme {
            return Way::Ends(Reason::CookieSent, Effect::Unforeseen);
        }
        let sequence = number(bytes, flow.transport + 4);
        let (cookie, granted) = cookie::make(KEYS[PARITY as usize], PARITY, key, sequence, &agreed);
        let answer = Answer { flow, options, granted, cookie: cookie.sequence, timestamp: cookie.timestamp, sequence };
        Way::Ends(Reason::CookieSent, Effect::Becomes(answer.frame(bytes, whole)))
    }

    fn stray_ack(&mut self, policy: &DefencePolicy, flow: &Flow, bytes: &[u8], state: State) -> Way {
        if !may_answer(policy, state) {
            return Way::Plain;
        }
        if state == State::Guessed {
            return drops(Reason::CookieGuessing);
        }
        let sequence = number(bytes, flow.transport + 4).wrapping_sub(1);
        let acknowledged = number(bytes, flow.transport + 8).wrapping_sub(1);
        let timestamps = options(bytes, flow.transport + 20, flow.transport + flow.header_length).timestamps;
        let parity = acknowledged >> 31;
        let way = if self.kernel_cookies.contains(&(flow.key, sequence, acknowledged)) {
            Way::KernelCookie
        } else if state == State::KernelScheme {
            return drops(Reason::CookieRefused);
        } else if state == State::OneKey && parity != PARITY {
            return drops(Reason::CookieExpired);
        } else {
            let echoed = timestamps.map(|(_, echoed)| echoed);
            match cookie::check(KEYS[parity as usize], &flow.key, sequence, acknowledged, echoed) {
                Some(agreed) => Way::OwnCookie(Effect::Metadata(metadata(agreed, timestamps.unwrap_or_default()))),
                None => return drops(Reason::CookieRefused),
            }
        };
        self.known.insert(flow.key);
        way
    }
}

fn may_answer(policy: &DefencePolicy, state: State) -> bool {
    let is_awake = !matches!(state, State::Asleep | State::Unborn | State::Schemeless);
    is_awake && policy.flags & policy_flags::HAS_LISTENER != 0 && policy.flags & policy_flags::UNSAFE == 0
}

/// Whether it is one of the connections that the ground has, which are to the first address of each family on every port that listens.
fn is_connected(key: &FlowKey) -> bool {
    let is_client = [IpAddr::V4(CLIENT), IpAddr::V6(CLIENT6)].contains(&key.source.to_ip());
    is_client && matches!(key.source_port, CONNECTED_PORT | CLOSED_PORT) && key.destination_port != super::DEAF_PORT
}

/// What no stack sends.
fn nonsense(flow: &Flow, is_loopback: bool) -> Option<Reason> {
    let source = flow.key.source.to_ip();
    match flow.kind {
        Kind::Segment(flags) => {
            let has = |flag| flags & flag != 0;
            let reason = match (has(SYN), has(FIN), has(RST), has(ACK)) {
                (true, true, ..) => Some(Reason::SynFinFlags),
                (true, _, true, _) => Some(Reason::SynResetFlags),
                (false, _, false, false) if has(FIN | PSH | URG) => Some(Reason::XmasFlags),
                (false, _, false, false) => Some(Reason::NullFlags),
                _ => None,
            };
            if reason.is_some() {
                return reason;
            }
            if flow.header_length < 20 || flow.transport + flow.header_length > flow.end {
                return Some(Reason::BadDataOffset);
            }
        }
        Kind::FirstFragment if flow.end < flow.transport + 20 => return Some(Reason::TinyFragment),
        _ => {}
    }
    if is_loopback {
        return None;
    }
    if flow.key.source == flow.key.destination {
        return Some(Reason::Land);
    }
    let is_impossible = match source {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.is_multicast(),
    };
    is_impossible.then_some(Reason::ImpossibleSource)
}

/// The first bits of an address as a number, if it has so many.
fn prefix_of(address: IpAddr, length: u32) -> Option<(bool, u128)> {
    let (bits, number) = match address {
        IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (128, v6.to_bits()),
    };
    (length <= bits).then(|| (bits == 32, number >> (bits - length)))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads options as `tcp_parse_options` does: the last of a kind counts, and one whose length is wrong ends them.
fn options(bytes: &[u8], start: usize, end: usize) -> Options {
    let mut options = Options::default();
    let mut rest = &bytes[start.min(bytes.len())..end.min(bytes.len())];
    // So many bytes of the header are not in the first buffer, or not there at all.
    let missing = end - start.max(end.min(bytes.len()));
    // Weir reads so many and no more.
    for _ in 0..16 {
        rest = match *rest {
            [] | [0, ..] => break,
            [1, ..] => &rest[1..],
            [kind, length, ..] if (rest.len() + 1..=rest.len() + missing).contains(&usize::from(length)) => {
                options.is_for_kernel |= matches!(kind, 19 | 29 | 30);
                options.fast_open |= kind == 34;
                break;
            }
            [kind, length, ..] if (2..=rest.len()).contains(&usize::from(length)) => {
                match (kind, &rest[2..usize::from(length)]) {
                    (2, [a, b]) => options.segment = Some(u16::from_be_bytes([*a, *b])),
                    (3, [scale]) => options.scale = Some(14.min(*scale)),
                    (4, []) => options.sack = true,
                    (8, content @ [_, _, _, _, _, _, _, _]) => options.timestamps = Some((number(content, 0), number(content, 4))),
                    (19 | 29 | 30, _) => options.is_for_kernel = true,
                    (34, _) => options.fast_open = true,
                    _ => {}
                }
                &rest[usize::from(length)..]
            }
            _ => break,
        };
    }
    options
}

/// What both ends can do; nothing if the kernel could not be told of an MSS so small.
fn agreement(options: &Options, flags: u8, key: &FlowKey, state: State) -> Option<Agreement> {
    let least = if key.source.is_ipv4() { 536 } else { 1_220 };
    let segment = options.segment.unwrap_or(least);
    let is_willing = state != State::Unwilling;
    (segment >= least).then_some(Agreement {
        maximum_segment_size: segment.min((1 << 14) - 1),
        window_scale: options.scale.filter(|_| is_willing),
        selective_acknowledgement: options.sack && is_willing,
        congestion_notification: flags & ECE != 0 && flags & CWR != 0 && is_willing,
        timestamps: options.timestamps.is_some() && is_willing,
    })
}

/// The metadata: 16 bytes of nothing, "Wei1", then `struct bpf_tcp_req_attrs` (include/net/tcp.h).
fn metadata(agreed: Agreement, (value, echoed): (u32, u32)) -> Vec<u8> {
    let segment = agreed.maximum_segment_size.to_ne_bytes();
    let scale = agreed.window_scale;
    let flags = [agreed.congestion_notification, scale.is_some(), agreed.selective_acknowledgement, agreed.timestamps].map(u8::from);
    let scales = [if scale.is_some() { WINDOW_SCALE } else { 0 }, scale.unwrap_or(0)];
    let magic = u32::from_be_bytes(*b"Wei1").to_ne_bytes();
    [&[0; 16][..], &magic, &value.to_ne_bytes(), &echoed.to_ne_bytes(), &segment, &scales, &flags, &[0; 4]].concat()
}

/// A SYN-ACK.
struct Answer<'a> {
    flow: &'a Flow,
    options: Options,
    granted: Agreement,
    cookie: u32,
    timestamp: u32,
    sequence: u32,
}

impl Answer<'_> {
    /// The frame, made of the SYN's, whose first buffer holds these bytes.
    fn frame(&self, syn: &[u8], whole: &[u8]) -> Vec<u8> {
        let Flow { key, network, transport, header_length, end, .. } = *self.flow;
        let packet = match (key.destination.to_ip(), key.source.to_ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Packet::ethernet().ipv4(source, destination).identification(0).dont_fragment(),
            (source, destination) => Packet::ethernet().ip(source, destination),
        };
        let flags = SYN | ACK | if self.granted.congestion_notification { ECE } else { 0 };
        let packet = packet
            .tcp(key.destination_port, key.source_port)
            .sequence(self.cookie)
            .acknowledgement(self.sequence.wrapping_add(1))
            .flags(flags)
            .window(window(self.granted.maximum_segment_size))
            .options(&self.options(header_length - 20));
        let mut frame = [&syn[6..12], &syn[..6], &syn[12..network], &packet.ip_bytes()].concat();
        // The SYN's data is cut off from the end of the frame; what was behind its packet stays.
        let (header_end, data) = (transport + header_length, end.min(whole.len()) - (transport + header_length));
        frame.extend_from_slice(&whole[header_end..whole.len() - data]);
        frame
    }

    /// Each option answers one of the SYN's.
    fn options(&self, length: usize) -> Vec<u8> {
        let Self { options, granted, .. } = self;
        let mut bytes = Vec::new();
        if options.segment.is_some() {
            bytes.extend([2, 4]);
            bytes.extend(ANNOUNCED_SEGMENT.to_be_bytes());
        }
        if granted.timestamps {
            bytes.extend(if granted.selective_acknowledgement { [4, 2] } else { [1, 1] });
            bytes.extend([8, 10]);
            bytes.extend(self.timestamp.to_be_bytes());
            bytes.extend(options.timestamps.expect("what is granted was offered").0.to_be_bytes());
        } else if granted.selective_acknowledgement {
            bytes.extend([1, 1, 4, 2]);
        }
        if granted.window_scale.is_some() {
            bytes.extend([1, 3, 3, WINDOW_SCALE]);
        }
        assert!(bytes.len() <= length, "the SYN-ACK would be longer than its SYN");
        bytes.resize(length, 0);
        bytes
    }
}

/// The window that the kernel will have: whole segments of its room, in 16 bits.
fn window(segment: u16) -> u16 {
    u16::try_from(WINDOW_SPACE / u32::from(segment) * u32::from(segment)).unwrap_or(u16::MAX)
}
