//! Weir's daemon and command line.
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod exit;
pub mod listeners;
