//! What Weir says of queues and times, beside what the kernel says of them by another way (`ss`, which asks sock_diag) and beside clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_common::abi::time_bucket;
use lb_user::observe::snapshot::{Backend, Service, Snapshot};
use libtest_mimic::Trial;

use crate::support::daemon::Weir;
use crate::support::flood::{hping3, ready};
use crate::support::load::{Held, Plan};
use crate::support::netns::{Namespace, Pair};
use crate::support::packet::{ACK, SYN};
use crate::support::raw::RawClient;
use crate::support::servers::{ManySockets, WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("queues::of_tcp_are_the_kernel_s", of_tcp_are_the_kernel_s),
        trial("queues::under_a_flood_are_the_kernel_s", under_a_flood_are_the_kernel_s),
        trial("queues::of_udp_are_the_kernel_s", of_udp_are_the_kernel_s),
        trial("queues::handshakes_take_as_long_as_the_client_says", handshakes_take_as_long_as_the_client_says),
        trial("queues::waits_are_as_long_as_they_were", waits_are_as_long_as_they_were),
        trial("queues::a_look_at_ten_thousand_listeners_is_short", a_look_at_ten_thousand_listeners_is_short),
    ]
}

const PORT: u16 = 8080;
const BACKLOG: u32 = 64;
/// No SYN is answered in XDP: the kernel's queues are what is looked at.
const CALM: &str = "defence.syn_defence = \"off\"\nobserve.interval = \"100ms\"\ndiscovery.tcp = true\ndiscovery.udp = true\n";

fn snapshot(weir: &Weir) -> Snapshot {
    serde_json::from_value(weir.cli(&["status", "--json"])).expect("a snapshot")
}

fn service(weir: &Weir) -> Service {
    let services = snapshot(weir).services;
    services.into_iter().find(|service| service.port == PORT).expect("the service")
}

/// What is known of one socket: what waits, the limit, and how often there was no room.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Socket {
    length: u32,
    limit: u32,
    drops: u64,
}

/// The sockets by inode, and all handshakes that are open.
type Queues = (BTreeMap<u32, Socket>, u64);

/// By `ss`: a receive queue's limit is in what it prints of the memory (`rb`), and so is the count of drops (`d`).
fn by_ss(server: &Namespace, udp: bool) -> Queues {
    let kind = if udp { "-lunemH" } else { "-ltnemH" };
    let text = server.tool("ss", &[kind, &format!("sport = :{PORT}")]).replace("\n\t", " ");
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{line}"));
        let inode = words.iter().find_map(|word| word.strip_prefix("ino:")).unwrap_or_else(|| panic!("{line}"));
        let memory = words.iter().find_map(|word| word.strip_prefix("skmem:(")?.strip_suffix(')')).unwrap_or_else(|| panic!("{line}"));
        let memory = |name: &str| {
            let found = memory.split(',').find_map(|one| one.strip_prefix(name).filter(|rest| rest.parse::<u32>().is_ok()));
            number(found.unwrap_or_else(|| panic!("{name} in {line}")))
        };
        let limit = if udp { memory("rb") } else { number(words[2]) };
        (number(inode), Socket { length: number(words[1]), limit, drops: memory("d").into() })
    };
    let open = server.tool("ss", &["-tnH", "state", "syn-recv", &format!("sport = :{PORT}")]).lines().count();
    (text.lines().map(of).collect(), open as u64)
}

fn by_weir(service: &Service) -> Queues {
    let socket = |backend: &Backend| {
        let queues = backend.queues;
        let queue = queues.accept_queue.or(queues.receive_queue).expect("its queue");
        let lost = queues.overflows.expect("its drops");
        let drops = lost.accept_queue + lost.syn_queue + lost.receive_queue + lost.unknown;
        (backend.inode, Socket { length: queue.length, limit: queue.limit, drops })
    };
    let open = service.backends.iter().filter_map(|backend| backend.queues.syn_queue).map(|queue| u64::from(queue.length)).sum();
    (service.backends.iter().map(socket).collect(), open)
}

/// Waits for a moment at which the kernel says the same before and after Weir was asked, and compares.
fn agreed(weir: &Weir, server: &Namespace, udp: bool) -> (Service, Queues) {
    eventually(Duration::from_secs(10), || {
        let before = by_ss(server, udp);
        let service = service(weir);
        let told = by_weir(&service);
        let after = by_ss(server, udp);
        let still = before == after;
        if still && told == before { Ok((service, told)) } else { Err(format!("ss: {before:?} .. {after:?}; weir: {told:?}")) }
    })
}

/// Two workers that accept nothing, in a namespace where SYN cookies are on or off.
fn stopped(cookies: bool) -> (Weir, Workers, Pair) {
    let pair = Pair::new();
    pair.server.set_sysctl("net.ipv4.tcp_syncookies", if cookies { "1" } else { "0" });
    let plan = WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], PORT)).backlog(64).without_accepting();
    let workers = Workers::start(&pair.server, &plan, 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CALM), &[]);
    (weir, workers, pair)
}

/// Empty, filling, full, overflowing, drained.
fn of_tcp_are_the_kernel_s() {
    let (weir, mut workers, pair) = stopped(true);
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    let (_, (sockets, open)) = agreed(&weir, &pair.server, false);
    let idle = Socket { length: 0, limit: BACKLOG, drops: 0 };
    assert_eq!((sockets.values().copied().collect::<Vec<_>>(), open), (vec![idle; 2], 0));

    // Half-open connections: nobody answers for the raw client's address.
    let raw = RawClient::new(&pair, false, 0);
    let half: Vec<_> = (0..40).map(|port| raw.open(10_000 + port, PORT, 1, &[])).collect();
    let (_, (_, open)) = agreed(&weir, &pair.server, false);
    assert_eq!(open, 40);
    for synack in &half[..25] {
        raw.send(&[raw.reply_to(synack)]);
    }
    let (service, (sockets, open)) = agreed(&weir, &pair.server, false);
    assert_eq!((open, sockets.values().map(|socket| socket.length).sum::<u32>()), (15, 25));
    assert!(service.backends.iter().all(|backend| backend.queues.oldest_wait.is_some_and(|wait| wait < 10.0)));
    assert_eq!(service.backends.iter().map(|backend| backend.established).sum::<u64>(), 25);

    // Clients of the kernel's, more than both queues hold.
    let clients = pair.client.entrance();
    let waiting: Vec<socket2::Socket> = clients.run(|| {
        let connect = |_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("not blocking");
            // In progress.
            let _ = socket.connect(&target.into());
            socket
        };
        (0..300).map(connect).collect()
    });
    let (service, (sockets, _)) = agreed(&weir, &pair.server, false);
    assert!(sockets.values().all(|socket| socket.length == BACKLOG + 1 && socket.drops > 0), "{sockets:?}");
    let metrics = weir.metrics();
    for backend in &service.backends {
        let lost = backend.queues.overflows.expect("its drops");
        assert_eq!((lost.syn_queue, lost.receive_queue, lost.unknown), (0, 0, 0), "with cookies on, only an accept queue overflows");
        let labels = [("service", service.name.as_str()), ("backend", &backend.index.to_string())];
        assert_eq!(metrics.count("weir_backend_accept_queue_length", &labels), 65);
        assert!(metrics.count("weir_backend_overflows_total", &[labels[0], labels[1], ("queue", "accept")]) >= lost.accept_queue);
    }
    let sum = |name: &str| metrics.count("weir_tcp_ext_total", &[("counter", name)]);
    assert!(sum("ListenOverflows") >= sockets.values().map(|socket| socket.drops).sum::<u64>());

    drop(waiting);
    workers.resume(0);
    workers.resume(1);
    let empty = eventually(Duration::from_secs(10), || {
        let (service, (sockets, open)) = agreed(&weir, &pair.server, false);
        let none = sockets.values().all(|socket| socket.length == 0);
        if none { Ok(service) } else { Err(format!("{sockets:?}, {open} open")) }
    });
    assert!(empty.backends.iter().all(|backend| backend.queues.oldest_wait.is_none()));
}

/// hping3 fills the SYN queues: with cookies it loses nothing, without them the queue that was full has every drop.
fn under_a_flood_are_the_kernel_s() {
    for cookies in [true, false] {
        let (weir, _workers, pair) = stopped(cookies);
        let target = SocketAddr::new(pair.server_v4[0], PORT);
        ready(&pair);
        let flood = hping3(&pair.client, target, None, Duration::from_secs(1));
        let full = eventually(Duration::from_secs(5), || {
            let queues: Vec<_> = service(&weir).backends.iter().filter_map(|backend| backend.queues.syn_queue).collect();
            if queues.len() == 2 && queues.iter().all(|queue| queue.length >= queue.limit) {
                Ok(queues)
            } else {
                Err(format!("{queues:?}"))
            }
        });
        assert!(full.iter().all(|queue| queue.limit == BACKLOG && queue.length <= BACKLOG + 1), "{full:?}");
        flood.finish();
        let (service, (sockets, open)) = agreed(&weir, &pair.server, false);
        // The kernel gives a request up whose peer answers with RST: nobody does here.
        assert!(open >= u64::from(2 * BACKLOG), "{open}");
        let drops: u64 = sockets.values().map(|socket| socket.drops).sum();
        let of_syn_queue: u64 = service.backends.iter().filter_map(|backend| backend.queues.overflows).map(|lost| lost.syn_queue).sum();
        if cookies {
            assert_eq!(drops, 0);
            assert!(weir.metrics().count("weir_tcp_ext_total", &[("counter", "SyncookiesSent")]) > 0);
        } else {
            assert!(drops > 1000, "{drops}");
            // What was dropped before the look that first saw the queue full is of no known cause.
            assert!(of_syn_queue * 10 >= drops * 9, "{of_syn_queue} of {drops}");
        }
    }
}

fn of_udp_are_the_kernel_s() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    let _workers = Workers::start(&pair.server, &WorkerPlan::udp(target).without_accepting(), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CALM), &[]);
    let send = |count: usize| {
        pair.client.run(|| {
            let socket = std::net::UdpSocket::bind((pair.client_v4[0], 0)).expect("a socket");
            (0..count).for_each(|_| assert_eq!(socket.send_to(&[7; 1000], target).expect("send"), 1000));
        });
    };
    send(20);
    let (_, (sockets, _)) = agreed(&weir, &pair.server, true);
    assert!(sockets.values().any(|socket| socket.length > 0) && sockets.values().all(|socket| socket.drops == 0), "{sockets:?}");
    send(2000);
    let (service, (sockets, _)) = agreed(&weir, &pair.server, true);
    let drops: u64 = sockets.values().map(|socket| socket.drops).sum();
    assert!(drops > 0, "{sockets:?}");
    // The kernel's own account of the same drops.
    let counted: u64 =
        service.kernel_drops.iter().filter(|dropped| dropped.reason == "socket_rcvbuff").map(|dropped| dropped.packets).sum();
    assert_eq!(counted, drops, "{:?}", service.kernel_drops);
    for backend in service.backends.iter().filter(|_| snapshot(&weir).watch.kernel_drops_by_backend) {
        let of_backend: u64 = backend.kernel_drops.iter().map(|dropped| dropped.packets).sum();
        assert_eq!(of_backend, sockets[&backend.inode].drops, "backend {}", backend.index);
    }
}

/// A client that waits before its ACK knows how long the handshake took.
fn handshakes_take_as_long_as_the_client_says() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    // They say nothing: each segment that the client hears is a SYN-ACK.
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).without_accepting(), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CALM), &[]);
    let raw = RawClient::new(&pair, false, 0);
    let counts = || service(&weir).handshake_time.expect("handshakes are timed").counts;
    for (port, wait) in (20_000..).zip([1, 4, 18, 75, 300, 700].map(Duration::from_millis)) {
        let before = counts();
        let start = Instant::now();
        let synack = raw.open(port, PORT, 1, &[]);
        let answered = Instant::now();
        std::thread::sleep(wait);
        let least = answered.elapsed();
        raw.send(&[raw.reply_to(&synack)]);
        let moved = eventually(Duration::from_secs(5), || {
            let moved: Vec<usize> =
                counts().iter().zip(&before).enumerate().filter(|(_, (now, was))| now > was).map(|(at, _)| at).collect();
            if moved.is_empty() {
                Err(format!("one of {wait:?} is not counted; {} repeated", service(&weir).handshakes_repeated))
            } else {
                Ok(moved)
            }
        });
        let bucket = |time: Duration| time_bucket(u64::try_from(time.as_nanos()).expect("short"));
        // No shorter than the client waited. How much longer depends on the machine: up to when the ACK was seen.
        let (least, most) = (bucket(least), bucket(start.elapsed()));
        assert!(moved.len() == 1 && (least..=most).contains(&moved[0]), "{wait:?}: {moved:?}, not {least} to {most}");
    }
    let sum = service(&weir).handshake_time.expect("handshakes are timed").sum;
    assert!((1.098..3.0).contains(&sum), "{sum} s in all");

    // A SYN that comes again has its SYN-ACK sent again: which of the two was answered, nobody knows.
    let repeated = [raw.tcp(21_000, PORT).flags(SYN).sequence(1)];
    raw.send(&repeated);
    raw.send(&repeated);
    let synack = raw.receive_all(Duration::from_millis(200)).pop().expect("a SYN-ACK");
    let before = counts();
    raw.send(&[raw.tcp(21_000, PORT).flags(ACK).sequence(2).acknowledgement(synack.sequence.wrapping_add(1))]);
    eventually(Duration::from_secs(5), || {
        let repeated = service(&weir).handshakes_repeated;
        if repeated == 1 { Ok(()) } else { Err(format!("{repeated} repeated")) }
    });
    assert_eq!(counts(), before);
}

/// The estimate of how long connections wait: known to the one who lets them wait.
fn waits_are_as_long_as_they_were() {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    let plan = WorkerPlan::tcp(target).echo().without_accepting();
    let mut workers = Workers::start(&pair.server, &plan, 1);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CALM), &[]);
    let begun = Instant::now();
    let client = pair.client.entrance();
    let connections = Plan::new(target, &pair.client_v4);
    // The client opens them one after the other, and each waits for its line: so this is one connection at a time, resumed after 2 s.
    let opening = client.spawn({
        let client = client.clone();
        move || Held::open(&client, &connections, 3)
    });
    std::thread::sleep(Duration::from_secs(2));
    let backend = service(&weir).backends.into_iter().next().expect("a backend");
    let (waited, oldest) = (backend.queues.waited.expect("an estimate"), backend.queues.oldest_wait.expect("one waits"));
    let most = begun.elapsed().as_secs_f64();
    assert!((1.0..=most).contains(&oldest), "the oldest waits {oldest} s, and not more than {most}");
    assert!((oldest - 0.4..=most).contains(&waited), "{waited} s beside {oldest}");
    workers.resume(0);
    let held = opening.join().expect("the client");
    assert_eq!(held.held_by(0), 3);
    // What is shown may be some milliseconds old.
    let backend = eventually(Duration::from_secs(5), || {
        let backend = service(&weir).backends.into_iter().next().expect("a backend");
        let now = (backend.established, backend.queues.oldest_wait);
        if now == (3, None) { Ok(backend) } else { Err(format!("{now:?}")) }
    });
    if let Some(times) = backend.accept_latency {
        // Where the kernel lets it be measured: one long wait, two short ones.
        assert_eq!(times.count(), 3);
        assert!((oldest..most + 5.0).contains(&times.sum), "{times:?}");
    }
}

/// 10,000 sockets of one process: less than 50 ms a look, which is told in the snapshot. The best of some, because this machine is busy.
fn a_look_at_ten_thousand_listeners_is_short() {
    const LISTENERS: u32 = 10_000;
    let pair = Pair::new();
    let plan = |port| WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], port)).backlog(64).without_accepting();
    let groups = [PORT, PORT + 1, PORT + 2, PORT + 3];
    let _sockets = groups.map(|port| ManySockets::start(&pair.server, &plan(port), LISTENERS / 4));
    let limits = format!("{CALM}limits.backends_per_service = 5000\nlimits.backends = 16384\n");
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&limits), &[]);
    let looks: Vec<f64> = (0..5)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(150));
            let watch = snapshot(&weir).watch;
            assert_eq!(watch.listeners, u64::from(LISTENERS));
            watch.look.expect("a look")
        })
        .collect();
    let best = looks.iter().copied().fold(f64::INFINITY, f64::min);
    println!("a look at {LISTENERS} listeners takes {:.1} ms at best: {looks:?}", best * 1000.0);
    assert!(best < 0.05, "{looks:?}");
}
