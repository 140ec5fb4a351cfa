//! What this process may do, and the machine's policies.

use std::fs;

use rustix::thread::{CapabilitySet, capabilities};

use super::{Check, State};
use crate::{exit::Exit, network::sysctl};

const AS_ROOT: &str = "run it as root, or as a service with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_PTRACE";

pub(super) fn checks() -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    vec![
        Check::ok("kernel", format!("Linux {release}"), "Informational: what it can do is tried below."),
        rights(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)),
        ptrace_scope(sysctl("kernel.yama.ptrace_scope").as_deref()),
        lockdown(fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref()),
    ]
}

/// Whether this process may make programs at all. Without that, probing says nothing.
pub(super) fn may_load(effective: CapabilitySet) -> bool {
    effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN)
}

fn rights(effective: CapabilitySet) -> Check {
    let has = |capability: CapabilitySet| effective.contains(capability);
    // Before 5.8, and still, CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let wanted = [
        ("CAP_BPF", may_load(effective)),
        ("CAP_NET_ADMIN", has(CapabilitySet::NET_ADMIN)),
        ("CAP_PERFMON", effective.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN)),
        ("CAP_SYS_PTRACE", has(CapabilitySet::SYS_PTRACE)),
    ];
    let lacking: Vec<&str> = wanted.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return Check::ok("rights", wanted.map(|(name, _)| name).join(", "), "Programs can be loaded and attached, and sockets taken.");
    }
    let effect = "Programs cannot be loaded and attached (BPF, NET_ADMIN, PERFMON), or listeners not be taken (SYS_PTRACE).";
    Check::ok("rights", format!("{} not held", lacking.join(", ")), effect).stops(Exit::Permission, AS_ROOT)
}

/// Yama's rule for who may trace whom, which `pidfd_getfd` obeys (`Documentation/admin-guide/LSM/Yama.rst`).
fn ptrace_scope(value: Option<&str>) -> Check {
    let check = |found: &str, effect: &str| Check::ok("kernel.yama.ptrace_scope", found, effect);
    match value {
        None => check("no Yama", "Listeners can be taken from their processes."),
        Some("3") => check("3: nobody may trace", "No listener can be taken from its process, so nothing can be balanced.").stops(
            Exit::Permission,
            "set kernel.yama.ptrace_scope = 2 in /etc/sysctl.d and restart the machine: the kernel does not let it be lowered while it runs",
        ),
        Some(scope) => check(scope, "Listeners can be taken from their processes with CAP_SYS_PTRACE."),
    }
}

/// `none [integrity] confidentiality`, the one in force in brackets.
fn lockdown(text: Option<&str>) -> Check {
    let level = text.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0)).unwrap_or("none");
    let check = |effect: &str| Check::ok("kernel lockdown", level, effect);
    if level != "confidentiality" {
        return check("Programs may read what they need of the kernel.");
    }
    check("Programs may not read kernel memory: whether another program steers a group is not seen, and groups are taken as free.")
        .with_remedy(State::Limited, "start the kernel with lockdown=integrity, or without")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_are_lacking_are_named_and_stop_weir() {
        let all = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE;
        assert_eq!(rights(all).state, State::Ok);
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN | CapabilitySet::SYS_PTRACE;
        assert_eq!(rights(old).state, State::Ok, "CAP_SYS_ADMIN stands for two");
        let some = rights(CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
        assert_eq!((some.found.as_str(), some.exit), ("CAP_PERFMON, CAP_SYS_PTRACE not held", Some(Exit::Permission)));
        assert!(!may_load(CapabilitySet::NET_ADMIN));
    }

    #[test]
    fn only_scope_3_keeps_everybody_from_tracing() {
        for fine in [None, Some("0"), Some("1"), Some("2")] {
            assert_eq!(ptrace_scope(fine).state, State::Ok, "{fine:?}");
        }
        assert_eq!(ptrace_scope(Some("3")).exit, Some(Exit::Permission));
    }

    #[test]
    fn the_level_in_brackets_is_in_force() {
        assert_eq!(lockdown(Some("none [integrity] confidentiality\n")).found, "integrity");
        assert_eq!(lockdown(Some("none integrity [confidentiality]\n")).state, State::Limited);
        assert_eq!(lockdown(None).found, "none");
    }
}
