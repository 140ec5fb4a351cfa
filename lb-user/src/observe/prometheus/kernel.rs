//! What the kernel counts itself: its drops, and TCP's own counters.

use super::{
    each_backend,
    family::{Kind, Page},
};
use crate::observe::snapshot::{Service, Snapshot};

pub(super) fn write(page: &mut Page, snapshot: &Snapshot, services: &[Service]) -> Result<(), prometheus::Error> {
    page.write(
        "weir_kernel_dropped_packets_total",
        "Packets to a service that the kernel dropped behind XDP, by the kernel's own reason (enum skb_drop_reason); a series appears with the \
         first drop. SYNs that met a full queue are not among them: the kernel does not call that a drop, weir_backend_overflows_total has \
         them.",
        Kind::Counter,
        |out| {
            for service in services {
                for dropped in &service.kernel_drops {
                    out.count(&[("service", &service.name), ("reason", &dropped.reason)], dropped.packets);
                }
            }
        },
    )?;
    page.write(
        "weir_backend_kernel_dropped_packets_total",
        "Those of weir_kernel_dropped_packets_total that were for a backend's socket or one of its connections, where the kernel says for \
         which (Linux 6.11).",
        Kind::Counter,
        |out| {
            each_backend(services, |service, number, backend| {
                for dropped in &backend.kernel_drops {
                    out.count(&[("service", service), ("backend", number), ("reason", &dropped.reason)], dropped.packets);
                }
            });
        },
    )?;
    if snapshot.watch.kernel_drops {
        page.write(
            "weir_kernel_drops_folded_total",
            "Drops of the kernel's that are in no series because the table of service, backend and reason (8,192 rows) was full.",
            Kind::Counter,
            |out| out.count(&[], snapshot.kernel_drops_folded),
        )?;
    }
    page.write(
        "weir_tcp_ext_total",
        "What TCP counts of listeners and cookies for the whole network namespace, services or not, by the names of /proc/net/netstat. It \
         knows nothing of what XDP answers. ListenDrops has ListenOverflows in it, and TCPReqQFullDoCookies counts more than is sent.",
        Kind::Counter,
        |out| snapshot.tcp_counters.iter().for_each(|(name, count)| out.count(&[("counter", name)], *count)),
    )?;
    if let Some(took) = snapshot.watch.look {
        page.gauge("weir_look_duration_seconds", "How long the last look at the queues of all watched listeners took.", took)?;
        page.write("weir_watched_listeners", "How many listening sockets the last look at the queues saw.", Kind::Gauge, |out| {
            out.count(&[], snapshot.watch.listeners);
        })?;
    }
    Ok(())
}
