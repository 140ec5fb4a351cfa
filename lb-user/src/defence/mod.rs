//! What the daemon decides about the SYN defence: pure, no I/O, no clock. The daemon carries it out (`daemon/defence/`).

mod keys;
mod policy;

pub use keys::Keys;
pub use policy::{Facts, addresses_of, left_over, live_limits, policy, prefixes, receive_buffer};
