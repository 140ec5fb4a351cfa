//! What the host allows the defence, and what it is like: asked of the kernel now and then.

use std::{collections::BTreeMap, fs, os::linux::fs::MetadataExt as _};

use lb_common::abi::{Scheme, live_flags};

use crate::{
    config::{Defence, SchemeChoice},
    dataplane::{Dataplane, Survival, probe_window},
    network::{self, Network, sysctl},
    observe::snapshot::Interface,
    plan::{Entry, Note, Service},
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
    /// The room for a new connection that the kernel offers, and its window scale: by the listener's receive buffer, none for the default.
    windows: BTreeMap<Option<u32>, (u32, u8)>,
    /// The default.
    default_buffer: Option<u32>,
    /// net.ipv4.tcp_syncookies
    pub syncookies: u32,
    /// The inode of the network namespace.
    pub namespace: u32,
    /// How often a SYN queue was full, when it was last looked at.
    pub overflows: Option<u64>,
    /// Where a cookie's connection would be lost, by interface and family (true: IPv4).
    lost: BTreeMap<(u32, bool), Place>,
    /// Whether the user wants no other scheme than Weir's own.
    own_only: bool,
    /// Where what XDP sends back is lost, by interface: its name, and what is known of its other end.
    deaf: BTreeMap<u32, (String, OtherEnd)>,
}

/// An interface on which not every cookie survives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    interface: String,
    /// The kernel's own cookies do.
    kernels_survive: bool,
}

/// What may stand in a SYN-ACK to a client of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookies {
    /// Those of the host's scheme.
    Any,
    /// Only the kernel's own.
    Kernels,
    /// None, for this reason.
    None(&'static str),
}

/// Why a veth in native mode cannot send back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OtherEnd {
    /// It has no XDP program.
    Idle,
    /// Whether it has one cannot be seen.
    Hidden,
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
            own_only: config.scheme == SchemeChoice::Own,
            willing: willing(),
            default_buffer: default_receive_buffer(),
            namespace: namespace(),
            overflows: network::syn_queue_overflows(),
            ..Self::default()
        };
        if facts.window(None).is_none() {
            facts.scheme = Scheme::None;
        }
        for (interface, mode) in attached.iter().filter_map(|one| Some((network.interface(one.index)?, &one.mode))) {
            if interface.loopback || mode == Interface::GONE {
                continue;
            }
            if interface.kind.as_deref() == Some("veth")
                && mode != Interface::GENERIC
                && let Some(other_end) = deafness(network::other_end_runs_program(interface.index), &interface.name)
            {
                facts.deaf.insert(interface.index, (interface.name.clone(), other_end));
            }
            if dataplane.restores() {
                let found = dataplane.survival(interface);
                tracing::debug!("{}: tried connections of cookies: {found:?}", interface.name);
                for (is_ipv4, survival) in [(true, found.v4), (false, found.v6)] {
                    let kernels_survive = match survival {
                        Some(Survival::Lost) => false,
                        Some(Survival::KernelsOnly) => true,
                        Some(Survival::Unclear(_)) => {
                            if !loose_is_off() {
                                continue;
                            }
                            false
                        }
                        Some(Survival::Survives) | None => continue,
                    };
                    let place = Place { interface: interface.name.clone(), kernels_survive };
                    facts.lost.insert((interface.index, is_ipv4), place);
                }
            } else if loose_is_off() {
                let place = Place { interface: interface.name.clone(), kernels_survive: false };
                facts.lost.extend([true, false].map(|is_ipv4| ((interface.index, is_ipv4), place.clone())));
            }
        }
        facts
    }

    /// Whether it was looked at at all.
    pub fn is_known(&self) -> bool {
        self.cpus > 0
    }

    /// The room for a new connection that the kernel offers and its window scale, where this is the smallest receive buffer of the
    /// listeners. A buffer that was set to the very default is taken for one that was not set: the kernel takes the scale that was announced.
    pub fn window(&mut self, buffer: Option<u32>) -> Option<(u32, u8)> {
        let buffer = buffer.filter(|buffer| Some(*buffer) != self.default_buffer);
        if let Some(window) = self.windows.get(&buffer) {
            return Some(*window);
        }
        match probe_window(buffer) {
            Ok(window) => {
                let window = (window.space, window.window_scale.unwrap_or(0));
                self.windows.insert(buffer, window);
                Some(window)
            }
            Err(error) => {
                tracing::warn!("cannot find out the window that this host announces ({error}): XDP answers no SYN");
                None
            }
        }
    }

    /// Which cookies and their connections get through, wherever clients of the service come from. `arrives`: SYNs of clients have reached
    /// its listeners lately.
    pub fn cookies(&self, service: &Service, arrives: bool) -> Cookies {
        let any = |is: &dyn Fn(&Entry) -> bool| service.entries.iter().any(is);
        let lost = |entry: &Entry, kernels_survive: bool| {
            let place = self.lost.get(&(entry.interface, entry.address.is_ipv4()));
            place.is_some_and(|place| place.kernels_survive == kernels_survive)
        };
        if any(&|entry| lost(entry, false)) {
            Cookies::None("a cookie's connection would be lost in this host's packet filter")
        } else if any(&|entry| self.deaf.contains_key(&entry.interface)) {
            Cookies::None("what XDP sends back by a veth would be lost at its other end")
        } else if !any(&|entry| lost(entry, true)) {
            Cookies::Any
        } else if !self.can_use_kernels() {
            Cookies::None("this host's translation of addresses lets only the kernel's own cookies through, and the scheme is `own`")
        } else if !arrives {
            Cookies::None("this host translates addresses, and no client of the service has reached its listeners yet")
        } else {
            Cookies::Kernels
        }
    }

    /// Whether the kernel's own cookies may be used where others would be lost.
    fn can_use_kernels(&self) -> bool {
        !self.own_only && self.scheme != Scheme::None
    }

    /// Whether the kernel's cookies are made for any service.
    pub fn uses_kernels(&self) -> bool {
        self.scheme == Scheme::Kernel || (self.can_use_kernels() && self.lost.values().any(|place| place.kernels_survive))
    }

    /// What the user should know.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes: Vec<Note> = self.why.iter().cloned().collect();
        let places = |kernels_survive: bool| {
            let places = self.lost.values().filter(|place| place.kernels_survive == kernels_survive);
            let mut places: Vec<&str> = places.map(|place| place.interface.as_str()).collect();
            places.dedup();
            (!places.is_empty()).then(|| places.join(", "))
        };
        if let Some(places) = places(false) {
            notes.push(Note {
                text: format!(
                    "no SYN is answered in XDP on {places}: a connection that begins with a cookie was tried and lost in this host's packet \
                     filter"
                ),
                remedy: "look for rules that drop new connections without SYN (`nft list ruleset`: `ct state new tcp flags != syn`), or \
                         net.netfilter.nf_conntrack_tcp_loose = 0; what was mended is noticed within a minute"
                    .to_owned(),
            });
        }
        if let Some(places) = places(true) {
            notes.push(Note {
                text: format!(
                    "SYNs on {places} are answered with the kernel's own cookies, which keep the MSS and no other TCP option, and only for \
                     services whose listeners clients have reached: this host translates addresses (chains of type nat), and with those the \
                     kernel loses a connection that it is told of"
                ),
                remedy: "nothing, if the host needs its nat chains (Docker's, say); without them every option is kept".to_owned(),
            });
        }
        for (other_end, what) in
            [(OtherEnd::Idle, "has no XDP program"), (OtherEnd::Hidden, "cannot be seen, so that it may have no XDP program")]
        {
            let names: Vec<&str> = self.deaf.values().filter(|(_, why)| *why == other_end).map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                notes.push(deaf(&names.join(", "), what));
            }
        }
        notes
    }
}

/// The note about veths in native mode.
fn deaf(names: &str, what: &str) -> Note {
    Note {
        text: format!(
            "no SYN is answered in XDP on {names}: the other end of this veth {what}, and then it takes nothing that XDP sends back in \
             native mode"
        ),
        remedy: "run with `--mode generic`, or attach a program that passes everything to the other end, in native mode; it is noticed \
                 within a minute"
            .to_owned(),
    }
}

/// What keeps a veth in native mode from sending back, if anything does.
fn deafness(runs_program: Result<bool, network::Error>, name: &str) -> Option<OtherEnd> {
    match runs_program {
        Ok(true) => None,
        Ok(false) => Some(OtherEnd::Idle),
        Err(error) => {
            tracing::debug!("{name}: the other end of the pair cannot be seen: {error}");
            Some(OtherEnd::Hidden)
        }
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

/// The receive buffer of a TCP socket that has set none: the middle one of three.
fn default_receive_buffer() -> Option<u32> {
    sysctl("net.ipv4.tcp_rmem")?.split_whitespace().nth(1)?.parse().ok()
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

    #[test]
    fn a_veth_answers_only_if_its_other_end_is_known_to_take_it() {
        let facts = |runs_program| HostFacts {
            deaf: deafness(runs_program, "v0").map(|why| (2, ("v0".to_owned(), why))).into_iter().collect(),
            ..HostFacts::default()
        };
        let service: Service = serde_json::from_value(serde_json::json!({
            "index": 1, "name": "web", "protocol": "tcp", "address": "0.0.0.0", "port": 80, "device": null, "configured": true,
            "takeover": false, "flags": 0, "table_size": 0, "backends": [], "notes": [],
            "entries": [{ "address": "192.0.2.1", "interface": 2, "macs": [0, 0] }]
        }))
        .unwrap();
        let refused = || network::Error::Malformed { family: "route" };
        for (runs_program, is_unsafe, says) in
            [(Ok(true), false, ""), (Ok(false), true, "has no XDP program"), (Err(refused()), true, "cannot be seen")]
        {
            let facts = facts(runs_program);
            let notes = facts.notes();
            let is_refused = matches!(facts.cookies(&service, true), Cookies::None(_));
            assert_eq!((is_refused, notes.len()), (is_unsafe, usize::from(is_unsafe)), "{says}");
            assert!(notes.iter().all(|note| note.text.contains(says) && note.text.contains("on v0") && note.remedy.contains("generic")));
        }
        let elsewhere = Service { entries: Vec::new(), ..service };
        assert_eq!(facts(Ok(false)).cookies(&elsewhere, true), Cookies::Any);
    }
}
