//! The kernel's side: loading, attaching, pinning, and the maps. The only module of this crate that names aya.
//!
//! [`Dataplane::open`] makes the maps or adopts the pinned ones, and loads the programs without attaching them. The daemon then fills the
//! maps, and only when they are true attaches: the XDP program to its interfaces, the selector to each group.

mod attach;
mod btf;
mod counters;
mod defence;
mod error;
mod events;
mod kfunc;
mod load;
mod maps;
mod pins;
pub mod probe;
mod sockets;
mod survival;
mod sys;
mod trace;
mod watch;
mod window;

pub use attach::Attached;
pub use counters::{BackendTotals, SYNS, ServiceTotals};
pub use error::{Error, Occupant};
pub use events::{Events, KernelLog};
pub use load::{Dataplane, Options, Programs, boot_time, monotonic_time, random_key};
pub use maps::Maps;
pub use pins::{Pins, SOCKETS};
pub use survival::{Survival, Survivals, TRIES as SURVIVAL_TRIES};
pub use sys::XdpMode;
pub use trace::Trace;
pub use watch::{ReasonNames, WatchMaps, Watching, drop_reason_names};
pub use window::{WindowFacts, probe_window};

/// The object with all programs and maps, as the build script made it; empty if there was no toolchain to build it with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.o"));
