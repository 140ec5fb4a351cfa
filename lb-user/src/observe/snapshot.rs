//! The one picture of a running Weir. Everything that is shown is a rendering of this.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    api::protocol::Order,
    config::{Protocol, Stance},
    plan::{Note, OtherListener, Process, State},
};

/// A running instance at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, in seconds since 1970.
    pub taken_at: f64,
    /// The instance's name.
    pub instance: String,
    /// The daemon; none if it is not running, and the rest was read from the pinned maps and the state file.
    pub daemon: Option<Daemon>,
    /// What is attached in the kernel.
    pub dataplane: Dataplane,
    /// The services, by index.
    pub services: Vec<Service>,
    /// Listeners that are not balanced; those that are a service all the same are counted and defended.
    pub others: Vec<OtherListener>,
    /// Packets of no service, by reason.
    pub passed: Vec<ReasonCount>,
    /// How often the selector left the choice to the kernel, by why (`lb_common::abi::SelectionMiss::label`).
    pub selector_misses: BTreeMap<String, u64>,
    /// The SYN defence as a whole.
    #[serde(default)]
    pub defence: Defence,
    /// How queues, drops and times are watched, and what of it this kernel allows.
    #[serde(default)]
    pub watch: Watch,
    /// Drops of the kernel's that were for Weir's services but are in no row of theirs, because the table of rows was full.
    #[serde(default)]
    pub kernel_drops_folded: u64,
    /// What TCP counts of listeners and cookies for the whole network namespace (`/proc/net/netstat`, `TcpExt`), by the kernel's names;
    /// empty when the daemon is down.
    #[serde(default)]
    pub tcp_counters: BTreeMap<String, u64>,
    /// What the user should know about the whole.
    pub notes: Vec<Note>,
}

/// How queues, drops and times are watched. A way that is none is not to be had on this kernel, or is switched off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// How often the listeners are looked at, in seconds; none when the daemon is down.
    pub interval: Option<f64>,
    /// How long the last look took, in seconds.
    pub look: Option<f64>,
    /// How many listeners it saw.
    pub listeners: u64,
    /// Where the SYN queues are read: `iterator`, or none: then accept queues alone are known, from sock_diag.
    pub syn_queues: Option<String>,
    /// How accept latency is known: `measured` (each accept, [`Backend::accept_latency`]), `estimated` (from what waits at each look,
    /// [`Queues::waited`], which is there in either case), or none when the daemon is down.
    pub accept_latency: Option<String>,
    /// How many backends have series of their own in /metrics; none is the default.
    #[serde(default)]
    pub backend_series: Option<u32>,
    /// Whether the kernel's drops are counted.
    pub kernel_drops: bool,
    /// Whether the kernel says which socket a dropped packet was for, so that drops are counted by backend.
    pub kernel_drops_by_backend: bool,
}

/// The SYN defence as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Defence {
    /// How cookies are made: `own`, `kernel`, or `none`.
    pub scheme: String,
    /// Whether the record that the daemon renews is fresh: while it is not, XDP answers no SYN.
    pub live: bool,
    /// How old the key is that makes cookies, in seconds; none before there is one.
    pub key_age: Option<f64>,
    /// Whether net.ipv4.tcp_syncookies is changed for the time of a flood.
    pub sysctl_changed: bool,
    /// What became of valid cookies in the stack, by outcome (`lb_common::abi::Restored::label`).
    pub restored: BTreeMap<String, u64>,
}

/// The SYN defence of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDefence {
    /// When SYNs are answered, as configured.
    pub stance: Stance,
    /// What an operator has ordered.
    pub order: Order,
    /// What it does now: `calm`, `flood` or `lingering` (`lb_common::flood::Mode::label`).
    pub mode: String,
    /// Whether SYNs are answered in this flood: not while it is other segments alone that come in a flood.
    #[serde(default)]
    pub answers_syns: bool,
    /// How long the flood has lasted, or the last one lasted while it lingers, in seconds.
    pub flood_seconds: Option<u64>,
    /// Whether a cookie's connection would be lost on this host, so that no SYN is answered.
    pub is_unsafe: bool,
    /// Whether SYNs are answered with the kernel's own cookies, because others would be lost on this host.
    #[serde(default)]
    pub kernels_only: bool,
}

impl Snapshot {
    /// Whether new connections are balanced as they should be: the daemon lives, is attached, and has looked for listeners once.
    /// Otherwise a sentence that says what is missing.
    pub fn readiness(&self) -> Result<(), &'static str> {
        let Some(daemon) = &self.daemon else { return Err("the daemon is not running") };
        let attached = self.dataplane.interfaces.iter().any(|interface| !interface.is_gone());
        match (attached, daemon.last_scan) {
            (false, _) => Err("no interface carries the XDP program"),
            (true, None) => Err("the first scan of the listeners is not done yet"),
            (true, Some(_)) => Ok(()),
        }
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started, in seconds since 1970.
    pub started_at: f64,
    /// How long it has run, in seconds.
    pub uptime: f64,
    /// The last reload of the configuration.
    pub last_reload: Option<Reload>,
    /// Whether the privileged helper answers: without it no new listener can join.
    pub helper_alive: bool,
    /// Whether listeners are noticed by event; if not, only by scan.
    pub events: bool,
    /// How long the last full scan of the listeners took, in seconds; none before the first one is done.
    pub last_scan: Option<f64>,
}

/// A reload of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// When, in seconds since 1970.
    pub at: f64,
    /// What was wrong; none if it was taken.
    pub error: Option<String>,
}

/// What is attached in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dataplane {
    /// The version of the maps' layout.
    pub abi_version: u32,
    /// How long it has been attached, in seconds; it outlives the daemon.
    pub uptime: f64,
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// The programs.
    pub programs: Vec<Program>,
    /// The maps whose fill matters.
    pub maps: Vec<MapFill>,
}

/// An interface with the XDP program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name; its index if it has gone.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `native` or `generic`; `gone` if the interface no longer exists.
    pub mode: String,
}

impl Interface {
    /// The mode of an interface that no longer exists.
    pub const GONE: &str = "gone";
    /// The mode of an interface whose driver does not run the program: the stack does.
    pub const GENERIC: &str = "generic";

    /// Whether it no longer exists.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.mode == Self::GONE
    }
}

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: u32,
    /// How many instructions the verifier looked at.
    pub verified_instructions: u32,
}

/// How full a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFill {
    /// Its name.
    pub name: String,
    /// How many entries it holds.
    pub entries: u64,
    /// How many it can hold.
    pub capacity: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The address that its listeners are bound to.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The device that its listeners are bound to.
    pub device: Option<String>,
    /// Whether the user named it.
    pub configured: bool,
    /// Whether Weir balances it. If not, it has no backends, and the listener's line in [`Snapshot::others`] says why.
    pub balanced: bool,
    /// How many listening sockets it has that are no backends.
    pub listeners: u64,
    /// The number of entries of its Maglev table.
    pub table_size: u32,
    /// Its backends, by index.
    pub backends: Vec<Backend>,
    /// The listening sockets that are no backends, by cookie, with what waits there.
    #[serde(default)]
    pub listening: Vec<Listening>,
    /// How long handshakes took, from the SYN-ACK to the client's ACK; those opened by a cookie, and those whose SYN-ACK was sent again,
    /// are not in it. None for UDP.
    #[serde(default)]
    pub handshake_time: Option<Histogram>,
    /// Handshakes that are not in [`Service::handshake_time`] because their SYN-ACK had to be sent again.
    #[serde(default)]
    pub handshakes_repeated: u64,
    /// Packets to the service that the kernel dropped behind XDP, by the kernel's reason; reasons with none are left out.
    #[serde(default)]
    pub kernel_drops: Vec<KernelDrop>,
    /// Its SYN defence; none of a UDP service.
    #[serde(default)]
    pub defence: Option<ServiceDefence>,
    /// Packets seen by XDP, by reason; reasons with none are left out.
    pub packets: Vec<ReasonCount>,
    /// What the user should know about it.
    pub notes: Vec<Note>,
}

/// A backend: a listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its number in the service.
    pub index: u32,
    /// Its slot in the socket array.
    pub slot: u32,
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u32,
    /// Whether it gets new flows.
    pub state: State,
    /// Its weight.
    pub weight: u32,
    /// Its share of the table, 0 to 1.
    pub share: f64,
    /// The processes that serve it, as far as is known.
    pub servers: Vec<Process>,
    /// What waits at its socket, and what was lost there.
    #[serde(flatten)]
    pub queues: Queues,
    /// How long established connections waited until they were accepted; none for UDP, and where it is not measured ([`Watch::accept_latency`]).
    #[serde(default)]
    pub accept_latency: Option<Histogram>,
    /// Packets that the kernel dropped and that were for this socket or a connection made from it, by the kernel's reason. They are in
    /// the service's too.
    #[serde(default)]
    pub kernel_drops: Vec<KernelDrop>,
    /// How often XDP chose it for a packet that opens a flow.
    pub chosen: u64,
    /// How often the selector selected it, by cause (`lb_common::abi::Cause::label`), zeros included.
    pub selected: BTreeMap<String, u64>,
    /// Connections established from it.
    pub established: u64,
    /// Connections established from it that still exist.
    pub open: u64,
}

/// What waits at a socket and what was lost there. All are none when the daemon is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Queues {
    /// TCP: connections that are established and not accepted yet. The kernel refuses another one when the length is above the limit.
    pub accept_queue: Option<Queue>,
    /// TCP: handshakes that the client has not completed yet. The kernel takes no more, or answers with cookies, when the length has
    /// reached the limit.
    #[serde(default)]
    pub syn_queue: Option<Queue>,
    /// UDP: bytes of datagrams that wait to be received, with what the kernel spends on each.
    #[serde(default)]
    pub receive_queue: Option<Queue>,
    /// How long the connection at the head of the accept queue has waited, in seconds; none while nothing waits.
    #[serde(default)]
    pub oldest_wait: Option<f64>,
    /// TCP: the time that connections have waited in the accept queue, all together, in seconds: the length of the queue at each look,
    /// times the time until the next. Divided by the connections of the same while, it is how long one waits (Little's law), however
    /// short that is, provided there are enough looks.
    #[serde(default)]
    pub waited: Option<f64>,
    /// What the kernel dropped at the socket itself because there was no room.
    #[serde(default)]
    pub overflows: Option<Overflows>,
}

/// A queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// What waits.
    pub length: u32,
    /// How much may wait.
    pub limit: u32,
}

/// The socket's own count of drops (`sk_drops`), since the socket was made, by the queue that was full when it rose.
///
/// The kernel counts one number. Which queue it was is exact where only one can be the cause (with SYN cookies on, a full SYN queue
/// drops nothing); otherwise it goes by what was full at the look that saw the number rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflows {
    /// TCP: SYNs and last ACKs of handshakes that met a full accept queue.
    pub accept_queue: u64,
    /// TCP: SYNs that met a full SYN queue.
    pub syn_queue: u64,
    /// UDP: datagrams that met a full receive buffer.
    pub receive_queue: u64,
    /// What rose while no queue was seen full.
    pub unknown: u64,
}

/// How often something took how long. The counts are not cumulative.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// One for each of [`lb_common::abi::time_bounds`] (a power of two of seconds, inclusive above), and one for what took longer.
    pub counts: Vec<u64>,
    /// All times together, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Packets that the kernel dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDrop {
    /// The kernel's name for it (`enum skb_drop_reason`), in lower case and without its prefix.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// A listening socket of a service that is not balanced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listening {
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u32,
    /// What waits there, and what was lost.
    #[serde(flatten)]
    pub queues: Queues,
}

/// Packets under one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// `lb_common::Reason::label`.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Backend {
    /// How often the selector selected it, whatever the cause.
    #[must_use]
    pub fn selections(&self) -> u64 {
        self.selected.values().sum()
    }
}
