//! Weir's daemon and command line.
#![warn(missing_docs)]

pub mod api;
pub mod cli;
pub mod command;
pub mod config;
pub mod dataplane;
pub mod exit;
pub mod listeners;
pub mod network;
pub mod observe;
pub mod plan;
