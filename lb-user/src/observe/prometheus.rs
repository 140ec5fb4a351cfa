//! The snapshot in Prometheus' text format.
//!
//! Names begin with `weir_`, units are base units, and what only grows ends in `_total`. A label takes its values from a closed list
//! (reasons, causes, states), or from what the operator runs (services, backends, interfaces): no client's address is ever one. A
//! series that can be other than zero is there from the beginning with zero, so that a rate over its first event is right.
//!
//! The label `backend` is the backend's number in its service. A number that another socket takes later starts again at zero, which
//! Prometheus sees as the reset of a counter.

use std::collections::BTreeMap;

use family::{Kind, Page};
use lb_common::{
    Reason,
    abi::{Cause, Restored, SelectionMiss},
    flood::Mode,
};

use super::snapshot::{Backend, Daemon, ReasonCount, Service, ServiceDefence, Snapshot};
use crate::{config::Protocol, plan::State};

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole of /metrics. Fails only if a family has no name, which none has.
pub fn render(snapshot: &Snapshot) -> Result<String, prometheus::Error> {
    let mut page = Page::new();
    let folded = fold::fold(snapshot);
    let services = folded.services.as_ref();
    if let Some(daemon) = &snapshot.daemon {
        of_the_daemon(&mut page, snapshot, daemon)?;
    }
    of_the_data_plane(&mut page, snapshot)?;
    of_the_defence(&mut page, snapshot)?;
    of_the_services(&mut page, &snapshot.services)?;
    of_the_backends(&mut page, services)?;
    queues::write(&mut page, services)?;
    kernel::write(&mut page, snapshot, services)?;
    page.gauge(
        "weir_folded_backends",
        "How many backends have no series of their own, because `observe.backend_series` is reached: they are in backend=\"other\" of their \
         service. Raise the limit if you want to see them; `weir status` shows all.",
        folded.backends,
    )?;
    Ok(page.text)
}

fn of_the_daemon(page: &mut Page, snapshot: &Snapshot, daemon: &Daemon) -> Result<(), prometheus::Error> {
    page.write("weir_build_info", "Version of the daemon and of the maps' layout that it brings; always 1.", Kind::Gauge, |out| {
        out.add(&[("version", &daemon.version), ("abi_version", &snapshot.dataplane.abi_version.to_string())], 1.0);
    })?;
    page.gauge("weir_daemon_start_time_seconds", "When the daemon started, in seconds since 1970.", daemon.started_at)?;
    // A daemon that runs has read its configuration once, and taken it.
    let (successful, at) = daemon.last_reload.as_ref().map_or((true, daemon.started_at), |reload| (reload.error.is_none(), reload.at));
    page.gauge(
        "weir_config_last_reload_successful",
        "Whether the configuration was taken when it was last read: 0 means it was refused and what ran before still runs.",
        number(successful),
    )?;
    page.gauge(
        "weir_config_last_reload_timestamp_seconds",
        "When the configuration was last read, taken or not, in seconds since 1970.",
        at,
    )?;
    page.gauge(
        "weir_helper_up",
        "Whether the privileged helper answers: while it does not, no new listener can join.",
        number(daemon.helper_alive),
    )?;
    page.gauge(
        "weir_listener_events_active",
        "Whether listeners that start and stop are noticed by event: while they are not, only the periodic scan finds them.",
        number(daemon.events),
    )?;
    if let Some(last_scan) = daemon.last_scan {
        page.gauge("weir_last_scan_duration_seconds", "How long the last full scan of this host's listeners took.", last_scan)?;
    }
    Ok(())
}

fn of_the_data_plane(page: &mut Page, snapshot: &Snapshot) -> Result<(), prometheus::Error> {
    let Snapshot { dataplane, .. } = snapshot;
    page.gauge(
        "weir_dataplane_uptime_seconds",
        "How long the programs have been attached without a break; it outlives restarts of the daemon.",
        dataplane.uptime,
    )?;
    page.write("weir_interface_info", "An interface with the XDP program, and how it is attached; always 1.", Kind::Gauge, |out| {
        for interface in &dataplane.interfaces {
            out.add(&[("interface", &interface.name), ("mode", &interface.mode)], 1.0);
        }
    })?;
    page.write("weir_map_entries", "Entries in a map of the kernel.", Kind::Gauge, |out| {
        for map in &dataplane.maps {
            out.count(&[("map", &map.name)], map.entries);
        }
    })?;
    page.write("weir_map_capacity", "How many entries a map of the kernel can hold.", Kind::Gauge, |out| {
        for map in &dataplane.maps {
            out.count(&[("map", &map.name)], map.capacity);
        }
    })?;
    let of_no_service = || Reason::ALL.into_iter().filter(|reason| !reason.is_of_service());
    page.write(
        "weir_passed_packets_total",
        "Packets of no service, which go on to the kernel untouched, by why they are of none.",
        Kind::Counter,
        |out| of_no_service().for_each(|reason| out.count(&[("reason", reason.label())], of(&snapshot.passed, reason).0)),
    )?;
    page.write(
        "weir_passed_bytes_total",
        "Bytes of the packets of no service, with their Ethernet headers, by why they are of none.",
        Kind::Counter,
        |out| of_no_service().for_each(|reason| out.count(&[("reason", reason.label())], of(&snapshot.passed, reason).1)),
    )?;
    page.write(
        "weir_selector_misses_total",
        "How often the selector left a flow to the kernel's own hash, or (flow_not_kept) did not remember a UDP flow, by why.",
        Kind::Counter,
        |out| {
            for miss in SelectionMiss::ALL {
                out.count(&[("reason", miss.label())], in_map(&snapshot.selector_misses, miss.label()));
            }
        },
    )
}

fn of_the_defence(page: &mut Page, snapshot: &Snapshot) -> Result<(), prometheus::Error> {
    let Snapshot { defence, services, .. } = snapshot;
    page.write(
        "weir_defence_info",
        "How SYN cookies are made: own (all TCP options kept), kernel (MSS alone kept), or none (SYNs are never answered); always 1.",
        Kind::Gauge,
        |out| out.add(&[("scheme", &defence.scheme)], 1.0),
    )?;
    page.gauge(
        "weir_defence_live",
        "Whether the daemon's record in the kernel is fresh: while it is 0, XDP answers no SYN and floods reach the kernel.",
        number(defence.live),
    )?;
    if let Some(age) = defence.key_age {
        page.gauge(
            "weir_defence_key_age_seconds",
            "How old the key is that makes SYN cookies; a new one is made each `key_lifetime`.",
            age,
        )?;
    }
    page.gauge(
        "weir_defence_sysctl_changed",
        "Whether net.ipv4.tcp_syncookies is 2 for the time of a flood, so that the kernel honours cookies made in XDP.",
        number(defence.sysctl_changed),
    )?;
    page.write(
        "weir_restored_connections_total",
        "What became of valid SYN cookies of Weir's own behind XDP: restored is what should be.",
        Kind::Counter,
        |out| {
            for outcome in Restored::ALL {
                out.count(&[("outcome", outcome.label())], in_map(&defence.restored, outcome.label()));
            }
        },
    )?;
    let each = |visit: &mut dyn FnMut(&str, &ServiceDefence)| {
        for service in services {
            if let Some(defence) = &service.defence {
                visit(&service.name, defence);
            }
        }
    };
    page.write(
        "weir_defence_mode",
        "What a service's SYN defence does: 1 for the mode that it is in, 0 for the others. In flood, SYNs are answered in XDP with cookies.",
        Kind::Gauge,
        |out| {
            each(&mut |service, defence| {
                for mode in Mode::ALL {
                    out.add(&[("service", service), ("mode", mode.label())], number(defence.mode == mode.label()));
                }
            });
        },
    )?;
    page.write(
        "weir_defence_unsafe",
        "Whether a cookie or its connection would be lost on an interface of the service, so that no SYN is answered; `weir status` says why.",
        Kind::Gauge,
        |out| each(&mut |service, defence| out.add(&[("service", service)], number(defence.is_unsafe))),
    )
}

fn of_the_services(page: &mut Page, services: &[Service]) -> Result<(), prometheus::Error> {
    page.write("weir_service_info", "A service and the address that its listeners are bound to; always 1.", Kind::Gauge, |out| {
        for service in services {
            let (address, port) = (service.address.to_string(), service.port.to_string());
            let protocol = service.protocol.to_string();
            let device = service.device.as_deref().unwrap_or_default();
            out.add(
                &[("service", &service.name), ("protocol", &protocol), ("address", &address), ("port", &port), ("device", device)],
                1.0,
            );
        }
    })?;
    page.write(
        "weir_packets_total",
        "Packets of a service that XDP has seen, by what they are; every packet is counted under exactly one reason.",
        Kind::Counter,
        |out| {
            each_reason(services, |service, reason| {
                out.count(&[("service", &service.name), ("reason", reason.label())], of(&service.packets, reason).0);
            });
        },
    )?;
    page.write(
        "weir_bytes_total",
        "Bytes of the packets of a service that XDP has seen, with their Ethernet headers, by what the packets are.",
        Kind::Counter,
        |out| {
            each_reason(services, |service, reason| {
                out.count(&[("service", &service.name), ("reason", reason.label())], of(&service.packets, reason).1);
            });
        },
    )?;
    page.write("weir_backends", "Backends (listening sockets) of a service, by whether they get new flows.", Kind::Gauge, |out| {
        for service in services {
            for state in State::ALL {
                let backends = service.backends.iter().filter(|backend| backend.state == state).count();
                out.count(&[("service", &service.name), ("state", state.label())], backends as u64);
            }
        }
    })
}

fn of_the_backends(page: &mut Page, services: &[Service]) -> Result<(), prometheus::Error> {
    page.write(
        "weir_backend_info",
        "A backend: its socket's inode and the process that serves it (the first of several; empty while none is known); always 1.",
        Kind::Gauge,
        |out| {
            each_backend(services, |service, number, backend| {
                if fold::is_fold(backend) {
                    return;
                }
                let inode = backend.inode.to_string();
                let server = backend.servers.first();
                let pid = server.map(|server| server.pid.to_string()).unwrap_or_default();
                let command = server.map_or("", |server| &server.command);
                out.add(&[("service", service), ("backend", number), ("pid", &pid), ("command", command), ("inode", &inode)], 1.0);
            });
        },
    )?;
    page.write(
        "weir_backend_selections_total",
        "How often the selector in the kernel selected a backend's socket, by cause: this is where flows really went.",
        Kind::Counter,
        |out| {
            for service in services {
                let causes: Vec<Cause> = Cause::ALL.into_iter().filter(|cause| may_cause(*cause, service.protocol)).collect();
                for backend in &service.backends {
                    let number = number_of(backend);
                    for cause in &causes {
                        let labels = [("service", service.name.as_str()), ("backend", &number), ("cause", cause.label())];
                        out.count(&labels, in_map(&backend.selected, cause.label()));
                    }
                }
            }
        },
    )?;
    page.write(
        "weir_backend_chosen_total",
        "How often XDP chose a backend for a packet that opens a flow; the selector makes the same choice again for the socket.",
        Kind::Counter,
        |out| each_backend(services, |service, number, backend| out.count(&[("service", service), ("backend", number)], backend.chosen)),
    )?;
    page.write(
        "weir_backend_connections_total",
        "TCP connections established from a backend's socket: their handshake is done, and they are accepted or wait to be.",
        Kind::Counter,
        |out| {
            each_tcp_backend(services, |service, number, backend| {
                out.count(&[("service", service), ("backend", number)], backend.established);
            });
        },
    )?;
    page.write(
        "weir_backend_open_connections",
        "TCP connections established from a backend's socket that still exist.",
        Kind::Gauge,
        |out| each_tcp_backend(services, |service, number, backend| out.count(&[("service", service), ("backend", number)], backend.open)),
    )?;
    page.write("weir_backend_share_ratio", "The share of its service's new flows that a backend gets, 0 to 1.", Kind::Gauge, |out| {
        each_backend(services, |service, number, backend| out.add(&[("service", service), ("backend", number)], backend.share));
    })
}

fn each_reason(services: &[Service], mut visit: impl FnMut(&Service, Reason)) {
    for service in services {
        for reason in Reason::ALL.into_iter().filter(|reason| may_count(*reason, service.protocol)) {
            visit(service, reason);
        }
    }
}

/// What the label `backend` says of it.
fn number_of(backend: &Backend) -> String {
    if fold::is_fold(backend) { fold::LABEL.to_owned() } else { backend.index.to_string() }
}

fn each_backend<'a>(services: impl IntoIterator<Item = &'a Service>, mut visit: impl FnMut(&str, &str, &Backend)) {
    for service in services {
        for backend in &service.backends {
            visit(&service.name, &number_of(backend), backend);
        }
    }
}

fn each_tcp_backend(services: &[Service], visit: impl FnMut(&str, &str, &Backend)) {
    each_backend(services.iter().filter(|service| service.protocol == Protocol::Tcp), visit);
}

/// Whether a packet of a service of this protocol can have this reason.
fn may_count(reason: Reason, protocol: Protocol) -> bool {
    match reason {
        Reason::TcpOpened | Reason::TcpEstablished => protocol == Protocol::Tcp,
        Reason::UdpOpened | Reason::UdpEstablished | Reason::DatagramsOverLimit => protocol == Protocol::Udp,
        Reason::FirstFragment | Reason::IcmpError | Reason::NoBackend | Reason::DeniedSource => true,
        // What is left is the defence's, against floods of TCP.
        other => other.is_of_service() && protocol == Protocol::Tcp,
    }
}

/// Whether a socket of this protocol can be selected for this cause.
fn may_cause(cause: Cause, protocol: Protocol) -> bool {
    match cause {
        Cause::Syn | Cause::CookieAck | Cause::Migration | Cause::Relief => protocol == Protocol::Tcp,
        Cause::Udp | Cause::UdpFlow | Cause::QuicConnectionId => protocol == Protocol::Udp,
        Cause::Override => true,
    }
}

/// Packets and bytes under one reason.
fn of(counts: &[ReasonCount], reason: Reason) -> (u64, u64) {
    counts.iter().find(|count| count.reason == reason.label()).map_or((0, 0), |count| (count.packets, count.bytes))
}

fn in_map(counts: &BTreeMap<String, u64>, label: &str) -> u64 {
    counts.get(label).copied().unwrap_or_default()
}

fn number(truth: bool) -> f64 {
    u8::from(truth).into()
}

mod family;
mod fold;
mod kernel;
mod queues;

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
