//! How others reach the daemon: the control socket for the command line, HTTP for Prometheus.
//!
//! Neither touches the daemon's state. Both put a [`Request`] into a channel, and the daemon's loop answers when it is there
//! ([`DaemonHandle`]).

pub mod control;
pub mod http;
pub mod protocol;

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use protocol::{Request, Response};

/// How many questions may wait for the daemon's loop; who asks beyond that waits for a place.
const WAITING: usize = 16;

/// A question and where its answer goes. Who asked may have left: then the answer is dropped.
pub type Question = (Request, oneshot::Sender<Response>);

/// The daemon's loop as the servers see it.
#[derive(Debug, Clone)]
pub struct DaemonHandle {
    sender: mpsc::Sender<Question>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The loop has ended, or ended while it had the question.
    #[error("the daemon is ending")]
    Ending,
    /// No answer within the time given.
    #[error("the daemon is too busy to answer")]
    Busy,
}

impl DaemonHandle {
    /// A handle to give away, and what the daemon's loop receives from.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender }, receiver)
    }

    /// Asks the loop and waits for its answer, at most for `patience`.
    pub async fn ask(&self, request: Request, patience: Duration) -> Result<Response, AskError> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            self.sender.send((request, answer)).await.map_err(|_| AskError::Ending)?;
            answered.await.map_err(|_| AskError::Ending)
        };
        timeout(patience, exchange).await.unwrap_or(Err(AskError::Busy))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::observe::snapshot::Snapshot;

    /// A loop that shows `snapshot`, does what is ordered of a service and refuses everything else, until all handles are gone.
    pub(crate) fn daemon_that_shows(snapshot: Snapshot) -> DaemonHandle {
        let (handle, mut questions) = DaemonHandle::new();
        tokio::spawn(async move {
            while let Some((request, answer)) = questions.recv().await {
                let response = match request {
                    Request::Status => Response::Status(Box::new(snapshot.clone())),
                    Request::Drain { service, backend, drain } => Response::Done { message: format!("{service} {backend} {drain}") },
                    Request::Defence { service, order } => Response::Done { message: format!("{service} {}", order.label()) },
                    Request::Reload | Request::Stop => Response::Refused { code: 3, message: "no".to_owned(), remedy: "do not".to_owned() },
                };
                // Who asked may have left.
                let _ = answer.send(response);
            }
        });
        handle
    }

    #[tokio::test]
    async fn a_loop_that_is_gone_or_silent_is_told_apart() {
        let (handle, questions) = DaemonHandle::new();
        assert_eq!(handle.ask(Request::Status, Duration::from_millis(20)).await, Err(AskError::Busy));
        drop(questions);
        assert_eq!(handle.ask(Request::Status, Duration::from_secs(5)).await, Err(AskError::Ending));
    }
}
