//! What the tests with real sockets read of a running Weir.

#[expect(dead_code, reason = "a library for the tests: the soak uses a part of it")]
#[path = "../../tests/kernel/netns/live.rs"]
pub mod live;
