//! Starts that cannot succeed, each with the real program: its exit code, one clear error with a remedy, as text and as JSON, and nothing
//! half-attached afterwards: a right start of the same instance works at once.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::programs;
use crate::support::daemon::{Weir, binary};
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Namespace, Pair, topology::join};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("faults::without_root", without_root),
        trial("faults::no_such_interface", no_such_interface),
        trial("faults::no_native_mode", no_native_mode),
        trial("faults::occupied_by_a_native_program", || occupied(true)),
        trial("faults::occupied_by_a_generic_program", || occupied(false)),
        trial("faults::second_interface_occupied", second_interface_occupied),
        trial("faults::no_bpf_file_system", no_bpf_file_system),
        trial("faults::bpf_file_system_is_mounted", bpf_file_system_is_mounted),
        trial("faults::kernel_without_types", kernel_without_types),
        trial("faults::two_daemons", two_daemons),
        trial("faults::metrics_port_in_use", metrics_port_in_use),
        trial("faults::ten_faults_of_a_file", ten_faults_of_a_file),
        trial("faults::refused_reload_changes_nothing", refused_reload_changes_nothing),
    ]
}

/// Counts the set-ups of this process.
static SETUPS: AtomicU32 = AtomicU32::new(0);

/// A pair with four workers behind it, and an instance that is not started. Its maps have a size that no other's have, by which what is
/// left of them in the kernel is found.
struct Setup {
    weir: Weir,
    _workers: Workers,
    pair: Pair,
    plan: Plan,
    services: u32,
}

impl Setup {
    fn new() -> Self {
        let pair = Pair::new();
        let target = SocketAddr::new(pair.server_v4[0], 8080);
        let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 4);
        let plan = Plan::new(target, &pair.client_v4);
        let services = 700 + std::process::id() % 211 + SETUPS.fetch_add(1, Ordering::Relaxed);
        let weir = Weir::prepare(&pair.server, Pair::SERVER_DEVICE, Some(&format!("[limits]\nservices = {services}\n")), &[]);
        Self { weir, _workers: workers, pair, plan, services }
    }

    /// `weir run` with these arguments in the server's namespace, to its end, started by `prefix`.
    fn run(&self, prefix: &[&str], arguments: &[&str]) -> Output {
        let mut words: Vec<String> = prefix.iter().map(ToString::to_string).collect();
        words.extend(["timeout".to_owned(), "20".to_owned(), self.weir.binary().display().to_string(), "run".to_owned()]);
        words.extend(arguments.iter().map(ToString::to_string));
        words.extend(["--instance".to_owned(), self.weir.instance().to_owned()]);
        words.extend(["--run-dir".to_owned(), self.run_dir().display().to_string()]);
        words.extend(["--netns".to_owned(), self.pair.server.path().display().to_string()]);
        if !arguments.contains(&"--listen-metrics") {
            words.extend(["--listen-metrics".to_owned(), "off".to_owned()]);
        }
        if !arguments.contains(&"--config") {
            words.extend(["--config".to_owned(), self.weir.configuration_path().display().to_string()]);
        }
        Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().expect("run weir")
    }

    /// Runs it both ways and checks what it says: the exit code, and that each of `says` is in the error or its remedy.
    fn refused(&self, prefix: &[&str], arguments: &[&str], exit: i32, says: &[&str]) {
        assert_refused(&self.run(prefix, arguments), exit, says);
        let as_json = [arguments, &["--json"]].concat();
        assert_refused_in_json(&self.run(prefix, &as_json), exit, says);
        self.assert_nothing_left();
    }

    fn run_dir(&self) -> PathBuf {
        self.weir.configuration_path().parent().expect("it is in a directory").to_owned()
    }

    fn assert_nothing_left(&self) {
        assert!(!self.weir.pins().exists(), "{} is left", self.weir.pins().display());
        let device = self.pair.server.ip(&format!("-d link show dev {}", Pair::SERVER_DEVICE));
        assert!(!device.contains("xdp") && !device.contains("prog/"), "a program is left: {device}");
        let left = names(&self.run_dir());
        assert!(!left.iter().any(|name| name.contains(".sock") || name.contains(".state")), "left in the run directory: {left:?}");
        // The kernel frees maps some time after their last user is gone; a program that were left would keep its own.
        eventually(Duration::from_secs(10), || {
            let left = maps_of_size(self.services + 1);
            if left.is_empty() { Ok(()) } else { Err(format!("maps are left: {left:?}")) }
        });
    }

    /// Starts the instance rightly, and checks that it balances.
    fn start_rightly(&mut self) {
        self.weir.restart();
        self.balances();
        assert!(!maps_of_size(self.services + 1).is_empty(), "the maps are found by their size");
    }

    fn balances(&self) {
        let before = self.weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]);
        open_close(&self.pair.client, &self.plan, 100).assert_no_failure();
        assert_eq!(self.weir.metrics().count("weir_backend_selections_total", &[("cause", "syn")]) - before, 100);
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("read a directory");
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn maps_of_size(entries: u32) -> Vec<String> {
    let maps = aya::maps::loaded_maps().filter_map(Result::ok).filter(|map| map.max_entries() == entries);
    maps.map(|map| format!("{} {}", map.id(), map.name_as_str().unwrap_or_default())).collect()
}

/// One error, one remedy, nothing but the log before them.
fn assert_refused(output: &Output, exit: i32, says: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{error}");
    let failure: Vec<&str> = error.lines().skip_while(|line| !line.starts_with("weir: ")).collect();
    assert!(failure.iter().filter(|line| line.starts_with("weir: ")).count() == 1, "one error: {error}");
    assert!(failure.iter().any(|line| line.contains("remedy: ")), "a remedy: {error}");
    for words in says {
        assert!(failure.join("\n").contains(words), "nothing of {words:?}: {error}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

fn assert_refused_in_json(output: &Output, exit: i32, says: &[&str]) -> Value {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{error}");
    let objects: Vec<&str> = error.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(objects.len(), 1, "one object: {error}");
    let object: Value = serde_json::from_str(objects[0]).unwrap_or_else(|problem| panic!("{problem}: {error}"));
    assert_eq!(object["exit"], exit, "{object}");
    for words in says {
        assert!(object.to_string().replace("\\\"", "\"").contains(words), "nothing of {words:?}: {object}");
    }
    object
}

fn without_root() {
    let mut setup = Setup::new();
    let directory = setup.run_dir();
    let open = |directory: &Path| std::fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("open the directory");
    open(&directory);
    // The checkout may be in root's home, which nobody else can read.
    let elsewhere = tempfile::tempdir().expect("make a temporary directory");
    open(elsewhere.path());
    let readable = elsewhere.path().join("weir");
    std::fs::copy(binary(), &readable).expect("copy weir");
    setup.weir.set_binary(&readable);
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    setup.refused(&nobody, &["--iface", Pair::SERVER_DEVICE], 4, &["takes root", "sudo"]);
    setup.start_rightly();
    // What the daemon says is for root alone.
    let status = Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(readable)
        .args(["status", "--instance", setup.weir.instance(), "--run-dir"])
        .arg(directory)
        .output()
        .expect("run weir");
    assert_refused(&status, 4, &["as root"]);
}

fn no_such_interface() {
    let mut setup = Setup::new();
    setup.refused(&[], &["--iface", "nonesuch"], 5, &["there is no interface nonesuch", "ip link"]);
    // One of two: the other one gets nothing either.
    setup.refused(&[], &["--iface", Pair::SERVER_DEVICE, "--iface", "nonesuch"], 5, &["there is no interface nonesuch"]);
    setup.start_rightly();
}

fn no_native_mode() {
    let mut setup = Setup::new();
    setup.refused(&[], &["--iface", "lo", "--mode", "native"], 5, &["lo cannot run XDP in its driver", "--mode auto"]);
    // The first can, the second cannot.
    let both = ["--iface", Pair::SERVER_DEVICE, "--iface", "lo", "--mode", "native"];
    setup.refused(&[], &both, 5, &["lo cannot run XDP in its driver"]);
    setup.start_rightly();
}

fn occupied(native: bool) {
    let mut setup = Setup::new();
    let program = programs::xdp();
    let link = setup.pair.server.run(|| programs::link_xdp(&program, Pair::SERVER_DEVICE, native));
    let id = programs::id(&program);
    let (mode, word) = if native { ("native mode", "xdpdrv off") } else { ("generic mode", "xdpgeneric off") };
    let occupant = format!("id {id}, name stranger, {mode}");
    let says = [occupant.as_str(), "toclient has another XDP program attached", word];
    let refused = |setup: &Setup| {
        let arguments = ["--iface", Pair::SERVER_DEVICE];
        assert_refused(&setup.run(&[], &arguments), 5, &says);
        assert_refused_in_json(&setup.run(&[], &["--iface", Pair::SERVER_DEVICE, "--json"]), 5, &says);
        assert!(!setup.weir.pins().exists());
    };
    refused(&setup);
    let device = setup.pair.server.ip(&format!("-d link show dev {}", Pair::SERVER_DEVICE));
    assert!(device.contains(&format!("id {id} ")), "the stranger's program is where it was: {device}");
    drop(link);
    setup.assert_nothing_left();
    setup.start_rightly();
}

fn second_interface_occupied() {
    let setup = Setup::new();
    let other = Namespace::new("other");
    join(&other, "left", &setup.pair.server, "right");
    let program = programs::xdp();
    let _link = setup.pair.server.run(|| programs::link_xdp(&program, "right", true));
    setup.refused(&[], &["--iface", Pair::SERVER_DEVICE, "--iface", "right"], 5, &["right has another XDP program", "name stranger"]);
}

fn no_bpf_file_system() {
    let mut setup = Setup::new();
    let directory = setup.run_dir().join("pins");
    let root = directory.display().to_string();
    setup.refused(&[], &["--iface", Pair::SERVER_DEVICE, "--pin-root", &root], 6, &[&root, "not on a BPF file system", "mount -t bpf"]);
    assert!(!directory.exists(), "no directory is made where nothing can be pinned");
    setup.start_rightly();
}

/// A program that runs weir in a mount namespace of its own after these commands.
fn wrapped(setup: &Setup, commands: &str) -> PathBuf {
    let path = setup.run_dir().join("wrapper");
    let binary = binary().display().to_string();
    std::fs::write(&path, format!("#!/bin/sh\nexec unshare --mount sh -c '{commands}; exec {binary} \"$@\"' sh \"$@\"\n"))
        .expect("write the wrapper");
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("make it a program");
    path
}

fn bpf_file_system_is_mounted() {
    let mut setup = Setup::new();
    let wrapper = wrapped(&setup, "while umount -l /sys/fs/bpf 2>/dev/null; do :; done");
    setup.weir.set_binary(&wrapper);
    setup.weir.restart();
    setup.balances();
    assert!(setup.weir.log().contains("mounted the BPF file system at /sys/fs/bpf"), "{}", setup.weir.log());
    assert!(!setup.weir.pins().exists(), "the file system that it mounted is in its own mount namespace");
    assert!(setup.weir.cli_output(&["stop"]).status.success());
    assert_eq!(setup.weir.terminated(), Some(0));
    setup.assert_nothing_left();
}

/// Programs on the kernel's own functions need its types. The balancing does not: it goes on, and says what is lost.
fn kernel_without_types() {
    let mut setup = Setup::new();
    let wrapper = wrapped(&setup, "mount -t tmpfs none /sys/kernel/btf");
    setup.weir.set_binary(&wrapper);
    setup.weir.restart();
    setup.balances();
    let log = setup.weir.log();
    for effect in
        ["listeners are noticed by scan alone, and connections are not counted", "a group that another program steers is not noticed"]
    {
        assert_eq!(log.lines().filter(|line| line.contains("WARN") && line.contains(effect)).count(), 1, "one line of {effect:?}: {log}");
    }
    let status = setup.weir.cli(&["status", "--json"]);
    assert_eq!(status["daemon"]["events"], false);
    assert!(status["notes"].to_string().contains("noticed by scan alone"), "{}", status["notes"]);
    // A new worker joins all the same.
    let target = SocketAddr::new(setup.pair.server_v4[0], 8081);
    let _more = Workers::start(&setup.pair.server, &WorkerPlan::tcp(target), 2);
    eventually(Duration::from_secs(10), || match setup.weir.cli(&["status", "--json"])["services"].as_array().map_or(0, Vec::len) {
        2 => Ok(()),
        number => Err(format!("{number} services")),
    });
}

fn two_daemons() {
    let mut setup = Setup::new();
    setup.start_rightly();
    let instance = setup.weir.instance().to_owned();
    // The same instance again.
    let running = format!("`{instance}` runs already");
    let says = [running.as_str(), "--instance"];
    assert_refused(&setup.run(&[], &["--iface", Pair::SERVER_DEVICE]), 7, &says);
    assert_refused_in_json(&setup.run(&[], &["--iface", Pair::SERVER_DEVICE, "--json"]), 7, &says);
    setup.balances();

    // Another one on the same interface: whose it is is said.
    let same = Weir::prepare(&setup.pair.server, Pair::SERVER_DEVICE, None, &[]);
    let (exit, log) = same.run_to_end();
    assert_eq!(exit, Some(5), "{log}");
    assert!(log.contains(&format!("name ingress, native mode, of weir's instance `{instance}`")), "{log}");
    assert!(log.contains(&format!("`weir stop --instance {instance}`")), "{log}");
    assert!(!same.pins().exists(), "nothing is left of the second");
    setup.balances();

    // Another one on another interface of another namespace: beside each other.
    let beside = Pair::new();
    let target = SocketAddr::new(beside.server_v4[0], 8080);
    let _workers = Workers::start(&beside.server, &WorkerPlan::tcp(target), 2);
    let other = Weir::start(&beside.server, Pair::SERVER_DEVICE, None, &[]);
    open_close(&beside.client, &Plan::new(target, &beside.client_v4), 100).assert_no_failure();
    assert_eq!(other.metrics().count("weir_backend_selections_total", &[("cause", "syn")]), 100);
    setup.balances();
}

fn metrics_port_in_use() {
    let mut setup = Setup::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    let address = listener.local_addr().expect("its address").to_string();
    setup.refused(
        &[],
        &["--iface", Pair::SERVER_DEVICE, "--listen-metrics", &address],
        9,
        &[&address, "Address already in use", "--listen-metrics"],
    );
    setup.start_rightly();
}

/// Ten kinds of fault: the text, where it is, and what is said of it.
const FAULTY: [(&str, &str, &str); 10] = [
    ("[daemon\n", "1:", "TOML"),
    ("[deamon]\n", "1:", "deamon"),
    ("[daemon]\nmode = \"fast\"\n", "2:8", "daemon.mode"),
    ("[daemon]\nmetrics_listen = \"here\"\n", "2:18", "daemon.metrics_listen"),
    ("[daemon]\nrescan_interval = \"10 parsecs\"\n", "2:19", "daemon.rescan_interval"),
    ("[limits]\nservices = -1\n", "2:12", "limits.services"),
    ("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\naddress = \"0.0.0.0\"\n", "1:", "port"),
    ("[[service]]\nname = \"web\"\nprotocol = \"sctp\"\nport = 80\naddress = \"0.0.0.0\"\n", "3:12", "sctp"),
    ("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 65536\naddress = \"0.0.0.0\"\n", "4:8", "65536"),
    ("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"10.0.0\"\n", "5:11", "10.0.0"),
];

fn ten_faults_of_a_file() {
    let mut setup = Setup::new();
    let path = setup.run_dir().join("faulty.toml");
    let file = path.display().to_string();
    for (text, place, says) in FAULTY {
        std::fs::write(&path, text).expect("write the file");
        let arguments = ["--iface", Pair::SERVER_DEVICE, "--config", &file];
        assert_refused(&setup.run(&[], &arguments), 3, &[&format!("{file}:{place}"), says]);
        let object = assert_refused_in_json(&setup.run(&[], &[&arguments[..], &["--json"]].concat()), 3, &[says]);
        assert_eq!(object["faults"].as_array().map(Vec::len), Some(1), "{object}");
        let check = setup.weir.cli_output(&["config", "check", &file]);
        assert_refused(&check, 3, &[&format!("{file}:{place}"), says]);
    }
    std::fs::remove_file(&path).expect("remove the file");
    assert_refused(&setup.run(&[], &["--iface", Pair::SERVER_DEVICE, "--config", &file]), 3, &[&file, "No such file"]);
    setup.assert_nothing_left();
    setup.start_rightly();
}

/// On a reload the same faults leave what runs as it was, and are told by the command, the status and the metrics.
fn refused_reload_changes_nothing() {
    let mut setup = Setup::new();
    setup.start_rightly();
    let good = std::fs::read_to_string(setup.weir.configuration_path()).expect("read the configuration");
    let before = setup.weir.cli(&["status", "--json"]);
    for (text, place, says) in FAULTY.into_iter().chain([("[limits]\nservices = 5\n", "", "limits")]) {
        setup.weir.configure(text);
        let reload = setup.weir.cli_output(&["reload"]);
        assert_refused(&reload, 3, &[place, says]);
        let status = setup.weir.cli(&["status", "--json"]);
        assert!(status["daemon"]["last_reload"]["error"].as_str().is_some_and(|error| error.contains(says)), "{status}");
        assert_eq!(setup.weir.metrics().get("weir_config_last_reload_successful", &[]), Some(0.0));
        let cookies = |status: &Value| {
            let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
            backends.iter().map(|backend| backend["cookie"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(cookies(&status), cookies(&before), "the same backends");
        setup.balances();
    }
    setup.weir.configure(&good);
    assert!(setup.weir.cli_output(&["reload"]).status.success());
    assert_eq!(setup.weir.metrics().get("weir_config_last_reload_successful", &[]), Some(1.0));
    setup.balances();
}
