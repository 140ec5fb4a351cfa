//! `weir stop`.

use std::time::Duration;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{accepted, control_socket, done, print_message, unanswered};
use crate::{
    api::{
        control::{Client, ClientError},
        protocol::Request,
    },
    cli::GlobalArgs,
    exit::{Exit, Failure},
};

/// How long the daemon's process may take to end once everything is detached.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for the end of a process that broke off the connection.
const BROKEN_PATIENCE: Duration = Duration::from_secs(1);

/// Has the daemon detach everything, remove all pins and end, and waits for its process to end, so that the next `weir run` finds the
/// lock free. Without a daemon `offline` removes what is left and says what that was, or fails with [`Exit::NotRunning`].
pub fn run(global: &GlobalArgs, offline: impl FnOnce() -> Result<String, Failure>) -> Result<Exit, Failure> {
    let message = carry_out(global, offline)?;
    print_message(global, &message)
}

pub(super) fn carry_out(global: &GlobalArgs, offline: impl FnOnce() -> Result<String, Failure>) -> Result<String, Failure> {
    let client = match Client::connect(&control_socket(global)) {
        Err(ClientError::NotRunning(_)) => return offline(),
        other => other.map_err(|error| unanswered(global, error))?,
    };
    // Taken before it is asked to end, when the pid is still surely its own.
    let process = client.daemon().and_then(Ending::watch);
    let response = match client.ask(&Request::Stop) {
        // It ended while it was asked: killed, or told by somebody else. What it has left is to be taken away all the same.
        Err(ClientError::Broken { .. }) if process.as_ref().is_some_and(|process| process.ended_within(BROKEN_PATIENCE)) => {
            return offline();
        }
        other => other.map_err(|error| unanswered(global, error))?,
    };
    let message = done(accepted(response)?)?;
    if process.is_none_or(|process| process.ended_within(PATIENCE)) {
        return Ok(message);
    }
    Ok(format!("{message}; the daemon's process has not ended yet"))
}

/// A process that is expected to end.
struct Ending(std::os::fd::OwnedFd);

impl Ending {
    /// None if it cannot be watched: it has gone, is in another namespace of process IDs, or is this very process.
    fn watch(pid: Pid) -> Option<Self> {
        (pid != rustix::process::getpid()).then(|| pidfd_open(pid, PidfdFlags::empty()).ok()).flatten().map(Self)
    }

    fn ended_within(&self, patience: Duration) -> bool {
        let mut wait = [PollFd::new(&self.0, PollFlags::IN)];
        let timeout = Timespec::try_from(patience).ok();
        poll(&mut wait, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_noticed() {
        let no_forks = crate::listeners::no_forks();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(no_forks);
        let watched = Ending::watch(Pid::from_child(&child)).unwrap();
        assert!(!watched.ended_within(Duration::from_millis(20)));
        child.kill().unwrap();
        assert!(watched.ended_within(PATIENCE));
        child.wait().unwrap();
        assert!(Ending::watch(rustix::process::getpid()).is_none());
    }
}
