//! Discovery over a real nginx, whose workers run as another user: needs root.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use lb_user::listeners::diag::Diag;
use lb_user::listeners::group::groups;
use lb_user::listeners::helper::{CallError, Helper, Refusal};
use lb_user::listeners::serving::{Server, Serving, Sighting, UNSERVED_AFTER, Watch};
use lb_user::listeners::{Listener, Protocol, socket};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial("netns::listeners::nginx_sockets_holders_servers_and_an_unserved_one", nginx_sockets_holders_servers_and_an_unserved_one)]
}

const WORKERS: usize = 3;
const PORT: u16 = 18_843;

/// An nginx with a socket for each worker, which ends with this value.
struct Nginx {
    master: Child,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let configuration = format!(
            "daemon off; user www-data; worker_processes {WORKERS}; pid {}; error_log {};\nevents {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {}; server {{ listen 127.0.0.1:{PORT} reuseport; return 200 \"ok\\n\"; }} }}\n",
            at("pid"),
            at("error.log"),
            at("body"),
        );
        fs::write(directory.path().join("nginx.conf"), configuration).expect("write the configuration");
        let master = Command::new("nginx").args(["-c", &at("nginx.conf"), "-p", &at("")]).spawn().expect("start nginx");
        Self { master, _directory: directory }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let workers = children(self.master.id());
        self.master.kill().expect("kill the master");
        self.master.wait().expect("wait");
        for worker in workers {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL);
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("task").join(pid.to_string()).join("children")).expect("children");
    list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn members() -> Vec<Listener> {
    Diag::open().expect("open").on_port(Protocol::Tcp, PORT).expect("dump")
}

/// nginx's sockets are found, numbered as its master made them, each with the one worker that polls it; one of them is taken; a worker
/// that died while the master cannot replace it leaves an unserved socket; and nothing of all this keeps a socket alive.
fn nginx_sockets_holders_servers_and_an_unserved_one() {
    // A test that failed before this one may have left threads behind, which `Helper::start` would refuse.
    // SAFETY: the C library is glibc, and no thread of these tests holds a lock that the helper needs.
    let helper = unsafe { Helper::start_unchecked() }.expect("start the helper");
    let nginx = Nginx::start();
    let master = nginx.master.id();
    let inodes = eventually("a poller for each socket", || {
        let inodes: Vec<u32> = members().iter().map(|member| member.inode).collect();
        let pollers = helper.pollers(&inodes, &[]).expect("pollers").found;
        (inodes.len() == WORKERS && pollers.len() == WORKERS).then_some(inodes)
    });

    let holders = helper.holders(&inodes, &[]).expect("holders");
    let group = groups(&members(), &holders.found).into_values().next().expect("one group");
    assert_eq!(group.len(), WORKERS);
    let in_master: Vec<i32> = group
        .iter()
        .map(|member| holders.found[&member.inode].iter().find(|holder| holder.pid == master).expect("the master holds every socket").fd)
        .collect();
    assert!(in_master.is_sorted(), "numbered by the master's descriptors: {in_master:?}");
    let workers: HashSet<u32> = children(master).into_iter().collect();
    let nginx_pids: Vec<u32> = workers.iter().copied().chain([master]).collect();
    let only_nginx = helper.holders(&inodes, &nginx_pids).expect("holders");
    assert_eq!((only_nginx.denied, &only_nginx.found), (0, &holders.found), "no process of nginx is closed to the helper");
    for member in &group {
        let holding: HashSet<u32> = holders.found[&member.inode].iter().map(|holder| holder.pid).collect();
        assert_eq!(holding, nginx_pids.iter().copied().collect(), "every worker keeps every socket open");
        assert!(holders.found[&member.inode].iter().all(|holder| holder.command == "nginx"));
    }

    let pollers = helper.pollers(&inodes, &[]).expect("pollers").found;
    let servers: HashSet<u32> = pollers.values().flatten().copied().collect();
    assert!(pollers.values().all(|pids| pids.len() == 1), "{pollers:?}");
    assert_eq!(servers, workers, "each worker serves its own socket");

    let victim = group[0];
    let worker = pollers[&victim.inode][0];
    let held = holders.found[&victim.inode].iter().find(|holder| holder.pid == worker).expect("the worker holds its socket");
    let taken = helper.take(victim.inode, worker, held.fd).expect("take a socket of another user's process");
    assert_eq!(socket::cookie(&taken).expect("cookie"), victim.cookie);
    assert!(socket::is_reuseport(&taken).expect("reuseport") && socket::is_listening(&taken).expect("listening"));
    drop(taken);
    let refused = helper.take(victim.inode, worker, 0);
    assert!(matches!(refused, Err(CallError::Refused(Refusal::AnotherSocket))), "{refused:?}");

    // The master cannot replace the worker while it is stopped.
    kill(Pid::from_raw(master.cast_signed()), Signal::SIGSTOP).expect("stop the master");
    kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).expect("kill a worker");
    let mut watches: HashMap<u64, Watch> = HashMap::new();
    let look = |watches: &mut HashMap<u64, Watch>, now: Duration| -> HashMap<u32, (Server, Serving)> {
        let holders = helper.holders(&inodes, &[]).expect("holders").found;
        let pollers = helper.pollers(&inodes, &[]).expect("pollers").found;
        let group_pollers: Vec<u32> = pollers.values().flatten().copied().collect();
        let judge = |member: &Listener| {
            let holding: Vec<u32> = holders[&member.inode].iter().map(|holder| holder.pid).collect();
            let waits = helper.waits(&holding).expect("waits").found;
            let other_means: Vec<u32> = waits.iter().filter(|(_, waits)| waits.may_serve()).map(|(&pid, _)| pid).collect();
            let pollers = pollers.get(&member.inode).map_or(&[][..], Vec::as_slice);
            let sighting =
                Sighting { holders: &holding, pollers, group_pollers: &group_pollers, other_means: &other_means, last_accepting: None };
            (member.inode, watches.entry(member.cookie).or_default().observe(&sighting, now))
        };
        group.iter().map(judge).collect()
    };
    eventually("the dead worker's socket has no poller", || {
        (look(&mut watches, Duration::ZERO)[&victim.inode].0 == Server::Nobody).then_some(())
    });
    let later = look(&mut watches, UNSERVED_AFTER);
    assert_eq!(later[&victim.inode], (Server::Nobody, Serving::Unserved { since: Duration::ZERO }), "{later:?}");
    for member in &group[1..] {
        assert!(matches!(later[&member.inode], (Server::Known(_), Serving::Served)), "{later:?}");
    }
    kill(Pid::from_raw(master.cast_signed()), Signal::SIGCONT).expect("continue the master");
    eventually("the master's new worker serves the socket", || {
        let now = look(&mut watches, UNSERVED_AFTER * 2);
        matches!(now[&victim.inode], (Server::Known(_), Serving::Served)).then_some(())
    });

    drop(nginx);
    eventually("no listener is left", || members().is_empty().then_some(()));
    TcpStream::connect(("127.0.0.1", PORT)).expect_err("nobody listens");
    assert!(helper.is_alive());
}
