//! One connection, from socket to close.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Answer, END_OF_FILE, Exchange, Phase, Plan, cause};
use crate::support::http::{self, Broken};

/// A failure without its time and source, which the caller knows.
pub(super) type Failed = (Phase, String);

/// What a good connection brought.
#[derive(Debug)]
pub(super) struct Outcome {
    pub answer: Answer,
    pub requests: u64,
    pub closed_between_requests: bool,
}

/// Opens a connection from `source`; port 0 takes an ephemeral one at connect time, unique by 4-tuple only.
pub(super) fn open(plan: &Plan, source: SocketAddr) -> Result<Socket, Failed> {
    let socket = prepare(plan, source).map_err(|error| (Phase::Open, cause(&error)))?;
    connect(&socket, plan.target).map_err(|error| (Phase::Connect, cause(&error)))?;
    Ok(socket)
}

/// Connects, however often a signal interrupts the wait: with a timeout on the socket the kernel does not take it up again by itself, and the
/// next call goes on with the same handshake.
fn connect(socket: &Socket, target: SocketAddr) -> io::Result<()> {
    loop {
        match socket.connect(&target.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn prepare(plan: &Plan, source: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, Some(Protocol::TCP))?;
    if source.port() == 0 {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    }
    if !plan.orderly {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    socket.set_read_timeout(Some(plan.timeout))?;
    socket.set_write_timeout(Some(plan.timeout))?;
    socket.bind(&source.into())?;
    Ok(socket)
}

/// Does the plan's exchange over an open connection.
pub(super) fn exchange(plan: &Plan, socket: &mut (impl Read + Write)) -> Result<Outcome, Failed> {
    match &plan.exchange {
        Exchange::WorkerLine => Ok(Outcome { answer: worker_line(socket)?, requests: 1, closed_between_requests: false }),
        Exchange::Http { path, body, requests } => get_repeatedly(socket, path, body.as_deref(), *requests),
    }
}

/// Reads the line a worker greets with.
pub(super) fn worker_line(socket: &mut impl Read) -> Result<Answer, Failed> {
    let mut line = [0_u8; 64];
    let mut length = 0;
    while !line[..length].contains(&b'\n') {
        match socket.read(&mut line[length..]) {
            Ok(0) if length == line.len() => return Err((Phase::Check, "a line too long for a worker's".to_owned())),
            Ok(0) if length > 0 => return Err((Phase::Check, "the end of file in a worker's line".to_owned())),
            Ok(0) => return Err((Phase::Receive, END_OF_FILE.to_owned())),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((Phase::Receive, cause(&error))),
        }
    }
    let text = String::from_utf8_lossy(&line[..length]);
    Answer::parse(&text).ok_or_else(|| (Phase::Check, format!("no worker's line: {text:?}")))
}

fn get_repeatedly(socket: &mut (impl Read + Write), path: &str, body: Option<&[u8]>, requests: u32) -> Result<Outcome, Failed> {
    let mut outcome = Outcome { answer: Answer::default(), requests: 0, closed_between_requests: false };
    for request in 1..=requests {
        let response = match http::get(socket, path, request == requests) {
            Ok(response) => response,
            Err(broken) if request > 1 && is_idle_close(&broken) => {
                outcome.closed_between_requests = true;
                return Ok(outcome);
            }
            Err(Broken::Send(error)) => return Err((Phase::Send, cause(&error))),
            Err(Broken::Receive { received: 0, error }) => return Err((Phase::Receive, cause(&error))),
            Err(Broken::Receive { error, .. }) => return Err((Phase::Receive, format!("{} in a response", cause(&error)))),
            Err(broken @ Broken::Malformed(_)) => return Err((Phase::Check, broken.to_string())),
        };
        if response.status != 200 {
            return Err((Phase::Check, format!("status {}", response.status)));
        }
        if body.is_some_and(|body| body != response.body) {
            return Err((Phase::Check, format!("a body of {} bytes that is not the one served", response.body.len())));
        }
        let number = |name| response.header(name).and_then(|text| text.parse().ok());
        let worker = number("x-worker").unwrap_or_default();
        outcome.answer = Answer { worker, pid: number("x-pid").unwrap_or(worker), cookie: 0 };
        outcome.requests += 1;
        if response.header("connection") == Some("close") {
            outcome.closed_between_requests = request < requests;
            break;
        }
    }
    Ok(outcome)
}

/// Nothing of the response came: the server closed the connection while no request was under way.
fn is_idle_close(broken: &Broken) -> bool {
    let closed = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
    };
    match broken {
        Broken::Send(error) | Broken::Receive { received: 0, error } => closed(error),
        _ => false,
    }
}
