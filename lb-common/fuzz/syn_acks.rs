//! What holds for the answer to a SYN with any options: the body of the fuzz target `syn_ack` and of the property tests in
//! lb-common/tests/defence.rs.

use lb_common::{
    abi::{Case, Offered},
    checksum::Sum,
    cookie::{Agreement, Cookie, Willing},
    packet::{Window, WindowMut},
    syn_ack::{SynAck, granted},
    wire::{self, Kind, tcp},
};

/// What the answer announces.
const SEGMENT: u16 = 1_460;
const SCALE: u8 = 9;
const COOKIE: Cookie = Cookie { sequence: 0x8123_4567, timestamp: 0x1a2b_3c4d };
const SEQUENCE: u32 = 0x0102_0304;

/// The bytes are the options of a SYN, cut to 40 and padded. It is answered over both families: in as many bytes, with sound checksums,
/// and with options that answer what was offered and nothing else.
pub fn options(bytes: &[u8]) {
    let mut options = bytes[..bytes.len().min(tcp::MAX_OPTIONS)].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    for is_ipv4 in [true, false] {
        for flags in [tcp::flags::SYN, tcp::flags::SYN | tcp::flags::ECE | tcp::flags::CWR] {
            for is_willing in [true, false] {
                answer(&options, is_ipv4, flags, is_willing);
            }
        }
    }
}

fn answer(options: &[u8], is_ipv4: bool, flags: u8, is_willing: bool) {
    let syn = frame(options, is_ipv4, flags);
    let flow = wire::flow(&Window::of(&syn)).expect("a segment");
    assert_eq!(flow.kind, Kind::Segment(flags));
    let case = Case::new(&flow, syn.len() as u64);
    let offered = tcp::Options::read(&Window::of(&syn), case.options(), case.data());
    assert_eq!(tcp::Options::from(Offered::from(offered)), offered, "as one function hands it to another");
    let willing = Willing {
        window_scale: is_willing,
        selective_acknowledgement: is_willing,
        congestion_notification: is_willing,
        timestamps: is_willing,
    };
    let Some(agreed) = Agreement::of(&offered, flags, is_ipv4, willing) else {
        return assert!(offered.maximum_segment_size.is_some_and(|segment| segment < if is_ipv4 { 536 } else { 1_220 }));
    };
    let reply = SynAck {
        cookie: COOKIE,
        sequence: SEQUENCE,
        echo: offered.timestamps.map_or(0, |(value, _)| value),
        maximum_segment_size: if offered.maximum_segment_size.is_some() { SEGMENT } else { 0 },
        window: 64_240,
        window_scale: SCALE,
        granted: granted::bits(&agreed),
        padding: [0; 2],
    };
    // What lies behind the packet must stay.
    let mut written = [&syn[..], &[0xa5; 16]].concat();
    assert!(reply.write(&mut WindowMut::of(&mut written), &case).is_some(), "no room for the answer to {options:02x?}");
    let (written, behind) = written.split_at(syn.len());
    assert_eq!(behind, [0xa5; 16]);

    let back = wire::flow(&Window::of(written)).expect("a segment");
    assert_eq!((back.key, back.end, back.header_length), (flow.key.reversed(), syn.len(), flow.header_length));
    assert_eq!([&written[..6], &written[6..12]], [&syn[6..12], &syn[..6]], "the MAC addresses");
    let ece = if agreed.congestion_notification { tcp::flags::ECE } else { 0 };
    assert_eq!(back.kind, Kind::Segment(tcp::flags::SYN | tcp::flags::ACK | ece));
    let segment = &written[back.transport..];
    assert_eq!(segment[4..12], [COOKIE.sequence.to_be_bytes(), (SEQUENCE + 1).to_be_bytes()].concat()[..]);
    let length = u16::try_from(segment.len()).expect("at most 60");
    let sum = if is_ipv4 {
        assert!(Sum::ZERO.add_bytes(&written[14..34]).is_valid(), "the checksum of the IP header");
        let [source, destination] = [26, 30].map(|at| written[at..at + 4].try_into().expect("four bytes"));
        Sum::ipv4_pseudo_header(source, destination, 6, length)
    } else {
        let [source, destination] = [22, 38].map(|at| written[at..at + 16].try_into().expect("sixteen bytes"));
        Sum::ipv6_pseudo_header(source, destination, 6, length.into())
    };
    assert!(sum.add_bytes(segment).is_valid(), "the checksum of TCP");

    let says = tcp::Options::read(&Window::of(written), back.transport + 20, back.transport + back.header_length);
    let expected = tcp::Options {
        maximum_segment_size: offered.maximum_segment_size.map(|_| SEGMENT),
        window_scale: agreed.window_scale.map(|_| SCALE),
        selective_acknowledgement: agreed.selective_acknowledgement,
        timestamps: offered.timestamps.filter(|_| agreed.timestamps).map(|(value, _)| (COOKIE.timestamp, value)),
        needs_kernel: false,
        fast_open: false,
    };
    assert_eq!(says, expected, "the answer to {options:02x?}");
}

/// A SYN with these options, its checksums zero.
fn frame(options: &[u8], is_ipv4: bool, flags: u8) -> Vec<u8> {
    let length = u8::try_from(20 + options.len()).expect("at most 60");
    let network: &[u8] = if is_ipv4 {
        &[8, 0, 0x45, 0xff, 0, 20 + length, 7, 7, 0, 0, 9, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1]
    } else {
        let head = [0x86, 0xdd, 0x6f, 0xf1, 2, 3, 0, length, 6, 9];
        &[&head[..], &[0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
            .concat()
    };
    let head: &[u8] = &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let segment: &[u8] = &[0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, length << 2, flags, 0xfa, 0xf0, 0, 0, 0xff, 0xff];
    [head, network, segment, options].concat()
}
