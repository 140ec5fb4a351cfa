//! nginx from the distribution, with `listen .. reuseport`: one socket per worker, all of them open in the master and in every worker.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::{fs, path::Path};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{PATIENCE, children, server_directory, signal, wait_until_accepting};
use crate::support::netns::Entrance;
use crate::support::wait::eventually;

/// An nginx of its own directory. `/` answers `PID CONNECTION\n`, `/body` answers [`super::long_body`]; every response carries the header
/// `X-Worker: PID`. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    master: Child,
    directory: TempDir,
    workers: usize,
}

impl Nginx {
    /// Starts nginx with so many workers on these addresses and returns when it accepts on the first.
    pub fn start(entrance: &Entrance, listen: &[SocketAddr], workers: usize) -> Self {
        let directory = server_directory();
        let path = directory.path();
        let configuration = path.join("nginx.conf");
        fs::write(&configuration, configure(path, listen, workers)).expect("write nginx.conf");
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
        // The master first, so that it starts no new worker.
        let workers = self.worker_pids();
        let _ = self.master.kill();
        let _ = self.master.wait();
        for worker in workers {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(worker).unwrap_or(i32::MAX)), Signal::SIGKILL);
        }
    }
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("error.log")).unwrap_or_default()
}

fn configure(directory: &Path, listen: &[SocketAddr], workers: usize) -> String {
    let directory = directory.display();
    let listen = listen.iter().map(|address| format!("    listen {address} reuseport backlog=4096;")).collect::<Vec<_>>().join("\n");
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
