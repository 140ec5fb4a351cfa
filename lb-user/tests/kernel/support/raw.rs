//! A client made of frames: each one written by the test, each reply read as it is.
//!
//! It has an address and a MAC that are nobody's: the kernel of the client's namespace sees frames for another host, and answers none of
//! them. The server knows the MAC by a permanent neighbour entry.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{LinkAddr, MsgFlags, MultiHeaders, sendmmsg};
use socket2::{Domain, SockFilter, Socket, Type};

use super::netns::{Namespace, Pair};
use super::packet::{ACK, Packet, SYN, Segment, stream};

/// The first host number of these clients in the pair's address plan.
const FIRST_HOST: u8 = 201;
/// How long a reply may take that is certain to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Every protocol (`ETH_P_ALL`), in the byte order of `sockaddr_ll`.
const ALL: u16 = 3_u16.to_be();

/// A host that exists only in the frames sent for it.
#[derive(Debug)]
pub struct RawClient {
    frames: Socket,
    segments: Socket,
    mac: [u8; 6],
    server_mac: [u8; 6],
    address: IpAddr,
    server: IpAddr,
}

impl RawClient {
    /// Makes the pair's raw client number `number` (0 to 49), which talks with the first server address of a family.
    pub fn new(pair: &Pair, v6: bool, number: u8) -> Self {
        assert!(number < 50, "the address plan holds 50 raw clients");
        let host = FIRST_HOST + number;
        let (server, address) = match (pair.server_v4[0], pair.server_v6[0]) {
            (_, server @ IpAddr::V6(v6_server)) if v6 => {
                let text = v6_server.to_string().replace("::101", &format!("::{host}"));
                (server, text.parse().expect("the address plan"))
            }
            (server @ IpAddr::V4(v4), _) => (server, IpAddr::V4(Ipv4Addr::from((u32::from(v4) & !0xff) | u32::from(host)))),
            plan => panic!("{plan:?} is not the address plan"),
        };
        let mac = [0x02, 0x57, 0, 0, 0, host];
        let shown = mac.map(|byte| format!("{byte:02x}")).join(":");
        pair.server.ip(&format!("neighbour replace {address} lladdr {shown} dev {} nud permanent", Pair::SERVER_DEVICE));
        let [frames, segments] = pair.client.run(|| [open(false), open(true)]);
        hear_only(&frames, mac);
        Self { frames, segments, mac, server_mac: mac_of(&pair.server, Pair::SERVER_DEVICE), address, server }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The beginning of a frame to the server: Ethernet and IP.
    pub fn ip(&self) -> Packet {
        Packet::ethernet_between(self.mac, self.server_mac).ip(self.address, self.server)
    }

    /// The same with TCP between these ports.
    pub fn tcp(&self, from: u16, to: u16) -> Packet {
        self.ip().tcp(from, to)
    }

    /// The answer to a segment of the server's: ports turned round, everything up to it acknowledged, no payload; with timestamps (the
    /// server's, and the one it has heard last plus 1) when the segment has them.
    pub fn reply_to(&self, segment: &Segment) -> Packet {
        let reply = self
            .tcp(segment.destination.port(), segment.source.port())
            .flags(ACK)
            .sequence(segment.acknowledgement)
            .acknowledgement(segment.sequence.wrapping_add(segment.length()));
        let Some(&[a, b, c, d, e, f, g, h]) = segment.option(8) else { return reply };
        let now = u32::from_be_bytes([e, f, g, h]).wrapping_add(1).to_be_bytes();
        reply.options(&[[1, 1, 8, 10], now, [a, b, c, d]].concat())
    }

    /// Sends frames by one system call. Between two of them the receiver's end may have run already: only what
    /// [`RawClient::send_as_segments`] sends is certain to be one batch.
    pub fn send(&self, frames: &[Packet]) {
        let bytes: Vec<_> = frames.iter().map(Packet::bytes).collect();
        let slices: Vec<_> = bytes.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
        let nowhere = vec![None; frames.len()];
        let sent = sendmmsg(self.frames.as_raw_fd(), &mut headers, &slices, nowhere, [], MsgFlags::empty()).expect("send frames");
        assert_eq!(sent.count(), frames.len(), "frames sent");
    }

    /// Sends one large segment, which the kernel cuts into segments of `size` bytes of payload and hands to the server's device as one
    /// batch: a client's first flight, whose later segments are there before the first has become a connection.
    pub fn send_as_segments(&self, large: &Packet, size: u16) {
        const NEEDS_CHECKSUM: u8 = 1;
        const TCP_IPV4: u8 = 1;
        const TCP_IPV6: u8 = 4;
        let mut frame = large.bytes();
        let segment = Segment::parse(&frame).expect("a TCP segment");
        segment.leave_checksum_to_kernel(&mut frame);
        let start = u16::try_from(segment.offset).expect("within a frame");
        let headers = start + 20 + u16::try_from(segment.options.len()).expect("at most 40");
        // struct virtio_net_hdr, the fields of two bytes in this machine's order (include/uapi/linux/virtio_net.h).
        let kind = if self.server.is_ipv4() { TCP_IPV4 } else { TCP_IPV6 };
        let numbers = [headers, size, start, 16].map(u16::to_ne_bytes).concat();
        let message = [&[NEEDS_CHECKSUM, kind], numbers.as_slice(), &frame].concat();
        let sent = self.segments.send(&message).expect("send a large segment");
        assert_eq!(sent, message.len(), "bytes sent");
    }

    /// Opens as far as the server answers: sends a SYN with these options and returns what comes back (a SYN-ACK or a reset).
    pub fn open(&self, from: u16, to: u16, sequence: u32, options: &[u8]) -> Segment {
        self.send(&[self.tcp(from, to).flags(SYN).sequence(sequence).options(options)]);
        let deadline = Instant::now() + PATIENCE;
        // Of other connections something may come again that was acknowledged late.
        std::iter::from_fn(|| self.receive(deadline.saturating_duration_since(Instant::now())))
            .find(|segment| segment.destination.port() == from)
            .unwrap_or_else(|| panic!("no answer to a SYN from port {from}"))
    }

    /// The next segment for this client, from whatever port, or nothing after `patience`.
    pub fn receive(&self, patience: Duration) -> Option<Segment> {
        self.receive_frame(patience, |frame| Segment::parse(frame).filter(|segment| segment.destination.ip() == self.address))
    }

    /// All segments for this client until none has come for as long as `quiet`.
    pub fn receive_all(&self, quiet: Duration) -> Vec<Segment> {
        std::iter::from_fn(|| self.receive(quiet)).collect()
    }

    /// What the server says from sequence number `first` on until it is `quiet`, every segment of it acknowledged.
    pub fn hear(&self, first: u32, quiet: Duration) -> Vec<u8> {
        let mut segments = Vec::new();
        while let Some(segment) = self.receive(quiet) {
            if segment.length() > 0 {
                self.send(&[self.reply_to(&segment)]);
            }
            segments.push(segment);
        }
        stream(first, &segments)
    }

    /// What the server says from sequence number `first` on until it is `enough`, or for as long as `patience`: everything acknowledged.
    pub fn hear_until(&self, first: u32, patience: Duration, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let (deadline, mut segments) = (Instant::now() + patience, Vec::new());
        loop {
            let said = stream(first, &segments);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || enough(&said) {
                return said;
            }
            let Some(segment) = self.receive(left) else { continue };
            if segment.length() > 0 {
                self.send(&[self.reply_to(&segment)]);
            }
            segments.push(segment);
        }
    }

    /// The next frame that `read` makes something of, or nothing after `patience`.
    pub fn receive_frame<T>(&self, patience: Duration, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![MaybeUninit::uninit(); 70_000];
        loop {
            // A timeout of 0 would wait without end, and while frames come none is ever reached.
            if Instant::now() >= deadline + patience {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            self.frames.set_read_timeout(Some(left)).expect("set a timeout");
            let length = match self.frames.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => panic!("read frames: {error}"),
            };
            // SAFETY: the kernel has written so many bytes.
            let frame: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            if let Some(found) = read(&frame) {
                return Some(found);
            }
        }
    }
}

/// Leaves out what is for others: in a flood, the frames of the client would find no room among all those.
fn hear_only(socket: &Socket, mac: [u8; 6]) {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const UNLESS_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let [a, b, c, d, e, f] = mac;
    let step = |code, constant, otherwise| SockFilter::new(code, 0, otherwise, constant);
    let filter = [
        step(LOAD_WORD, 0, 0),
        step(UNLESS_EQUAL, u32::from_be_bytes([a, b, c, d]), 3),
        step(LOAD_HALF, 4, 0),
        step(UNLESS_EQUAL, u32::from_be_bytes([0, 0, e, f]), 1),
        step(RETURN, u32::MAX, 0),
        step(RETURN, 0, 0),
    ];
    socket.attach_filter(&filter).expect("attach a filter");
}

/// A packet socket on the client's device, from inside the client's namespace. The one for large segments only sends.
fn open(large: bool) -> Socket {
    // Bound before it hears anything: protocol 0 hears nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("open a packet socket");
    let index = if_nametoindex(Pair::CLIENT_DEVICE).expect("the client's device");
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("17"),
        sll_protocol: if large { 0 } else { ALL },
        sll_ifindex: i32::try_from(index).expect("an index"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("twenty");
    // SAFETY: the address is a sockaddr_ll of the length that is said.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw mut address).cast(), length) };
    assert_eq!(bound, 0, "bind a packet socket: {}", io::Error::last_os_error());
    if large {
        let on: libc::c_int = 1;
        let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four");
        // SAFETY: the value is a number of the length that is said.
        let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const on).cast(), length) };
        assert_eq!(set, 0, "ask for the header of large segments: {}", io::Error::last_os_error());
    }
    socket
}

/// The MAC of a device.
fn mac_of(namespace: &Namespace, device: &str) -> [u8; 6] {
    let shown: serde_json::Value = serde_json::from_str(&namespace.ip(&format!("-json link show dev {device}"))).expect("ip writes JSON");
    let text = shown[0]["address"].as_str().expect("a device with a MAC");
    let bytes: Vec<_> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC")).collect();
    bytes.try_into().expect("six bytes")
}
