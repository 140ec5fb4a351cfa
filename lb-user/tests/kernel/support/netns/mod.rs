//! Network namespaces that end with the test, and threads and processes inside them.

pub mod topology;

pub use topology::{Pair, Routed};

use std::ffi::OsStr;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::process::CommandExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Counts the namespaces of this process, for unique names.
static CREATED: AtomicU32 = AtomicU32::new(0);

/// A way into a namespace: threads, processes and tools inside it. Cheap to clone; it keeps the namespace's kernel object, not its name.
#[derive(Clone, Debug)]
pub struct Entrance {
    handle: Arc<File>,
}

impl Entrance {
    /// The way into a namespace that is there already, by the name that `ip netns` lists.
    pub fn named(name: &str) -> std::io::Result<Self> {
        Ok(Self { handle: Arc::new(File::open(format!("/run/netns/{name}"))?) })
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it gave; its panic is passed on.
    ///
    /// Threads that `work` starts are inside too, and so are sockets it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                self.enter();
                work()
            };
            scope.spawn(inside).join()
        })
        .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts `work` on a thread inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let entrance = self.clone();
        std::thread::spawn(move || {
            entrance.enter();
            work()
        })
    }

    /// A command that starts inside the namespace, with the mounts of this process: bpffs stays visible, unlike under `ip netns exec`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let handle = Arc::clone(&self.handle);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor opened before, and allocates nothing.
        unsafe { command.pre_exec(move || Ok(setns(&*handle, CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    /// Runs a tool inside and returns its output; panics with its error text when it fails.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        finish(self.command(program).args(arguments), program, arguments)
    }

    /// Runs `ip ARGUMENTS` inside, words split at spaces, and returns its output.
    pub fn ip(&self, arguments: &str) -> String {
        let words: Vec<_> = arguments.split_whitespace().collect();
        self.tool("ip", &words)
    }

    /// Loads an nft ruleset, given as text, inside.
    pub fn nft(&self, ruleset: &str) {
        self.tool("nft", &[ruleset]);
    }

    /// Sets a sysctl of the namespace, such as `net.ipv4.tcp_syncookies`.
    pub fn set_sysctl(&self, name: &str, value: &str) {
        let path = sysctl_path(name);
        self.run(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("set {name} to {value}: {error}"));
    }

    /// Reads a sysctl of the namespace, without the line's end.
    pub fn sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        let text = self.run(|| std::fs::read_to_string(&path)).unwrap_or_else(|error| panic!("read {name}: {error}"));
        text.trim_end().to_owned()
    }

    fn enter(&self) {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
    }
}

/// A network namespace at `/run/netns/NAME`, loopback up; dropping it kills the processes in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    entrance: Entrance,
}

impl Namespace {
    /// Makes a namespace named `weirt-PID-N-LABEL`.
    pub fn new(label: &str) -> Self {
        let name = format!("weirt-{}-{}-{label}", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        tool("ip", &["netns", "add", &name]);
        let handle = Arc::new(File::open(format!("/run/netns/{name}")).expect("open the namespace that ip has just made"));
        let namespace = Self { name, entrance: Entrance { handle } };
        namespace.ip("link set lo up");
        namespace
    }

    /// The name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the namespace is bound, for `weir run --netns`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// The way in, for what outlives a borrow of the namespace.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// The processes whose main thread is inside, this one excepted.
    pub fn processes(&self) -> Vec<Pid> {
        let listed = Command::new("ip").args(["netns", "pids", &self.name]).output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&listed);
        text.lines().filter_map(|line| line.trim().parse().ok()).map(Pid::from_raw).filter(|pid| *pid != Pid::this()).collect()
    }
}

impl Deref for Namespace {
    type Target = Entrance;

    fn deref(&self) -> &Entrance {
        &self.entrance
    }
}

/// Removes the namespaces of test runs that ended without doing so (killed, say), and the processes in them.
pub fn sweep() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names {
        let owner = name.strip_prefix("weirt-").and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Ok(handle) = File::open(format!("/run/netns/{name}"))
        {
            eprintln!("removing {name}, left by an earlier run");
            drop(Namespace { name, entrance: Entrance { handle: Arc::new(handle) } });
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for process in self.processes() {
            // A process that ended by itself meanwhile is no fault.
            let _ = kill(process, Signal::SIGKILL);
        }
        let removed = Command::new("ip").args(["netns", "delete", &self.name]).status();
        if !removed.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("namespace {} was not removed: {removed:?}", self.name);
        }
    }
}

/// Runs a tool in this process' own namespace and returns its output; panics with its error text when it fails.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    finish(Command::new(program).args(arguments), program, arguments)
}

fn finish(command: &mut Command, program: &str, arguments: &[&str]) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("start {program}: {error}"));
    assert!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `net.ipv4.conf.eth0.forwarding` is a file under `/proc/sys`; a device name with a dot in it needs slashes from the caller.
fn sysctl_path(name: &str) -> String {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    format!("/proc/sys/{name}")
}
