//! What waits at listeners, what was lost there, and how long things took.

use super::{
    each_backend,
    family::{Kind, Page},
};
use crate::{
    config::Protocol,
    observe::snapshot::{Queue, Queues, Service},
};

/// What the label `backend` says of the listeners of a service that is not balanced, all together.
const UNBALANCED: &str = "unbalanced";

/// A family: its name, what it means, its kind, and what it takes of a socket.
type Of<T> = (&'static str, &'static str, Kind, fn(&Queues) -> Option<T>);

/// Families of whole numbers.
const COUNTS: [Of<u64>; 6] = [
    (
        "weir_backend_accept_queue_length",
        "Established connections that wait for a backend's process to accept them. One that stays above zero is a process that is too slow, \
         or stuck.",
        Kind::Gauge,
        |queues| queues.accept_queue.map(length),
    ),
    (
        "weir_backend_accept_queue_limit",
        "How many connections may wait in a backend's accept queue (the backlog of listen(2), cut to net.core.somaxconn); the kernel takes \
         one more, and drops what comes above that.",
        Kind::Gauge,
        |queues| queues.accept_queue.map(limit),
    ),
    (
        "weir_backend_syn_queue_length",
        "Handshakes at a backend that the client has not completed. In a flood that the kernel answers with cookies it stays at the limit.",
        Kind::Gauge,
        |queues| queues.syn_queue.map(length),
    ),
    (
        "weir_backend_syn_queue_limit",
        "How many handshakes may be open at a backend before the kernel answers with SYN cookies, or drops SYNs where those are off.",
        Kind::Gauge,
        |queues| queues.syn_queue.map(limit),
    ),
    (
        "weir_backend_receive_queue_bytes",
        "Bytes of datagrams that wait for a UDP backend's process to receive them, with what the kernel spends on each.",
        Kind::Gauge,
        |queues| queues.receive_queue.map(length),
    ),
    (
        "weir_backend_receive_queue_limit_bytes",
        "How many bytes may wait in a UDP backend's receive queue (SO_RCVBUF); the kernel drops datagrams above it.",
        Kind::Gauge,
        |queues| queues.receive_queue.map(limit),
    ),
];

/// Families of seconds.
const SECONDS: [Of<f64>; 2] = [
    (
        "weir_backend_oldest_wait_seconds",
        "How long the connection at the head of a backend's accept queue has waited, 0 while none waits: it grows by one each second while a \
         worker accepts nothing.",
        Kind::Gauge,
        |queues| queues.accept_queue.and(queues.waited).map(|_| queues.oldest_wait.unwrap_or(0.0)),
    ),
    (
        "weir_backend_accept_wait_seconds_total",
        "An estimate of the time that connections have spent in a backend's accept queue, all together, from looks at the queue: its rate \
         divided by that of weir_backend_connections_total is the mean time until accept(2) (Little's law).",
        Kind::Counter,
        |queues| queues.waited,
    ),
];

pub(super) fn write(page: &mut Page, services: &[Service]) -> Result<(), prometheus::Error> {
    for (name, help, kind, take) in COUNTS {
        page.write(name, help, kind, |out| {
            each_socket(services, |service, number, queues| {
                if let Some(value) = take(queues) {
                    out.count(&[("service", service), ("backend", number)], value);
                }
            });
        })?;
    }
    for (name, help, kind, take) in SECONDS {
        page.write(name, help, kind, |out| {
            each_socket(services, |service, number, queues| {
                if let Some(value) = take(queues) {
                    out.add(&[("service", service), ("backend", number)], value);
                }
            });
        })?;
    }
    page.write(
        "weir_backend_overflows_total",
        "What the kernel dropped at a backend's socket for want of room (its sk_drops), by the queue that was full: accept (SYNs and last \
         ACKs of handshakes; the worker is too slow), syn (SYNs, with SYN cookies off), receive (datagrams), or unknown where no queue, or \
         more than one, was seen full.",
        Kind::Counter,
        |out| {
            each_tcp_or_udp(services, |protocol, service, number, queues| {
                let Some(overflows) = queues.overflows else { return };
                let counts = [
                    ("accept", overflows.accept_queue, Protocol::Tcp),
                    ("syn", overflows.syn_queue, Protocol::Tcp),
                    ("unknown", overflows.unknown, Protocol::Tcp),
                    ("receive", overflows.receive_queue, Protocol::Udp),
                ];
                for (queue, count, _) in counts.into_iter().filter(|(.., of)| *of == protocol) {
                    out.count(&[("service", service), ("backend", number), ("queue", queue)], count);
                }
            });
        },
    )?;
    page.write(
        "weir_backend_accept_latency_seconds",
        "How long each connection of a backend waited from the end of its handshake to accept(2), measured at each accept. Only there where \
         the kernel lets a program attach to the exit of a function; weir_backend_accept_wait_seconds_total is an estimate for all others.",
        Kind::Histogram,
        |out| {
            each_backend(services, |service, number, backend| {
                if let Some(times) = &backend.accept_latency {
                    out.times(&[("service", service), ("backend", number)], times);
                }
            });
        },
    )?;
    page.write(
        "weir_service_handshake_seconds",
        "How long handshakes that the kernel answered took, from its SYN-ACK to the client's ACK: the clients' round trip. Handshakes by a \
         SYN cookie are not in it, nor those whose SYN-ACK was sent more than once.",
        Kind::Histogram,
        |out| {
            for service in services {
                if let Some(times) = &service.handshake_time {
                    out.times(&[("service", &service.name)], times);
                }
            }
        },
    )?;
    page.write(
        "weir_service_handshakes_repeated_total",
        "Handshakes that took more than one SYN-ACK, because one or its answer was lost or the accept queue was full: they are not in \
         weir_service_handshake_seconds.",
        Kind::Counter,
        |out| {
            for service in services.iter().filter(|service| service.handshake_time.is_some()) {
                out.count(&[("service", &service.name)], service.handshakes_repeated);
            }
        },
    )
}

fn length(queue: Queue) -> u64 {
    queue.length.into()
}

fn limit(queue: Queue) -> u64 {
    queue.limit.into()
}

fn each_socket(services: &[Service], mut visit: impl FnMut(&str, &str, &Queues)) {
    each_tcp_or_udp(services, |_, service, number, queues| visit(service, number, queues));
}

fn each_tcp_or_udp(services: &[Service], mut visit: impl FnMut(Protocol, &str, &str, &Queues)) {
    for service in services {
        each_backend([service], |name, number, backend| visit(service.protocol, name, number, &backend.queues));
        if let Some(sum) = service.listening.iter().map(|one| one.queues).reduce(Queues::and) {
            visit(service.protocol, &service.name, UNBALANCED, &sum);
        }
    }
}
