//! UDP flows: which worker answers each datagram of each.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::run::failure;
use super::{Answer, Failure, Phase, Plan, cause};
use crate::support::netns::Entrance;

/// How many datagrams are under way at a time: well below what a socket's receive buffer holds.
const WINDOW: usize = 32;

/// Client sockets, one flow each, connected to the target.
#[derive(Debug)]
pub struct UdpFlows {
    flows: Vec<(SocketAddr, UdpSocket)>,
    start: Instant,
    rounds_done: u64,
}

impl UdpFlows {
    /// Opens `count` sockets at the sources of [`Plan::source`].
    pub fn open(entrance: &Entrance, plan: &Plan, count: usize) -> Self {
        let open = |flow| {
            let source = plan.source(flow);
            let prepare = || {
                let socket = UdpSocket::bind(source)?;
                socket.connect(plan.target)?;
                // A lost datagram is a finding, and each one costs this much time.
                socket.set_read_timeout(Some(plan.timeout.min(Duration::from_secs(1))))?;
                Ok::<_, std::io::Error>(socket)
            };
            (source, prepare().unwrap_or_else(|error| panic!("flow {flow} from {source}: {error}")))
        };
        let flows = entrance.run(|| (0..count).map(open).collect());
        Self { flows, start: Instant::now(), rounds_done: 0 }
    }

    /// The sources, in the order of [`UdpFlows::round`]'s answers.
    pub fn sources(&self) -> Vec<SocketAddr> {
        self.flows.iter().map(|(source, _)| *source).collect()
    }

    /// Sends one datagram over each flow and says who answered it.
    pub fn round(&mut self) -> Vec<Result<Answer, Failure>> {
        self.rounds_done += 1;
        let round = self.rounds_done;
        self.round_with(|flow| format!("flow {flow}, round {round}").into_bytes())
    }

    /// The same with datagrams of the caller's, by flow number; each flow's should differ from round to round.
    pub fn round_with(&self, datagram: impl Fn(usize) -> Vec<u8>) -> Vec<Result<Answer, Failure>> {
        let mut answers = Vec::with_capacity(self.flows.len());
        for (number, window) in self.flows.chunks(WINDOW).enumerate() {
            let questions: Vec<_> = (0..window.len()).map(|place| datagram(number * WINDOW + place)).collect();
            let sent: Vec<_> = window.iter().zip(&questions).map(|((_, socket), question)| socket.send(question)).collect();
            for (((source, socket), question), sent) in window.iter().zip(&questions).zip(sent) {
                let sent = sent.map_err(|error| (Phase::Send, cause(&error)));
                let answer = sent.and_then(|_| hear(socket, question));
                answers.push(answer.map_err(|failed| failure(failed, self.start, *source)));
            }
        }
        answers
    }

    /// `count` rounds: for each flow the answers to its datagrams, in order.
    pub fn rounds(&mut self, count: usize) -> Vec<Vec<Result<Answer, Failure>>> {
        let mut by_flow = vec![Vec::with_capacity(count); self.flows.len()];
        for _ in 0..count {
            for (answers, answer) in by_flow.iter_mut().zip(self.round()) {
                answers.push(answer);
            }
        }
        by_flow
    }
}

/// Reads until the reply to `question`: an answer that came too late for an earlier round is passed over.
fn hear(socket: &UdpSocket, question: &[u8]) -> Result<Answer, (Phase, String)> {
    let mut reply = [0_u8; 2048];
    loop {
        let length = socket.recv(&mut reply).map_err(|error| (Phase::Receive, cause(&error)))?;
        let reply = &reply[..length];
        let Some(end) = reply.iter().position(|byte| *byte == b'\n') else {
            return Err((Phase::Check, format!("no worker's reply: {reply:?}")));
        };
        if reply[end + 1..] == *question {
            let line = String::from_utf8_lossy(&reply[..end]);
            return Answer::parse(&line).ok_or_else(|| (Phase::Check, format!("no worker's line: {line:?}")));
        }
    }
}
