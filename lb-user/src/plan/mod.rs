//! From what is configured and what exists to what the kernel's maps shall hold: pure, no I/O, no clock.
//!
//! [`Plan`] is the whole of it. The daemon carries a plan out by comparing it with the one before; it also writes it to its state file,
//! from which `weir status` and `weir explain` read the names when the daemon is down.

mod build;
mod changes;
mod choice;
mod defence;
mod entries;
mod inputs;
mod lookup;
mod notes;
mod others;
mod registry;
mod seating;
mod size;
mod table;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    api::protocol::Order,
    config::{Protocol, Stance},
    listeners::Holder,
};

pub use build::plan;
pub use changes::{Changes, GroupSockets, SlotFill, changes, group_key};
pub use defence::ServiceDefence;
pub use inputs::{Attached, Host, Inputs, Member};
pub use registry::Registry;
pub use table::{Tables, share, table};

/// What the data plane shall be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The services, by index.
    pub services: Vec<Service>,
    /// Listeners that are balanced by nobody, or not by Weir, and why.
    pub others: Vec<OtherListener>,
    /// What the user should know about the whole.
    pub notes: Vec<Note>,
    /// What an operator has ordered of services' SYN defence, by the service's name: kept here for the next daemon.
    #[serde(default)]
    pub orders: BTreeMap<String, Order>,
}

/// A service: an address, a port, a protocol, and the sockets that serve it: a group that Weir balances, or listeners that it only
/// counts and defends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The index of its counters and its table: 1 to the limit. Kept while the service exists.
    pub index: u32,
    /// Its name: the configured one, or `tcp/0.0.0.0:80` (`tcp/[::]:80`, `tcp/0.0.0.0%eth1:80`) if it was discovered.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The address that its listeners are bound to, exactly as bound.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The device that its listeners are bound to.
    pub device: Option<Device>,
    /// Whether the user named it.
    pub configured: bool,
    /// Whether a program of somebody else on its group is to be replaced.
    pub takeover: bool,
    /// Whether Weir balances it. If not, it has listeners and no backends, and so no slots, no table and no group:
    /// [`Plan::others`] says why.
    #[serde(default = "always")]
    pub balanced: bool,
    /// When its SYNs are answered by cookie; [`Stance::Off`] for UDP.
    #[serde(default)]
    pub stance: Stance,
    /// The rest of its defence.
    #[serde(default)]
    pub defence: ServiceDefence,
    /// The service's flags for the programs (`lb_common::abi::service_flags`).
    pub flags: u32,
    /// The number of entries of its Maglev table.
    pub table_size: u32,
    /// What the XDP program recognises it by.
    pub entries: Vec<Entry>,
    /// Its backends, by worker index.
    pub backends: Vec<Backend>,
    /// Its listening sockets, by cookie, if it is not balanced.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// What the user should know about it.
    pub notes: Vec<Note>,
}

/// What a state file means that says nothing of `balanced`: it was written when all services were.
const fn always() -> bool {
    true
}

/// A listening socket that is no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// The socket's cookie: its identity for as long as the machine runs.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u32,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Its index in the network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// An address and an interface: packets that come in by the interface, to the address and the service's port, are the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The address.
    pub address: IpAddr,
    /// The index of the interface.
    pub interface: u32,
    /// The MAC addresses that a frame for this host carries there, each with its first byte as the most significant of 48 bits.
    pub macs: [u64; 2],
    /// The MSS that a SYN-ACK to a client of the entry announces.
    #[serde(default)]
    pub maximum_segment_size: u16,
    /// Whether the interface is a loopback device.
    #[serde(default)]
    pub loopback: bool,
}

/// A backend: a listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its number in the service, from 0: the worker index of a QUIC connection ID, and its name in commands. Kept while it lives.
    pub index: u32,
    /// Its slot in the socket array.
    pub slot: u32,
    /// How many sockets have had the slot, this one included.
    pub generation: u32,
    /// The socket's cookie: its identity for as long as the machine runs.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u32,
    /// Its weight in the table when it is ready.
    pub weight: u32,
    /// Whether it gets new flows.
    pub state: State,
    /// The processes that serve it, as far as is known.
    pub servers: Vec<Process>,
    /// The descriptors of it, as far as is known. At least one is needed to take it.
    pub holders: Vec<Holder>,
}

/// Whether a backend gets new flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It gets its share.
    Ready,
    /// The user drains it: no new flows, its own go on.
    Draining,
    /// No process accepts from it: no new flows until one does.
    Unserved,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Draining, Self::Unserved];

    /// Its name in output.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unserved => "unserved",
        }
    }
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its ID.
    pub pid: u32,
    /// Its command name.
    pub command: String,
}

/// A listener that is not balanced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherListener {
    /// The protocol.
    pub protocol: Protocol,
    /// The bound address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whose it is, as far as is known: command names without doubles.
    pub commands: Vec<String>,
    /// Why it is not.
    pub why: Unbalanced,
}

/// Why a listener is not balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unbalanced {
    /// It is alone: not a SO_REUSEPORT socket.
    NotReuseport,
    /// Another program steers its group, and no service says `takeover = true`.
    SteeredByAnother,
    /// No interface of Weir leads to it: bound to loopback, or to another device.
    Unreachable,
    /// Discovery is off for its protocol and no service names it.
    NotNamed,
    /// The limit of services or of backends is reached.
    OverLimit,
}

/// Something the user should know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// What it is.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}
