//! The namespace in which defended services have listeners and clients have connections: where a test run looks for sockets.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
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

/// Addresses of services and client, all of them on the loopback device; listeners and connections.
pub struct Ground {
    namespace: Namespace,
    _listeners: Vec<TcpListener>,
    _connections: Vec<[TcpStream; 2]>,
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
        let families: [(IpAddr, IpAddr); 2] = [(CLIENT.into(), SERVER.into()), (CLIENT6.into(), SERVER6.into())];
        let (listeners, connections) = namespace.run(|| {
            let services = (FLOODED..=EMPTIED).filter(|service| !matches!(*service, DEAF | METERED));
            let listening = |service| families.map(|(_, server)| SocketAddr::new(server, port(service)));
            let listeners: Vec<_> = services.flat_map(listening).map(|at| TcpListener::bind(at).expect("a listener")).collect();
            // A connection to each that listens, and one that is over. In calm as in a flood.
            let connections = listeners.iter().map(|listener| {
                let server = listener.local_addr().expect("an address");
                let client = families.iter().find(|(_, own)| *own == server.ip()).expect("of a family").0;
                drop_first(connect(SocketAddr::new(client, CLOSED_PORT), listener));
                connect(SocketAddr::new(client, CONNECTED_PORT), listener)
            });
            let connections = connections.collect();
            (listeners, connections)
        });
        Self { namespace, _listeners: listeners, _connections: connections }
    }

    /// Runs `work` in the namespace and on one CPU: what the programs count and remember is each CPU's own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(|| {
            let mut cpus = CpuSet::new();
            cpus.set(sched_getcpu().expect("this CPU's number")).expect("a CPU's number");
            sched_setaffinity(Pid::from_raw(0), &cpus).expect("a CPU to stay on");
            work()
        })
    }
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
