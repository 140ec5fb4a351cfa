//! Servers under test: our own worker processes, nginx and `HAProxy`.

mod haproxy;
mod nginx;
pub mod source_role;
pub mod worker_role;
mod workers;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::netns::Entrance;
use super::wait::eventually;

pub use haproxy::{HaProxy, ProxyPlan};
pub use nginx::Nginx;
pub use worker_role::WorkerPlan;
pub use workers::{ManySockets, Workers};

/// How long a server may take to start, reload or stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body nginx and `HAProxy` serve at `/body`: several segments long, so that a connection cut in the middle shows.
pub fn long_body() -> Vec<u8> {
    (0..4096_u32).flat_map(|line| format!("{line:06}\n").into_bytes()).collect()
}

/// A directory that a server which drops root's rights may read.
fn server_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("weirt-").tempdir().expect("make a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open the temporary directory to the server");
    fs::write(directory.path().join("body"), long_body()).expect("write the body to serve");
    directory
}

/// Waits until `address` accepts; panics with the end of the server's log when the process ends before.
fn wait_until_accepting(entrance: &Entrance, address: SocketAddr, server: &mut Child, log: &dyn Fn() -> String) {
    eventually(PATIENCE, || {
        if let Ok(Some(status)) = server.try_wait() {
            panic!("the server ended at its start ({status}): {}", log());
        }
        let attempt = entrance.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        attempt.map(drop).map_err(|error| format!("connect to {address}: {error}; its log: {}", log()))
    });
}

/// Sends a signal to a process; panics when there is none such.
pub fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process).expect("a process id"));
    kill(pid, signal).unwrap_or_else(|error| panic!("send {signal} to process {process}: {error}"));
}

/// Whether a process has a handler for a signal and does not put it off.
fn catches(process: u32, signal: Signal) -> bool {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let has = |set: &str| {
        let signals = text.lines().find_map(|line| line.strip_prefix(set)).and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
        signals.is_some_and(|signals| signals >> (signal as i32 - 1) & 1 == 1)
    };
    has("SigCgt:") && !has("SigBlk:")
}

/// Ends a master process and its workers: by SIGTERM, which lets the master reap them, and by force what is left after a second.
fn end_with_workers(master: &mut Child) {
    let workers = children(master.id());
    let process = |pid: u32| Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    if matches!(master.try_wait(), Ok(None)) {
        let _ = kill(process(master.id()), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(1);
        while matches!(master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    if matches!(master.try_wait(), Ok(Some(_))) {
        return;
    }
    // The master first, so that it starts no new worker.
    let _ = master.kill();
    let _ = master.wait();
    for worker in workers {
        let _ = kill(process(worker), Signal::SIGKILL);
    }
}

/// The children of a process, from /proc.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The second field after the name's closing bracket: the name may hold spaces and brackets itself.
fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
