//! What Weir and the server's kernel have counted.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::Reason;

use crate::netns::live::{PATIENCE, status};
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
    /// Reads them: from the pinned maps where no daemon runs.
    pub fn read(weir: &Weir, server: &Namespace) -> Self {
        let status = status(weir);
        // Those that were never counted are not told.
        let mut reasons: BTreeMap<_, _> = Reason::ALL.into_iter().map(|reason| (reason.label().to_owned(), 0)).collect();
        for count in status.services.iter().flat_map(|service| &service.packets).chain(&status.passed) {
            *reasons.entry(count.reason.clone()).or_default() += count.packets;
        }
        Self {
            reasons,
            restored: status.defence.restored,
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
    wait_longer_for_mode(weir, wanted, PATIENCE);
}

/// Waits until it does this, which may take so long.
#[track_caller]
pub fn wait_longer_for_mode(weir: &Weir, wanted: &str, patience: Duration) {
    eventually(patience, || {
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

/// Waits until the daemon's log says this.
#[track_caller]
pub fn wait_for_line(weir: &Weir, wanted: &str) {
    eventually(PATIENCE, || {
        if weir.log().contains(wanted) { Ok(()) } else { Err(format!("the log does not say {wanted:?}:\n{}", weir.log())) }
    });
}

/// Has the daemon take another configuration.
#[track_caller]
pub fn reload(weir: &Weir, configuration: &str) {
    weir.configure(configuration);
    let output = weir.cli_output(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
