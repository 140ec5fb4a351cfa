//! nginx from the distribution. With `listen .. reuseport` there is one socket per worker, all of them open in the master and in every
//! worker; without, one for all.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::{fs, path::Path};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{PATIENCE, children, end_with_workers, server_directory, signal, wait_until_accepting};
use crate::support::netns::Entrance;
use crate::support::wait::eventually;

/// An nginx of its own directory. `/` answers `PID CONNECTION\n`, `/body` answers [`super::long_body`]; every response carries the header
/// `X-Worker: PID`. Dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    master: Child,
    directory: TempDir,
    workers: usize,
}

impl Nginx {
    /// Starts nginx with so many workers on these addresses and returns when it accepts on the first.
    pub fn start(entrance: &Entrance, listen: &[SocketAddr], workers: usize) -> Self {
        Self::begin(entrance, listen, workers, "reuseport")
    }

    /// The same without reuseport, as nginx does by itself: its workers wait at one socket, and who is awake first accepts.
    pub fn start_sharing(entrance: &Entrance, listen: &[SocketAddr], workers: usize) -> Self {
        Self::begin(entrance, listen, workers, "")
    }

    /// `options` are those of `listen`.
    fn begin(entrance: &Entrance, listen: &[SocketAddr], workers: usize, options: &str) -> Self {
        let directory = server_directory();
        let path = directory.path();
        let configuration = path.join("nginx.conf");
        fs::write(&configuration, configure(path, listen, workers, options)).expect("write nginx.conf");
        let mut master = entrance
            .command("nginx")
            .arg("-p")
            .arg(path)
            .arg("-e")
            .arg(path.join("error.log"))
            .arg("-c")
            .arg(configuration)
            .stdin(Stdio::null())
            .spawn()
            .expect("start nginx");
        wait_until_accepting(entrance, listen[0], &mut master, &|| log(path));
        let nginx = Self { master, directory, workers };
        nginx.wait_for_new_workers(&[]);
        nginx
    }

    /// The master process.
    pub fn master(&self) -> u32 {
        self.master.id()
    }

    /// The worker processes of the moment, old ones that still shut down included.
    pub fn worker_pids(&self) -> Vec<u32> {
        children(self.master.id())
    }

    /// `nginx -s reload`: returns when the new workers run; the old ones may still be serving what they hold.
    pub fn reload(&self) {
        let before = self.worker_pids();
        signal(self.master.id(), Signal::SIGHUP);
        self.wait_for_new_workers(&before);
    }

    /// Another number of workers from the next reload on: with fewer, that reload closes the listening sockets that are too many.
    pub fn set_workers(&mut self, workers: usize) {
        let path = self.directory.path().join("nginx.conf");
        let before = fs::read_to_string(&path).expect("read nginx.conf");
        let [was, is] = [self.workers, workers].map(|count| format!("worker_processes {count};"));
        fs::write(&path, before.replace(&was, &is)).expect("write nginx.conf");
        self.workers = workers;
    }

    /// Waits until only new workers run after a reload. About 100 ms pass before nginx tells the old ones to end, and each keep-alive
    /// connection that one of them holds is closed then: a client such as wrk counts that as a read error.
    pub fn wait_until_settled(&self) {
        eventually(PATIENCE, || {
            let running = self.worker_pids().len();
            if running == self.workers { Ok(()) } else { Err(format!("{running} nginx workers run instead of {}", self.workers)) }
        });
    }

    /// Kills one worker with SIGKILL; the master starts another in its place.
    pub fn kill9(worker: u32) {
        signal(worker, Signal::SIGKILL);
    }

    /// Ends it gracefully (SIGQUIT) and waits for that.
    pub fn stop(mut self) {
        signal(self.master.id(), Signal::SIGQUIT);
        eventually(PATIENCE, || match self.master.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => Err("nginx has not ended after SIGQUIT".to_owned()),
        });
    }

    /// What nginx wrote to its error log.
    pub fn log(&self) -> String {
        log(self.directory.path())
    }

    fn wait_for_new_workers(&self, before: &[u32]) {
        eventually(PATIENCE, || {
            let new = self.worker_pids().into_iter().filter(|pid| !before.contains(pid)).count();
            if new >= self.workers {
                Ok(())
            } else {
                Err(format!("{new} of {} new nginx workers run; its log: {}", self.workers, self.log()))
            }
        });
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- nginx\n{}", self.log());
        }
        end_with_workers(&mut self.master);
    }
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("error.log")).unwrap_or_default()
}

/// A client that the kernel reset, and whose connection is there still, keeps a worker that shuts down for as long as a header may take.
fn configure(directory: &Path, listen: &[SocketAddr], workers: usize, options: &str) -> String {
    let directory = directory.display();
    let listen = listen.iter().map(|address| format!("    listen {address} backlog=4096 {options};")).collect::<Vec<_>>().join("\n");
    format!(
        "daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/client; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000;
  client_header_timeout 5s;
  server {{
{listen}
    add_header X-Worker $pid always;
    location = / {{ return 200 \"$pid $connection\\n\"; }}
    location = /body {{ root {directory}; }}
  }}
}}
"
    )
}
