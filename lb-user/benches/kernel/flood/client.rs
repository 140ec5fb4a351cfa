//! Clients who connect one after another, and what they notice.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{
    flood::pin,
    netns::{Entrance, tool},
};

/// How many clients there are, each of whom has one connection at a time.
pub const CLIENTS: usize = 8;
/// How many connections they make at most.
const CONNECTIONS: usize = 300;
/// For how long they begin new ones.
pub const BEGIN_FOR: Duration = Duration::from_millis(1700);
/// How long a connection, and then its answer, may take: one SYN may be lost, which is sent again after a second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What became of the connections.
#[derive(Debug, Default)]
pub struct Connects {
    pub attempted: usize,
    /// How long connect(2) took, for each connection over which a worker answered.
    pub connected: Vec<f64>,
    /// How long it took from its call until the answer, in the same order: a proxy is connected with before the server is.
    pub answered: Vec<f64>,
    /// What the first connection's client and server agreed on.
    pub options: Option<String>,
}

/// Connects while a flood goes on.
pub fn connect(entrance: &Entrance, target: SocketAddr, source: IpAddr, cpu: usize) -> Connects {
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    let client = || {
        pin(cpu);
        let mut connects = Connects::default();
        while start.elapsed() < BEGIN_FOR && next.fetch_add(1, Ordering::Relaxed) < CONNECTIONS {
            connects.attempted += 1;
            if let Some((connected, answered, stream)) = one(source, target) {
                connects.connected.push(connected);
                connects.answered.push(answered);
                if connects.options.is_none() {
                    connects.options = Some(options(&stream));
                }
            }
        }
        connects
    };
    let all: Vec<Connects> = entrance.run(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
        })
    });
    Connects {
        attempted: all.iter().map(|one| one.attempted).sum(),
        connected: all.iter().flat_map(|one| one.connected.iter().copied()).collect(),
        answered: all.iter().flat_map(|one| one.answered.iter().copied()).collect(),
        options: all.into_iter().find_map(|one| one.options),
    }
}

/// The shift by which the server scales its window.
pub fn peer_window_scale(target: SocketAddr) -> String {
    let stream = TcpStream::connect_timeout(&target, PATIENCE).expect("connect to a server at rest");
    let told = socket_statistics(&stream);
    let scales = told.split_whitespace().find_map(|word| word.strip_prefix("wscale:"));
    scales.and_then(|scales| scales.split(',').next()).expect("both ends scale").to_owned()
}

/// One connection over which a worker answered: how many milliseconds it took until it stood, and until the answer was there.
fn one(source: IpAddr, target: SocketAddr) -> Option<(f64, f64, TcpStream)> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind(&SocketAddr::new(source, 0).into()).ok()?;
    // A reset at its end leaves nothing in TIME_WAIT.
    socket.set_linger(Some(Duration::ZERO)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    // A connection that only the client knows of shows by that no worker answers.
    let start = Instant::now();
    socket.connect_timeout(&target.into(), PATIENCE).ok()?;
    let milliseconds = || start.elapsed().as_secs_f64() * 1e3;
    let connected = milliseconds();
    let mut stream = TcpStream::from(socket);
    let mut answer = [0_u8; 8];
    let length = stream.read(&mut answer).ok()?;
    (length > 0).then(|| (connected, milliseconds(), stream))
}

/// What the ends of a connection agreed on, in the words of ss.
fn options(stream: &TcpStream) -> String {
    let told = socket_statistics(stream);
    let is_option =
        |word: &&str| ["ts", "sack", "ecn", "ecnseen"].contains(word) || word.starts_with("wscale:") || word.starts_with("mss:");
    told.split_whitespace().filter(is_option).collect::<Vec<_>>().join(" ")
}

fn socket_statistics(stream: &TcpStream) -> String {
    let port = stream.local_addr().expect("a connection has two ends").port();
    // In the calling thread's namespace, which a child has, too.
    tool("ss", &["-Htino", "sport", "=", &format!(":{port}")])
}
