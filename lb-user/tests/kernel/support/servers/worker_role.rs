//! The worker process: one or many `SO_REUSEPORT` sockets on one address, each answering with its own name.
//!
//! The answer is the line `INDEX PID COOKIE\n`, where COOKIE is the listening socket's `SO_COOKIE`; over UDP the request follows the line.
//! Orders come as lines on standard input (see [`Order`]), each answered by one line of JSON on standard output; at its end the process
//! ends, so none outlives the test.

use std::collections::HashMap;
use std::io::{BufRead as _, ErrorKind, Read as _, Write as _, stdin, stdout};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::prerequisites::raise_open_file_limit;

/// The role's name on the command line.
pub const NAME: &str = "worker";

/// Where workers listen and how they serve; the same for every worker of a group.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WorkerPlan {
    address: SocketAddr,
    udp: bool,
    echo: bool,
    accepting: bool,
    delay: Duration,
    backlog: i32,
    device: Option<String>,
    /// Set by whoever starts the process: the first socket's index and how many there are.
    first_index: u32,
    sockets: u32,
}

impl WorkerPlan {
    /// TCP workers that answer each connection with their line and close it.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            address,
            udp: false,
            echo: false,
            accepting: true,
            delay: Duration::ZERO,
            backlog: 4096,
            device: None,
            first_index: 0,
            sockets: 1,
        }
    }

    /// UDP workers that answer each datagram with their line and the datagram itself. Listen on one address: a reply's source is the route's.
    pub fn udp(address: SocketAddr) -> Self {
        Self { udp: true, ..Self::tcp(address) }
    }

    /// Keeps each connection open after the line, and sends back what comes.
    pub fn echo(self) -> Self {
        Self { echo: true, ..self }
    }

    /// Waits so long before each accept.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Listens and never accepts, until resumed.
    pub fn without_accepting(self) -> Self {
        Self { accepting: false, ..self }
    }

    /// The length asked for the accept queue.
    pub fn backlog(self, backlog: i32) -> Self {
        Self { backlog, ..self }
    }

    /// Binds to a device (`SO_BINDTODEVICE`).
    pub fn device(self, device: &str) -> Self {
        Self { device: Some(device.to_owned()), ..self }
    }

    /// One process' part of the group: so many sockets, numbered from `first_index` on.
    pub(super) fn part(&self, first_index: u32, sockets: u32) -> Self {
        Self { first_index, sockets, ..self.clone() }
    }

    /// Where the workers listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket of a worker, as the process that holds it sees it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListeningSocket {
    /// The worker's index within its group.
    pub index: u32,
    /// The process.
    pub pid: u32,
    /// `SO_COOKIE` of the socket.
    pub cookie: u64,
    /// The socket's inode, as in /proc/PID/fd and `sock_diag`.
    pub inode: u64,
}

/// What the test may ask of a worker process.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Order {
    /// Answers with the connections accepted (datagrams answered) so far by each socket, in order.
    Counts,
    /// Accepts what is queued, closes the listening sockets and goes on with the connections it has; answers with the counts.
    Close,
    /// Stops accepting; answers with the counts.
    Pause,
    /// Accepts again; answers with the counts.
    Resume,
}

/// Plays the role: `plan` is a [`WorkerPlan`] as JSON.
pub fn play(plan: &str) -> ExitCode {
    raise_open_file_limit();
    let plan: WorkerPlan = serde_json::from_str(plan).expect("the plan this binary wrote itself");
    let mut worker = Worker::start(plan).unwrap_or_else(|error| {
        eprintln!("worker: {error}");
        std::process::exit(1)
    });
    report(&worker.sockets());
    worker.serve();
    ExitCode::SUCCESS
}

/// Token of standard input in the epoll set; the sockets follow it, then the connections.
const ORDERS: u64 = 0;

struct Listening {
    socket: Socket,
    name: ListeningSocket,
    count: u64,
}

struct Worker {
    plan: WorkerPlan,
    epoll: Epoll,
    listening: Vec<Listening>,
    accepting: bool,
    connections: HashMap<u64, TcpStream>,
    next_token: u64,
}

impl Worker {
    fn start(plan: WorkerPlan) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stdin(), EpollEvent::new(EpollFlags::EPOLLIN, ORDERS))?;
        let listening = (0..plan.sockets).map(|number| listen(&plan, plan.first_index + number)).collect::<std::io::Result<Vec<_>>>()?;
        let next_token = u64::from(plan.sockets) + 1;
        let mut worker = Self { epoll, listening, accepting: false, connections: HashMap::new(), next_token, plan };
        if worker.plan.accepting {
            worker.set_accepting(true)?;
        }
        Ok(worker)
    }

    fn sockets(&self) -> Vec<ListeningSocket> {
        self.listening.iter().map(|listening| listening.name).collect()
    }

    fn counts(&self) -> Vec<u64> {
        self.listening.iter().map(|listening| listening.count).collect()
    }

    /// Runs until standard input ends.
    fn serve(&mut self) {
        let mut events = [EpollEvent::empty(); 256];
        let mut counts_at_close = None;
        loop {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE).unwrap_or(0);
            for event in &events[..ready] {
                match usize::try_from(event.data()).expect("tokens are small") {
                    0 => match read_order() {
                        None => return,
                        Some(order) => {
                            self.obey(order, &mut counts_at_close);
                            let counts = counts_at_close.clone().unwrap_or_else(|| self.counts());
                            report(&counts);
                        }
                    },
                    token if token <= self.listening.len() => self.take(token - 1),
                    _ => self.echo(event.data()),
                }
            }
        }
    }

    fn obey(&mut self, order: Order, counts_at_close: &mut Option<Vec<u64>>) {
        match order {
            Order::Counts => {}
            Order::Pause => self.set_accepting(false).expect("change the epoll set"),
            Order::Resume => self.set_accepting(true).expect("change the epoll set"),
            Order::Close => {
                for number in 0..self.listening.len() {
                    self.take(number);
                }
                *counts_at_close = Some(self.counts());
                self.listening.clear();
            }
        }
    }

    fn set_accepting(&mut self, accepting: bool) -> nix::Result<()> {
        if accepting != self.accepting {
            for (listening, token) in self.listening.iter().zip(1..) {
                if accepting {
                    self.epoll.add(&listening.socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
                } else {
                    self.epoll.delete(&listening.socket)?;
                }
            }
            self.accepting = accepting;
        }
        Ok(())
    }

    /// Takes all that waits at one socket.
    fn take(&mut self, number: usize) {
        if self.plan.udp { self.answer_datagrams(number) } else { self.accept(number) }
    }

    fn accept(&mut self, number: usize) {
        loop {
            if !self.plan.delay.is_zero() {
                std::thread::sleep(self.plan.delay);
            }
            let listening = &mut self.listening[number];
            let Ok((connection, _)) = listening.socket.accept_raw() else { return };
            listening.count += 1;
            let mut connection = TcpStream::from(connection);
            // The client may be gone already; its own report says so.
            let _ = connection.write_all(&answer(&listening.name));
            if self.plan.echo && connection.set_nonblocking(true).is_ok() {
                let token = self.next_token;
                self.next_token += 1;
                self.epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, token)).expect("watch a connection");
                self.connections.insert(token, connection);
            }
        }
    }

    fn answer_datagrams(&mut self, number: usize) {
        let mut request = [0_u8; 2048];
        let listening = &mut self.listening[number];
        let socket: std::net::UdpSocket = listening.socket.as_fd().try_clone_to_owned().expect("one more descriptor").into();
        while let Ok((length, client)) = socket.recv_from(&mut request) {
            listening.count += 1;
            let reply = [&answer(&listening.name), &request[..length]].concat();
            let _ = socket.send_to(&reply, client);
        }
    }

    /// Sends back what came; the connection goes when the client's end does.
    fn echo(&mut self, token: u64) {
        let mut buffer = [0_u8; 4096];
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let done = match connection.read(&mut buffer) {
            Ok(0) => true,
            Ok(length) => connection.write_all(&buffer[..length]).is_err(),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if done {
            self.connections.remove(&token);
        }
    }
}

/// Tells the test, in one line.
fn report(answer: &impl Serialize) {
    let line = serde_json::to_string(answer).expect("numbers");
    println!("{line}");
    stdout().flush().expect("the test reads our answers");
}

fn answer(name: &ListeningSocket) -> Vec<u8> {
    format!("{} {} {}\n", name.index, name.pid, name.cookie).into_bytes()
}

/// One line of standard input; the buffer of `stdin` holds no second one, because the test waits for each answer.
fn read_order() -> Option<Order> {
    let mut line = String::new();
    let length = stdin().lock().read_line(&mut line).unwrap_or(0);
    (length > 0).then(|| serde_json::from_str(&line).expect("the order this binary wrote itself"))
}

fn listen(plan: &WorkerPlan, index: u32) -> std::io::Result<Listening> {
    let domain = Domain::for_address(plan.address);
    let socket = if plan.udp {
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?
    } else {
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?
    };
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(!plan.udp)?;
    socket.bind_device(plan.device.as_deref().map(str::as_bytes))?;
    socket.bind(&plan.address.into())?;
    if !plan.udp {
        socket.listen(plan.backlog)?;
    }
    socket.set_nonblocking(true)?;
    let inode =
        std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).map(|file| std::os::unix::fs::MetadataExt::ino(&file))?;
    let name = ListeningSocket { index, pid: std::process::id(), cookie: socket.cookie()?, inode };
    Ok(Listening { socket, name, count: 0 })
}
