//! The namespace in which defended services have listeners and clients have connections: where a test run looks for sockets.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

use super::{
    defended::{DEAF, EMPTIED, FLOODED, METERED, port},
    world::{CLIENT, CLIENT6, SECOND_SERVER, SECOND_SERVER6, SERVER, SERVER6},
};
use crate::support::netns::Namespace;

/// The client's port of a connection that is established.
pub const CONNECTED_PORT: u16 = 41_000;
/// The client's port of a connection that the server has closed, and that is in TIME_WAIT there.
pub const CLOSED_PORT: u16 = 41_001;
/// TIME_WAIT lasts a minute: before that is over, each such connection is made anew.
const RENEWAL: Duration = Duration::from_secs(20);

/// Addresses of services and client, all of them on the loopback device; listeners and connections.
pub struct Ground {
    namespace: Namespace,
    listeners: Vec<TcpListener>,
    _connections: Vec<[TcpStream; 2]>,
    /// When the connections that are over were made.
    closed_at: Mutex<Instant>,
}

impl Ground {
    pub fn new() -> Self {
        let namespace = Namespace::new("defence");
        for v4 in [SERVER, SECOND_SERVER, CLIENT] {
            namespace.ip(&format!("address add {v4}/32 dev lo"));
        }
        for v6 in [SERVER6, SECOND_SERVER6, CLIENT6] {
            namespace.ip(&format!("address add {v6}/128 dev lo nodad"));
        }
        // Whether a program may make the kernel's cookies while the SYN queue has room.
        namespace.set_sysctl("net.ipv4.tcp_syncookies", "2");
        let servers: [IpAddr; 2] = [SERVER.into(), SERVER6.into()];
        let (listeners, connections) = namespace.run(|| {
            let services = (FLOODED..=EMPTIED).filter(|service| !matches!(*service, DEAF | METERED));
            let listening = |service| servers.map(|server| SocketAddr::new(server, port(service)));
            let listeners: Vec<_> = services.flat_map(listening).map(|at| TcpListener::bind(at).expect("a listener")).collect();
            // A connection to each that listens, and one that is over. In calm as in a flood.
            listeners.iter().for_each(make_closed);
            let connections = listeners.iter().map(|listener| connect(client(listener, CONNECTED_PORT), listener)).collect();
            (listeners, connections)
        });
        Self { namespace, listeners, _connections: connections, closed_at: Mutex::new(Instant::now()) }
    }

    /// Runs `work` in the namespace and on one CPU: what the programs count and remember is each CPU's own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(|| {
            let mut closed_at = self.closed_at.lock().expect("no test has panicked in here");
            if closed_at.elapsed() > RENEWAL {
                self.listeners.iter().for_each(make_closed);
                *closed_at = Instant::now();
            }
            drop(closed_at);
            let mut cpus = CpuSet::new();
            cpus.set(sched_getcpu().expect("this CPU's number")).expect("a CPU's number");
            sched_setaffinity(Pid::from_raw(0), &cpus).expect("a CPU to stay on");
            work()
        })
    }
}

/// The client of a listener's family, at a port.
fn client(listener: &TcpListener, port: u16) -> SocketAddr {
    let is_v4 = listener.local_addr().expect("an address").is_ipv4();
    SocketAddr::new(if is_v4 { CLIENT.into() } else { CLIENT6.into() }, port)
}

/// A connection that is over. Where there is one already, the next one takes its place.
fn make_closed(listener: &TcpListener) {
    drop_first(connect(client(listener, CLOSED_PORT), listener));
}

/// A connection from this address: the client's end and the server's.
fn connect(client: SocketAddr, listener: &TcpListener) -> [TcpStream; 2] {
    let socket = Socket::new(Domain::for_address(client), Type::STREAM, None).expect("a socket");
    // Several connections have the same port of the client.
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&client.into()).expect("the client's port");
    let server = listener.local_addr().expect("an address");
    socket.connect_timeout(&server.into(), Duration::from_secs(5)).unwrap_or_else(|error| panic!("{client} to {server}: {error}"));
    [socket.into(), listener.accept().expect("the connection").0]
}

/// The server closes first, so that its end is the one that waits.
fn drop_first([client, server]: [TcpStream; 2]) {
    drop(server);
    let mut end = [0];
    let read = std::io::Read::read(&mut &client, &mut end).expect("the server's FIN");
    assert_eq!(read, 0, "the server said nothing");
}
