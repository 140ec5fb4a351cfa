//! What a plan is made from: plain data, so that the plan depends on nobody who reads it from the kernel.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Device, Listener as Identity, Process};
use crate::{
    config::Config,
    listeners::{Holder, Listener},
};

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What the user wants.
    pub config: &'a Config,
    /// The network namespace.
    pub host: &'a Host,
    /// Every listener of the namespace, those that are no SO_REUSEPORT sockets included: they take packets away from wildcards. In the
    /// order in which sock_diag lists them, which is that of the kernel's lookup where several groups of a port match a packet.
    pub members: &'a [Member],
    /// The cookies of the sockets that the user drains.
    pub drains: &'a BTreeSet<u64>,
}

/// The network namespace, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The interfaces that the XDP program is attached to.
    pub attached: Vec<Attached>,
    /// Every device of the namespace.
    pub devices: Vec<Device>,
}

/// An interface with the XDP program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its index.
    pub index: u32,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// The largest packet without its link-layer header, in bytes.
    pub mtu: u32,
    /// The MAC addresses of frames for this host there, see [`Entry::macs`](super::Entry::macs).
    pub macs: [u64; 2],
    /// The addresses of the namespace that packets coming in by it can be for: link-local ones of its own only, loopback ones only by
    /// the loopback device.
    pub addresses: BTreeSet<IpAddr>,
    /// The devices that the stack may say such a packet came in by: itself, the bridge it is a port of, the VLANs on it. A socket that
    /// is bound to another device does not get the packet.
    pub devices: BTreeSet<u32>,
}

/// A listener and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The socket.
    pub listener: Listener,
    /// Whether it has SO_REUSEPORT.
    pub reuseport: bool,
    /// Its descriptors in processes.
    pub holders: Vec<Holder>,
    /// The processes that serve it.
    pub servers: Vec<Process>,
    /// Whether nobody has served it for a while.
    pub unserved: bool,
    /// Whether its group has a program that is not Weir's.
    pub foreign_program: bool,
}

impl Member {
    /// What tells it from every other socket.
    pub(super) fn identity(&self) -> Identity {
        Identity { cookie: self.listener.cookie, inode: self.listener.inode }
    }

    /// The command names of those that serve it, or else of those that hold it.
    pub(super) fn commands(&self) -> BTreeSet<&str> {
        if self.servers.is_empty() {
            self.holders.iter().map(|holder| holder.command.as_str()).collect()
        } else {
            self.servers.iter().map(|server| server.command.as_str()).collect()
        }
    }
}

impl Host {
    /// The device of an index.
    pub(super) fn device(&self, index: u32) -> Option<Device> {
        let named = || self.devices.iter().find(|device| device.index == index).cloned();
        (index != 0).then(|| named().unwrap_or_else(|| Device { index, name: format!("if{index}") }))
    }
}
