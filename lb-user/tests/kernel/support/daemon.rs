//! Weir itself: the daemon as a process of its own, asked over its metrics and its command line.
//!
//! The binary is the one cargo built beside this test, or the one that `WEIR_BIN` names.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::http;
use super::metrics::Metrics;
use super::netns::{Namespace, tool};
use super::servers::signal;
use super::wait::eventually;

/// How long the daemon may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts the instances of this process, for unique names.
static INSTANCES: AtomicU32 = AtomicU32::new(0);

/// The program under test.
pub fn binary() -> PathBuf {
    std::env::var_os("WEIR_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_weir")), PathBuf::from)
}

/// Mounts bpffs where pins go, when nothing is mounted there, and says so.
pub fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    if !mounts.lines().any(|mount| mount.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        eprintln!("mounting bpffs at /sys/fs/bpf");
        tool("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    }
}

/// A daemon attached to one interface of a namespace, an instance of its own. It runs outside the namespace (with `--netns`), and its
/// metrics listen on this host's loopback. Dropping it runs `weir stop`, so that nothing stays attached or pinned.
#[derive(Debug)]
pub struct Weir {
    instance: String,
    namespace: PathBuf,
    device: String,
    extra: Vec<String>,
    metrics_at: SocketAddr,
    directory: TempDir,
    child: Option<Child>,
    binary: PathBuf,
}

impl Weir {
    /// Starts the daemon and returns when it is ready. `configuration` is the text of a TOML file; without one it discovers.
    pub fn start(namespace: &Namespace, device: &str, configuration: Option<&str>, extra: &[&str]) -> Self {
        let mut weir = Self::prepare(namespace, device, configuration, extra);
        weir.restart();
        weir
    }

    /// An instance that is not started yet, for tests of what goes wrong at the start: see [`Weir::run_to_end`].
    pub fn prepare(namespace: &Namespace, device: &str, configuration: Option<&str>, extra: &[&str]) -> Self {
        mount_bpffs();
        let instance = format!("weirt-{}-{}", std::process::id(), INSTANCES.fetch_add(1, Ordering::Relaxed));
        let weir = Self {
            instance,
            namespace: namespace.path(),
            device: device.to_owned(),
            extra: extra.iter().map(ToString::to_string).collect(),
            metrics_at: free_port(),
            directory: tempfile::Builder::new().prefix("weirt-").tempdir().expect("make a temporary directory"),
            child: None,
            binary: binary(),
        };
        if let Some(text) = configuration {
            weir.configure(text);
        }
        weir
    }

    /// The instance's name, as in `--instance`.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The directory of the instance's pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/weir").join(&self.instance)
    }

    /// The configuration file, whether or not there is one.
    pub fn configuration_path(&self) -> PathBuf {
        self.directory.path().join("weir.toml")
    }

    /// Writes the configuration file; a running daemon reads it at [`Weir::reload`].
    pub fn configure(&self, text: &str) {
        fs::write(self.configuration_path(), text).expect("write the configuration");
    }

    /// The daemon's process; panics when it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// The program that this daemon is started from.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// From the next start on, another program (for upgrades).
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Starts the daemon again after [`Weir::kill9`] or [`Weir::terminate`], with the same arguments; returns when it is ready.
    pub fn restart(&mut self) {
        self.restart_until(|weir| match http::get_once(weir.metrics_at, "/readyz", Duration::from_secs(2)) {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(format!("/readyz answers {}: {}", response.status, String::from_utf8_lossy(&response.body))),
            Err(problem) => Err(problem),
        });
    }

    /// The same, where readiness cannot be asked for by plain HTTP: `is_ready` does.
    pub fn restart_until(&mut self, is_ready: impl Fn(&Self) -> Result<(), String>) {
        assert!(self.child.is_none(), "the daemon still runs");
        // Kept before it is ready, so that it ends with this value when it never is.
        self.child = Some(self.spawn());
        eventually(PATIENCE, || {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("weir ended before it was ready ({status}); its log:\n{}", self.log());
            }
            is_ready(self).map_err(|problem| format!("{problem}; its log:\n{}", self.log()))
        });
    }

    /// Runs the daemon where it is expected to end by itself: its exit code and its log.
    pub fn run_to_end(&self) -> (Option<i32>, String) {
        let mut child = self.spawn();
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = child.try_wait().expect("wait for weir") {
                return (status.code(), self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("weir was expected to end by itself, and ran on; its log:\n{}", self.log());
    }

    /// Kills the daemon with SIGKILL and waits until it is gone; the data plane stays.
    pub fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends the daemon with SIGTERM and waits for it: its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.end(Signal::SIGTERM)
    }

    /// Waits for the daemon that was told to end: its exit code.
    pub fn terminated(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the daemon ran");
        eventually(PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            _ => Err(format!("weir has not ended; its log:\n{}", self.log())),
        })
    }

    /// Sends SIGHUP: the daemon reads its configuration again. What came of it shows in the log and the metrics.
    pub fn reload(&self) {
        signal(self.pid(), Signal::SIGHUP);
    }

    /// Waits until so many backends are there, of all services together, and all take new connections.
    pub fn wait_for_backends(&self, count: usize) {
        eventually(PATIENCE, || {
            let status = self.cli(&["status", "--json"]);
            let services = status["services"].as_array().into_iter().flatten();
            let backends = services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
            let (ready, others): (Vec<_>, Vec<_>) = backends.partition(|backend| backend["state"] == "ready");
            let is_so = ready.len() == count && others.is_empty();
            if is_so { Ok(()) } else { Err(format!("{} backends are ready and {} are not", ready.len(), others.len())) }
        });
    }

    /// Scrapes the metrics.
    pub fn metrics(&self) -> Metrics {
        let response =
            http::get_once(self.metrics_at, "/metrics", Duration::from_secs(5)).unwrap_or_else(|problem| panic!("/metrics: {problem}"));
        assert_eq!(response.status, 200, "/metrics");
        Metrics::parse(&String::from_utf8(response.body).expect("the text format is UTF-8"))
    }

    /// Where the HTTP interface listens.
    pub fn http_address(&self) -> SocketAddr {
        self.metrics_at
    }

    /// Runs `weir ARGUMENTS` for this instance and reads its JSON: give `--json` among the arguments. Panics when it fails.
    pub fn cli(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.cli_output(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "weir {arguments:?} failed ({}): {err}", output.status);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("weir {arguments:?} printed no JSON ({error}): {out}"))
    }

    /// Runs `weir ARGUMENTS` for this instance and returns what it printed and its status.
    pub fn cli_output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run weir")
    }

    /// The same from inside a namespace, as on a host of its own.
    pub fn cli_inside(&self, namespace: &Namespace, arguments: &[&str]) -> Output {
        self.complete(namespace.command(&self.binary), arguments).output().expect("run weir")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.complete(Command::new(&self.binary), arguments)
    }

    fn complete(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).args(self.identity()).stdin(Stdio::null());
        command
    }

    /// What the daemon has written so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("weir.log")
    }

    /// The arguments that name the instance, the same for the daemon and for every command.
    pub fn identity(&self) -> [String; 4] {
        ["--instance".to_owned(), self.instance.clone(), "--run-dir".to_owned(), self.directory.path().display().to_string()]
    }

    fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("open the daemon's log");
        let mut command = Command::new(&self.binary);
        command.args(["run", "--iface", &self.device, "--listen-metrics", &self.metrics_at.to_string(), "--netns"]).arg(&self.namespace);
        command.args(self.identity());
        if self.configuration_path().exists() {
            command.arg("--config").arg(self.configuration_path());
        }
        command.args(&self.extra).stdin(Stdio::null()).stdout(log.try_clone().expect("one more descriptor")).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", self.binary.display()))
    }

    fn end(&mut self, how: Signal) -> Option<i32> {
        let mut child = self.child.take().expect("the daemon runs");
        signal(child.id(), how);
        eventually(PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            _ => Err(format!("weir has not ended after {how}; its log:\n{}", self.log())),
        })
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // First the command, as a user would; it has to work whether or not the daemon still runs.
        let stop = self.command(&["stop"]).output();
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- weir, instance {}\n{}", self.instance, self.log());
        }
        if self.pins().exists() {
            eprintln!("`weir stop` left {} behind: {stop:?}", self.pins().display());
        }
    }
}

/// A port of this host's loopback that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
    listener.local_addr().expect("its address")
}
