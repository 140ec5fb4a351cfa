//! What holds for any bytes: the body of the fuzz targets and of the property tests in lb-common/tests/parser.rs.

use lb_common::{
    Address, Reason,
    packet::{FARTHEST, Window},
    wire::{
        self, Flow, Kind, ethernet, protocol,
        tcp::{self, MAX_OPTION_STEPS, MAX_OPTIONS, MAX_WINDOW_SCALE, Options},
        udp,
    },
};

/// The frame has a flow, and then what is said of it stands in the bytes, or a reason why it has none.
pub fn packet(bytes: &[u8]) {
    match parse(bytes) {
        Ok(flow) => is_as_in(&flow, bytes),
        Err(reason) => assert!(
            matches!(
                reason,
                Reason::NotIp | Reason::NotTransport | Reason::Truncated | Reason::Malformed | Reason::TooDeep | Reason::LaterFragment
            ),
            "{reason:?} is not for the parser to say"
        ),
    }
    if let Some(usual) = wire::usual(&Window::of(bytes)) {
        assert_eq!(usual, parse(bytes), "the short way leads where the long one does");
    }
    ends_alike(bytes);
}

/// The options of a SYN are what a plain loop, written after the kernel's, reads.
pub fn tcp_options(bytes: &[u8]) {
    let options = Options::read(&Window::of(bytes), 0, bytes.len());
    assert_eq!(options, plain_options(bytes));
    assert!(options.window_scale.is_none_or(|shift| shift <= MAX_WINDOW_SCALE));
    if let Some(usual) = tcp::usual_options(&Window::of(bytes), 0, tcp::LENGTH + bytes.len()) {
        assert_eq!(usual, options);
    }
    // Nothing is read behind the end of the list.
    let ended = [&[1, 0], bytes].concat();
    assert_eq!(Options::read(&Window::of(&ended), 0, ended.len()), Options::default());
}

fn parse(bytes: &[u8]) -> Result<Flow, Reason> {
    wire::flow(&Window::of(bytes))
}

fn is_as_in(flow: &Flow, bytes: &[u8]) {
    let Flow { key, kind, destination_mac, transport, .. } = *flow;
    let length = header_length(kind, key.protocol_number());
    assert!((ethernet::LENGTH + 20..=FARTHEST).contains(&transport), "{transport}");
    assert_eq!(transport % 4, ethernet::LENGTH % 4, "every header before it is a multiple of 4 bytes");
    assert!(transport + length <= bytes.len(), "the transport header ends behind the packet");
    assert_eq!(destination_mac.to_be_bytes()[2..], bytes[..6]);
    assert!(matches!(key.protocol_number(), protocol::TCP | protocol::UDP) && key.protocol < 256);

    let header = &bytes[transport..];
    let ports = [u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]])];
    match kind {
        Kind::Error => assert_eq!([key.destination_port, key.source_port], ports, "an error quotes what the service sent"),
        _ => assert_eq!([key.source_port, key.destination_port], ports),
    }
    match kind {
        Kind::Segment(flags) => {
            assert!(
                key.protocol_number() == protocol::TCP && flags == header[13] && flow.header_length == usize::from(header[12] >> 4) * 4
            );
        }
        Kind::Datagram => assert_eq!(key.protocol_number(), protocol::UDP),
        Kind::FirstFragment | Kind::Error => {}
    }
    if !matches!(kind, Kind::Error) {
        addresses_are_in(key.source, key.destination, bytes);
    }
    assert_eq!(key.reversed().reversed(), key);
}

/// How much of the transport header must be there.
fn header_length(kind: Kind, protocol: u8) -> usize {
    match kind {
        Kind::Segment(_) => tcp::LENGTH,
        Kind::Datagram => udp::LENGTH,
        // The ports.
        Kind::FirstFragment | Kind::Error if matches!(protocol, protocol::TCP | protocol::UDP) => 4,
        Kind::FirstFragment | Kind::Error => panic!("a flow of protocol {protocol}"),
    }
}

/// Both addresses stand where the header behind the tags has them.
fn addresses_are_in(source: Address, destination: Address, bytes: &[u8]) {
    let mut ip = ethernet::LENGTH;
    while matches!(bytes[ip - 2..ip], [0x81, 0x00] | [0x88, 0xa8]) {
        ip += ethernet::TAG_LENGTH;
    }
    let mapped = |at: usize| {
        let mut address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
        address[12..].copy_from_slice(&bytes[at..at + 4]);
        address
    };
    let plain = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().expect("16 bytes") };
    let [from, to] = match bytes[ip] >> 4 {
        4 => [mapped(ip + 12), mapped(ip + 16)],
        _ => [plain(ip + 8), plain(ip + 24)],
    };
    assert_eq!((source.bytes(), destination.bytes()), (from, to));
}

/// A shorter packet gives the same answer or is truncated; and a flow needs its bytes up to the end of its transport header, no more.
fn ends_alike(bytes: &[u8]) {
    let whole = parse(bytes);
    for length in (0..bytes.len()).rev().take(128).chain(0..bytes.len().min(128)) {
        let short = parse(&bytes[..length]);
        assert!(short == whole || short == Err(Reason::Truncated), "{length} bytes: {short:?}, all: {whole:?}");
    }
    if let Ok(flow) = whole {
        let end = flow.transport + header_length(flow.kind, flow.key.protocol_number());
        assert_eq!(parse(&bytes[..end]), whole);
        assert_eq!(parse(&bytes[..end - 1]), Err(Reason::Truncated));
    }
}

/// `tcp_parse_options` (net/ipv4/tcp_input.c), position by position, up to the bounds that Weir sets.
fn plain_options(bytes: &[u8]) -> Options {
    let mut options = Options::default();
    let (mut at, mut steps) = (0, 0);
    while at < bytes.len() && steps < MAX_OPTION_STEPS {
        steps += 1;
        let kind = bytes[at];
        if kind == 0 {
            break;
        }
        if kind == 1 {
            at += 1;
            continue;
        }
        let Some(length) = bytes.get(at + 1).map(|length| usize::from(*length)) else { break };
        if !(2..=MAX_OPTIONS).contains(&length) || at + length > bytes.len() {
            break;
        }
        let number = |from: usize| u32::from_be_bytes(bytes[at + from..at + from + 4].try_into().expect("4 bytes"));
        match (kind, length) {
            (2, 4) => options.maximum_segment_size = Some(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
            (3, 3) => options.window_scale = Some(if bytes[at + 2] > 14 { 14 } else { bytes[at + 2] }),
            (4, 2) => options.selective_acknowledgement = true,
            (8, 10) => options.timestamps = Some((number(2), number(6))),
            (19 | 29 | 30, _) => options.needs_kernel = true,
            (34, _) => options.fast_open = true,
            _ => {}
        }
        at += length;
    }
    options
}
