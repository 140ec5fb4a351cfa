//! What is said over the control socket: one line of JSON each way.

use serde::{Deserialize, Serialize};

use crate::observe::snapshot::Snapshot;

/// A question or an order to the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The snapshot.
    Status,
    /// Give a backend no new flows, or give it its share again.
    Drain {
        /// The service's name.
        service: String,
        /// The backend's index in the service.
        backend: u32,
        /// Drain or undrain.
        drain: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Detach everything, remove all pins and end.
    Stop,
}

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// The snapshot.
    Status(Box<Snapshot>),
    /// It was done; a sentence about it.
    Done {
        /// What was done.
        message: String,
    },
    /// It was not done.
    Refused {
        /// The exit code that the command ends with ([`crate::exit::Exit`]).
        code: u8,
        /// What is wrong.
        message: String,
        /// What to do.
        remedy: String,
    },
}
