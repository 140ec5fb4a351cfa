//! `HAProxy` from the distribution: threads with a `SO_REUSEPORT` socket each (`shards by-thread`), reloaded through its master process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{PATIENCE, children, end_with_workers, server_directory, signal, wait_until_accepting};
use crate::support::netns::Entrance;
use crate::support::wait::eventually;

/// A `HAProxy` of its own directory in master-worker mode. `/` answers `PID THREAD\n`, `/body` answers [`super::long_body`]; the latter
/// carries the headers `X-Worker: THREAD` and `X-Pid: PID`. Dropping it ends it.
#[derive(Debug)]
pub struct HaProxy {
    master: Child,
    directory: TempDir,
}

impl HaProxy {
    /// Starts `HAProxy` with so many threads on these addresses and returns when it accepts on the first.
    pub fn start(entrance: &Entrance, listen: &[SocketAddr], threads: u32) -> Self {
        let directory = server_directory();
        let path = directory.path();
        let configuration = path.join("haproxy.cfg");
        fs::write(&configuration, configure(path, listen, threads)).expect("write haproxy.cfg");
        let log_file = File::create(path.join("haproxy.log")).expect("make HAProxy's log");
        let mut master = entrance
            .command("haproxy")
            .args(["-W", "-db", "-f"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().expect("one more descriptor"))
            .stderr(log_file)
            .spawn()
            .expect("start haproxy");
        wait_until_accepting(entrance, listen[0], &mut master, &|| log(path));
        Self { master, directory }
    }

    /// The master process.
    pub fn master(&self) -> u32 {
        self.master.id()
    }

    /// The worker processes of the moment: one, or several while old ones finish after a reload.
    pub fn worker_pids(&self) -> Vec<u32> {
        children(self.master.id())
    }

    /// Reloads (SIGUSR2): returns when a new worker process runs; the old one finishes what it holds and goes.
    pub fn reload(&self) {
        let before = self.worker_pids();
        signal(self.master.id(), Signal::SIGUSR2);
        eventually(PATIENCE, || {
            let new = self.worker_pids().into_iter().any(|pid| !before.contains(&pid));
            if new { Ok(()) } else { Err(format!("no new HAProxy worker; its log: {}", self.log())) }
        });
    }

    /// Waits until only the new worker process runs after a reload.
    pub fn wait_until_settled(&self) {
        eventually(PATIENCE, || {
            let running = self.worker_pids().len();
            if running == 1 { Ok(()) } else { Err(format!("{running} HAProxy workers run; the log: {}", self.log())) }
        });
    }

    /// What `HAProxy` wrote.
    pub fn log(&self) -> String {
        log(self.directory.path())
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- HAProxy\n{}", self.log());
        }
        end_with_workers(&mut self.master);
    }
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("haproxy.log")).unwrap_or_default()
}

/// A served file has to fit a buffer. `expose-fd listeners` makes a reload hand the sockets over instead of opening new ones.
fn configure(directory: &Path, listen: &[SocketAddr], threads: u32) -> String {
    let directory = directory.display();
    let binds = listen.iter().map(|address| format!("  bind {address} shards by-thread")).collect::<Vec<_>>().join("\n");
    format!(
        "global
  nbthread {threads}
  maxconn 4000
  tune.bufsize 65536
  stats socket {directory}/admin.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  backlog 4096
  timeout client 30s
  timeout connect 5s
  timeout server 30s
frontend tests
{binds}
  http-request return status 200 content-type text/plain file {directory}/body hdr X-Worker %[thread] hdr X-Pid %pid if {{ path /body }}
  http-request return status 200 content-type text/plain lf-string \"%pid %[thread]\\n\"
"
    )
}
