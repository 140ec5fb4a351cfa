//! What the daemon is told: listeners that begin and end, connections that come and go, what waits at listeners, and what the kernel drops.
//!
//! None of this is on a packet's way, and Weir works without any of it: the daemon then finds listeners by its regular scan alone and
//! leaves out what it cannot count. Tracepoints serve and not fentry, because a kernel or its policy may refuse the trampolines that
//! fentry needs while it offers every tracepoint; only the moment of accept(2) has no tracepoint.

mod accept;
mod drops;
mod facts;
mod memory;
mod queues;
mod state;
mod tag;
mod times;

pub use memory::read;
pub use queues::{OFFSET_SK_ACCEPT_LENGTH, OFFSET_SK_ACCEPT_LIMIT, head_since};
