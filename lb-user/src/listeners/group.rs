//! Which sockets form one group, and in what order its workers are numbered.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::IpAddr;

use super::{Holder, Listener, Protocol};

/// What the sockets of one `SO_REUSEPORT` group have in common.
///
/// The kernel compares family, address, `IPV6_V6ONLY`, bound device and the owner's uid (`inet_reuseport_add_sock` in
/// `net/ipv4/inet_hashtables.c`, `udp_reuseport_add_sock` in `net/ipv4/udp.c`). The uid is left out: `bind(2)` refuses the address to
/// another user, so no two groups differ in it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The protocol.
    pub protocol: Protocol,
    /// The bound address, in the socket's own family.
    pub address: IpAddr,
    /// The bound port, in host byte order.
    pub port: u16,
    /// Whether the sockets take IPv6 only: `[::]:80` with and without it are two groups.
    pub v6only: bool,
    /// Index of the bound device; 0 is any.
    pub device: u32,
}

impl From<&Listener> for GroupKey {
    fn from(listener: &Listener) -> Self {
        let &Listener { protocol, address, port, v6only, device, .. } = listener;
        Self { protocol, address, port, v6only, device }
    }
}

/// Sorts listeners into groups and each group into the order in which its workers are numbered: by the lowest pid that holds the
/// socket, then by the lowest descriptor in that process, then by inode.
///
/// A master that opens N sockets and forks therefore numbers them by descriptor, the order in which it made them; workers that open
/// their own are numbered by pid. A socket without a known holder comes last. `holders` is keyed by inode, in any order.
#[must_use]
pub fn groups<S: BuildHasher>(listeners: &[Listener], holders: &HashMap<u32, Vec<Holder>, S>) -> BTreeMap<GroupKey, Vec<Listener>> {
    let mut groups: BTreeMap<GroupKey, Vec<Listener>> = BTreeMap::new();
    for listener in listeners {
        groups.entry(GroupKey::from(listener)).or_default().push(*listener);
    }
    for members in groups.values_mut() {
        members.sort_by_cached_key(|member| {
            let first = holders.get(&member.inode).and_then(|held| held.iter().map(|holder| (holder.pid, holder.fd)).min());
            (first.is_none(), first, member.inode)
        });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn listener(address: IpAddr, port: u16, inode: u32) -> Listener {
        let protocol = Protocol::Tcp;
        Listener {
            protocol,
            address,
            port,
            v6only: false,
            device: 0,
            inode,
            cookie: u64::from(inode),
            uid: 0,
            queue: None,
            receive_buffer: None,
        }
    }

    fn holder(pid: u32, fd: i32) -> Holder {
        Holder { pid, fd, command: "worker".to_owned() }
    }

    fn order(listeners: &[Listener], holders: &HashMap<u32, Vec<Holder>>) -> Vec<u32> {
        let groups = groups(listeners, holders);
        assert_eq!(groups.len(), 1);
        groups.into_values().flatten().map(|member| member.inode).collect()
    }

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn sockets_of_a_master_are_numbered_by_descriptor() {
        let listeners = [listener(ANY, 80, 30), listener(ANY, 80, 20), listener(ANY, 80, 10)];
        let holders = HashMap::from([
            (10, vec![holder(101, 4), holder(100, 6)]),
            (20, vec![holder(100, 5), holder(101, 5)]),
            (30, vec![holder(101, 6), holder(100, 4)]),
        ]);
        assert_eq!(order(&listeners, &holders), [30, 20, 10]);
    }

    #[test]
    fn sockets_of_workers_are_numbered_by_pid_and_unknown_ones_come_last_by_inode() {
        let listeners = [listener(ANY, 80, 1), listener(ANY, 80, 3), listener(ANY, 80, 2), listener(ANY, 80, 4)];
        let holders = HashMap::from([(3, vec![holder(300, 9)]), (4, vec![holder(200, 9)]), (1, Vec::new())]);
        assert_eq!(order(&listeners, &holders), [4, 3, 1, 2]);
    }

    #[test]
    fn every_part_of_the_key_separates() {
        let base = listener(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80, 1);
        let others = [
            Listener { protocol: Protocol::Udp, ..base },
            Listener { address: ANY, ..base },
            Listener { port: 81, ..base },
            Listener { v6only: true, ..base },
            Listener { device: 2, ..base },
        ];
        for other in others {
            assert_eq!(groups(&[base, other], &HashMap::new()).len(), 2, "{other:?}");
        }
        let same = Listener { uid: 33, inode: 2, cookie: 2, ..base };
        assert_eq!(groups(&[base, same], &HashMap::new()).len(), 1);
    }
}
