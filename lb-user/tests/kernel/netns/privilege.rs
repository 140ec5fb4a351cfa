//! What Weir may do once it runs, read from /proc and tried; and that the service of `deploy/systemd` gives it enough, and little more.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lb_user::privilege::daemon::KEPT;
use libtest_mimic::Trial;
use rustix::thread::CapabilitySet;
use tempfile::TempDir;

use super::live::service_with_ready;
use crate::support::confined_role;
use crate::support::daemon::{Weir, binary};
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Pair, tool};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("privilege::daemon_and_helper_keep_what_they_need", daemon_and_helper_keep_what_they_need),
        trial("privilege::what_the_daemon_must_not_do_fails", what_the_daemon_must_not_do_fails),
        trial("privilege::the_services_capabilities_are_enough", the_services_capabilities_are_enough),
        trial("privilege::the_service_is_confined", the_service_is_confined),
        trial("privilege::the_service_manager_is_told", the_service_manager_is_told),
    ]
}

const UNIT: &str = "../deploy/systemd/weir.service";
const PATIENCE: Duration = Duration::from_secs(20);
const WORKERS: u32 = 2;
const PORT: u16 = 80;
/// What the helper keeps.
const HELPERS: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// A pair with workers behind it.
fn stage() -> (Workers, Pair, Plan) {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], PORT);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), WORKERS);
    let plan = Plan::new(target, &pair.client_v4);
    (workers, pair, plan)
}

/// A field of a thread's status.
fn field(status: &str, name: &str) -> String {
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// A set of capabilities among them.
fn set(status: &str, name: &str) -> CapabilitySet {
    CapabilitySet::from_bits_retain(u64::from_str_radix(&field(status, name), 16).expect("hexadecimal"))
}

fn assert_confined(status: &str, kept: CapabilitySet) {
    let set = |name: &str| set(status, name);
    assert_eq!((set("CapEff"), set("CapPrm")), (kept, kept), "{status}");
    assert_eq!((set("CapInh"), set("CapAmb")), (CapabilitySet::empty(), CapabilitySet::empty()), "{status}");
    assert_eq!((field(status, "NoNewPrivs").as_str(), field(status, "Seccomp").as_str()), ("1", "2"), "{status}");
}

fn daemon_and_helper_keep_what_they_need() {
    let (_workers, pair, plan) = stage();
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    service_with_ready(&weir, WORKERS as usize);
    open_close(&pair.client, &plan, 100).assert_no_failure();
    // A scrape is written on a thread of its own.
    weir.metrics();

    let pid = weir.pid();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").map(|thread| thread.expect("a thread").path());
    let threads: Vec<_> = threads.collect();
    assert!(threads.len() >= 2, "its loop is a thread of its own: {threads:?}");
    for thread in threads {
        let status = fs::read_to_string(thread.join("status")).expect("status");
        assert_confined(&status, KEPT);
        assert!(KEPT.contains(set(&status, "CapBnd")), "{status}");
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    let helper = children.split_whitespace().next().expect("a helper");
    let status = fs::read_to_string(format!("/proc/{helper}/status")).expect("status");
    assert_eq!(field(&status, "Name"), "weir-helper");
    assert_confined(&status, HELPERS);
}

fn what_the_daemon_must_not_do_fails() {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--role", confined_role::NAME, "all"])
        .output()
        .expect("run the role");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A program that stands for `weir`, which it starts by these lines of shell: `$@` is what `weir run` was given.
fn wrapped(directory: &TempDir, lines: &str) -> std::path::PathBuf {
    let path = directory.path().join("weir");
    let weir = binary();
    let script = format!("#!/bin/sh\nWEIR={}\n[ \"$1\" = run ] || exec \"$WEIR\" \"$@\"\n{lines}\n", weir.display());
    fs::write(&path, script).expect("write the script");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("make it a program");
    path
}

/// What stands behind `key=` in the service, all lines together.
fn setting(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(UNIT).expect("the service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The daemon starts, balances and reloads with the capabilities that the service leaves it. It runs inside the namespace: `--netns` takes
/// one more.
fn the_services_capabilities_are_enough() {
    let (_workers, pair, plan) = stage();
    let directory = tempfile::tempdir().expect("a directory");
    let names = setting("CapabilityBoundingSet").iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect::<Vec<_>>();
    assert_eq!(names.len(), 5, "{names:?}");
    // Its first words are: run --iface IFACE --listen-metrics ADDRESS --netns PATH.
    let lines = format!(
        "interface=$3 namespace=$7\nshift 7\nexec nsenter --net=\"$namespace\" setpriv --no-new-privs --inh-caps=-all \
         --bounding-set=-all,+{} \"$WEIR\" run --iface \"$interface\" --listen-metrics off \"$@\"",
        names.join(",+")
    );
    let mut weir = Weir::prepare(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    weir.set_binary(&wrapped(&directory, &lines));
    weir.restart_until(|weir| {
        let status = weir.cli_output(&["status", "--json"]);
        let picture: serde_json::Value = serde_json::from_slice(&status.stdout).map_err(|error| error.to_string())?;
        let ready = picture["services"][0]["backends"].as_array().map_or(0, Vec::len);
        if ready == WORKERS as usize { Ok(()) } else { Err(format!("{ready} backends")) }
    });
    open_close(&pair.client, &plan, 200).assert_no_failure();
    weir.cli(&["reload", "--json"]);
    open_close(&pair.client, &plan, 200).assert_no_failure();
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid())).expect("status");
    assert_confined(&status, KEPT);
    // A kernel may refuse this one program to everybody.
    let log = weir.log();
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("WARN ") || line.contains("ERROR ")).collect();
    assert!(complaints.iter().all(|line| line.contains("the program `accepted`")), "{complaints:?}");
    weir.cli(&["stop", "--json"]);
    weir.terminated();
    assert!(!weir.pins().exists(), "nothing is left");
}

/// What systemd itself makes of the service: no mistake in it, and a score below 3.0.
fn the_service_is_confined() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("weir.service");
    let unit = fs::read_to_string(UNIT).expect("the service");
    // Where it is installed there is a program and a man page; here there is this program and none.
    let program = binary().canonicalize().expect("the program");
    fs::write(&copy, unit.replace("/usr/bin/weir", &program.display().to_string())).expect("write the copy");
    let said = tool("sh", &["-c", "systemd-analyze verify --man=no \"$1\" 2>&1", "sh", &copy.display().to_string()]);
    assert!(!said.contains("weir.service"), "{said}");
    let score = tool("systemd-analyze", &["security", "--offline=yes", "--threshold=29", "--no-pager", &copy.display().to_string()]);
    println!("{}", score.lines().last().unwrap_or_default());

    let names = |set: CapabilitySet| set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>();
    let mut granted = setting("CapabilityBoundingSet");
    let mut needed = names(KEPT.union(HELPERS));
    granted.sort();
    needed.sort();
    assert_eq!(granted, needed, "the service grants what daemon and helper keep, and nothing else");
}

fn the_service_manager_is_told() {
    let (_workers, pair, _) = stage();
    let directory = tempfile::tempdir().expect("a directory");
    let manager = Manager::listen(&directory.path().join("notify"));
    let lines = format!("NOTIFY_SOCKET={} WATCHDOG_USEC=400000 exec \"$WEIR\" \"$@\"", directory.path().join("notify").display());
    let mut weir = Weir::prepare(&pair.server, Pair::SERVER_DEVICE, None, &[]);
    weir.set_binary(&wrapped(&directory, &lines));
    weir.restart();
    manager.wait_for(&["READY=1"]);
    manager.wait_for(&["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
    weir.reload();
    manager.wait_for(&["RELOADING=1", "READY=1"]);
    assert_eq!(weir.terminate(), Some(0));
    manager.wait_for(&["STOPPING=1"]);
}

/// Plays the service manager's end of sd_notify(3).
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        Self(socket)
    }

    /// Waits for these, in this order, signs of life in between left out.
    fn wait_for(&self, expected: &[&str]) {
        let mut expected = expected.iter().peekable();
        let mut heard = Vec::new();
        eventually(PATIENCE, || {
            let mut bytes = [0; 256];
            let length = self.0.recv(&mut bytes).map_err(|error| format!("heard {heard:?}: {error}"))?;
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let first = message.lines().next().unwrap_or_default().to_owned();
            if Some(&&*first) == expected.peek().map(|next| &**next) {
                expected.next();
            } else {
                assert_eq!(first, "WATCHDOG=1", "after {heard:?}");
            }
            heard.push(first);
            if expected.peek().is_none() { Ok(()) } else { Err(format!("heard {heard:?}")) }
        });
    }
}
