//! What the host allows the defence, and what it is like: asked of the kernel now and then.

use std::{collections::BTreeMap, fs, os::linux::fs::MetadataExt as _};

use lb_common::abi::{Scheme, live_flags};

use crate::{
    config::{Defence, SchemeChoice},
    dataplane::{Dataplane, Survival, probe_window},
    network::{Network, sysctl},
    observe::snapshot::Interface,
    plan::{Note, Service},
};

/// What is known of the host. By default nothing, and so nothing is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct HostFacts {
    /// How many CPUs packets may come in by.
    pub cpus: u32,
    /// How cookies are made.
    pub scheme: Scheme,
    /// Why in this way, if it is not the best.
    pub why: Option<Note>,
    /// `lb_common::abi::live_flags`.
    pub willing: u32,
    /// The room for a new connection that the kernel offers, and its window scale.
    pub window: (u32, u8),
    /// net.ipv4.tcp_syncookies
    pub syncookies: u32,
    /// The inode of the network namespace.
    pub namespace: u32,
    /// How often a SYN queue was full, when it was last looked at.
    pub overflows: Option<u64>,
    /// Where a cookie's connection would be lost, by interface and family (true: IPv4), and why.
    lost: BTreeMap<(u32, bool), String>,
}

impl HostFacts {
    /// Asks.
    pub fn of(dataplane: &Dataplane, network: &Network, attached: &[Interface], config: &Defence) -> Self {
        let syncookies = sysctl("net.ipv4.tcp_syncookies").and_then(|value| value.parse().ok()).unwrap_or(0);
        let (scheme, why) = scheme(config.scheme, dataplane.restores(), syncookies, config.manage_sysctl);
        let mut facts = Self {
            cpus: online_cpus(),
            scheme,
            why,
            syncookies,
            willing: willing(),
            namespace: namespace(),
            overflows: crate::network::syn_queue_overflows(),
            ..Self::default()
        };
        match probe_window(None) {
            Ok(window) => facts.window = (window.space, window.window_scale.unwrap_or(0)),
            Err(error) => {
                tracing::warn!("cannot find out the window that this host announces ({error}): XDP answers no SYN");
                facts.scheme = Scheme::None;
            }
        }
        for interface in attached.iter().filter(|interface| !interface.is_gone()).filter_map(|one| network.interface(one.index)) {
            if interface.loopback {
                continue;
            }
            if dataplane.restores() {
                let found = dataplane.survival(interface);
                for (is_ipv4, survival) in [(true, found.v4), (false, found.v6)] {
                    match survival {
                        Some(Survival::Lost) => drop(facts.lost.insert((interface.index, is_ipv4), format!("on {}", interface.name))),
                        Some(Survival::Unclear(why)) => {
                            tracing::debug!("{}: it is not clear whether a cookie's connection survives: {why}", interface.name);
                            if loose_is_off() {
                                facts.lost.insert((interface.index, is_ipv4), format!("on {}", interface.name));
                            }
                        }
                        Some(Survival::Survives) | None => {}
                    }
                }
            } else if loose_is_off() {
                facts.lost.extend([true, false].map(|is_ipv4| ((interface.index, is_ipv4), format!("on {}", interface.name))));
            }
        }
        facts
    }

    /// Whether cookies' connections of the service would be lost somewhere.
    pub fn is_unsafe(&self, service: &Service) -> bool {
        service.entries.iter().any(|entry| self.lost.contains_key(&(entry.interface, entry.address.is_ipv4())))
    }

    /// What the user should know.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes: Vec<Note> = self.why.iter().cloned().collect();
        let mut places: Vec<&str> = self.lost.values().map(String::as_str).collect();
        places.dedup();
        if !places.is_empty() {
            notes.push(Note {
                text: format!(
                    "no SYN is answered in XDP {}: a connection that begins with a cookie was tried and lost in this host's packet filter",
                    places.join(", ")
                ),
                remedy: "look for rules that drop new connections without SYN (`nft list ruleset`: `ct state new tcp flags != syn`), or \
                         net.netfilter.nf_conntrack_tcp_loose = 0; what was mended is noticed within a minute"
                    .to_owned(),
            });
        }
        notes
    }
}

/// How cookies are made, and what there is to say about it.
fn scheme(wanted: SchemeChoice, restores: bool, syncookies: u32, manages: bool) -> (Scheme, Option<Note>) {
    let note = |text: &str, remedy: &str| Some(Note { text: text.to_owned(), remedy: remedy.to_owned() });
    if syncookies == 0 {
        let text = "no SYN is answered in XDP: net.ipv4.tcp_syncookies is 0, and the kernel refuses every cookie";
        return (Scheme::None, note(text, "`sysctl -w net.ipv4.tcp_syncookies=1`; it is noticed within a minute"));
    }
    let costs = "with the kernel's own cookies a client keeps its MSS and loses window scale, SACK, timestamps and ECN";
    match (wanted, restores) {
        (SchemeChoice::Auto | SchemeChoice::Own, true) => (Scheme::Own, None),
        (SchemeChoice::Own, false) => {
            let text = "no SYN is answered in XDP: `scheme = \"own\"` needs bpf_sk_assign_tcp_reqsk (Linux 6.9) and tcx on every interface";
            (Scheme::None, note(text, "write `scheme = \"auto\"`, or see what `weir doctor` says"))
        }
        (SchemeChoice::Kernel, _) | (SchemeChoice::Auto, false) if syncookies == 1 && !manages => (
            Scheme::Kernel,
            note(
                &format!("{costs}; and as `manage_sysctl = false`, XDP answers only while the kernel's SYN queue is full"),
                "set net.ipv4.tcp_syncookies = 2, or leave `manage_sysctl` out",
            ),
        ),
        (SchemeChoice::Kernel, _) => (Scheme::Kernel, note(costs, "leave `scheme` out where the kernel can do better")),
        (SchemeChoice::Auto, false) => (Scheme::Kernel, note(costs, "Linux 6.9 and later can do better: see `weir doctor`")),
    }
}

/// The sysctls that decide which options a connection may have.
fn willing() -> u32 {
    let flag = |name: &str, flag: u32| if sysctl(name).is_some_and(|value| value != "0") { flag } else { 0 };
    flag("net.ipv4.tcp_window_scaling", live_flags::WINDOW_SCALE)
        | flag("net.ipv4.tcp_sack", live_flags::SELECTIVE_ACKNOWLEDGEMENT)
        | flag("net.ipv4.tcp_ecn", live_flags::CONGESTION_NOTIFICATION)
        | flag("net.ipv4.tcp_timestamps", live_flags::TIMESTAMPS)
}

/// The inode of the calling thread's network namespace.
pub(super) fn namespace() -> u32 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |facts| u32::try_from(facts.st_ino()).unwrap_or(0))
}

/// Whether connection tracking, if it is loaded, takes a connection's first packet for invalid unless it is a SYN.
fn loose_is_off() -> bool {
    sysctl("net.netfilter.nf_conntrack_tcp_loose").is_some_and(|value| value == "0")
}

fn online_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_the_best_that_works() {
        let of = |wanted, restores, syncookies, manages| scheme(wanted, restores, syncookies, manages);
        assert_eq!(of(SchemeChoice::Auto, true, 1, true), (Scheme::Own, None));
        assert_eq!(of(SchemeChoice::Auto, false, 1, true).0, Scheme::Kernel);
        assert_eq!(of(SchemeChoice::Kernel, true, 2, false).0, Scheme::Kernel);
        assert_eq!(of(SchemeChoice::Own, false, 1, true).0, Scheme::None);
        for wanted in [SchemeChoice::Auto, SchemeChoice::Own, SchemeChoice::Kernel] {
            assert_eq!(of(wanted, true, 0, true).0, Scheme::None, "the kernel refuses all cookies");
        }
        assert!(of(SchemeChoice::Kernel, true, 1, false).1.is_some_and(|note| note.text.contains("manage_sysctl")));
    }
}
