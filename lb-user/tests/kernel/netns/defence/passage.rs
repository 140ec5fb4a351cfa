//! Connections from before the flood pass through it: established ones, half-open ones, and those that the server remembers.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};

use super::Aim;
use super::books::{Books, wait_for_mode};
use super::floods::{self, defence};
use super::rounds::until_clean;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::{service_with_ready, target};
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::{SLOW, download::Download};
use crate::support::netns::Pair;
use crate::support::packet::{ACK, PSH, Packet, SYN, SYN_OPTIONS};
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::passage::options_and_fragments_of_an_established_connection_pass", || {
            options_and_fragments_pass(false);
            options_and_fragments_pass(true);
        }),
        trial("defence::passage::a_handshake_from_before_the_flood_ends_in_it", || {
            for (v6, cookies) in [(false, "1"), (true, "1"), (false, "2"), (true, "2")] {
                a_handshake_from_before_the_flood_ends_in_it(v6, cookies);
            }
        }),
        trial("defence::passage::a_port_in_time_wait_is_used_again", || {
            a_port_in_time_wait_is_used_again(false);
            a_port_in_time_wait_is_used_again(true);
        }),
        trial("defence::passage::a_port_is_used_again_soon_after_its_client_has_closed", || {
            a_port_is_used_again_soon_after_its_client_has_closed(false);
            a_port_is_used_again_soon_after_its_client_has_closed(true);
        }),
        trial("defence::passage::a_download_keeps_its_rate", a_download_keeps_its_rate),
    ]
}

const FROM: u16 = 40_000;
/// How long an answer may take of a server that has to wait for its processor.
const PATIENCE: Duration = Duration::from_secs(5);

fn stage(v6: bool) -> Stage {
    Stage::set(&Scenario { server: Server::Workers, v6, configuration: "", options: &[] })
}

/// The packet cut in two.
fn fragments(client: &RawClient, whole: &Packet, v6: bool) -> [Packet; 2] {
    const TCP: u16 = 6;
    const FIRST: usize = 40;
    let bytes = whole.bytes();
    let (first, rest) = bytes[whole.ip_offset() + if v6 { 40 } else { 20 }..].split_at(FIRST);
    let cut = |offset: usize, more: bool, part: &[u8]| {
        let offset = u16::try_from(offset / 8).expect("small");
        let ip = client.ip();
        let ip = if v6 { ip.fragment_header(offset, more, 77) } else { ip.identification(77).fragment(offset, more) };
        ip.next(TCP).payload(part)
    };
    [cut(0, true, first), cut(FIRST, false, rest)]
}

fn options_and_fragments_pass(v6: bool) {
    let stage = stage(v6);
    let client = RawClient::new(&stage.pair, v6, 0);
    let port = stage.target.port();
    // Without timestamps, so that the numbers are all there is to keep.
    let reply = client.open(FROM, port, 7, &[2, 4, 5, 0xb4]);
    client.send(&[client.reply_to(&reply)]);
    let line = client.hear_until(reply.sequence.wrapping_add(1), PATIENCE, |line| line.ends_with(b"\n"));
    let acknowledged = reply.sequence.wrapping_add(1 + u32::try_from(line.len()).expect("a line"));

    let flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let segment = |below: Packet, at: u32, text: &[u8]| {
        below.tcp(FROM, port).flags(ACK | PSH).sequence(8 + at).acknowledgement(acknowledged).payload(text)
    };
    let optional = if v6 { client.ip().destination_options(&[1, 4, 0, 0, 0, 0]) } else { client.ip().options(&[1; 8]) };
    let words = b"with fragments: a text longer than the first of them is";
    let [first, second] = fragments(&client, &segment(client.ip(), 12, words), v6);
    client.send(&[segment(client.ip(), 0, b"as ever"), segment(optional, 7, b"above"), first, second]);
    let expected = format!("as everabove{}", String::from_utf8_lossy(words));
    let heard = client.hear_until(acknowledged, PATIENCE, |heard| heard.len() >= expected.len());
    let books = books.until_now(&stage.weir, &stage.pair.server);
    drop(flood);
    println!("{:?}", books.moved());
    assert_eq!(String::from_utf8_lossy(&heard), expected, "{:?}", books.moved());
    assert_eq!(books.reason("first_fragment"), 1, "{:?}", books.moved());
    assert_eq!(books.reason("stray_fragment"), 0, "{:?}", books.moved());
}

/// `cookies` is the server's `net.ipv4.tcp_syncookies`: with 2 the kernel answers by a cookie of its own and keeps nothing.
fn a_handshake_from_before_the_flood_ends_in_it(v6: bool, cookies: &str) {
    let stage = stage(v6);
    stage.pair.server.set_sysctl("net.ipv4.tcp_syncookies", cookies);
    let client = RawClient::new(&stage.pair, v6, 0);
    let books = Books::read(&stage.weir, &stage.pair.server);
    let reply = client.open(FROM, stage.target.port(), 7, &SYN_OPTIONS);
    assert_eq!(reply.flags, SYN | ACK);
    let sent = books.until_now(&stage.weir, &stage.pair.server);
    assert_eq!((sent.reason("cookie_sent"), sent.kernel.get("TcpExt", "SyncookiesSent")), (0, i64::from(cookies == "2")));

    let _flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    client.send(&[client.reply_to(&reply)]);
    let line = client.hear_until(reply.sequence.wrapping_add(1), PATIENCE, |line| line.ends_with(b"\n"));
    assert!(line.ends_with(b"\n"), "no worker's line: {line:?}");
    let books = books.until_now(&stage.weir, &stage.pair.server);
    println!("tcp_syncookies {cookies}: {:?}", books.moved());
    assert_eq!(books.reason("cookie_accepted"), u64::from(cookies == "2"), "{:?}", books.moved());
    assert_eq!(books.resets(), 0);
}

/// The server closes first, and so remembers. A client that uses the port again asks the kernel, in a flood as in calm.
fn a_port_in_time_wait_is_used_again(v6: bool) {
    const CONNECTIONS: u16 = 200;
    let pair = Pair::new();
    ready(&pair);
    let (target, _) = target(&pair, v6, 80);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&defence("")), &[]);
    service_with_ready(&weir, 2);
    let source = if v6 { pair.client_v6[0] } else { pair.client_v4[0] };
    let each_once = || {
        let times = (FROM..FROM + CONNECTIONS).map(|port| let_server_close(&pair, SocketAddr::new(source, port), target));
        times.max().expect("a connection")
    };
    let calm = [each_once(), each_once()];
    let remembered = pair.server.tool("ss", &["-Htan", "state", "time-wait"]).lines().count();
    assert!(remembered >= usize::from(CONNECTIONS) * 9 / 10, "{remembered} are in TIME_WAIT");
    let _flood = floods::by_generator(&aim(&pair, target));
    wait_for_mode(&weir, "flood");
    until_clean(|| {
        let books = Books::read(&weir, &pair.server);
        let flooded = each_once();
        let books = books.until_now(&weir, &pair.server);
        println!("in calm {calm:?}, in the flood {flooded:?} at the longest; {:?}", books.moved());
        assert!(books.reason("flood_syn") >= u64::from(CONNECTIONS) * 9 / 10, "{:?}", books.moved());
        assert_eq!(books.resets(), 0, "{:?}", books.kernel.moved());
        if flooded < SLOW { Ok(()) } else { Err(format!("one took {flooded:?}")) }
    });
}

/// A connection that the server ends, and how long it took.
fn let_server_close(pair: &Pair, source: SocketAddr, target: SocketAddr) -> Duration {
    let began = Instant::now();
    let socket = pair.client.run(|| Socket::new(Domain::for_address(target), Type::STREAM, None)).expect("a socket");
    let mut said = String::new();
    let result = socket
        .bind(&source.into())
        .and_then(|()| socket.set_read_timeout(Some(Duration::from_secs(5))))
        .and_then(|()| socket.connect(&target.into()))
        .and_then(|()| (&socket).read_to_string(&mut said));
    assert!(result.is_ok() && said.ends_with('\n'), "from {source}: {result:?}, {said:?}");
    began.elapsed()
}

/// The client closes first, so the server remembers nothing: by a reset, after which the port is free at once, or in order, after which a
/// kernel that is told so (net.ipv4.tcp_tw_reuse) takes the port again after a second. XDP must not take the new handshake's ACK for a
/// segment of the connection of before.
fn a_port_is_used_again_soon_after_its_client_has_closed(v6: bool) {
    const PORTS: u16 = 50;
    let pair = Pair::new();
    ready(&pair);
    pair.client.set_sysctl("net.ipv4.tcp_tw_reuse", "1");
    let (target, _) = target(&pair, v6, 80);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).echo(), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some("[defence]\nsyn_defence = \"always\"\n[discovery]\ntcp = true\n"), &[]);
    service_with_ready(&weir, 2);
    let source = if v6 { pair.client_v6[0] } else { pair.client_v4[0] };
    let books = Books::read(&weir, &pair.server);
    let mut opened = 0;
    for (reset, rest, turns) in [(true, Duration::ZERO, 4), (false, Duration::from_millis(1_300), 2)] {
        let first = if reset { FROM } else { FROM + PORTS };
        for turn in 0..turns {
            for port in first..first + PORTS {
                let line = speak_and_close(&pair, SocketAddr::new(source, port), target, reset);
                assert!(line.as_ref().is_ok_and(|line| line.ends_with('\n')), "port {port}, turn {turn}, reset: {reset}: {line:?}");
                opened += 1;
            }
            std::thread::sleep(rest);
        }
    }
    let books = books.until_now(&weir, &pair.server);
    assert_eq!((books.reason("cookie_sent"), books.reason("cookie_accepted")), (opened, opened), "{:?}", books.moved());
    assert_eq!(books.resets(), 0, "{:?}", books.kernel.moved());
}

/// What the server answers to a line.
fn speak_and_close(pair: &Pair, source: SocketAddr, target: SocketAddr, reset: bool) -> std::io::Result<String> {
    let socket = pair.client.run(|| Socket::new(Domain::for_address(target), Type::STREAM, None))?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    if reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.connect(&target.into())?;
    (&socket).write_all(b"hello\n")?;
    let mut line = String::new();
    std::io::BufReader::new(&socket).read_line(&mut line)?;
    Ok(line)
}

/// For each second of a processor that the flood and everybody else leaves it, a download gets at least 90 % of what it gets in calm.
fn a_download_keeps_its_rate() {
    const PERIOD: Duration = Duration::from_millis(1_500);
    let pair = Pair::new();
    ready(&pair);
    let target = SocketAddr::new(pair.server_v4[0], 80);
    let download = Download::start(&pair.client, &pair.server, target, u64::MAX);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&defence("")), &[]);
    service_with_ready(&weir, 1);
    until_clean(|| {
        let before = download.measure(PERIOD);
        let flood = floods::by_generator(&aim(&pair, target));
        wait_for_mode(&weir, "flood");
        let books = Books::read(&weir, &pair.server);
        let during = download.measure(PERIOD);
        let books = books.until_now(&weir, &pair.server);
        drop(flood);
        let after = download.measure(PERIOD);
        println!("{before}; in the flood {during}; {after}; {:?}", books.moved());
        assert!(books.reason("cookie_sent") > 1_000 && during.bytes > 0, "{:?}", books.moved());
        let calm = before.rate_of_what_is_left().min(after.rate_of_what_is_left());
        let share = during.rate_of_what_is_left() / calm;
        if share >= 0.9 { Ok(()) } else { Err(format!("{:.0} % of what it gets in calm", 100.0 * share)) }
    });
}

fn aim(pair: &Pair, target: SocketAddr) -> Aim<'_> {
    Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target }
}
