//! What Grafana shows: what Prometheus answers to the queries of the dashboards.

use std::collections::BTreeMap;

use lb_common::Action;
use lb_common::abi::Cause;
use lb_user::observe::rates::action;

use super::SERVICES;
use super::figures::{Figures, Shown};
use crate::support::dashboards::{Variables, queries};
use crate::support::prometheus::Prometheus;

/// The queries that give one number a service.
const OF_SERVICES: [(&str, &str); 8] = [
    ("fullest queue", "Weir: overview, panel 8 Services, 0"),
    ("oldest wait", "Weir: overview, panel 8 Services, 1"),
    ("overflows/s", "Weir: overview, panel 8 Services, 2"),
    ("new/s", "Weir: overview, panel 8 Services, 3"),
    ("dropped/s", "Weir: overview, panel 8 Services, 4"),
    ("flood", "Weir: overview, panel 8 Services, 5"),
    ("ready", "Weir: overview, panel 8 Services, 6"),
    ("seen/s", "Weir: one host, panel 13 Packets of services, 0"),
];
/// Those that give one number a worker.
const OF_WORKERS: [(&str, &str); 8] = [
    ("accept queue", "Weir: one service, panel 7 Workers, 1"),
    ("oldest wait", "Weir: one service, panel 7 Workers, 2"),
    ("overflows/s", "Weir: one service, panel 7 Workers, 3"),
    ("new/s", "Weir: one service, panel 7 Workers, 4"),
    ("open", "Weir: one service, panel 7 Workers, 5"),
    ("share", "Weir: one service, panel 7 Workers, 6"),
    ("SYN queue", "Weir: one service, panel 12 SYN queue, 0"),
    ("receive queue", "Weir: one service, panel 13 Receive queue (UDP), 0"),
];
/// What is placed, by cause: among it the flows of a UDP service.
const PLACED: &str = "Weir: one service, panel 18 Datagrams and connections placed, 0";
/// Of one service, by reason or as a quantile.
const REFUSED: &str = "Weir: one service, panel 21 Refused or let by, by reason, 0";
const KERNEL: &str = "Weir: one service, panel 22 Dropped by the kernel, by reason, 0";
const HANDSHAKES: [(&str, &str); 2] = [
    ("handshake p50", "Weir: one service, panel 23 Handshake time, 0"),
    ("handshake p99", "Weir: one service, panel 23 Handshake time, 1"),
];

/// At this time, with rates over this window.
pub fn shown(prometheus: &Prometheus, at: u64, window: &str) -> Figures {
    let rules = prometheus.rules().into_iter().filter(|rule| !rule.is_alert).map(|rule| (rule.name, rule.expression)).collect();
    let ask = |service: &str, place: &str| {
        let queries = queries(Variables { rate_interval: window, service });
        let query = queries.get(place).unwrap_or_else(|| panic!("no dashboard has {place:?}"));
        prometheus.query_at(&expanded(query, &rules), at).into_iter().filter(|(_, value)| !value.is_nan())
    };
    let mut figures = Figures::new("Grafana");
    for (figure, place) in OF_SERVICES {
        for (labels, value) in ask(".*", place) {
            figures.of_service(&labels["service"], figure, Some(Shown::exact(value)));
        }
    }
    for (figure, place) in OF_WORKERS {
        for (labels, value) in ask(".*", place) {
            figures.of_worker(&labels["service"], &labels["backend"], figure, Some(Shown::exact(value)));
        }
    }
    let mut flows: BTreeMap<String, f64> = BTreeMap::new();
    for (labels, value) in ask("dns", PLACED).filter(|(labels, _)| labels["cause"] != Cause::UdpFlow.label()) {
        *flows.entry(labels["backend"].clone()).or_default() += value;
    }
    figures.of_service("dns", "new/s", Some(Shown::exact(flows.values().sum())));
    for (backend, rate) in flows {
        figures.of_worker("dns", &backend, "new/s", Some(Shown::exact(rate)));
    }
    for service in SERVICES {
        // What was let by is shown there too.
        for (labels, value) in ask(service, REFUSED).filter(|(labels, _)| action(&labels["reason"]) == Some(Action::Drop)) {
            figures.of_reason(service, "weir", &labels["reason"], Some(Shown::exact(value)));
        }
        for (labels, value) in ask(service, KERNEL) {
            figures.of_reason(service, "kernel", &labels["reason"], Some(Shown::exact(value)));
        }
        for (figure, place) in HANDSHAKES {
            figures.of_service(service, figure, ask(service, place).next().map(|(_, value)| Shown::exact(value)));
        }
    }
    figures
}

/// A query with what each recording rule records in its place: the rules ran at other times than this.
fn expanded(query: &str, rules: &BTreeMap<String, String>) -> String {
    // A selector of any: whatever else it said would be lost.
    const ANY: [&str; 2] = [r#"{instance=~".*", service=~".*"}"#, r#"{instance=~".*"}"#];
    let mut query = query.to_owned();
    for (name, expression) in rules {
        for any in ANY {
            query = query.replace(&format!("{name}{any}"), &format!("({expression})"));
        }
        assert!(!query.contains(name.as_str()), "{query}: not everything that {name} records is asked for");
    }
    query
}
