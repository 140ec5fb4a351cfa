//! What Weir and the server's kernel have counted.

use std::collections::BTreeMap;

use crate::netns::live::PATIENCE;
use crate::support::counters::Traffic;
use crate::support::daemon::Weir;
use crate::support::netns::{Namespace, Pair};
use crate::support::snmp::Counters;
use crate::support::wait::eventually;

/// All of it at one moment, or between two.
#[derive(Clone, Debug)]
pub struct Books {
    reasons: BTreeMap<String, u64>,
    restored: BTreeMap<String, u64>,
    /// The kernel's counters of the server.
    pub kernel: Counters,
    /// The server's device.
    pub device: Traffic,
}

impl Books {
    /// Reads them.
    pub fn read(weir: &Weir, server: &Namespace) -> Self {
        let metrics = weir.metrics();
        let of_none = metrics.counts_by("weir_passed_packets_total", "reason", &[]);
        Self {
            reasons: metrics.counts_by("weir_packets_total", "reason", &[]).into_iter().chain(of_none).collect(),
            restored: metrics.counts_by("weir_restored_connections_total", "outcome", &[]),
            kernel: Counters::read(server),
            // Named alike in all topologies.
            device: Traffic::of(server, Pair::SERVER_DEVICE),
        }
    }

    /// What has been added since this moment.
    pub fn until_now(&self, weir: &Weir, server: &Namespace) -> Self {
        let now = Self::read(weir, server);
        let less = |now: BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            now.into_iter().map(|(name, count)| (name.clone(), count - before.get(&name).copied().unwrap_or(0))).collect()
        };
        Self {
            reasons: less(now.reasons, &self.reasons),
            restored: less(now.restored, &self.restored),
            kernel: now.kernel.since(&self.kernel),
            device: now.device.since(self.device),
        }
    }

    /// Packets with this reason, of all services.
    #[track_caller]
    pub fn reason(&self, label: &str) -> u64 {
        *self.reasons.get(label).unwrap_or_else(|| panic!("no reason {label}: {:?}", self.reasons.keys()))
    }

    /// Cookies with this end behind XDP.
    #[track_caller]
    pub fn restored(&self, outcome: &str) -> u64 {
        *self.restored.get(outcome).unwrap_or_else(|| panic!("no outcome {outcome}: {:?}", self.restored))
    }

    /// The reasons that were counted at all.
    pub fn moved(&self) -> BTreeMap<&str, u64> {
        self.reasons.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (name.as_str(), *count)).collect()
    }

    /// Resets that the server has sent.
    pub fn resets(&self) -> i64 {
        self.kernel.get("Tcp", "OutRsts")
    }
}

/// What the defence of the only defended service does now, or of one of them.
pub fn mode(weir: &Weir) -> String {
    let metrics = weir.metrics();
    let is = |mode: &&str| metrics.sum("weir_defence_mode", &[("mode", mode)]) > 0.0;
    // Of several services, that of the one in trouble.
    ["flood", "lingering", "calm"].into_iter().find(is).expect("a service has a mode").to_owned()
}

/// Waits until it does this.
#[track_caller]
pub fn wait_for_mode(weir: &Weir, wanted: &str) {
    eventually(PATIENCE, || {
        let mode = mode(weir);
        if mode == wanted { Ok(()) } else { Err(format!("it is {mode}, not {wanted}")) }
    });
}

/// Gives an order about a service's defence.
#[track_caller]
pub fn order(weir: &Weir, service: &str, order: &str) {
    let output = weir.cli_output(&["defence", service, order]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Has the daemon take another configuration.
#[track_caller]
pub fn reload(weir: &Weir, configuration: &str) {
    weir.configure(configuration);
    let output = weir.cli_output(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
