//! A small picture for the tests: every kind of thing that is shown, once.

use std::{collections::BTreeMap, net::Ipv4Addr};

use lb_common::{
    Reason,
    abi::{Cause, Restored, Scheme, SelectionMiss, TIME_BOUNDS},
    flood::Mode,
};

use super::snapshot::{
    Backend, Daemon, Dataplane, Defence, Histogram, Interface, KernelDrop, Listening, MapFill, Overflows, Program, Queue, Queues,
    ReasonCount, Reload, Service, ServiceDefence, Snapshot, Watch,
};
use crate::{
    api::protocol::Order,
    config::{Protocol, Stance},
    plan::{Note, OtherListener, Process, State, Unbalanced},
};

/// One TCP service of three backends in the three states, one empty UDP service, and a TCP service that is not balanced.
pub(crate) fn small() -> Snapshot {
    Snapshot {
        taken_at: 1_800_000_100.5,
        instance: "default".to_owned(),
        daemon: Some(Daemon {
            pid: 4711,
            version: "0.1.0".to_owned(),
            started_at: 1_800_000_000.25,
            uptime: 100.25,
            last_reload: Some(Reload { at: 1_800_000_050.0, error: None }),
            helper_alive: true,
            events: true,
            last_scan: Some(0.0125),
        }),
        dataplane: Dataplane {
            abi_version: 1,
            uptime: 187_200.0,
            interfaces: vec![Interface { name: "eth0".to_owned(), index: 2, mode: "native".to_owned() }],
            programs: vec![Program { name: "ingress".to_owned(), id: 41, verified_instructions: 3000 }],
            maps: vec![MapFill { name: "services".to_owned(), entries: 2, capacity: 4096 }],
        },
        services: vec![
            Service {
                name: "web".to_owned(),
                address: Ipv4Addr::UNSPECIFIED.into(),
                port: 443,
                configured: true,
                table_size: 65_537,
                backends: vec![backend(0, State::Ready), backend(1, State::Draining), backend(2, State::Unserved)],
                handshake_time: Some(times(59)),
                handshakes_repeated: 1,
                kernel_drops: vec![drops("tcp_listen_overflow", 6), drops("tcp_csum", 1)],
                packets: vec![count(Reason::TcpOpened, 120, 7_200), count(Reason::TcpEstablished, 4_000, 2_500_000)],
                notes: vec![note("packets reach its listeners that XDP never sees", "name the interface they come in by with --iface")],
                ..empty(Protocol::Tcp)
            },
            Service { name: "udp/[::1%v0]:53".to_owned(), port: 53, device: Some("v0".to_owned()), ..empty(Protocol::Udp) },
            Service {
                name: "tcp/0.0.0.0:22".to_owned(),
                address: Ipv4Addr::UNSPECIFIED.into(),
                port: 22,
                balanced: false,
                listeners: 1,
                listening: vec![Listening { cookie: 2000, inode: 71_000, queues: queues(1) }],
                packets: vec![count(Reason::TcpOpened, 2, 120)],
                ..empty(Protocol::Tcp)
            },
        ],
        others: vec![OtherListener {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 22,
            commands: vec!["sshd".to_owned()],
            why: Unbalanced::NotReuseport,
        }],
        passed: vec![count(Reason::NotAPort, 17, 1_700)],
        selector_misses: SelectionMiss::ALL
            .into_iter()
            .map(|miss| (miss.label().to_owned(), u64::from(miss == SelectionMiss::NoTable)))
            .collect(),
        defence: Defence {
            scheme: Scheme::Own.label().to_owned(),
            live: true,
            key_age: Some(12.5),
            sysctl_changed: false,
            restored: Restored::ALL
                .into_iter()
                .map(|outcome| (outcome.label().to_owned(), if outcome == Restored::Restored { 31 } else { 0 }))
                .collect(),
        },
        watch: Watch {
            interval: Some(1.0),
            look: Some(1.0 / 4096.0),
            listeners: 4,
            syn_queues: Some("iterator".to_owned()),
            accept_latency: Some("measured".to_owned()),
            backend_series: None,
            kernel_drops: true,
            kernel_drops_by_backend: true,
        },
        kernel_drops_folded: 0,
        tcp_counters: [("ListenOverflows", 3), ("ListenDrops", 3), ("SyncookiesSent", 9)]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
        notes: Vec::new(),
    }
}

/// [`small`], with a flood on its first service.
pub(crate) fn flooded() -> Snapshot {
    let mut snapshot = small();
    let service = &mut snapshot.services[0];
    service.defence = Some(ServiceDefence { mode: Mode::Flood.label().to_owned(), answers_syns: true, flood_seconds: Some(83), ..calm() });
    service.packets.extend([
        count(Reason::CookieSent, 1_250_000, 92_500_000),
        count(Reason::CookieAccepted, 31, 2_046),
        count(Reason::CookieRefused, 250_000, 15_000_000),
        count(Reason::NullFlags, 12, 720),
    ]);
    snapshot
}

/// Compares with the file of this name below `golden/`; with `WEIR_REGENERATE=1` the file is written first.
pub(crate) fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observe/golden").join(name);
    if std::env::var_os("WEIR_REGENERATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(text == expected, "{name} differs; `WEIR_REGENERATE=1 cargo test -p lb-user --lib` writes it anew. It is:\n{text}");
}

/// `services` TCP services of `workers` backends each.
pub(crate) fn large(services: u16, workers: u32) -> Snapshot {
    let mut snapshot = small();
    let template = Service { backends: (0..workers).map(|index| backend(index, State::Ready)).collect(), ..snapshot.services[0].clone() };
    snapshot.services = (0..services).map(|port| Service { name: format!("tcp/0.0.0.0:{port}"), port, ..template.clone() }).collect();
    snapshot
}

pub(crate) fn note(text: &str, remedy: &str) -> Note {
    Note { text: text.to_owned(), remedy: remedy.to_owned() }
}

fn empty(protocol: Protocol) -> Service {
    Service {
        name: String::new(),
        protocol,
        address: std::net::Ipv6Addr::LOCALHOST.into(),
        port: 0,
        device: None,
        configured: false,
        balanced: true,
        listeners: 0,
        table_size: 0,
        backends: Vec::new(),
        defence: (protocol == Protocol::Tcp).then(calm),
        packets: Vec::new(),
        listening: Vec::new(),
        handshake_time: (protocol == Protocol::Tcp).then(|| times(0)),
        handshakes_repeated: 0,
        kernel_drops: Vec::new(),
        notes: Vec::new(),
    }
}

fn calm() -> ServiceDefence {
    ServiceDefence {
        stance: Stance::Auto,
        order: Order::Auto,
        mode: Mode::Calm.label().to_owned(),
        flood_seconds: None,
        answers_syns: false,
        is_unsafe: false,
        kernels_only: false,
    }
}

fn backend(index: u32, state: State) -> Backend {
    let selected: BTreeMap<String, u64> =
        Cause::ALL.into_iter().map(|cause| (cause.label().to_owned(), u64::from(cause == Cause::Syn) * 60)).collect();
    Backend {
        index,
        slot: index + 8,
        cookie: 1000 + u64::from(index),
        inode: 70_000 + index,
        state,
        weight: 1,
        share: if state == State::Ready { 1.0 } else { 0.0 },
        servers: if state == State::Unserved { Vec::new() } else { vec![Process { pid: 5000 + index, command: "nginx".to_owned() }] },
        queues: queues(index),
        accept_latency: Some(times(index.into())),
        kernel_drops: vec![drops("tcp_listen_overflow", 2)],
        chosen: 61,
        selected,
        established: 59,
        open: 7,
    }
}

fn queues(index: u32) -> Queues {
    Queues {
        accept_queue: Some(Queue { length: index, limit: 511 }),
        syn_queue: Some(Queue { length: 2 * index, limit: 511 }),
        receive_queue: None,
        oldest_wait: (index > 0).then_some(0.125),
        waited: Some(f64::from(index) * 0.5),
        overflows: Some(Overflows { accept_queue: u64::from(index) * 3, syn_queue: 1, receive_queue: 0, unknown: 0 }),
    }
}

/// Those of a UDP socket.
pub(crate) fn datagram_queues() -> Queues {
    Queues {
        receive_queue: Some(Queue { length: 4096, limit: 212_992 }),
        overflows: Some(Overflows { receive_queue: 45, ..Overflows::default() }),
        ..Queues::default()
    }
}

/// So many of 1/1024 of a second each, which JSON's reader takes exactly.
#[expect(clippy::cast_precision_loss, reason = "a few")]
fn times(count: u64) -> Histogram {
    let mut counts = vec![0; TIME_BOUNDS + 1];
    counts[4] = count;
    Histogram { counts, sum: count as f64 / 1024.0 }
}

fn drops(reason: &str, packets: u64) -> KernelDrop {
    KernelDrop { reason: reason.to_owned(), packets }
}

fn count(reason: Reason, packets: u64, bytes: u64) -> ReasonCount {
    ReasonCount { reason: reason.label().to_owned(), packets, bytes }
}
