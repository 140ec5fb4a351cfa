//! Namespaces wired together: a client and a server, or a client, a router and a backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Namespace;
use crate::dataplane::bpf::{self, instruction};
use crate::support::daemon::mount_bpffs;

/// Numbers the subnets, so that addresses in a log tell the pair.
static SUBNETS: AtomicU32 = AtomicU32::new(0);

/// A client and a server joined by a veth pair.
///
/// The client is `10.88.N.1`, `.2`, .. and `fd88:N::1`, `::2`, .. on device [`Pair::CLIENT_DEVICE`]; the server `10.88.N.101` and
/// `fd88:N::101` (and on) on [`Pair::SERVER_DEVICE`]. Checksum and segmentation offloads are off at both ends, because XDP sees what
/// the peer hands over, and a frame whose checksum is still to be filled in is no frame a card would deliver. What an XDP program on the
/// server's device sends back reaches the client (see [`join`]).
#[derive(Debug)]
pub struct Pair {
    pub client: Namespace,
    pub server: Namespace,
    pub client_v4: Vec<IpAddr>,
    pub client_v6: Vec<IpAddr>,
    pub server_v4: Vec<IpAddr>,
    pub server_v6: Vec<IpAddr>,
}

impl Pair {
    /// The device in the client's namespace.
    pub const CLIENT_DEVICE: &'static str = "toserver";
    /// The device in the server's namespace, the one to attach to.
    pub const SERVER_DEVICE: &'static str = "toclient";

    /// A pair with four client addresses of each family and one server address.
    pub fn new() -> Self {
        Self::with_addresses(4, 1)
    }

    /// A pair with so many addresses of each family, at most 100 each.
    pub fn with_addresses(clients: u8, servers: u8) -> Self {
        assert!(clients <= 100 && servers <= 100, "the address plan holds 100 of each");
        let subnet = SUBNETS.fetch_add(1, Ordering::Relaxed) % 250;
        let (client, server) = (Namespace::new("client"), Namespace::new("server"));
        join(&client, Self::CLIENT_DEVICE, &server, Self::SERVER_DEVICE);
        let v4 = |host: u8| IpAddr::V4(Ipv4Addr::new(10, 88, u8::try_from(subnet).unwrap_or(0), host));
        // The host's number is written in the address as its decimal digits, so that ::101 belongs to .101.
        let v6 = |host: u8| -> IpAddr { IpAddr::V6(format!("fd88:{subnet}::{host}").parse::<Ipv6Addr>().expect("the address plan")) };
        let pair = Self {
            client_v4: (1..=clients).map(v4).collect(),
            client_v6: (1..=clients).map(v6).collect(),
            server_v4: (101..101 + servers).map(v4).collect(),
            server_v6: (101..101 + servers).map(v6).collect(),
            client,
            server,
        };
        for address in pair.client_v4.iter().chain(&pair.client_v6) {
            add_address(&pair.client, Self::CLIENT_DEVICE, *address);
        }
        for address in pair.server_v4.iter().chain(&pair.server_v6) {
            add_address(&pair.server, Self::SERVER_DEVICE, *address);
        }
        pair
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

/// A client, a router that forwards and may have listeners of its own, and a backend behind it.
///
/// The client is `10.89.1.1` and `fd89:1::1`, the router `10.89.1.254` and `fd89:1::254` towards it on [`Routed::CLIENT_SIDE`],
/// `10.89.2.254` and `fd89:2::254` towards the backend on [`Routed::BACKEND_SIDE`], the backend `10.89.2.1` and `fd89:2::1`.
#[derive(Debug)]
pub struct Routed {
    pub client: Namespace,
    pub router: Namespace,
    pub backend: Namespace,
}

impl Routed {
    /// The router's device towards the client, the one to attach to.
    pub const CLIENT_SIDE: &'static str = "toclient";
    /// The router's device towards the backend.
    pub const BACKEND_SIDE: &'static str = "tobackend";
    /// The device in the client's and in the backend's namespace.
    pub const HOST_DEVICE: &'static str = "torouter";

    /// The client's addresses.
    pub const CLIENT: [IpAddr; 2] = addresses(1, 1);
    /// The router's own addresses towards the client.
    pub const ROUTER: [IpAddr; 2] = addresses(1, 254);
    /// The backend's addresses.
    pub const BACKEND: [IpAddr; 2] = addresses(2, 1);

    /// Three namespaces, wired and with routes, the middle one forwarding both families.
    pub fn new() -> Self {
        let topology = Self { client: Namespace::new("client"), router: Namespace::new("router"), backend: Namespace::new("backend") };
        let Self { client, router, backend } = &topology;
        router.set_sysctl("net.ipv4.ip_forward", "1");
        router.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        for (host, side, subnet) in [(client, Self::CLIENT_SIDE, 1), (backend, Self::BACKEND_SIDE, 2)] {
            join(host, Self::HOST_DEVICE, router, side);
            for (own, gateway) in addresses(subnet, 1).into_iter().zip(addresses(subnet, 254)) {
                add_address(host, Self::HOST_DEVICE, own);
                add_address(router, side, gateway);
                host.tool("ip", &["route", "add", "default", "via", &gateway.to_string()]);
            }
        }
        topology
    }

    /// Sends what reaches the router's own address at `port` on to the backend's `to_port` (both families, TCP and UDP).
    pub fn destination_nat(&self, port: u16, to_port: u16) {
        let [v4, v6] = Self::BACKEND;
        let [own_v4, own_v6] = Self::ROUTER;
        self.router.nft(&format!(
            "table inet weirtest {{\n chain prerouting {{\n type nat hook prerouting priority dstnat\n
               ip daddr {own_v4} meta l4proto {{ tcp, udp }} th dport {port} dnat ip to {v4}:{to_port}\n
               ip6 daddr {own_v6} meta l4proto {{ tcp, udp }} th dport {port} dnat ip6 to [{v6}]:{to_port}\n }}\n }}"
        ));
    }
}

impl Default for Routed {
    fn default() -> Self {
        Self::new()
    }
}

/// The two addresses of one host in the router's plan.
const fn addresses(subnet: u8, host: u8) -> [IpAddr; 2] {
    let digits = if host == 254 { 0x254 } else { host as u16 };
    [IpAddr::V4(Ipv4Addr::new(10, 89, subnet, host)), IpAddr::V6(Ipv6Addr::new(0xfd89, subnet as u16, 0, 0, 0, 0, 0, digits))]
}

/// Joins two namespaces by a veth pair, both ends up, without offloads; the end that is attached to is the right one.
///
/// The left end has an XDP program that passes everything. A veth that has none takes no frames from its peer's XDP_TX in native mode; with
/// GRO it takes them, but is not woken for them (drivers/net/veth.c: `veth_xdp_xmit` looks for the receiver's NAPI, `veth_xdp_flush` for
/// its program), and they wait for the next frame that the peer sends otherwise.
///
/// A veth with a program takes frames by a ring of 256, which a flood overflows, and a burst of answers to some dozens of clients. Both
/// ends have a queue, so that what the stack sends waits instead of being lost (Linux 6.16); a device without one drops.
pub fn join(left: &Namespace, left_device: &str, right: &Namespace, right_device: &str) {
    left.ip(&format!("link add {left_device} type veth peer name {right_device} netns {}", right.name()));
    for (namespace, device) in [(left, left_device), (right, right_device)] {
        // IPv6 router discovery and duplicate address detection would only add noise to packet counts.
        namespace.set_sysctl(&format!("net/ipv6/conf/{device}/accept_dad"), "0");
        namespace.set_sysctl(&format!("net/ipv6/conf/{device}/router_solicitations"), "0");
        namespace.tool("ethtool", &["-K", device, "tx", "off", "tso", "off", "gso", "off"]);
        namespace.ip(&format!("link set {device} up"));
        namespace.tool("tc", &["qdisc", "add", "dev", device, "root", "pfifo"]);
    }
    pass_everything(left, left_device);
}

impl Pair {
    /// Takes the program off the client's device that [`join`] attaches, or attaches it again: as on a host whose containers know nothing of
    /// XDP.
    pub fn client_takes_what_xdp_sends(&self, takes: bool) {
        self.client.ip(&format!("link set dev {} xdpdrv off", Self::CLIENT_DEVICE));
        if takes {
            pass_everything(&self.client, Self::CLIENT_DEVICE);
        }
    }
}

/// Attaches the program to the device for as long as that lives: a link would end with its descriptor.
fn pass_everything(namespace: &Namespace, device: &str) {
    const PASS: i32 = 2;
    static PINNED: AtomicU32 = AtomicU32::new(0);
    let program = bpf::load(bpf::XDP, "passing", &[instruction::set(0, PASS), instruction::exit()]).expect("a program of two instructions");
    mount_bpffs();
    let pin = format!("/sys/fs/bpf/weirt-{}-{}", std::process::id(), PINNED.fetch_add(1, Ordering::Relaxed));
    bpf::pin(program.as_fd(), &pin).expect("pin the program");
    namespace.ip(&format!("link set dev {device} xdpdrv pinned {pin}"));
    std::fs::remove_file(&pin).expect("take the pin away again");
}

/// Adds an address with the prefix of the plans (/24 or /64), usable at once (no duplicate address detection).
pub fn add_address(namespace: &Namespace, device: &str, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => namespace.ip(&format!("address add {v4}/24 dev {device}")),
        IpAddr::V6(v6) => namespace.ip(&format!("address add {v6}/64 dev {device} nodad")),
    };
}
