//! Load from the client's side: connections and datagrams from threads inside a namespace, each outcome kept.

mod connection;
pub mod download;
mod hold;
mod run;
mod times;
mod udp;
mod wrk;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::snmp::Counters;

pub use hold::Held;
pub use run::{Steady, open_close};
pub use times::Times;
pub use udp::UdpFlows;
pub use wrk::{Wrk, WrkReport};

/// The port of the first flow from each address when the ports are given out by number.
pub const FIRST_PORT: u16 = 10_000;
/// How many ports each source address has: up to 60,999, clear of well-known ones.
pub const PORTS: usize = 51_000;
/// A connection slower than this has lost a SYN and sent it again (the first retransmission comes after 1 s).
pub const SLOW: Duration = Duration::from_millis(900);
/// The cause of a failure where a server closed the connection before it had sent anything.
pub const END_OF_FILE: &str = "end of file";

/// What a client does with each connection.
#[derive(Clone, Debug)]
pub enum Exchange {
    /// Reads a worker's line.
    WorkerLine,
    /// GETs `path` so many times over the connection and checks status 200 and, where given, the whole body.
    Http { path: String, body: Option<Arc<[u8]>>, requests: u32 },
}

/// Whom to connect to, from where, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    target: SocketAddr,
    sources: Vec<IpAddr>,
    first_flow: usize,
    exchange: Exchange,
    concurrency: usize,
    timeout: Duration,
    orderly: bool,
    pace: Duration,
}

impl Plan {
    /// Reads a worker's line from `target`, from these addresses in turn, 16 connections at a time, each given 5 s, each closed by a
    /// reset (so that nothing stays in `TIME_WAIT` and 4-tuples can be used again).
    pub fn new(target: SocketAddr, sources: &[IpAddr]) -> Self {
        assert!(!sources.is_empty() && sources.iter().all(|source| source.is_ipv4() == target.is_ipv4()), "sources of the target's family");
        Self {
            target,
            sources: sources.to_vec(),
            first_flow: 0,
            exchange: Exchange::WorkerLine,
            concurrency: 16,
            timeout: Duration::from_secs(5),
            orderly: false,
            pace: Duration::ZERO,
        }
    }

    /// GETs `path` once over each connection and checks the body where one is given.
    pub fn http(self, path: &str, body: Option<&[u8]>) -> Self {
        self.http_keep_alive(path, body, 1)
    }

    /// GETs `path` so many times over each connection. A server may close an idle connection between two requests: that ends the
    /// connection, and is counted as [`Report::closed_between_requests`], not as a failure.
    pub fn http_keep_alive(self, path: &str, body: Option<&[u8]>, requests: u32) -> Self {
        Self { exchange: Exchange::Http { path: path.to_owned(), body: body.map(Arc::from), requests }, ..self }
    }

    /// Begins with flow number `first`: other source ports than those of connections that are still open.
    pub fn starting_at_flow(self, first: usize) -> Self {
        Self { first_flow: first, ..self }
    }

    /// How many connections (threads) at a time.
    pub fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency, ..self }
    }

    /// How long a connection, an answer or a reply may take.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Closes each connection in order, with a FIN, instead of resetting it.
    pub fn orderly_close(self) -> Self {
        Self { orderly: true, ..self }
    }

    /// Begins no two connections within this time on one thread ([`open_close`] alone; a background load has a rate). Who is late makes up for
    /// nothing, so that no burst passes for a flood.
    pub fn pace(self, pace: Duration) -> Self {
        Self { pace, ..self }
    }

    /// The source of the plan's flow number `flow`: addresses in turn, then the next port.
    pub fn source(&self, flow: usize) -> SocketAddr {
        let flow = self.first_flow + flow;
        let address = self.sources[flow % self.sources.len()];
        let port = flow / self.sources.len();
        assert!(port < PORTS, "{} source addresses hold {} flows", self.sources.len(), self.sources.len() * PORTS);
        SocketAddr::new(address, FIRST_PORT + u16::try_from(port).expect("below PORTS"))
    }

    /// An ephemeral source for connection number `flow`.
    fn ephemeral_source(&self, flow: usize) -> SocketAddr {
        SocketAddr::new(self.sources[flow % self.sources.len()], 0)
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Answer {
    /// The worker's index; for nginx its process id, for `HAProxy` the thread.
    pub worker: u32,
    /// The process id.
    pub pid: u32,
    /// `SO_COOKIE` of the worker's listening socket; 0 over HTTP.
    pub cookie: u64,
}

impl Answer {
    /// Reads `INDEX PID COOKIE`, as the workers send it.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self { worker: words.next()?.parse().ok()?, pid: words.next()?.parse().ok()?, cookie: words.next()?.parse().ok()? })
    }
}

/// Where in its life a connection failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Making or binding the client's own socket: a fault of the test, not of the server.
    Open,
    Connect,
    Send,
    Receive,
    /// Something came, and it is not what the server should have said.
    Check,
}

/// One failed connection (or datagram).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// Since the load began.
    pub at: Duration,
    /// Port 0 when the connection never had one.
    pub source: SocketAddr,
    pub phase: Phase,
    /// An errno's name, `timeout`, `end of file` or a sentence.
    pub cause: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.phase, self.cause)
    }
}

/// What became of the connections of one load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Connections whose whole exchange was right.
    pub ok: u64,
    /// Requests answered right: as many as `ok`, or more with keep-alive.
    pub requests: u64,
    pub failures: Vec<Failure>,
    /// Good connections by [`Answer::worker`].
    pub by_worker: BTreeMap<u32, u64>,
    /// Good connections by [`Answer::pid`].
    pub by_pid: BTreeMap<u32, u64>,
    /// Each good connection's source and answer, ordered by source; only of [`open_close`].
    pub flows: Vec<(SocketAddr, Answer)>,
    /// Keep-alive connections that the server closed between two requests.
    pub closed_between_requests: u64,
    /// Good connections that took longer than [`SLOW`], which is to say that lost a packet on the way.
    pub slow: u64,
    pub slowest: Duration,
    /// How long `connect` took, of each good connection.
    pub connect: Times,
    /// From the beginning of `connect` to the first byte of the answer, of each good connection.
    pub first_response: Times,
    pub elapsed: Duration,
}

impl Report {
    /// Connections tried.
    pub fn attempted(&self) -> u64 {
        self.ok + self.failures.len() as u64
    }

    /// How often each kind of failure happened, such as `Connect: ECONNREFUSED`.
    pub fn failures_by_kind(&self) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for failure in &self.failures {
            *kinds.entry(failure.to_string()).or_default() += 1;
        }
        kinds
    }

    /// Panics unless every connection was good.
    #[track_caller]
    pub fn assert_no_failure(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} connections failed: {:?}; the first: {:?}",
            self.failures.len(),
            self.attempted(),
            self.failures_by_kind(),
            self.failures[0]
        );
        assert!(self.ok > 0, "no connection was tried");
    }

    /// Panics when more connections had a packet sent again than the kernel of the servers itself lost, by `counted` since before them.
    ///
    /// For tests that close listeners under load: the ACK that ends a handshake on a listener which is just closing can get lost, counted in
    /// `ListenDrops`, and the SYN-ACK is sent again after a second. Measured on 6.18 without Weir: 7,284 listeners closed under 27,000
    /// connections a second cost 11 of 794,169 connections that second, with as many `ListenDrops` and SYN-ACKs sent again.
    #[track_caller]
    pub fn assert_slow_by_the_kernel_alone(&self, counted: &Counters) {
        let lost = |name| u64::try_from(counted.get("TcpExt", name)).unwrap_or(0);
        let (slow, slowest, moved) = (self.slow, self.slowest, counted.moved());
        assert_eq!(lost("ListenOverflows"), 0, "no queue was full: {moved:?}");
        assert!(slow <= lost("ListenDrops").min(2), "{slow} of {} were slow, the slowest took {slowest:?}: {moved:?}", self.ok);
    }

    /// Panics when a connection failed otherwise than by the kernel itself, or more than two so.
    ///
    /// For tests that close listeners under load: a connection can be born of a listener that is just closing, as a copy of it
    /// (`sk_clone_lock` in net/core/sock.c) with its `sk_shutdown`, which `__tcp_close` sets before the state (net/ipv4/tcp.c).
    /// `tcp_rcv_state_process` then ends it at once, wherever it is moved to: a FIN follows the ACK within microseconds, and the client reads
    /// the end of the file. Measured on 6.18 with plain `SO_REUSEPORT` sockets and no Weir: 3 of 432,204 connections while 224,538 listeners
    /// closed, and 5 of some three million with nginx that was reloaded to fewer workers again and again.
    #[track_caller]
    pub fn assert_failed_by_the_kernel_alone(&self) {
        let ended_at_birth = |failure: &&Failure| failure.phase == Phase::Receive && failure.cause == END_OF_FILE;
        let ended = self.failures.iter().filter(ended_at_birth).count();
        let by_kind = self.failures_by_kind();
        assert!(ended <= 2 && ended == self.failures.len(), "failures beside {} good connections: {by_kind:?}", self.ok);
        assert!(self.ok > 0, "no connection was tried");
    }

    fn merge(&mut self, other: Self) {
        let Self {
            ok,
            requests,
            failures,
            by_worker,
            by_pid,
            flows,
            closed_between_requests,
            slow,
            slowest,
            connect,
            first_response,
            elapsed,
        } = other;
        self.ok += ok;
        self.requests += requests;
        self.failures.extend(failures);
        for (worker, count) in by_worker {
            *self.by_worker.entry(worker).or_default() += count;
        }
        for (pid, count) in by_pid {
            *self.by_pid.entry(pid).or_default() += count;
        }
        self.flows.extend(flows);
        self.closed_between_requests += closed_between_requests;
        self.slow += slow;
        self.slowest = self.slowest.max(slowest);
        self.connect.merge(connect);
        self.first_response.merge(first_response);
        self.elapsed = self.elapsed.max(elapsed);
    }
}

/// Names an I/O error as a failure's cause: a socket's timeout shows as EAGAIN, and at connect as EINPROGRESS.
fn cause(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
        (io::ErrorKind::UnexpectedEof, _) => END_OF_FILE.to_owned(),
        (io::ErrorKind::TimedOut, None) | (_, Some(Errno::EAGAIN | Errno::EINPROGRESS)) => "timeout".to_owned(),
        (_, Some(errno)) => format!("{errno:?}"),
        (_, None) => error.to_string(),
    }
}
