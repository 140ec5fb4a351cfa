//! The frames of a flood: what stays the same in each, and which bits are drawn anew for each packet.

use std::net::{IpAddr, SocketAddr};

use super::plan::{FloodPlan, Prefix};
use crate::support::packet::{CWR, ECE, Packet, SYN};

/// A frame with right checksums, whose bits that vary are zero.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub bytes: Vec<u8>,
    pub varied: Vec<Varied>,
    /// Where the checksum of the IP header is; IPv6 has none.
    pub ip_checksum: Option<usize>,
    /// Where the checksum of the segment or the datagram is.
    pub checksum: usize,
}

/// Four bytes of which some bits are random.
#[derive(Clone, Copy, Debug)]
pub(super) struct Varied {
    pub at: usize,
    pub bits: [u8; 4],
    /// Whether IPv4's header checksum covers them too.
    pub in_ip_header: bool,
}

/// The start of a TCP connection as a kind of client asks for it.
struct Client {
    options: &'static [u8],
    window: u16,
    /// Flags besides SYN: those of ECN.
    flags: u8,
}

/// The second byte pair of each is the MSS of IPv4; see [`with_mss`].
const CLIENTS: [Client; 6] = [
    // Linux: MSS, SACK permitted, timestamps, window scale 7.
    Client { options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0x5a, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7], window: 64_240, flags: 0 },
    // Windows: MSS, window scale 8, SACK permitted; no timestamps.
    Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], window: 65_535, flags: 0 },
    // macOS and iOS: MSS, window scale 6, timestamps, SACK permitted, end of list; with ECN.
    Client { options: &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 0x5a, 1, 2, 3, 0, 0, 0, 0, 4, 2, 0, 0], window: 65_535, flags: ECE | CWR },
    // Android: as Linux, with window scale 9 and a larger window.
    Client { options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0x5a, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 9], window: 65_535, flags: 0 },
    // BSD of old, and many small devices: MSS alone.
    Client { options: &[2, 4, 5, 0xb4], window: 16_384, flags: 0 },
    // What raw packet tools send.
    Client { options: &[], window: 512, flags: 0 },
];

/// Other segments carry timestamps, or nothing.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0x5a, 1, 2, 3, 0x3c, 4, 5, 6];

const ETHERNET: usize = 14;
/// Source ports are 1,024 and above.
const SOURCE_PORT: u16 = 0x0400;

/// The flood's frames: each way to fill its options, from each of its sources.
pub(super) fn templates(plan: &FloodPlan, source_mac: [u8; 6]) -> Vec<Template> {
    let variants = variants(plan);
    // By sources inside, so that a short flood, too, comes from all of them.
    let all = variants.iter().flat_map(|variant| plan.sources.iter().map(|source| template(plan, source_mac, *source, variant)));
    all.collect()
}

/// The transport header's shapes that the plan's kind takes, as what is put behind the IP header.
fn variants(plan: &FloodPlan) -> Vec<Box<dyn Fn(Packet) -> Packet>> {
    let port = plan.target.port();
    let Some(flags) = plan.kind.flags() else {
        return vec![Box::new(move |packet| packet.udp(SOURCE_PORT, port).payload(b"a datagram of a flood"))];
    };
    let tcp = move |packet: Packet| packet.tcp(SOURCE_PORT, port).sequence(0).flags(flags);
    if flags == SYN {
        let mss = if plan.target.is_ipv4() { 1460 } else { 1440 };
        let of_client = |client: &'static Client| -> Box<dyn Fn(Packet) -> Packet> {
            let options = with_mss(client.options, mss);
            Box::new(move |packet| tcp(packet).flags(flags | client.flags).window(client.window).options(&options))
        };
        return CLIENTS.iter().map(of_client).collect();
    }
    vec![Box::new(tcp), Box::new(move |packet| tcp(packet).options(&TIMESTAMPS))]
}

fn with_mss(options: &[u8], mss: u16) -> Vec<u8> {
    let mut options = options.to_vec();
    if let Some(field) = options.get_mut(2..4) {
        field.copy_from_slice(&mss.to_be_bytes());
    }
    options
}

fn template(plan: &FloodPlan, source_mac: [u8; 6], source: Prefix, variant: &dyn Fn(Packet) -> Packet) -> Template {
    let ethernet = Packet::ethernet_between(source_mac, plan.destination_mac);
    let (packet, source_at, transport) = match (network(source), plan.target) {
        (IpAddr::V4(own), SocketAddr::V4(target)) => (ethernet.ipv4(own, *target.ip()).dont_fragment(), ETHERNET + 12, ETHERNET + 20),
        (IpAddr::V6(own), SocketAddr::V6(target)) => (ethernet.ipv6(own, *target.ip()), ETHERNET + 8, ETHERNET + 40),
        (own, target) => panic!("{own} and {target} are of two families"),
    };
    let v4 = plan.target.is_ipv4();
    let whole = |at| Varied { at, bits: [0xff; 4], in_ip_header: false };
    let free = source.free_bits();
    let words = free.chunks_exact(4).enumerate().map(|(word, bits)| (source_at + 4 * word, bits.try_into().expect("four bytes")));
    let mut varied: Vec<_> = words.map(|(at, bits)| Varied { at, bits, in_ip_header: v4 }).collect();
    let [high, low] = (!SOURCE_PORT).to_be_bytes();
    varied.push(Varied { at: transport, bits: [high, low, 0, 0], in_ip_header: false });
    if plan.kind.flags().is_some() {
        varied.push(whole(transport + 4));
    }
    if plan.kind.flags().is_some_and(|flags| flags != SYN) {
        varied.push(whole(transport + 8));
    }
    varied.retain(|one| one.bits != [0; 4]);
    Template {
        bytes: variant(packet).bytes(),
        varied,
        ip_checksum: v4.then_some(ETHERNET + 10),
        checksum: transport + if plan.kind.flags().is_some() { 16 } else { 6 },
    }
}

/// The prefix's address with its free bits zero.
fn network(prefix: Prefix) -> IpAddr {
    let free = prefix.free_bits();
    match prefix.address {
        IpAddr::V4(v4) => {
            let mut octets = v4.octets();
            octets.iter_mut().zip(&free).for_each(|(octet, free)| *octet &= !free);
            IpAddr::from(octets)
        }
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets.iter_mut().zip(&free).for_each(|(octet, free)| *octet &= !free);
            IpAddr::from(octets)
        }
    }
}
