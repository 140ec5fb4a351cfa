//! The ACK of a cookie becomes a connection with all its options. The cookie itself plays no part here: an XDP program of ours stands in
//! for `ingress` and takes every ACK to one port for a valid one.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use lb_common::abi::{RequestAttributes, RestoreRequest, Restored};
use lb_user::config::{Limits, Mode};
use lb_user::dataplane::{Attached, Dataplane, Options, Pins, probe_window};
use libtest_mimic::Trial;

use super::live::{only_service, selected_in_all, service_with_ready};
use super::programs;
use crate::dataplane::bpf::{self, instruction};
use crate::support::capture::Capture;
use crate::support::daemon::{Weir, mount_bpffs};
use crate::support::netns::Pair;
use crate::support::packet::{ACK, Packet, RST};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;
use crate::support::wire::{mac, send_frame};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("restore::a_cookie_s_ack_becomes_a_connection_with_all_its_options", || keeps_all_options(false)),
        trial("restore::a_cookie_s_ack_becomes_a_connection_with_all_its_options_v6", || keeps_all_options(true)),
        trial("restore::what_cannot_be_restored_is_counted", what_cannot_be_restored_is_counted),
        trial("restore::the_selector_chooses_for_a_cookie_s_ack", the_selector_chooses_for_a_cookie_s_ack),
        trial("restore::links_are_adopted_and_taken_away", links_are_adopted_and_taken_away),
        trial("restore::the_announced_window_is_the_one_of_a_real_syn_ack", the_announced_window_is_the_one_of_a_real_syn_ack),
    ]
}

const PORT: u16 = 80;
const CLIENT_PORT: u16 = 4_711;
const PATIENCE: Duration = Duration::from_secs(5);
const ATTRIBUTES: RequestAttributes = RequestAttributes {
    received_timestamp: 111,
    echoed_timestamp: 0x1234_5678,
    maximum_segment_size: 1_337,
    receive_window_scale: 5,
    send_window_scale: 9,
    has_ecn: 1,
    has_window_scale: 1,
    has_selective_acknowledgement: 1,
    has_timestamps: 1,
    has_microsecond_timestamps: 0,
    reserved: [0; 3],
};

/// The data plane on the server's side of a pair, without a daemon.
pub struct Plane {
    pub dataplane: Dataplane,
    pub index: u32,
}

impl Plane {
    pub fn new(pair: &Pair, mode: Mode) -> Self {
        mount_bpffs();
        let pins = Pins::at(PathBuf::from(format!("/sys/fs/bpf/weir/weirt-{}-restore", std::process::id())));
        pair.server.run(|| {
            let index = nix::net::if_::if_nametoindex(Pair::SERVER_DEVICE).expect("the device's index");
            let options = Options { limits: Limits::default(), flow_hash_key: None };
            let mut dataplane = Dataplane::open(pins, &options).unwrap_or_else(|error| panic!("{error}: {error:?}"));
            dataplane.attach(index, Pair::SERVER_DEVICE, mode).unwrap_or_else(|error| panic!("{error}: {error:?}"));
            assert!(dataplane.restores(), "{:?}", dataplane.lacking);
            Self { dataplane, index }
        })
    }

    pub fn restored(&self, outcome: Restored) -> u64 {
        self.dataplane.maps.restored().expect("the counters")[outcome as usize]
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Err(error) = self.dataplane.pins.remove_all() {
            eprintln!("{error}");
        }
    }
}

/// Takes every bare ACK to the port for a cookie's.
fn stamping(v6: bool, attributes: RequestAttributes) -> OwnedFd {
    const ADJUST_META: i32 = 54;
    const LENGTH: i32 = 40;
    let tcp: i16 = if v6 { 54 } else { 34 };
    let ether_type = i32::from((if v6 { 0x86dd_u16 } else { 0x0800 }).to_be());
    let words: [i32; 10] = zerocopy::transmute!(RestoreRequest::new(attributes));
    // Jumps go to the end; how far that is, is filled in below.
    let mut program = vec![
        instruction::copy(6, 1),
        instruction::load_word(2, 6, 0),
        instruction::load_word(3, 6, 4),
        instruction::copy(4, 2),
        instruction::add(4, i32::from(tcp) + 20),
        instruction::jump_if_greater(4, 3, 0),
        instruction::load_half(5, 2, 12),
        instruction::jump_unless_equal(5, ether_type, 0),
        instruction::load_half(5, 2, tcp + 2),
        instruction::jump_unless_equal(5, i32::from(PORT.to_be()), 0),
        instruction::load_byte(5, 2, tcp + 13),
        instruction::and(5, 0x17),
        instruction::jump_unless_equal(5, i32::from(ACK), 0),
        instruction::copy(1, 6),
        instruction::set(2, -LENGTH),
        instruction::call(ADJUST_META),
        instruction::jump_unless_equal(0, 0, 0),
        instruction::load_word(2, 6, 8),
        instruction::load_word(3, 6, 0),
        instruction::copy(4, 2),
        instruction::add(4, LENGTH),
        instruction::jump_if_greater(4, 3, 0),
    ];
    program.extend((0..).zip(words).map(|(at, word)| instruction::store_word_of(2, 4 * at, word)));
    let end = program.len();
    program.extend([instruction::set(0, 2), instruction::exit()]);
    for at in [5, 7, 9, 12, 16, 21] {
        let over = u64::try_from(end - at - 1).expect("forward");
        program[at] |= over << 16;
    }
    bpf::load(bpf::XDP, "stamping", &program).expect("the verifier takes the program that stamps ACKs")
}

/// An address of the client's subnet that nobody has, which the server believes to be the client's.
fn stranger(pair: &Pair, v6: bool) -> IpAddr {
    let known = if v6 { pair.client_v6[0] } else { pair.client_v4[0] };
    let stranger: IpAddr = match known {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() - 1 + 77).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() - 1 + 0x77).into()),
    };
    let mac = mac(&pair.client, Pair::CLIENT_DEVICE).map(|byte| format!("{byte:02x}")).join(":");
    pair.server.ip(&format!("neigh add {stranger} lladdr {mac} dev {} nud permanent", Pair::SERVER_DEVICE));
    stranger
}

/// A bare ACK from a client that nobody here knows, with a timestamp.
fn ack(pair: &Pair, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 111, 0x12, 0x34, 0x56, 0x78];
    let frame = Packet::ethernet_between(mac(&pair.client, Pair::CLIENT_DEVICE), mac(&pair.server, Pair::SERVER_DEVICE));
    let packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => frame.ipv4(a, b),
        (IpAddr::V6(a), IpAddr::V6(b)) => frame.ipv6(a, b),
        _ => panic!("two families"),
    };
    packet.tcp(from.port(), to.port()).sequence(5_001).acknowledgement(9_001).flags(ACK).window(100).options(&TIMESTAMP).bytes()
}

/// `struct tcp_info`, as far as it is looked at.
fn tcp_info(stream: &TcpStream) -> [u8; 236] {
    let mut info = [0; 236];
    let mut length = 236;
    // SAFETY: the kernel writes at most as many bytes as are said.
    let result =
        unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    info
}

fn word(info: &[u8; 236], at: usize) -> u32 {
    u32::from_ne_bytes(*info[at..].first_chunk().expect("inside"))
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).expect("set it not to block");
    eventually(PATIENCE, || listener.accept().map_err(|error| error.to_string()))
}

fn keeps_all_options(v6: bool) {
    let pair = Pair::new();
    pair.server.set_sysctl("net.ipv4.tcp_ecn", "1");
    let plane = Plane::new(&pair, Mode::Auto);
    programs::replace(&plane.dataplane.pins.xdp_link(plane.index), &stamping(v6, ATTRIBUTES));
    let to = SocketAddr::new(if v6 { pair.server_v6[0] } else { pair.server_v4[0] }, PORT);
    let from = SocketAddr::new(stranger(&pair, v6), CLIENT_PORT);
    let listener = pair.server.run(|| TcpListener::bind(to).expect("listen"));
    let capture = Capture::start(&pair.client, Pair::CLIENT_DEVICE, &format!("tcp and src port {PORT}"));

    send_frame(&pair.client, Pair::CLIENT_DEVICE, &ack(&pair, from, to));
    let (mut stream, peer) = accept(&listener);
    assert_eq!((peer.ip(), peer.port()), (from.ip(), from.port()));
    assert_eq!(Restored::ALL.map(|outcome| plane.restored(outcome)), [1, 0, 0, 0, 0]);

    let info = tcp_info(&stream);
    assert_eq!(info[5] & 0xf, 0xf, "timestamps, SACK, window scale and ECN");
    assert_eq!((info[6] & 0xf, info[6] >> 4), (9, 5), "the client's window scale and ours");
    assert_eq!(word(&info, 16), 1_337 - 12, "segments of the client's size, less the timestamps");
    // What the client may believe it was told: the window of the SYN-ACK that was never made here.
    let facts = pair.server.run(|| probe_window(None).expect("ask for the window"));
    assert_eq!(word(&info, 232), u32::from(facts.window(1_337)), "{facts:?}");
    assert_eq!(word(&info, 228), 100 << 9, "the ACK's window, scaled");

    std::io::Write::write_all(&mut stream, b"hello").expect("write");
    let sent = capture.finish();
    let [first, ..] = &sent[..] else { panic!("the server sent nothing") };
    let tcp = if v6 { 54 } else { 34 };
    assert_eq!(first[tcp + 4..tcp + 12], [9_001_u32.to_be_bytes(), 5_001_u32.to_be_bytes()].concat(), "numbers of the ACK");
    let number = |at: usize| u32::from_be_bytes(*first[at..].first_chunk().expect("options"));
    assert_eq!((first[tcp + 22], number(tcp + 28)), (8, 111), "the client's timestamp comes back");
    assert!((0x1234_5678..0x1234_5678 + 5_000).contains(&number(tcp + 24)), "its clock goes on from the cookie's: {:x}", number(tcp + 24));
}

fn what_cannot_be_restored_is_counted() {
    let pair = Pair::new();
    let plane = Plane::new(&pair, Mode::Auto);
    let pin = plane.dataplane.pins.xdp_link(plane.index);
    let to = SocketAddr::new(pair.server_v4[0], PORT);
    let stranger = stranger(&pair, false);
    let come = |port: u16| send_frame(&pair.client, Pair::CLIENT_DEVICE, &ack(&pair, SocketAddr::new(stranger, port), to));
    let expect = |expected: [u64; 5]| {
        eventually(PATIENCE, || {
            let counted = Restored::ALL.map(|outcome| plane.restored(outcome));
            if counted == expected { Ok(()) } else { Err(format!("{counted:?}, not {expected:?}")) }
        });
    };
    let capture = Capture::start(&pair.client, Pair::CLIENT_DEVICE, &format!("tcp and src port {PORT}"));
    programs::replace(&pin, &stamping(false, ATTRIBUTES));
    come(1);
    expect([0, 0, 1, 0, 0]);
    let listener = pair.server.run(|| TcpListener::bind(to).expect("listen"));
    come(2);
    let _connection = accept(&listener);
    expect([1, 0, 1, 0, 0]);
    come(2);
    expect([1, 1, 1, 0, 0]);
    programs::replace(&pin, &stamping(false, RequestAttributes { maximum_segment_size: 535, ..ATTRIBUTES }));
    come(3);
    expect([1, 1, 1, 1, 0]);
    // Without metadata it is an ACK like any other.
    programs::replace(&pin, &programs::xdp());
    come(4);
    let sent = capture.finish();
    let resets: Vec<u16> =
        sent.iter().filter(|frame| frame[47] & RST != 0).map(|frame| u16::from_be_bytes([frame[36], frame[37]])).collect();
    assert_eq!(resets, [1, 3, 4], "whoever has no connection is told");
    expect([1, 1, 1, 1, 0]);
}

fn the_selector_chooses_for_a_cookie_s_ack() {
    const FLOWS: u16 = 40;
    let pair = Pair::new();
    let to = SocketAddr::new(pair.server_v4[0], PORT);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::tcp(to), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    service_with_ready(&weir, 4);
    let index = pair.server.run(|| nix::net::if_::if_nametoindex(Pair::SERVER_DEVICE).expect("the device's index"));
    assert!(weir.pins().join(format!("links/tc-{index}")).exists(), "{}", weir.log());
    programs::replace(&Pins::at(weir.pins()).xdp_link(index), &stamping(false, ATTRIBUTES));
    let stranger = stranger(&pair, false);
    for port in 1_000..1_000 + FLOWS {
        send_frame(&pair.client, Pair::CLIENT_DEVICE, &ack(&pair, SocketAddr::new(stranger, port), to));
    }
    eventually(PATIENCE, || {
        let counts = workers.counts();
        if counts.values().sum::<u64>() == u64::from(FLOWS) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    let service = only_service(&weir);
    assert_eq!(selected_in_all(&service, "cookie_ack"), u64::from(FLOWS));
    let table = super::live::Table::read(&weir, &service);
    let mut expected = std::collections::BTreeMap::<u64, u64>::new();
    for port in 1_000..1_000 + FLOWS {
        *expected.entry(table.cookie_for(SocketAddr::new(stranger, port), to)).or_default() += 1;
    }
    let counts = workers.counts();
    for (socket, count) in workers.sockets().iter().zip(counts.values()) {
        assert_eq!(expected.get(&socket.cookie).copied().unwrap_or_default(), *count, "{socket:?}");
    }
}

fn links_are_adopted_and_taken_away() {
    let pair = Pair::new();
    let link = |plane: &Plane| aya::programs::links::PinnedLink::from_pin(plane.dataplane.pins.tc_link(plane.index)).map(|_| ());
    let program_id = |plane: &Plane| {
        let facts = plane.dataplane.programs.facts.iter().find(|(name, ..)| name == "restore_request");
        facts.expect("it is loaded").1
    };
    let on_device = || pair.server.run(attached_tcx);
    let first = Plane::new(&pair, Mode::Auto);
    assert_eq!(on_device(), [program_id(&first)]);
    let second = Plane::new(&pair, Mode::Auto);
    assert_eq!(on_device(), [program_id(&second)], "replaced, by the same link");
    assert_ne!(program_id(&first), program_id(&second));

    // Another device gets the index.
    let index = second.index;
    pair.server.ip(&format!("link delete {}", Pair::SERVER_DEVICE));
    pair.server.ip(&format!("link add {} index {index} type veth peer name other", Pair::SERVER_DEVICE));
    let mut third = Plane::new(&pair, Mode::Auto);
    assert_eq!(on_device(), [program_id(&third)], "a new link to the new device");
    link(&third).expect("it is pinned");

    pair.server.run(|| third.dataplane.detach(index)).expect("detach");
    assert_eq!(on_device(), Vec::<u32>::new());
    assert!(link(&third).is_err());
    let attached = pair.server.run(|| third.dataplane.attach(index, Pair::SERVER_DEVICE, Mode::Auto)).expect("attach");
    assert!(matches!(attached, Attached::New(_)));
    pair.server.run(|| third.dataplane.detach_others(&[])).expect("detach");
    assert_eq!(on_device(), Vec::<u32>::new());
    // Where XDP is another's, nothing of ours stays.
    let other = pair.server.run(|| programs::link_xdp(&programs::xdp(), Pair::SERVER_DEVICE, true));
    pair.server.run(|| third.dataplane.attach(index, Pair::SERVER_DEVICE, Mode::Auto)).expect_err("occupied");
    assert_eq!(on_device(), Vec::<u32>::new());
    drop(other);
}

/// The IDs of the tc programs on the server's device, in their order.
fn attached_tcx() -> Vec<u32> {
    let found = aya::programs::SchedClassifier::query_tcx(Pair::SERVER_DEVICE, aya::programs::TcAttachType::Ingress);
    found.expect("ask for the programs").1.iter().map(aya::programs::ProgramInfo::id).collect()
}

fn the_announced_window_is_the_one_of_a_real_syn_ack() {
    let pair = Pair::new();
    let to = SocketAddr::new(pair.server_v4[0], PORT);
    for rcvbuf in [None, Some(16_384_u32), Some(1 << 20)] {
        let facts = pair.server.run(|| probe_window(rcvbuf).expect("ask for the window"));
        let listener = pair.server.run(|| TcpListener::bind(to).expect("listen"));
        if let Some(rcvbuf) = rcvbuf {
            nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::RcvBufForce, &(rcvbuf as usize / 2)).expect("SO_RCVBUF");
        }
        let capture = Capture::start(&pair.client, Pair::CLIENT_DEVICE, "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)");
        drop(pair.client.run(|| TcpStream::connect(to).expect("connect")));
        let [syn_ack] = &capture.finish()[..] else { panic!("one SYN-ACK") };
        let options = lb_common::wire::tcp::Options::read(&lb_common::packet::Window::of(syn_ack), 54, syn_ack.len());
        assert_eq!(options.window_scale, facts.window_scale, "{rcvbuf:?}");
        assert_eq!((options.selective_acknowledgement, options.timestamps.is_some()), (facts.selective_acknowledgement, facts.timestamps));
        // In a real handshake the kernel rounds to segments of its own size, less the timestamps.
        let window = u16::from_be_bytes([syn_ack[48], syn_ack[49]]);
        assert_eq!(window, facts.window(1_460 - 12), "{rcvbuf:?}: {facts:?}");
        drop(listener);
    }
}
