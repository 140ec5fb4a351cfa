//! `HAProxy` from the distribution, reloaded through its master process: threads with a `SO_REUSEPORT` socket each (`shards by-thread`)
//! that answer themselves, or a proxy in front of servers.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{PATIENCE, catches, children, end_with_workers, server_directory, signal, wait_until_accepting};
use crate::support::netns::Entrance;
use crate::support::wait::eventually;

/// A `HAProxy` of its own directory in master-worker mode. Dropping it ends it.
#[derive(Debug)]
pub struct HaProxy {
    master: Child,
    directory: TempDir,
}

/// A `HAProxy` that hands connections on: where it listens, by which algorithm (`balance`) it chooses, and whom from.
#[derive(Clone, Debug)]
pub struct ProxyPlan {
    pub listen: SocketAddr,
    pub balance: &'static str,
    pub servers: Vec<SocketAddr>,
}

/// The configuration's name in the directory.
const CONFIGURATION: &str = "haproxy.cfg";

impl HaProxy {
    /// Starts `HAProxy` with so many threads on these addresses and returns when it accepts on the first. `/` answers `PID THREAD\n`,
    /// `/body` answers [`super::long_body`]; the latter carries the headers `X-Worker: THREAD` and `X-Pid: PID`.
    pub fn start(entrance: &Entrance, listen: &[SocketAddr], threads: u32) -> Self {
        Self::begin(entrance, listen[0], |directory| answering(directory, listen, threads))
    }

    /// Starts `HAProxy` in front of servers and returns when it accepts.
    pub fn in_front(entrance: &Entrance, plan: &ProxyPlan) -> Self {
        Self::begin(entrance, plan.listen, |directory| plan.configuration(directory))
    }

    /// Another plan from the next reload on.
    pub fn set_plan(&self, plan: &ProxyPlan) {
        let directory = self.directory.path();
        fs::write(directory.join(CONFIGURATION), plan.configuration(directory)).expect("write HAProxy's configuration");
    }

    fn begin(entrance: &Entrance, first: SocketAddr, configuration: impl FnOnce(&Path) -> String) -> Self {
        let directory = server_directory();
        let path = directory.path();
        fs::write(path.join(CONFIGURATION), configuration(path)).expect("write HAProxy's configuration");
        let log_file = File::create(path.join("haproxy.log")).expect("make HAProxy's log");
        let mut master = entrance
            .command("haproxy")
            .args(["-W", "-db", "-f"])
            .arg(path.join(CONFIGURATION))
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().expect("one more descriptor"))
            .stderr(log_file)
            .spawn()
            .expect("start haproxy");
        wait_until_accepting(entrance, first, &mut master, &|| log(path));
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
        // Its worker accepts before the master takes orders, and one that comes too early is lost.
        eventually(PATIENCE, || {
            let ready = catches(self.master.id(), Signal::SIGUSR2);
            if ready { Ok(()) } else { Err(format!("HAProxy's master takes no SIGUSR2; its log: {}", self.log())) }
        });
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

impl ProxyPlan {
    /// A thread for each processor, as it starts by itself. Connections to the servers are used again for whichever client: the manual
    /// recommends it where nothing on the way breaks them off, and it nearly doubles what this proxy does.
    fn configuration(&self, directory: &Path) -> String {
        let Self { listen, balance, servers } = self;
        let servers = servers.iter().enumerate().map(|(number, address)| format!("  server worker{number} {address}\n"));
        let servers = servers.collect::<String>();
        format!(
            "{}frontend tests\n  bind {listen}\n  default_backend workers\nbackend workers\n  balance {balance}\n  http-reuse always\n{servers}",
            common(directory, "")
        )
    }
}

/// A served file has to fit a buffer.
fn answering(directory: &Path, listen: &[SocketAddr], threads: u32) -> String {
    let binds = listen.iter().map(|address| format!("  bind {address} shards by-thread")).collect::<Vec<_>>().join("\n");
    let common = common(directory, &format!("  nbthread {threads}\n  tune.bufsize 65536\n"));
    let directory = directory.display();
    format!(
        "{common}frontend tests
{binds}
  http-request return status 200 content-type text/plain file {directory}/body hdr X-Worker %[thread] hdr X-Pid %pid if {{ path /body }}
  http-request return status 200 content-type text/plain lf-string \"%pid %[thread]\\n\"
"
    )
}

/// What stands first in either configuration. `expose-fd listeners` makes a reload hand the sockets over instead of opening new ones.
fn common(directory: &Path, global: &str) -> String {
    let directory = directory.display();
    format!(
        "global
{global}  maxconn 4000
  stats socket {directory}/admin.sock mode 600 level admin expose-fd listeners
defaults
  mode http
  backlog 4096
  timeout client 30s
  timeout connect 5s
  timeout server 30s
"
    )
}
