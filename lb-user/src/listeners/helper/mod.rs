//! The privileged helper: a small process that alone may look into other processes.
//!
//! It is forked before any thread exists, keeps two capabilities, and answers a closed set of requests over a socket pair (its
//! confinement is described in `confine.rs`, the messages in `wire.rs`). It never gives out anything but a listening TCP socket or a
//! bound UDP socket whose inode it has checked. Its calls block: run them on a blocking thread.
//!
//! It sees the processes of its own pid namespace. It dies with the daemon.

mod confine;
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
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair, sockopt};
use rustix::thread::CapabilitySet;

pub use confine::Step;
use wire::{HOLDER_WORDS, Kind, Packet, REPLY_WORDS, REQUEST_WORDS, Selection};

use super::Holder;

/// Holders that are reported for one socket, those with the lowest pids. A master of 2,000 workers of which each holds every socket
/// would otherwise make four million rows.
pub const HOLDERS_PER_SOCKET: u32 = 16;
/// How long a fresh helper may take to confine itself.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the helper could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Only a process with one thread may fork a helper that goes on running Rust code.
    #[error("the helper must be started before any thread, but this process has {0}")]
    Threads(usize),
    /// The process does not have what the helper needs.
    #[error("cannot look into other processes without {}: run as root, or grant it", .0.join(" and "))]
    MissingCapabilities(Vec<&'static str>),
    /// A system call failed on the daemon's side.
    #[error("cannot start the helper: {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The seccomp filter cannot be made for this architecture.
    #[error("cannot make the helper's seccomp filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The helper could not confine itself and has ended: it never runs with more than it needs.
    #[error("the helper could not {step}: {source}")]
    Confinement {
        /// What it was doing.
        step: Step,
        /// The system's answer.
        source: io::Error,
    },
    /// The helper ended or hung before it was ready.
    #[error("the helper ended or hung before it was ready")]
    NoAnswer,
}

/// Why the helper does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The process is gone.
    #[error("no such process")]
    NoSuchProcess,
    /// The process has closed the descriptor.
    #[error("the process has no such descriptor")]
    NoSuchDescriptor,
    /// The kernel forbids it: missing capability, or a security module such as Yama.
    #[error("the kernel does not permit taking it")]
    Denied,
    /// The descriptor is now another file than the one asked for.
    #[error("the descriptor is no longer that socket")]
    AnotherSocket,
    /// It is that socket, but no listening TCP and no bound UDP socket.
    #[error("the socket is neither listening TCP nor bound UDP")]
    NotAListener,
    /// The request is not well-formed.
    #[error("malformed request")]
    Malformed,
    /// The answer would be larger than a reply may be.
    #[error("the answer is too large")]
    TooMuch,
    /// Another system error.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    System(
        /// The errno.
        i32,
    ),
}

impl Refusal {
    const NAMED: [Self; 7] = [
        Self::NoSuchProcess,
        Self::NoSuchDescriptor,
        Self::Denied,
        Self::AnotherSocket,
        Self::NotAListener,
        Self::Malformed,
        Self::TooMuch,
    ];

    /// The position in `NAMED` and 0, or `u32::MAX` and the errno.
    fn to_words(self) -> [u32; 2] {
        if let Self::System(errno) = self {
            return [u32::MAX, errno.cast_unsigned()];
        }
        let code = (0_u32..).zip(Self::NAMED).find(|&(_, named)| named == self);
        [code.map_or(u32::MAX, |(code, _)| code), 0]
    }

    fn from_words(words: &[u32]) -> Option<Self> {
        match *words {
            [u32::MAX, errno] => Some(Self::System(errno.cast_signed())),
            [code, 0] => Self::NAMED.get(code as usize).copied(),
            _ => None,
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno.raw_os_error())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::System(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Why a call to the helper failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The helper has ended. Nothing new can be discovered until the daemon is restarted; what is balanced already goes on.
    #[error("the helper process has ended")]
    Gone,
    /// No answer in time. A late one is thrown away by the next call, and a descriptor in it closed.
    #[error("the helper did not answer within {0:?}")]
    Timeout(Duration),
    /// The helper says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The question does not fit a request.
    #[error("{0} words are more than a request may have")]
    RequestTooLarge(usize),
    /// The answer breaks the rules of the protocol.
    #[error("the helper sent a malformed answer: {0}")]
    Malformed(&'static str),
    /// A system error on the socket pair.
    #[error("cannot talk to the helper: {0}")]
    Channel(io::Error),
}

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

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    request: u32,
    /// Whether the helper has been waited for: its pid may be another process's by now.
    reaped: bool,
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
        let helper =
            Self { pid: child, timeout: Duration::from_secs(10), channel: Mutex::new(Channel { socket: ours, request: 0, reaped: false }) };
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

    /// Which processes have one of these sockets in an epoll instance: inode to pids, ascending. Empty `pids` means every process. Only
    /// processes that hold at least one of the sockets are asked for their epoll instances; the kernel locks an instance while it lists
    /// its members, so do not ask more often than needed.
    pub fn pollers(&self, inodes: &[u32], pids: &[u32]) -> Result<Answer<HashMap<u32, Vec<u32>>>, CallError> {
        if inodes.is_empty() {
            return Ok(Answer::default());
        }
        let (denied, rows) = self.rows::<2>(Kind::Pollers, &Selection::new(inodes, pids).to_words())?;
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

impl Channel {
    fn call(&mut self, kind: Kind, body: &[u32], timeout: Duration) -> Result<Packet, CallError> {
        let deadline = Instant::now() + timeout;
        self.discard_late_answers();
        self.request = self.request.wrapping_add(1);
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, Some(timeout))
            .map_err(|errno| failure(&errno.into(), timeout))?;
        wire::send(self.socket.as_fd(), kind, self.request, body).map_err(|error| failure(&error, timeout))?;
        let mut words = Vec::new();
        let mut descriptor = None;
        loop {
            let mut packet = self.receive(deadline, timeout)?;
            // The end of an answer to a call that gave up: dropping the packet closes its descriptor.
            if packet.request != self.request {
                continue;
            }
            if packet.kind == Kind::Refused {
                return Err(Refusal::from_words(&packet.body).map_or(CallError::Malformed("refusal"), CallError::Refused));
            }
            words.append(&mut packet.body);
            if words.len() > REPLY_WORDS {
                return Err(CallError::Malformed("an answer above the limit"));
            }
            descriptor = packet.descriptor.take().or(descriptor);
            if !packet.more {
                packet.body = words;
                packet.descriptor = descriptor;
                return Ok(packet);
            }
        }
    }

    fn receive(&mut self, deadline: Instant, timeout: Duration) -> Result<Packet, CallError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A socket timeout of 0 would mean for ever.
            if left < Duration::from_micros(1) {
                return Err(CallError::Timeout(timeout));
            }
            sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(left))
                .map_err(|errno| failure(&errno.into(), timeout))?;
            return match wire::receive(self.socket.as_fd(), RecvFlags::empty()) {
                Ok(Some(packet)) => Ok(packet),
                Ok(None) => Err(CallError::Gone),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(failure(&error, timeout)),
            };
        }
    }

    fn discard_late_answers(&mut self) {
        while let Ok(Some(_)) = wire::receive(self.socket.as_fd(), RecvFlags::DONTWAIT) {}
    }
}

fn failure(error: &io::Error, timeout: Duration) -> CallError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => CallError::Gone,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::Timeout(timeout),
        io::ErrorKind::InvalidData => CallError::Malformed("packet"),
        kind => CallError::Channel(error.raw_os_error().map_or_else(|| kind.into(), io::Error::from_raw_os_error)),
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
