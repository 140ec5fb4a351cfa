//! What both sides of Weir agree on: addresses, packets, hashing, tables, reasons and the map layouts.
//!
//! This crate does no I/O, reads no clock and holds no secret: time and keys are arguments. The kernel side feeds it bytes, the
//! daemon feeds it configuration, and every decision either of them takes is a function of this crate that the host can test.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

pub mod checksum;
pub mod limiter;
pub mod maglev;
pub mod siphash;
