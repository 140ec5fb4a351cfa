//! What both sides of Weir agree on: addresses, packets, hashing, tables, reasons and the map layouts.
//!
//! This crate does no I/O, reads no clock and holds no secret: time and keys are arguments. The kernel side feeds it bytes, the
//! daemon feeds it configuration, and every decision either of them takes is a function of this crate that the host can test.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod abi;
pub mod addr;
pub mod checksum;
pub mod cookie;
pub mod flood;
pub mod flow;
pub mod limiter;
pub mod maglev;
pub mod packet;
pub mod reason;
pub mod relief;
pub mod sane;
pub mod siphash;
pub mod syn_ack;
pub mod tag;
pub mod wire;

pub use addr::Address;
pub use flow::FlowKey;
pub use reason::{Action, Reason};
