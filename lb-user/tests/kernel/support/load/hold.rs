//! Connections that stay open, to see later which of them still live.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use socket2::Socket;

use super::connection::{Failed, open, worker_line};
use super::run::failure;
use super::{Answer, Failure, Phase, Plan, cause};
use crate::support::netns::Entrance;
use crate::support::tcp::TcpInfo;

/// Open connections to echo workers.
#[derive(Debug)]
pub struct Held {
    connections: Vec<Connection>,
    start: Instant,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    source: SocketAddr,
    answer: Answer,
}

impl Held {
    /// Opens `count` connections from the sources of [`Plan::source`] and reads each worker's line; panics when one fails.
    pub fn open(entrance: &Entrance, plan: &Plan, count: usize) -> Self {
        let start = Instant::now();
        let connect = |flow| {
            let source = plan.source(flow);
            let connected = open(plan, source).and_then(|mut socket| Ok((worker_line(&mut socket)?, socket)));
            let (answer, socket) = connected.unwrap_or_else(|failed| panic!("connection {flow} from {source}: {failed:?}"));
            Connection { socket, source, answer }
        };
        let connections = entrance.run(|| (0..count).map(connect).collect());
        Self { connections, start }
    }

    /// Each connection's source and the worker that holds it.
    pub fn flows(&self) -> Vec<(SocketAddr, Answer)> {
        self.connections.iter().map(|connection| (connection.source, connection.answer)).collect()
    }

    /// How many of them a worker holds.
    pub fn held_by(&self, worker: u32) -> usize {
        self.connections.iter().filter(|connection| connection.answer.worker == worker).count()
    }

    /// What each connection's own end has agreed on, in the order of [`Held::flows`].
    pub fn tcp_info(&self) -> Vec<TcpInfo> {
        self.connections.iter().map(|connection| TcpInfo::of_socket(&connection.socket)).collect()
    }

    /// Sends something over each connection and waits for it to come back: the connections that are lost, each with the worker that
    /// held it. The lost ones are let go.
    pub fn check_alive(&mut self) -> Vec<(Failure, Answer)> {
        let (mut alive, mut lost) = (Vec::new(), Vec::new());
        // All requests first, then all replies: with thousands of connections the round trips overlap.
        let asked: Vec<_> = self.connections.drain(..).map(|mut connection| (ask(&mut connection.socket), connection)).collect();
        for (sent, mut connection) in asked {
            match sent.and_then(|()| hear(&mut connection.socket)) {
                Ok(()) => alive.push(connection),
                Err(failed) => lost.push((failure(failed, self.start, connection.source), connection.answer)),
            }
        }
        self.connections = alive;
        lost
    }
}

const QUESTION: &[u8] = b"alive?\n";

fn ask(socket: &mut Socket) -> Result<(), Failed> {
    socket.write_all(QUESTION).map_err(|error| (Phase::Send, cause(&error)))
}

fn hear(socket: &mut Socket) -> Result<(), Failed> {
    let mut reply = [0_u8; QUESTION.len()];
    socket.read_exact(&mut reply).map_err(|error| (Phase::Receive, cause(&error)))?;
    if reply == QUESTION { Ok(()) } else { Err((Phase::Check, format!("not the echo: {reply:?}"))) }
}
