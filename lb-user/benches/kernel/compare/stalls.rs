//! A worker that does something else for a while, now and then.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::support::{random::Random, servers::signal};

/// How long it does nothing for its clients.
pub const LASTING: Duration = Duration::from_millis(200);
/// The pauses between are anything from the first of these to the second.
pub const PAUSES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1200)];

/// A process that is stopped (SIGSTOP) for [`LASTING`] at random times, which a seed repeats.
pub struct Stalls {
    end: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Stalls {
    /// From now on.
    pub fn of(worker: u32, seed: u64) -> Self {
        let (end, ended) = channel();
        let mut random = Random::new(seed);
        let mut pause = move || {
            let [least, most] = PAUSES;
            let milliseconds = |time: Duration| u64::try_from(time.as_millis()).expect("a second or so");
            random.milliseconds(milliseconds(least), milliseconds(most))
        };
        let thread = std::thread::spawn(move || {
            let mut stalls = 0;
            while ended.recv_timeout(pause()) == Err(RecvTimeoutError::Timeout) {
                signal(worker, Signal::SIGSTOP);
                let told = ended.recv_timeout(LASTING);
                signal(worker, Signal::SIGCONT);
                stalls += 1;
                if told != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            stalls
        });
        Self { end, thread }
    }

    /// Ends them, the one of the moment too: how many there were.
    pub fn end(self) -> usize {
        let Self { end, thread } = self;
        drop(end);
        thread.join().expect("the worker lives")
    }
}
