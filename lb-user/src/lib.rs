//! Weir's daemon and command line.
#![warn(missing_docs)]

pub mod api;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod defence;
pub mod exit;
pub mod explain;
pub mod listeners;
pub mod network;
pub mod observe;
pub mod plan;
pub mod privilege;
