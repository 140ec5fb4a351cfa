//! Worker processes from the test's side: start, count, kill, close, add.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde::de::DeserializeOwned;

use super::worker_role::{ListeningSocket, NAME, Order, WorkerPlan};
use crate::support::netns::Entrance;

/// A group of worker processes, one `SO_REUSEPORT` socket each, told apart by index (0, 1, ..; never used again).
#[derive(Debug)]
pub struct Workers {
    entrance: Entrance,
    plan: WorkerPlan,
    processes: BTreeMap<u32, WorkerProcess>,
    next_index: u32,
}

impl Workers {
    /// Starts `count` workers, one after the other, and returns when all listen.
    pub fn start(entrance: &Entrance, plan: &WorkerPlan, count: u32) -> Self {
        let mut workers = Self { entrance: entrance.clone(), plan: plan.clone(), processes: BTreeMap::new(), next_index: 0 };
        for _ in 0..count {
            workers.add();
        }
        workers
    }

    /// Starts one more worker and returns its socket once it listens.
    pub fn add(&mut self) -> ListeningSocket {
        let plan = self.plan.part(self.next_index, 1);
        let process = WorkerProcess::start(&self.entrance, &plan);
        let socket = process.sockets[0];
        self.processes.insert(self.next_index, process);
        self.next_index += 1;
        socket
    }

    /// Kills one worker with SIGKILL and waits until it is gone.
    pub fn kill9(&mut self, index: u32) {
        self.processes.remove(&index).unwrap_or_else(|| panic!("no worker {index}")).kill();
    }

    /// Lets one worker accept what is queued, close its listening socket and keep its connections; returns how many it had accepted.
    pub fn close(&mut self, index: u32) -> u64 {
        self.order(index, Order::Close)
    }

    /// Stops one worker from accepting, its socket still open.
    pub fn pause(&mut self, index: u32) {
        self.order(index, Order::Pause);
    }

    /// Lets a paused worker accept again.
    pub fn resume(&mut self, index: u32) {
        self.order(index, Order::Resume);
    }

    /// Connections accepted, or datagrams answered, by each living worker.
    pub fn counts(&mut self) -> BTreeMap<u32, u64> {
        self.processes.iter_mut().map(|(index, process)| (*index, process.order(Order::Counts)[0])).collect()
    }

    /// The sockets of the living workers, closed ones included, in the order of their indices.
    pub fn sockets(&self) -> Vec<ListeningSocket> {
        self.processes.values().flat_map(|process| process.sockets.clone()).collect()
    }

    fn order(&mut self, index: u32, order: Order) -> u64 {
        self.processes.get_mut(&index).unwrap_or_else(|| panic!("no worker {index}")).order(order)[0]
    }
}

/// One process with many `SO_REUSEPORT` sockets on one address, for groups of thousands.
#[derive(Debug)]
pub struct ManySockets(WorkerProcess);

impl ManySockets {
    /// Starts the process and returns when all `count` sockets listen.
    pub fn start(entrance: &Entrance, plan: &WorkerPlan, count: u32) -> Self {
        Self(WorkerProcess::start(entrance, &plan.part(0, count)))
    }

    /// Connections accepted, or datagrams answered, by each socket, in the order of the indices.
    pub fn counts(&mut self) -> Vec<u64> {
        self.0.order(Order::Counts)
    }

    /// The sockets, in the order of the indices.
    pub fn sockets(&self) -> &[ListeningSocket] {
        &self.0.sockets
    }
}

/// A worker process and the pipes it takes orders by; dropping it kills it.
#[derive(Debug)]
struct WorkerProcess {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    sockets: Vec<ListeningSocket>,
}

impl WorkerProcess {
    fn start(entrance: &Entrance, plan: &WorkerPlan) -> Self {
        let binary = std::env::current_exe().expect("the path of this binary");
        let mut child = entrance
            .command(binary)
            .args(["--role", NAME, &serde_json::to_string(plan).expect("a plan is plain data")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker process");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, orders, answers, sockets: Vec::new() };
        process.sockets = process.answer();
        process
    }

    fn order(&mut self, order: Order) -> Vec<u64> {
        let line = serde_json::to_string(&order).expect("an order is plain data");
        writeln!(self.orders, "{line}").expect("the worker takes orders");
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the worker answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the worker ended or said {line:?}: {error}"))
    }

    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself, or with its namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
