//! Weir's daemon and command line.
#![warn(missing_docs)]

pub mod listeners;
