//! The layouts that the programs in the kernel and the daemon share: the keys and values of the maps.
//!
//! Every type is `repr(C)` without implicit padding (zerocopy's derive refuses it), so that the bytes the daemon writes are the bytes
//! the programs read. Numbers are in the machine's byte order. A change to any type here, to [`crate::FlowKey`], to the hash, to
//! [`crate::Reason`] or to a map's type or size in lb-ebpf's `maps.rs` raises [`ABI_VERSION`]; the socket array alone has a shape that
//! never changes, and every version adopts it.

mod addresses;
mod backend;
mod case;
mod defence;
mod event;
mod request;
mod service;
mod settings;
mod table;
mod times;
mod trace;
mod watch;

pub use addresses::AddressFilter;
pub use backend::{BackendCounters, BackendState, Cause, ListenerAddress, SelectionMiss, SelectorCounters, SocketTag, state_flags};
pub use case::{Case, Offered, Scratch, Segment};
pub use defence::{
    CookieKey, DefencePolicy, KnownFlow, LiveState, PrefixBucket, PrefixKey, Purpose, Scheme, Stance, announced_window, live_flags,
    policy_flags, prefix_action,
};
pub use event::{Event, EventKind, SocketFacts};
pub use request::{ASSIGN_PLACEHOLDER, RESTORE_MAGIC, RequestAttributes, RestoreCounters, RestoreRequest, Restored};
pub use service::{Counter, GroupKey, GroupRecord, PortBitmap, SeenService, ServiceCounters, ServiceKey, ServiceRecord, service_flags};
pub use settings::{Settings, UdpFlow};
pub use table::{MAX_STEPS, NO_SLOT, QUIC_WORKERS, TABLE_HEADER, TableHeader, entry_index};
pub use times::{TIME_BOUNDS, Times, time_bounds, time_bucket};
pub use trace::{TRACE_BYTES, TraceFilter, TraceRecord, TraceState, client as traced_client};
pub use watch::{BackendTimes, DROP_REASONS, DropKey, ServiceTimes, SocketQueues};

/// The version of everything in this module. Maps are pinned under a directory of this name; a daemon of another version makes a set
/// of its own and moves the data plane over.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") { 4 } else { 3 };

/// How many slots the socket array has. It is pinned outside the version's directory and outlives versions: this never changes.
pub const SOCKET_SLOTS: u32 = 65_536;

/// The most services, for all time of one load; index 0 stands for "no service".
pub const MAX_SERVICES: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowKey;

    /// The sizes that an ABI version stands for: a change here without a new [`ABI_VERSION`] breaks running data planes.
    #[test]
    fn sizes_and_alignments_of_version_3() {
        fn check<T>(size: usize, align: usize) {
            assert_eq!((size_of::<T>(), align_of::<T>()), (size, align), "{}", core::any::type_name::<T>());
        }
        check::<FlowKey>(40, 8);
        check::<ServiceKey>(24, 8);
        check::<ServiceRecord>(32, 8);
        check::<SeenService>(64, 8);
        check::<AddressFilter>(2_048, 8);
        check::<GroupKey>(24, 8);
        check::<GroupRecord>(8, 4);
        check::<Counter>(16, 8);
        check::<ServiceCounters>(45 * 16, 8);
        check::<PortBitmap>(16_384, 8);
        check::<BackendState>(8, 4);
        check::<BackendCounters>(88, 8);
        check::<ListenerAddress>(16, 8);
        check::<crate::relief::Relief>(16, 8);
        check::<SelectorCounters>(40, 8);
        check::<SocketTag>(8, 4);
        check::<UdpFlow>(8, 4);
        check::<crate::limiter::Bucket>(16, 8);
        check::<Settings>(232, 8);
        check::<Case>(88, 8);
        check::<Scratch>(240, 8);
        check::<Offered>(16, 4);
        check::<DefencePolicy>(72, 8);
        check::<CookieKey>(24, 8);
        check::<LiveState>(104, 8);
        check::<PrefixKey>(20, 1);
        check::<PrefixBucket>(24, 8);
        check::<KnownFlow>(8, 4);
        check::<crate::flood::FloodState>(24, 8);
        check::<crate::flood::FloodWindow>(24, 8);
        check::<crate::flood::Thresholds>(32, 8);
        check::<crate::tag::TagKey>(176, 8);
        check::<TraceFilter>(56, 8);
        check::<TraceRecord>(32 + TRACE_BYTES, 8);
        check::<TraceState>(32, 8);
        check::<Event>(16, 8);
        check::<SocketFacts>(24, 8);
        check::<SocketQueues>(40, 8);
        check::<Times>(168, 8);
        check::<BackendTimes>(176, 8);
        check::<ServiceTimes>(176, 8);
        check::<DropKey>(16, 4);
        check::<RequestAttributes>(20, 4);
        check::<RestoreRequest>(40, 4);
        check::<RestoreCounters>(40, 8);
    }
}
