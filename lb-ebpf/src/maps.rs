//! Every map: key -> value, who writes it, who reads it, how full it may get.
//!
//! The daemon pins them all under its instance's directory, by these names. Sizes marked "set at load" are the daemon's limits.

use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC,
        bpf_map_type::{BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_SK_STORAGE},
    },
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, reuseport_sock_array::ReusePortSockArrayImpl,
    },
    macros::btf_map,
};
use lb_common::{
    Address, FlowKey,
    abi::{
        AddressFilter, BackendCounters, BackendState, BackendTimes, DROP_REASONS as REASONS, DefencePolicy, DropKey, Event, GroupKey,
        GroupRecord, KnownFlow, ListenerAddress, LiveState, MAX_SERVICES, PortBitmap, PrefixBucket, PrefixKey, RestoreCounters,
        SOCKET_SLOTS, Scratch, SeenService, SelectorCounters, ServiceCounters, ServiceKey, ServiceRecord, ServiceTimes, Settings,
        SocketTag, TraceFilter, TraceRecord, TraceState, UdpFlow,
    },
    flood::{FloodState, FloodWindow},
    limiter::Bucket,
};

/// 0 -> the settings. Written by the daemon at load and reload, read by both programs. Never missing.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// 0 -> a bit for each port that a service has. Written by the daemon, read by XDP for each packet. Never missing.
#[btf_map]
pub static PORTS: Array<PortBitmap, 1> = Array::new();

/// (address, port, protocol, interface) -> service. Written by the daemon, read by XDP for packets whose port has its bit.
/// One entry for each service and address of the namespace: full only if their product is above the size (set at load).
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceRecord, 65_536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// 0 -> how often SERVICES has changed. Written by the daemon after each change, read by XDP for packets whose port has its bit. Never
/// missing.
#[btf_map]
pub static SERVICE_CHANGES: Array<u64, 1> = Array::new();

/// Slot by hash of the key -> an entry of SERVICES as it was found lately, per CPU. Written by XDP, for keys that are in SERVICES alone:
/// whoever sends packets cannot choose them.
#[btf_map]
pub static SEEN_SERVICES: PerCpuArray<SeenService, { SeenService::SLOTS as usize }> = PerCpuArray::new();

/// What a group is bound to -> its service. Written by the daemon, read by the selector. At most one entry for each service.
#[btf_map]
pub static GROUPS: HashMap<GroupKey, GroupRecord, { MAX_SERVICES as usize }> = HashMap::new();

/// Service -> its table (lb_common::abi's `table` says what is where). The daemon swaps tables whole; XDP and the selector read them.
/// An empty place means that the service has no backend. The daemon fills a table through a memory mapping: by system calls each of
/// its thousands of entries is looked up and copied alone.
#[btf_map]
pub static TABLES: ArrayOfMaps<Array<u32, 1, { (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize }>, { MAX_SERVICES as usize + 1 }> =
    ArrayOfMaps::new();

/// Slot -> listening socket: the one map that every version of Weir shares. The daemon fills slots, the kernel empties them when a
/// socket closes. Its values are 64 bits wide so that the daemon can read the cookie of the socket in a slot.
#[btf_map]
pub static SOCKETS: ReusePortSockArrayImpl<u64, { SOCKET_SLOTS as usize }> = ReusePortSockArrayImpl::new();

/// Slot -> its generation and whether new flows may come. Written by the daemon, read by the selector. Sized like SOCKETS.
#[btf_map]
pub static BACKENDS: Array<BackendState, { SOCKET_SLOTS as usize }> = Array::new();

/// Slot -> where its listener is in the kernel's memory. Written by the iterator over queues, which the daemon runs; read by the selector.
/// Sized like BACKEND_COUNTERS.
#[btf_map]
pub static LISTENERS: Array<ListenerAddress, 8_192> = Array::new();

/// Slot -> how often it was chosen, selected and accepted from, per CPU. Its size is the daemon's limit of backends (set at load).
#[btf_map]
pub static BACKEND_COUNTERS: PerCpuArray<BackendCounters, 8_192> = PerCpuArray::new();

/// Service -> packets and bytes by reason, per CPU; 0 stands for packets of no service. The size is the daemon's limit (set at load).
#[btf_map]
pub static SERVICE_COUNTERS: PerCpuArray<ServiceCounters, 1_025> = PerCpuArray::new();

/// 0 -> what the selector could not do, per CPU.
#[btf_map]
pub static SELECTOR_COUNTERS: PerCpuArray<SelectorCounters, 1> = PerCpuArray::new();

/// 0 -> what became of cookie ACKs, per CPU.
#[btf_map]
pub static RESTORE_COUNTERS: PerCpuArray<RestoreCounters, 1> = PerCpuArray::new();

/// 0 -> what the functions of a program hand each other about the packet at hand, per CPU. Never missing.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Service -> how it is defended. Written by the daemon, read by XDP for each packet of a service. Sized like SERVICE_COUNTERS.
#[btf_map]
pub static DEFENCE: Array<DefencePolicy, 1_025> = Array::new();

/// Service -> the flood on it. Written by XDP when a flood begins or still shows, at most once a millisecond; the daemon clears what is
/// over. Sized like SERVICE_COUNTERS.
#[btf_map]
pub static FLOODS: Array<FloodState, 1_025> = Array::new();

/// Service -> what this CPU has counted lately. Written by XDP. Sized like SERVICE_COUNTERS.
#[btf_map]
pub static FLOOD_WINDOWS: PerCpuArray<FloodWindow, 1_025> = PerCpuArray::new();

/// 0 -> whether the daemon lives, the keys of cookies, and the limits of all services. Written by the daemon each second.
#[btf_map]
pub static LIVE: Array<LiveState, 1> = Array::new();

/// Slot by hash -> a flow that has a connection, per CPU. Written by XDP for flows that have proven it. The size is the daemon's limit.
#[btf_map]
pub static KNOWN_FLOWS: PerCpuArray<KnownFlow, 16_384> = PerCpuArray::new();

/// Slot by hash, as in KNOWN_FLOWS -> how many flows of that slot were reset, on whichever CPU. Written by XDP for resets of connections that
/// exist, which are few. Sized like KNOWN_FLOWS.
#[btf_map]
pub static ENDED_FLOWS: Array<u32, 16_384> = Array::new();

/// Slot by hash -> the tokens of a source prefix for a purpose, per CPU. Written by XDP: no packet makes an entry, it takes a slot. The
/// size is the daemon's limit.
#[btf_map]
pub static PREFIX_BUCKETS: PerCpuArray<PrefixBucket, 16_384> = PerCpuArray::new();

/// (service, prefix) -> allowed or denied. Written by the daemon, read by XDP for services that have such lists.
#[btf_map]
pub static PREFIXES: LpmTrie<PrefixKey, u32, 65_536> = LpmTrie::new();

/// 0 -> SYN-ACKs, 1 -> SYNs that only the kernel can answer: what this CPU may still send or pass of them.
#[btf_map]
pub static BUDGETS: PerCpuArray<Bucket, 2> = PerCpuArray::new();

/// An address of this host -> 1. Written by the daemon, read by XDP before it answers a SYN.
#[btf_map]
pub static ADDRESSES: HashMap<Address, u32, 4_096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// 0 -> a filter of the keys of ADDRESSES. Written by the daemon before an address is entered there, read by XDP in place of most lookups.
/// Never missing.
#[btf_map]
pub static ADDRESS_FILTER: Array<AddressFilter, 1> = Array::new();

/// UDP flow -> its backend. The selector enters flows, at a capped rate; the least recently used make room. XDP only reads it.
#[btf_map]
pub static UDP_FLOWS: LruHashMap<FlowKey, UdpFlow, 65_536> = LruHashMap::new();

/// 0 -> what this CPU may still enter in UDP_FLOWS: a second's worth at the most.
#[btf_map]
pub static UDP_BUDGET: PerCpuArray<Bucket, 1> = PerCpuArray::new();

/// A socket -> the slot it has, or had its listener when it was made: for counting connections. The daemon writes it when a listener
/// joins, the kernel copies it to each connection (BPF_F_CLONE), and it goes with its socket.
#[btf_map]
pub static SOCKET_TAGS: SocketTags = SocketTags::new();

/// Listeners that began and ended, for the daemon. Full only while the daemon is away: its full scan makes up for what is lost.
#[btf_map]
pub static EVENTS: RingBuf<Event, { 64 * 1024 }> = RingBuf::new();

/// A listening socket of a service -> 1: what the iterator over queues visits. Unlike the tag it is not copied to connections. The daemon
/// writes it, and it goes with its socket.
#[btf_map]
pub static WATCHED: SkStorage<u32> = SkStorage::new();

/// Slot -> how long its connections waited to be accepted, and its service, which the daemon writes when a socket gets the slot. Sized
/// like BACKEND_COUNTERS.
#[btf_map]
pub static BACKEND_TIMES: Array<BackendTimes, 8_192> = Array::new();

/// Service -> how long its handshakes took. Sized like SERVICE_COUNTERS.
#[btf_map]
pub static SERVICE_TIMES: Array<ServiceTimes, 1_025> = Array::new();

/// The kernel's reason for a drop -> whether it is counted. Written by the daemon at load, from the names that the kernel has for them.
#[btf_map]
pub static DROP_REASONS: Array<u32, { REASONS as usize }> = Array::new();

/// (service, backend, reason) -> packets that the kernel dropped, per CPU. A row is made by the first such drop: there can be no more
/// than reasons for each service and backend, and what finds the table full is counted in DROPS_FOLDED.
#[btf_map]
pub static KERNEL_DROPS: KernelDrops = KernelDrops::new();

/// 0 -> drops that have no row, per CPU.
#[btf_map]
pub static DROPS_FOLDED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// 0 -> what `weir trace` wants to see. Written by it, read by XDP for each packet. Never missing.
#[btf_map]
pub static TRACE: Array<TraceFilter, 1> = Array::new();

/// 0 -> what of that could not be had, per CPU.
#[btf_map]
pub static TRACE_STATE: PerCpuArray<TraceState, 1> = PerCpuArray::new();

/// Packets for `weir trace`: about a thousand until it reads them.
#[btf_map]
pub static TRACED: RingBuf<TraceRecord, { 256 * 1024 }> = RingBuf::new();

/// A BTF map definition: aya-ebpf has none of hash maps per CPU.
#[repr(C)]
pub struct KernelDrops {
    r#type: *const [i32; BPF_MAP_TYPE_PERCPU_HASH as usize],
    key: *const DropKey,
    value: *const u64,
    max_entries: *const [i32; 8_192],
}

// SAFETY: the pointers carry types for the loader and are never followed.
unsafe impl Sync for KernelDrops {}

impl KernelDrops {
    const fn new() -> Self {
        let null = core::ptr::null::<u8>();
        Self { r#type: null.cast(), key: null.cast(), value: null.cast(), max_entries: null.cast() }
    }
}

/// A BTF map definition, like aya-ebpf's own: its `SkStorage` has no flag for copying to connections.
#[repr(C)]
pub struct SocketTags {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketTag,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers carry types for the loader and are never followed.
unsafe impl Sync for SocketTags {}

impl SocketTags {
    const fn new() -> Self {
        let null = core::ptr::null::<u8>();
        Self { r#type: null.cast(), key: null.cast(), value: null.cast(), max_entries: null.cast(), map_flags: null.cast() }
    }
}
