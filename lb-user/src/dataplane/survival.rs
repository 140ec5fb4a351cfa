//! Does a connection that a cookie opened get past this host's own rules?
//!
//! The stack has seen no SYN of such a connection, and a packet filter that tracks connections may take its first ACK for a stray: with
//! `ct state new tcp flags != syn drop`, or with `nf_conntrack_tcp_loose` at 0 and a rule against invalid packets. No reading of rules
//! tells for sure, so it is tried: frames with such ACKs come in by the interface as if XDP had passed them, and either a listener here gets
//! the connections or not. They are then closed without a packet to anybody.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use lb_common::{
    abi::{RequestAttributes, RestoreRequest, Restored},
    checksum::Sum,
    wire::{ethernet, ipv4, protocol, tcp},
};
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{SockFilter, SockRef};
use zerocopy::IntoBytes as _;

use super::{
    Dataplane,
    load::random_key,
    probe::syscall::{self, Load},
    sys,
};
use crate::network::{Interface, sysctl};

/// How many connections of each family are tried at once, all of which must survive.
///
/// What translation compares is not set in a request that a program made, and the kernel does not clear its memory: not the port, nor
/// whether the listener is transparent (`no_srccheck`, which `inet_sk_transparent` in include/net/tcp.h asks). So what the memory held before
/// may let one survive where the next is lost, and it does once in some fifty starts on a host whose memory was used for much else.
pub const TRIES: u16 = 16;
/// How long they may take: the stack has the ACKs when the frames are handed over, and only a queue to another CPU is in between.
const PATIENCE: Duration = Duration::from_millis(20);
/// An address of the range for benchmarks (RFC 2544), for an interface in whose subnet there is no other.
const FAR: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1))];

/// What became of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survival {
    /// A listener got them all.
    Survives,
    /// The ACK reaches a listener, but what `restore_request` has told the kernel of it is lost on the way. So a cookie of the kernel's own
    /// is honoured, and one of ours is not.
    ///
    /// Address translation does this to IPv4, even where no rule of it applies: it takes a packet whose socket has another port for one
    /// that it has rewritten, and forgets the socket; and in a request that a program made, the port is not set yet, see [`TRIES`]
    /// (`nf_nat_inet_port_was_mangled` in net/netfilter/nf_nat_proto.c, Linux 6.18).
    KernelsOnly,
    /// The kernel was ready to make it, and a rule of this host kept the ACK from TCP.
    Lost,
    /// It was not found out, for this reason.
    Unclear(String),
}

/// What was found out on one interface; none for a family that it has no address of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survivals {
    /// For IPv4.
    pub v4: Option<Survival>,
    /// For IPv6.
    pub v6: Option<Survival>,
}

/// An address of this host, with the mask of its subnet.
type Own = (IpAddr, IpAddr);

impl Dataplane {
    /// Tries it on an interface that is attached. This takes a millisecond or two for each family, and [`PATIENCE`] where a
    /// connection is lost. The calling thread must be in the interface's namespace.
    #[must_use]
    pub fn survival(&self, interface: &Interface) -> Survivals {
        let found = addresses(&interface.name);
        let (own, all) = match found {
            Ok(found) => found,
            Err(error) => {
                let unclear = Some(Survival::Unclear(format!("this host's addresses cannot be listed ({error})")));
                return Survivals { v4: unclear.clone(), v6: unclear };
            }
        };
        let of_family = |is_v4: bool| {
            let own = own.iter().find(|(address, _)| address.is_ipv4() == is_v4)?;
            Some(self.try_address(interface, *own, &all).unwrap_or_else(|error| Survival::Unclear(error.to_string())))
        };
        Survivals { v4: of_family(true), v6: of_family(false) }
    }

    fn try_address(&self, interface: &Interface, own: Own, all: &[IpAddr]) -> io::Result<Survival> {
        let unclear = |why: &str| Ok(Survival::Unclear(why.to_owned()));
        if !self.pins.tc_link(interface.index).exists() {
            return unclear("the program `restore_request` is not attached");
        }
        if sysctl("net.ipv4.tcp_syncookies").is_some_and(|value| value == "0") {
            return unclear("net.ipv4.tcp_syncookies is 0: the kernel makes no connection from any cookie");
        }
        let Some(mac) = interface.mac.filter(|mac| *mac != 0) else { return unclear("the interface has no MAC address") };
        let neighbour = neighbour(own, all);
        let from = clients(neighbour.unwrap_or(FAR[usize::from(own.0.is_ipv6())]))?;
        let listener = TcpListener::bind((own.0, 0))?;
        listener.set_nonblocking(true)?;
        let to = listener.local_addr()?;
        let attributes = RequestAttributes { maximum_segment_size: 1_460, ..RequestAttributes::default() };
        let program = syscall::load(&Load::xdp_pass())?;

        let before = self.maps.restored().map_err(io::Error::other)?;
        for from in &from {
            let frame = acknowledgement(mac, *from, to);
            sys::receive(&program, RestoreRequest::new(attributes).as_bytes(), &frame, interface.index)?;
        }
        let survivors = accept(&listener, &from)?;
        survivors.iter().for_each(end_silently);
        if survivors.len() == from.len() {
            return Ok(Survival::Survives);
        }
        let after = self.maps.restored().map_err(io::Error::other)?;
        let moved = |outcome: Restored| after[outcome as usize] > before[outcome as usize];
        match Restored::ALL.into_iter().find(|outcome| moved(*outcome)) {
            Some(Restored::Restored) if neighbour.is_some() => {
                let arrives = arrives(|frame| sys::receive(&program, &[], frame, interface.index), mac, from[0], own.0)?;
                Ok(if arrives { Survival::KernelsOnly } else { Survival::Lost })
            }
            // The ACK may as well have been dropped for its source, which no route leads to.
            Some(Restored::Restored) => unclear("the interface's subnet has no address to try it from"),
            Some(outcome) => Ok(Survival::Unclear(format!("the kernel did not make the connection ({})", outcome.label()))),
            None => unclear("the ACK did not come as far as `restore_request`"),
        }
    }
}

/// Whom the ACKs come from: one address and, each time anew, some of its ports, so that no connection of before is met.
fn clients(address: IpAddr) -> io::Result<Vec<SocketAddr>> {
    const FIRST: u16 = 1 << 15;
    let [word, _] = random_key().map_err(io::Error::other)?;
    let start = u16::try_from(word & 0x7fff).unwrap_or(0);
    Ok((0..TRIES).map(|offset| SocketAddr::new(address, FIRST | ((start + offset) % FIRST))).collect())
}

/// Whether an ACK of no connection gets as far as a listener, who is told nothing of it: a filter on the socket drops it there, and the
/// kernel counts that.
fn arrives(receive: impl FnOnce(&[u8]) -> io::Result<()>, mac: u64, from: SocketAddr, own: IpAddr) -> io::Result<bool> {
    /// `BPF_RET | BPF_K`: keep so many bytes of it.
    const KEEP: u16 = 0x06;
    let listener = TcpListener::bind((own, 0))?;
    SockRef::from(&listener).attach_filter(&[SockFilter::new(KEEP, 0, 0, 0)])?;
    let before = sys::dropped_by_socket(&listener)?;
    receive(&acknowledgement(mac, from, listener.local_addr()?))?;
    let until = Instant::now() + PATIENCE;
    loop {
        if sys::dropped_by_socket(&listener)? != before {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The addresses of an interface that other hosts reach, with their masks, and all addresses of the namespace.
fn addresses(interface: &str) -> io::Result<(Vec<Own>, Vec<IpAddr>)> {
    let (mut own, mut all) = (Vec::new(), Vec::new());
    for found in getifaddrs()? {
        let Some(address) = found.address.and_then(to_ip) else { continue };
        all.push(address);
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if found.interface_name == interface
            && !is_link_local
            && let Some(mask) = found.netmask.and_then(to_ip)
        {
            own.push((address, mask));
        }
    }
    Ok((own, all))
}

fn to_ip(address: SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// An address that could be a neighbour's: its subnet is that of the interface, so that the reverse path is the interface (`rp_filter`)
/// and rules for outsiders do not apply. It is our own with all bits turned that the subnet leaves, or near that.
fn neighbour((address, mask): Own, all: &[IpAddr]) -> Option<IpAddr> {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let (own, mask) = (bits(address), bits(mask));
    let host = if width == 128 { !mask } else { !mask & u128::from(u32::MAX) };
    let usable = |bits: u128| {
        // A subnet's first and last address are no hosts' (but where there are only two).
        let is_host = host <= 1 || (bits & host != 0 && bits & host != host);
        let ip = if width == 32 { Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into() } else { Ipv6Addr::from_bits(bits).into() };
        (is_host && !all.contains(&ip)).then_some(ip)
    };
    (0..64).filter(|offset| *offset <= host).find_map(|offset| usable((own ^ host) ^ offset))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A frame with a bare ACK.
fn acknowledgement(mac: u64, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    const TCP_LENGTH: u8 = 20;
    const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
    let sum = |bytes: &[u8], start: Sum| start.add_bytes(bytes).checksum().to_be_bytes();
    let segment = |pseudo_header: Sum| {
        let mut segment = [0; tcp::LENGTH];
        segment[..2].copy_from_slice(&from.port().to_be_bytes());
        segment[2..4].copy_from_slice(&to.port().to_be_bytes());
        // Numbers that mean nothing: the cookie that they would hold is taken as checked.
        segment[4..12].copy_from_slice(&[0x57, 0x65, 0x69, 0x72, 0x57, 0x65, 0x69, 0x72]);
        (segment[12], segment[13]) = (0x50, tcp::flags::ACK);
        segment[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let checksum = sum(&segment, pseudo_header);
        segment[16..18].copy_from_slice(&checksum);
        segment
    };
    let packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut header = [0; ipv4::LENGTH];
            header[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol::TCP]);
            header[12..16].copy_from_slice(&source);
            header[16..].copy_from_slice(&destination);
            let checksum = sum(&header, Sum::ZERO);
            header[10..12].copy_from_slice(&checksum);
            [&header[..], &segment(Sum::ipv4_pseudo_header(source, destination, protocol::TCP, TCP_LENGTH.into()))].concat()
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(|address| bits(address).to_be_bytes());
            let header = [&[0x60, 0, 0, 0, 0, TCP_LENGTH, protocol::TCP, 64], &source[..], &destination].concat();
            [&header[..], &segment(Sum::ipv6_pseudo_header(source, destination, protocol::TCP, TCP_LENGTH.into()))].concat()
        }
    };
    let kind = if from.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    [&mac.to_be_bytes()[2..], &SENDER, &kind.to_be_bytes(), &packet].concat()
}

/// The connections from those addresses that come in time.
fn accept(listener: &TcpListener, from: &[SocketAddr]) -> io::Result<Vec<TcpStream>> {
    let until = Instant::now() + PATIENCE;
    let mut accepted = Vec::new();
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                // Somebody else may have found the port.
                if from.iter().any(|from| (from.ip(), from.port()) == (peer.ip(), peer.port())) {
                    accepted.push(connection);
                }
                if accepted.len() == from.len() {
                    return Ok(accepted);
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(accepted);
        }
        let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&rest)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Closes a connection whose other end does not exist: in repair mode the kernel sends nothing.
fn end_silently(connection: &TcpStream) {
    if let Err(error) = sys::set_socket_option(connection, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1) {
        tracing::debug!("the end of the test's connection is sent to nobody: {error}");
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{packet::Window, wire};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_neighbour_is_in_the_subnet_and_is_nobody_here() {
        let neighbour = |own, mask, all: &[&str]| neighbour((ip(own), ip(mask)), &all.iter().map(|text| ip(text)).collect::<Vec<_>>());
        assert_eq!(neighbour("10.0.0.5", "255.255.255.0", &["10.0.0.5"]), Some(ip("10.0.0.250")));
        assert_eq!(neighbour("10.0.0.5", "255.255.255.0", &["10.0.0.5", "10.0.0.250"]), Some(ip("10.0.0.251")));
        assert_eq!(neighbour("10.0.0.1", "255.255.255.252", &["10.0.0.1"]), Some(ip("10.0.0.2")));
        assert_eq!(neighbour("10.0.0.1", "255.255.255.252", &["10.0.0.1", "10.0.0.2"]), None);
        assert_eq!(neighbour("10.0.0.4", "255.255.255.254", &["10.0.0.4"]), Some(ip("10.0.0.5")));
        assert_eq!(neighbour("10.0.0.4", "255.255.255.255", &["10.0.0.4"]), None);
        let last = "ffff:ffff:ffff:ffff::";
        assert_eq!(neighbour("fd00::5", last, &["fd00::5"]), Some(ip("fd00::ffff:ffff:ffff:fffa")));
        assert_eq!(neighbour("fd00::5", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["fd00::5"]), None);
    }

    #[test]
    fn the_frame_is_an_acknowledgement_with_right_checksums() {
        for (source, destination) in [("10.0.0.250", "10.0.0.5"), ("fd00::1", "fd00::5")] {
            let frame = acknowledgement(0x0201_0304_0506, (ip(source), 7).into(), (ip(destination), 80).into());
            let flow = wire::flow(&Window::of(&frame)).unwrap();
            assert_eq!((flow.key.source.to_ip(), flow.key.destination.to_ip()), (ip(source), ip(destination)));
            assert_eq!((flow.key.source_port, flow.key.destination_port, flow.destination_mac), (7, 80, 0x0201_0304_0506));
            assert_eq!((flow.kind, flow.end), (wire::Kind::Segment(tcp::flags::ACK), frame.len()));
            let pseudo_header = match (ip(source), ip(destination)) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    assert!(Sum::ZERO.add_bytes(&frame[14..34]).is_valid());
                    Sum::ipv4_pseudo_header(a.octets(), b.octets(), 6, 20)
                }
                (a, b) => Sum::ipv6_pseudo_header(bits(a).to_be_bytes(), bits(b).to_be_bytes(), 6, 20),
            };
            assert!(pseudo_header.add_bytes(&frame[flow.transport..]).is_valid());
        }
    }
}
