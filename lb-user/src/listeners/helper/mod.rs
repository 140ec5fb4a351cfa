//! The privileged helper: a small process that alone may look into other processes.
//!
//! It is forked before any thread exists, keeps two capabilities, and answers a closed set of requests over a socket pair (its
//! confinement is described in `confine.rs`, the messages in `wire.rs`). It never gives out anything but a listening TCP socket or a
//! bound UDP socket whose inode it has checked. Its calls block: run them on a blocking thread.
//!
//! It sees the processes of its own pid namespace. It dies with the daemon.

mod channel;
mod confine;
mod error;
mod kcmp;
mod proc;
mod process;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::CapabilitySet;

use channel::Channel;
pub use confine::Step;
pub use error::{CallError, Refusal, StartError};
use wire::{HOLDER_WORDS, Kind, Packet, REQUEST_WORDS, Selection};

use super::Holder;

/// Holders that are reported for one socket, those with the lowest pids. A master of 2,000 workers of which each holds every socket
/// would otherwise make four million rows.
pub const HOLDERS_PER_SOCKET: u32 = 16;
/// How long a fresh helper may take to confine itself.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows of an answer, with the number of processes that the helper was not permitted to read (0 if it has its capabilities and no
/// security module interferes). If it is not 0 the rows may lack some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was found.
    pub found: T,
    /// Processes that could not be read.
    pub denied: u32,
}

/// How the threads of a process wait, if not in epoll: the other ways to serve a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// A thread is blocked in accept or in recv of a datagram socket.
    pub in_call: bool,
    /// A thread is blocked in poll or select.
    pub in_poll: bool,
    /// The process has an `io_uring`.
    pub in_ring: bool,
}

impl Waits {
    /// Whether the process may serve a socket that no epoll instance of it lists.
    #[must_use]
    pub fn may_serve(self) -> bool {
        self.in_call || self.in_poll || self.in_ring
    }
}

/// The daemon's end. Dropping it ends the helper.
#[derive(Debug)]
pub struct Helper {
    pid: Pid,
    timeout: Duration,
    channel: Mutex<Channel>,
}

impl Helper {
    /// Forks the helper. Call this first in `main`: before tokio, before any thread, with the capabilities still in place; the daemon
    /// then drops `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` for itself.
    pub fn start() -> Result<Self, StartError> {
        let threads = std::fs::read_dir("/proc/self/task")
            .map_err(|source| StartError::System { action: "count the threads of this process in /proc", source })?
            .count();
        if threads != 1 {
            return Err(StartError::Threads(threads));
        }
        let effective = rustix::thread::capabilities(None)
            .map_err(|errno| StartError::System { action: "read the capabilities of this process", source: errno.into() })?
            .effective;
        let missing = missing(effective);
        if !missing.is_empty() {
            return Err(StartError::MissingCapabilities(missing));
        }
        // SAFETY: this process has one thread.
        unsafe { Self::start_unchecked() }
    }

    /// As [`Helper::start`], without looking for threads and capabilities: for tests, which run on threads. Without its capabilities
    /// the helper can look into processes of the same user only, if nothing else forbids that.
    ///
    /// # Safety
    ///
    /// The helper goes on running Rust code, which allocates. In a process with other threads that is sound only if the C library
    /// makes its allocator usable in the child of a fork, as glibc does, and only as long as no other lock of the process is needed.
    #[doc(hidden)]
    pub unsafe fn start_unchecked() -> Result<Self, StartError> {
        let system = |action| move |errno: Errno| StartError::System { action, source: errno.into() };
        let filter = confine::filter()?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(system("make a socket pair"))?;
        let parent = rustix::process::getpid();
        // SAFETY: the caller's promise.
        let child = match unsafe { fork() } {
            Err(errno) => return Err(StartError::System { action: "fork", source: errno.into() }),
            Ok(ForkResult::Child) => {
                let ending = std::panic::catch_unwind(|| child(parent, &theirs, &filter));
                // SAFETY: _exit ends this process without running what the daemon registered for its own exit.
                unsafe { libc::_exit(ending.unwrap_or(101)) }
            }
            Ok(ForkResult::Parent { child }) => child,
        };
        drop(theirs);
        let helper = Self { pid: child, timeout: Duration::from_secs(10), channel: Mutex::new(Channel::new(ours)) };
        helper.wait_until_ready()?;
        Ok(helper)
    }

    fn wait_until_ready(&self) -> Result<(), StartError> {
        let first = self.lock().receive(Instant::now() + START_TIMEOUT, START_TIMEOUT).map_err(|_| StartError::NoAnswer)?;
        match (first.kind, first.body.as_slice()) {
            (Kind::Ready, []) => Ok(()),
            (Kind::Failed, &[step, errno]) => match Step::from_word(step) {
                Some(step) => Err(StartError::Confinement { step, source: io::Error::from_raw_os_error(errno.cast_signed()) }),
                None => Err(StartError::NoAnswer),
            },
            _ => Err(StartError::NoAnswer),
        }
    }

    /// Sets how long a call waits for its answer, 10 s unless set. A scan of every process takes about 1 s for each million open
    /// descriptors of the machine.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The helper's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Whether the helper process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut channel = self.lock();
        if !channel.reaped {
            channel.reaped = !matches!(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive));
        }
        !channel.reaped
    }

    /// Who holds these sockets: inode to holders, lowest pid and then lowest descriptor first, at most [`HOLDERS_PER_SOCKET`] for each
    /// socket. Empty `pids` means every process; a socket without a holder is not in the map.
    pub fn holders(&self, inodes: &[u32], pids: &[u32]) -> Result<Answer<HashMap<u32, Vec<Holder>>>, CallError> {
        if inodes.is_empty() {
            return Ok(Answer::default());
        }
        self.ask_holders(&Selection::new(inodes, pids))
    }

    /// Every socket that these processes hold, connections included, as for [`Helper::holders`] but without its limit.
    pub fn sockets_of(&self, pids: &[u32]) -> Result<Answer<HashMap<u32, Vec<Holder>>>, CallError> {
        if pids.is_empty() {
            return Ok(Answer::default());
        }
        self.ask_holders(&Selection::new(&[], pids))
    }

    fn ask_holders(&self, selection: &Selection) -> Result<Answer<HashMap<u32, Vec<Holder>>>, CallError> {
        let (denied, rows) = self.rows::<HOLDER_WORDS>(Kind::Holders, &selection.to_words())?;
        let mut found: HashMap<u32, Vec<Holder>> = HashMap::new();
        for [inode, pid, descriptor, name @ ..] in rows {
            let name: Vec<u8> = name.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
            let command = String::from_utf8_lossy(&name).into_owned();
            found.entry(inode).or_default().push(Holder { pid, fd: descriptor.cast_signed(), command });
        }
        Ok(Answer { found, denied })
    }

    /// Which processes have one of these sockets in an epoll instance: inode to pids, ascending. Empty `pids` means every process.
    ///
    /// The kernel locks an epoll instance while it looks through it, and the worker waits meanwhile: a millisecond or two for ten
    /// thousand connections and one socket of ours, some tens of milliseconds if the process holds more than 64 of them. Ask this when
    /// sockets or processes are new, and [`Helper::still_polled`] to look again.
    pub fn pollers(&self, inodes: &[u32], pids: &[u32]) -> Result<Answer<HashMap<u32, Vec<u32>>>, CallError> {
        if inodes.is_empty() {
            return Ok(Answer::default());
        }
        self.ask_pollers(Kind::Pollers, &Selection::new(inodes, pids).to_words())
    }

    /// Of these pairs (inode, pid), those in which the process still polls the socket, as for [`Helper::pollers`]. One short question
    /// for each pair: the way to look again at the servers that are known.
    pub fn still_polled(&self, pairs: &[(u32, u32)]) -> Result<Answer<HashMap<u32, Vec<u32>>>, CallError> {
        let mut sorted: Vec<[u32; 2]> = pairs.iter().map(|&(inode, pid)| [pid, inode]).collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.ask_pollers(Kind::StillPolled, sorted.as_flattened())
    }

    fn ask_pollers(&self, kind: Kind, request: &[u32]) -> Result<Answer<HashMap<u32, Vec<u32>>>, CallError> {
        let (denied, rows) = self.rows::<2>(kind, request)?;
        let mut found: HashMap<u32, Vec<u32>> = HashMap::new();
        for [inode, pid] in rows {
            found.entry(inode).or_default().push(pid);
        }
        Ok(Answer { found, denied })
    }

    /// How these processes wait at this moment. A process that is gone is not in the map.
    pub fn waits(&self, pids: &[u32]) -> Result<Answer<HashMap<u32, Waits>>, CallError> {
        let (denied, rows) = self.rows::<2>(Kind::Waits, pids)?;
        let has = |bits: u32, bit| bits & bit != 0;
        let waits = |bits| Waits {
            in_call: has(bits, proc::WAITS_IN_CALL),
            in_poll: has(bits, proc::WAITS_IN_POLL),
            in_ring: has(bits, proc::WAITS_IN_RING),
        };
        Ok(Answer { found: rows.into_iter().map(|[pid, bits]| (pid, waits(bits))).collect(), denied })
    }

    /// Takes a descriptor of the socket with this inode, which the process `pid` holds as `fd`.
    ///
    /// The rule for what is returned: it is held only for the system calls that use it (insert, attach, getsockopt) and closed before
    /// the next await. A held duplicate keeps a dead worker's listener alive, and connections queue where nobody accepts.
    pub fn take(&self, inode: u32, pid: u32, fd: i32) -> Result<OwnedFd, CallError> {
        let packet = self.call(Kind::Take, &[inode, pid, fd.cast_unsigned()])?;
        match (packet.kind, packet.descriptor) {
            (Kind::Taken, Some(taken)) => Ok(taken),
            _ => Err(CallError::Malformed("no descriptor")),
        }
    }

    fn rows<const WORDS: usize>(&self, kind: Kind, request: &[u32]) -> Result<(u32, Vec<[u32; WORDS]>), CallError> {
        let packet = self.call(kind, request)?;
        let (Kind::Rows, Some((&denied, words))) = (packet.kind, packet.body.split_first()) else {
            return Err(CallError::Malformed("no rows"));
        };
        let (rows, rest) = words.as_chunks::<WORDS>();
        if rest.is_empty() { Ok((denied, rows.to_vec())) } else { Err(CallError::Malformed("half a row")) }
    }

    fn call(&self, kind: Kind, body: &[u32]) -> Result<Packet, CallError> {
        if body.len() > REQUEST_WORDS {
            return Err(CallError::RequestTooLarge(body.len()));
        }
        self.lock().call(kind, body, self.timeout)
    }

    fn lock(&self) -> MutexGuard<'_, Channel> {
        // The state is one number and one flag: it cannot be left half-changed by a panic.
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let mut channel = self.lock();
        if channel.reaped {
            return;
        }
        channel.reaped = true;
        // Not shutdown(2): a helper that hangs must end as well.
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    confine::KEPT.iter().filter(|(one, _)| !effective.contains(*one)).map(|&(_, name)| name).collect()
}

/// The whole life of the helper process; its exit code.
fn child(parent: rustix::process::Pid, channel: &OwnedFd, filter: &seccompiler::BpfProgram) -> i32 {
    let prepared = confine::confine(Some(parent), channel.as_fd()).and_then(|()| {
        let answerer = process::Answerer::new(channel.as_fd())
            .map_err(|error| (Step::Proc, error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)))?;
        confine::install(filter)?;
        Ok(answerer)
    });
    match prepared {
        Ok(answerer) => {
            let served = wire::send(channel.as_fd(), Kind::Ready, 0, &[]).and_then(|()| process::serve(channel.as_fd(), answerer));
            i32::from(served.is_err())
        }
        Err((step, errno)) => {
            let body = [step as u32, errno.raw_os_error().cast_unsigned()];
            let _ = wire::send(channel.as_fd(), Kind::Failed, 0, &body);
            1
        }
    }
}
