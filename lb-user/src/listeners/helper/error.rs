//! What can go wrong between daemon and helper.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::confine::Step;

/// Why the helper could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Only a process with one thread may fork a helper that goes on running Rust code.
    #[error("the helper must be started before any thread, but this process has {0}")]
    Threads(usize),
    /// The process does not have what the helper needs.
    #[error("cannot look into other processes without {}: run as root, or grant it", .0.join(" and "))]
    MissingCapabilities(Vec<&'static str>),
    /// A system call failed on the daemon's side.
    #[error("cannot start the helper: {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The seccomp filter cannot be made for this architecture.
    #[error("cannot make the helper's seccomp filter: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The helper could not confine itself and has ended: it never runs with more than it needs.
    #[error("the helper could not {step}: {source}")]
    Confinement {
        /// What it was doing.
        step: Step,
        /// The system's answer.
        source: io::Error,
    },
    /// The helper ended or hung before it was ready.
    #[error("the helper ended or hung before it was ready")]
    NoAnswer,
}

/// Why the helper does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The process is gone.
    #[error("no such process")]
    NoSuchProcess,
    /// The process has closed the descriptor.
    #[error("the process has no such descriptor")]
    NoSuchDescriptor,
    /// The kernel forbids it: missing capability, or a security module such as Yama.
    #[error("the kernel does not permit taking it")]
    Denied,
    /// The descriptor is now another file than the one asked for.
    #[error("the descriptor is no longer that socket")]
    AnotherSocket,
    /// It is that socket, but no listening TCP and no bound UDP socket.
    #[error("the socket is neither listening TCP nor bound UDP")]
    NotAListener,
    /// The request is not well-formed.
    #[error("malformed request")]
    Malformed,
    /// The answer would be larger than a reply may be.
    #[error("the answer is too large")]
    TooMuch,
    /// Another system error.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    System(
        /// The errno.
        i32,
    ),
}

impl Refusal {
    pub(super) const NAMED: [Self; 7] = [
        Self::NoSuchProcess,
        Self::NoSuchDescriptor,
        Self::Denied,
        Self::AnotherSocket,
        Self::NotAListener,
        Self::Malformed,
        Self::TooMuch,
    ];

    /// The position in `NAMED` and 0, or `u32::MAX` and the errno.
    pub(super) fn to_words(self) -> [u32; 2] {
        if let Self::System(errno) = self {
            return [u32::MAX, errno.cast_unsigned()];
        }
        let code = (0_u32..).zip(Self::NAMED).find(|&(_, named)| named == self);
        [code.map_or(u32::MAX, |(code, _)| code), 0]
    }

    pub(super) fn from_words(words: &[u32]) -> Option<Self> {
        match *words {
            [u32::MAX, errno] => Some(Self::System(errno.cast_signed())),
            [code, 0] => Self::NAMED.get(code as usize).copied(),
            _ => None,
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno.raw_os_error())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::System(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Why a call to the helper failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The helper has ended. Nothing new can be discovered until the daemon is restarted; what is balanced already goes on.
    #[error("the helper process has ended")]
    Gone,
    /// No answer in time. A late one is thrown away by the next call, and a descriptor in it closed.
    #[error("the helper did not answer within {0:?}")]
    Timeout(Duration),
    /// The helper says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The question does not fit a request.
    #[error("{0} words are more than a request may have")]
    RequestTooLarge(usize),
    /// The answer breaks the rules of the protocol.
    #[error("the helper sent a malformed answer: {0}")]
    Malformed(&'static str),
    /// A system error on the socket pair.
    #[error("cannot talk to the helper: {0}")]
    Channel(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_keep_their_meaning_on_the_way() {
        for refusal in Refusal::NAMED.into_iter().chain([Refusal::System(libc::EMFILE)]) {
            assert_eq!(Refusal::from_words(&refusal.to_words()), Some(refusal));
        }
        for words in [&[][..], &[1], &[7, 0], &[0, 1], &[0, 0, 0]] {
            assert_eq!(Refusal::from_words(words), None, "{words:?}");
        }
    }
}
