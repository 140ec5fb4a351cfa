//! One setting: a client and a server joined by veth, workers, and what defends them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Setting,
    client::{self, Connects},
    thread::PollingThread,
};
use crate::support::{
    counters::Traffic,
    daemon::Weir,
    flood::{Flood, FloodPlan, Sink, ready},
    netns::Pair,
    servers::{WorkerPlan, Workers},
};

const PORT: u16 = 8080;
const WORKERS: u32 = 4;
/// Every service is found, and the defence of each is what it is without a word about it.
const CONFIGURATION: &str = "discovery.tcp = true\n";
/// How long a flood goes on before anybody connects: the SYN queue is full by then, and whoever looks for floods has seen it.
const BEFORE_CONNECTING: Duration = Duration::from_millis(300);
/// How long a flood lasts at least.
const AT_LEAST: Duration = Duration::from_secs(2);
/// How long a setting has rest after its turn, for what is still under way.
const REST: Duration = Duration::from_millis(300);

/// A setting, ready for its turns.
pub struct Scene {
    // In the order of their end: the daemon leaves the namespace before it goes.
    _weir: Option<Weir>,
    _workers: Workers,
    _sinks: Vec<Sink>,
    receiver: PollingThread,
    _other: PollingThread,
    target: SocketAddr,
    mac: [u8; 6],
    pair: Pair,
}

/// What one turn gave.
pub struct Turn {
    /// How long the flood lasted, in seconds.
    pub seconds: f64,
    /// Packets that were sent to the server, that it took in, and that it sent.
    pub offered: f64,
    pub taken_in: f64,
    pub answers: f64,
    /// Nanoseconds of a CPU that the receiving thread took.
    pub busy: f64,
    pub connects: Connects,
}

impl Scene {
    pub fn new(setting: Setting) -> Self {
        let pair = Pair::new();
        let mac = ready(&pair);
        let target = SocketAddr::new(pair.server_v4[0], PORT);
        let cpus = Cpus::new();
        pair.client_takes_what_xdp_sends(false);
        let mut sinks = vec![Sink::attach(&pair.client, Pair::CLIENT_DEVICE)];
        let receiver = PollingThread::of(&pair.server, Pair::SERVER_DEVICE, cpus.server);
        let other = PollingThread::of(&pair.client, Pair::CLIENT_DEVICE, cpus.client);
        let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), WORKERS);
        for worker in workers.sockets() {
            super::thread::pin(worker.pid, cpus.server);
        }
        // So that it shows whether the answer to a SYN lets a client have it.
        pair.client.set_sysctl("net.ipv4.tcp_ecn", "1");
        let mut weir = None;
        match setting {
            Setting::Cookies(mode) => pair.server.set_sysctl("net.ipv4.tcp_syncookies", &mode.to_string()),
            Setting::Floor(action) => sinks.push(Sink::of_all(&pair.server, Pair::SERVER_DEVICE, action)),
            Setting::FloorOfLookup => sinks.push(Sink::looking(&pair.server, Pair::SERVER_DEVICE)),
            Setting::Synproxy => synproxy(&pair, target),
            Setting::Weir(mode) => {
                let daemon = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CONFIGURATION), &["--mode", mode]);
                daemon.wait_for_backends(WORKERS as usize);
                weir = Some(daemon);
            }
        }
        Self { _weir: weir, _workers: workers, _sinks: sinks, receiver, _other: other, target, mac, pair }
    }

    /// Whom to flood.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// The MAC of the server's device.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// A flood, and connections in its midst; the flood ends with the connections.
    #[expect(clippy::cast_precision_loss, reason = "counts of packets, and nanoseconds, far below 2^53")]
    pub fn turn(&self, plan: &FloodPlan) -> Turn {
        let cpus = Cpus::new();
        let traffic = || (Traffic::of(&self.pair.server, Pair::SERVER_DEVICE), Traffic::of(&self.pair.client, Pair::CLIENT_DEVICE));
        let (server, client) = traffic();
        let (busy, start) = (self.receiver.time(), Instant::now());
        let flood = Flood::start_on(&self.pair.client, Pair::CLIENT_DEVICE, plan, Some(cpus.client));
        std::thread::sleep(BEFORE_CONNECTING);
        let connects = client::connect(&self.pair.client, self.target, self.pair.client_v4[0], cpus.client);
        std::thread::sleep(AT_LEAST.saturating_sub(start.elapsed()));
        let report = flood.stop();
        let seconds = start.elapsed().as_secs_f64();
        let (server, client) = {
            let now = traffic();
            (now.0.since(server), now.1.since(client))
        };
        let busy = self.receiver.time().saturating_sub(busy);
        std::thread::sleep(REST);
        Turn {
            seconds,
            offered: report.sent as f64,
            taken_in: server.received as f64,
            // What the client's end had no room for was sent all the same.
            answers: (server.sent + client.dropped) as f64,
            busy: busy.as_nanos() as f64,
            connects,
        }
    }
}

/// Who runs where: the flood and the clients on one CPU, the server's device and the workers on another.
#[derive(Clone, Copy)]
struct Cpus {
    client: usize,
    server: usize,
}

impl Cpus {
    fn new() -> Self {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        assert!(count >= 2, "the flood and the server need a CPU each");
        Self { client: 0, server: 1 }
    }
}

/// nftables' synproxy for the service, as its manual has it: SYNs are not tracked, and what is not tracked is the proxy's.
///
/// On Linux 6.18 the server takes the proxy's first ACK for one with a wrong timestamp (TcpExt.TSEcrRejected) and sends its SYN-ACK again
/// after a second, flood or no flood: the client is connected at once and answered after a second.
fn synproxy(pair: &Pair, target: SocketAddr) {
    // The scale that the server itself would announce: the proxy promises it on its behalf.
    let scale = pair.client.run(|| client::peer_window_scale(target));
    pair.server.nft(&format!(
        "table ip weirtest {{\n chain raw {{\n type filter hook prerouting priority raw\n
           tcp dport {PORT} tcp flags syn / fin,syn,rst,ack notrack\n }}\n
         chain input {{\n type filter hook input priority filter\n
           tcp dport {PORT} ct state invalid,untracked synproxy mss 1460 wscale {scale} timestamp sack-perm\n
           ct state invalid drop\n }}\n }}"
    ));
    pair.server.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0");
}
