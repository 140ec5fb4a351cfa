//! What the kernel's BPF side can do, tried where it can be tried.

use std::{io, path::Path};

use rustix::{fs::statfs, thread::capabilities};

use super::{Check, State, defence, host};
use crate::{
    dataplane::probe::{Feature, Support, Types, is_compiled, probe},
    exit::Exit,
    network::sysctl,
};

/// `BPF_FS_MAGIC`, `include/uapi/linux/magic.h`.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// How a feature is shown: its name, whether Weir cannot start without it, what it gives, and what its absence costs.
struct Description {
    name: &'static str,
    needed: bool,
    gives: &'static str,
    without: &'static str,
    remedy: &'static str,
}

pub(super) fn checks(types: &io::Result<Types>, pin_root: &Path) -> Vec<Check> {
    let mut checks = vec![type_information(types.as_ref().err()), pins(pin_root, file_system(pin_root))];
    if !capabilities(None).is_ok_and(|sets| host::may_load(sets.effective)) {
        let effect = "What the kernel's BPF side can do was not tried.";
        checks.push(Check::ok("bpf features", "CAP_BPF is not held", effect).with_remedy(State::Unknown, "run `weir doctor` as root"));
        return checks;
    }
    checks.push(compiler(is_compiled()));
    let tried = Feature::ALL.map(|feature| (feature, probe(feature, types.as_ref().ok())));
    checks.extend(tried.iter().map(|(feature, support)| feature_check(*feature, support)));
    checks.push(defence::scheme(&tried, sysctl("net.ipv4.tcp_syncookies").as_deref()));
    checks
}

fn type_information(error: Option<&io::Error>) -> Check {
    let Some(error) = error else {
        return Check::ok("btf", "/sys/kernel/btf/vmlinux", "Programs find the kernel's structures and functions by name.");
    };
    Check::ok("btf", format!("none ({error})"), "Programs cannot be fitted to this kernel's structures.")
        .stops(Exit::Kernel, "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (every large distribution's is), with /sys mounted")
}

/// The magic number of the file system that holds the path, or its nearest parent that exists.
fn file_system(path: &Path) -> Option<u32> {
    // The type of the number differs between architectures; the magic has 32 bits on all.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a magic number has 32 bits in a wider, signed field")]
    path.ancestors().find_map(|parent| statfs(parent).ok()).map(|found| found.f_type as u32)
}

fn pins(pin_root: &Path, magic: Option<u32>) -> Check {
    let place = pin_root.display();
    if magic == Some(BPF_FS_MAGIC) {
        return Check::ok("bpffs", format!("mounted at {place}"), "Programs and maps outlive the daemon.");
    }
    Check::ok("bpffs", format!("not mounted at {place}"), "Programs and maps have no place where they outlive the daemon.")
        .stops(Exit::Kernel, "mount -t bpf bpf /sys/fs/bpf")
}

fn compiler(is_compiled: Option<bool>) -> Check {
    let check = |found: &str, effect: &str| Check::ok("bpf jit", found, effect);
    match is_compiled {
        Some(true) => check("on", "Programs run as machine code."),
        Some(false) => check("off", "Programs are interpreted, several times slower.")
            .with_remedy(State::Limited, "sysctl -w net.core.bpf_jit_enable=1, before Weir starts"),
        None => check("not tried", "No program could be loaded to find out.").with_remedy(State::Unknown, "see the lines below"),
    }
}

fn feature_check(feature: Feature, support: &Support) -> Check {
    let Description { name, needed, gives, without, remedy } = describe(feature);
    let found = match support {
        Support::Yes => return Check::ok(name, "works", gives),
        Support::No => "not in this kernel".to_owned(),
        Support::Refused => "refused to this process by a policy of this machine".to_owned(),
        Support::Unclear(error) => format!("cannot be tried ({error})"),
    };
    let state = match support {
        Support::Unclear(_) => State::Unknown,
        Support::Refused => State::Limited,
        _ => State::Missing,
    };
    let check = Check::ok(name, found, without);
    if needed && state != State::Unknown { check.stops(Exit::Kernel, remedy) } else { check.with_remedy(state, remedy) }
}

const NEWER: &str = "use a newer kernel: 6.1 or later has all that Weir needs";
const POLICY: &str = "nothing has to be done; a kernel without that restriction makes the difference";
const NO_KFUNC: &str = "nothing has to be done; Linux 6.9 has it";

fn describe(feature: Feature) -> Description {
    let needed = |name, gives| {
        let without = "Weir's programs do not load.";
        Description { name, needed: true, gives, without, remedy: NEWER }
    };
    let optional = |name, gives, without, remedy| Description { name, needed: false, gives, without, remedy };
    match feature {
        Feature::XdpFragments => needed("xdp with fragments", "Frames above a page and joined packets are seen too."),
        Feature::SelectOrMigrate => {
            needed("sk_reuseport, select or migrate", "Queued connections of a listener that closes move to the others.")
        }
        Feature::ReuseportArray => needed("reuseport socket array", "Listeners can be chosen by number."),
        Feature::InnerMaps => needed("maps of arrays of any size", "Tables are swapped whole."),
        Feature::SocketStorage => needed("socket storage", "Connections are counted by backend."),
        Feature::RingBuffer => needed("ring buffer", "Listeners that begin and end are reported at once."),
        Feature::SocketStateTracepoint => optional(
            "tracepoint inet_sock_set_state",
            "Listeners that begin and end are noticed at once, and established connections counted by backend.",
            "Listeners that begin and end are noticed by the next scan only, and connections are not counted by backend.",
            NEWER,
        ),
        Feature::FileIterator => optional(
            "iterator over files",
            "A group that another program steers is seen, and left alone.",
            "Whether another program steers a group cannot be seen: name the services instead of discovering them.",
            NEWER,
        ),
        Feature::SocketIterator => optional(
            "iterator over sockets with a value",
            "SYN queues, accept queues and receive queues are read from the listeners themselves.",
            "Of the listeners' queues only the length and limit of accept queues are known: /metrics leaves the others out.",
            NEWER,
        ),
        Feature::DropTracepoint => optional(
            "tracepoint kfree_skb with a reason",
            "Packets to services that the kernel drops behind XDP are counted by its reason.",
            "The kernel's own drops are not counted: /metrics leaves them out.",
            NEWER,
        ),
        Feature::AcceptExit => optional(
            "fexit at inet_csk_accept",
            "The time from the end of a handshake to accept(2) is measured for each connection.",
            "Accept latency is estimated from what waits in the accept queues; /metrics leaves its histogram out.",
            POLICY,
        ),
        Feature::GenSyncookie => optional(
            "bpf_tcp_gen_syncookie",
            "The SYN defence can have the kernel's cookies taken by a listener.",
            "The SYN defence cannot use the kernel's cookies.",
            NEWER,
        ),
        Feature::RawGenSyncookie => optional(
            "bpf_tcp_raw_gen_syncookie_ipv4/6",
            "The SYN defence can answer with the kernel's cookies from the card.",
            "The SYN defence cannot make the kernel's cookies in XDP.",
            NEWER,
        ),
        Feature::RawCheckSyncookie => optional(
            "bpf_tcp_raw_check_syncookie_ipv4/6",
            "The SYN defence can refuse false cookies of the kernel's kind on the card.",
            "The SYN defence cannot check the kernel's cookies in XDP.",
            NEWER,
        ),
        Feature::AssignRequest => optional(
            "kfunc bpf_sk_assign_tcp_reqsk",
            "The SYN defence can make cookies of its own, and connections keep all their TCP options.",
            "The SYN defence has to use the kernel's cookies: connections made in a flood have fewer TCP options.",
            NO_KFUNC,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_stops_weir_only_where_nothing_takes_its_place() {
        for feature in Feature::ALL {
            assert_eq!(feature_check(feature, &Support::Yes).state, State::Ok);
            let lacking = feature_check(feature, &Support::No);
            let needed = describe(feature).needed;
            assert_eq!(lacking.state, if needed { State::Problem } else { State::Missing }, "{lacking}");
            assert_eq!(lacking.exit, needed.then_some(Exit::Kernel));
        }
        assert_eq!(feature_check(Feature::AcceptExit, &Support::Refused).state, State::Limited);
        assert_eq!(feature_check(Feature::SelectOrMigrate, &Support::Refused).state, State::Problem);
    }

    #[test]
    fn a_probe_that_failed_says_nothing_about_the_kernel() {
        let unclear = feature_check(Feature::RingBuffer, &Support::Unclear("out of memory".to_owned()));
        assert_eq!((unclear.state, unclear.exit), (State::Unknown, None));
        assert!(unclear.found.contains("out of memory"));
    }

    #[test]
    fn pins_need_a_bpf_file_system() {
        assert_eq!(pins(Path::new("/sys/fs/bpf/weir"), Some(BPF_FS_MAGIC)).state, State::Ok);
        // /tmp and /proc exist on every machine, and neither is one.
        let elsewhere = pins(Path::new("/proc/weir/pins"), file_system(Path::new("/proc/weir/pins")));
        assert_eq!(elsewhere.exit, Some(Exit::Kernel));
        assert_eq!(pins(Path::new("/x"), None).exit, Some(Exit::Kernel));
    }

    #[test]
    fn an_interpreter_and_a_kernel_without_types_are_told() {
        assert_eq!(compiler(Some(true)).state, State::Ok);
        assert_eq!(compiler(Some(false)).state, State::Limited);
        assert_eq!(compiler(None).state, State::Unknown);
        assert_eq!(type_information(None).state, State::Ok);
        assert_eq!(type_information(Some(&io::ErrorKind::NotFound.into())).exit, Some(Exit::Kernel));
    }
}
