//! Many connections: a number of them, or as many as go until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::connection::{Failed, exchange, open};
use super::times::Timed;
use super::{Failure, Plan, Report, SLOW};
use crate::support::netns::Entrance;

/// Opens `count` connections, each from a 4-tuple of its own that is the same in every run ([`Plan::source`]), and closes each at once.
pub fn open_close(entrance: &Entrance, plan: &Plan, count: usize) -> Report {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let client = || {
        let mut report = Report::default();
        loop {
            let flow = next.fetch_add(1, Ordering::Relaxed);
            if flow >= count {
                return report;
            }
            let began = Instant::now();
            one(plan, plan.source(flow), start, true, &mut report);
            std::thread::sleep(plan.pace.saturating_sub(began.elapsed()));
        }
    };
    let mut report = entrance.run(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..plan.concurrency).map(|_| scope.spawn(client)).collect();
            collect(clients.into_iter().map(|client| client.join().expect("a client does not panic")))
        })
    });
    report.elapsed = start.elapsed();
    report.flows.sort_by_key(|(source, _)| *source);
    report
}

/// Short connections in the background, from ephemeral ports, until stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Report>>,
    start: Instant,
}

impl Steady {
    /// Starts the clients of `plan`, each as fast as it is answered.
    pub fn closed_loop(entrance: &Entrance, plan: &Plan) -> Self {
        Self::begin(entrance, plan, None)
    }

    /// Starts the clients of `plan`, which together open `rate` connections a second (fewer when the answers take longer).
    pub fn at_rate(entrance: &Entrance, plan: &Plan, rate: u32) -> Self {
        Self::begin(entrance, plan, Some(Duration::from_secs(1) / rate))
    }

    fn begin(entrance: &Entrance, plan: &Plan, interval: Option<Duration>) -> Self {
        let (stop, completed, start) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Instant::now());
        let next = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (stop, completed, next, plan) = (Arc::clone(&stop), Arc::clone(&completed), Arc::clone(&next), plan.clone());
            entrance.spawn(move || {
                let mut report = Report::default();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if let Some(interval) = interval {
                        // Each number has its time, so that a slow answer delays no other client's connection.
                        let due = start + interval * u32::try_from(number).unwrap_or(u32::MAX);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    one(&plan, plan.ephemeral_source(number), start, false, &mut report);
                    completed.fetch_add(1, Ordering::Relaxed);
                }
                report
            })
        };
        let clients = (0..plan.concurrency).map(|_| client()).collect();
        Self { stop, completed, clients, start }
    }

    /// Connections that came to an end so far, good or failed.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Waits until `more` further connections have come to an end; panics after a minute.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let wanted = self.completed() + more;
        crate::support::wait::eventually(Duration::from_secs(60), || {
            let done = self.completed();
            if done >= wanted { Ok(()) } else { Err(format!("{done} of {wanted} connections came to an end")) }
        });
    }

    /// How long it has run: the clock of [`Failure::at`].
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lets each client finish its connection and returns what became of all.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let mut report = collect(clients.into_iter().map(|client| client.join().expect("a client does not panic")));
        report.elapsed = self.start.elapsed();
        report
    }
}

impl Drop for Steady {
    /// A test that panics must not leave clients running into the next one.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

fn collect(reports: impl Iterator<Item = Report>) -> Report {
    let mut sum = Report::default();
    for report in reports {
        sum.merge(report);
    }
    sum.failures.sort_by_key(|failure| failure.at);
    sum
}

/// Runs one connection and writes down what became of it.
fn one(plan: &Plan, source: SocketAddr, start: Instant, keep_flow: bool, report: &mut Report) {
    let began = Instant::now();
    let mut local = source;
    let result = open(plan, source).and_then(|socket| {
        let connected = began.elapsed();
        if source.port() == 0 {
            local = socket.local_addr().ok().and_then(|address| address.as_socket()).unwrap_or(source);
        }
        let mut timed = Timed::new(socket);
        let outcome = exchange(plan, &mut timed)?;
        let first = timed.first().expect("a good exchange has read something");
        Ok((outcome, connected, first.duration_since(began)))
    });
    let took = began.elapsed();
    report.slowest = report.slowest.max(took);
    match result {
        Ok((outcome, connected, first)) => {
            report.ok += 1;
            report.connect.add(connected);
            report.first_response.add(first);
            report.requests += outcome.requests;
            report.closed_between_requests += u64::from(outcome.closed_between_requests);
            report.slow += u64::from(took > SLOW);
            *report.by_worker.entry(outcome.answer.worker).or_default() += 1;
            *report.by_pid.entry(outcome.answer.pid).or_default() += 1;
            if keep_flow {
                report.flows.push((local, outcome.answer));
            }
        }
        Err(failed) => report.failures.push(failure(failed, start, local)),
    }
}

/// Adds time and source to a failure.
pub(super) fn failure((phase, cause): Failed, start: Instant, source: SocketAddr) -> Failure {
    Failure { at: start.elapsed(), source, phase, cause }
}
