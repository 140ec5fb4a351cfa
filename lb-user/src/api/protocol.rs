//! What is said over the control socket: one line of JSON each way.

use clap::ValueEnum;
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
    /// Force a service's SYN defence, or have the configuration decide again.
    Defence {
        /// The service's name.
        service: String,
        /// What it is told.
        order: Order,
    },
    /// Read the configuration again.
    Reload,
    /// Detach everything, remove all pins and end.
    Stop,
}

/// What an operator tells a service's SYN defence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// What the configuration says holds: mostly that Weir tells a flood by itself.
    Auto,
    /// Answer every SYN by cookie, flood or not.
    On,
    /// Let every SYN pass to the kernel, and refuse nothing, flood or not.
    Off,
}

impl Order {
    /// Its name on the command line and in output.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
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
