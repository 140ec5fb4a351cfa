//! An iterator over the sockets that the daemon watches: what waits there. It visits those alone, and none of their connections.

use aya_ebpf::{Global, cty::c_void};
use lb_common::{
    abi::{ListenerAddress, SocketQueues},
    wire::protocol,
};

use super::{
    memory::{ABSENT, IteratorMeta, OFFSET_SK_COOKIE, established_at, read, write},
    tag,
};
use crate::maps::LISTENERS;

// Offsets: see `memory`.
#[unsafe(no_mangle)]
static OFFSET_SK_PROTOCOL: Global<u32> = Global::new(0xbadd);
#[unsafe(no_mangle)]
static OFFSET_SK_DROPS: Global<u32> = Global::new(0xbadf);
#[unsafe(no_mangle)]
static OFFSET_SK_DROP_COUNTERS: Global<u32> = Global::new(0xbae1);
#[unsafe(no_mangle)]
static OFFSET_DROPS_OF_OTHER_NODES: Global<u32> = Global::new(0xbae3);
#[unsafe(no_mangle)]
pub static OFFSET_SK_ACCEPT_LENGTH: Global<u32> = Global::new(0xbae5);
#[unsafe(no_mangle)]
pub static OFFSET_SK_ACCEPT_LIMIT: Global<u32> = Global::new(0xbae7);
#[unsafe(no_mangle)]
static OFFSET_SYN_LENGTH: Global<u32> = Global::new(0xbae9);
#[unsafe(no_mangle)]
static OFFSET_ACCEPT_HEAD: Global<u32> = Global::new(0xbaeb);
#[unsafe(no_mangle)]
static OFFSET_REQUEST_SK: Global<u32> = Global::new(0xbaed);
#[unsafe(no_mangle)]
static OFFSET_SK_RECEIVED: Global<u32> = Global::new(0xbaef);
#[unsafe(no_mangle)]
static OFFSET_SK_RECEIVE_BUFFER: Global<u32> = Global::new(0xbaf1);
#[unsafe(no_mangle)]
static OFFSET_UDP_FORWARD_DEFICIT: Global<u32> = Global::new(0xbaf3);

/// The context of an iterator over a map of values that sockets carry (`struct bpf_iter__bpf_sk_storage_map`, net/core/bpf_sk_storage.c).
#[repr(C)]
pub struct StorageContext {
    meta: *mut IteratorMeta,
    map: *mut c_void,
    sk: *mut c_void,
    value: *mut c_void,
}

/// Writes a [`SocketQueues`] for each socket that has a value in `WATCHED`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn socket_queues(ctx: *mut StorageContext) -> i32 {
    // SAFETY: the kernel hands the iterator its context.
    let (sk, seq) = unsafe { ((*ctx).sk, (*(*ctx).meta).seq) };
    if sk.is_null() {
        return 0;
    }
    if let Some(queues) = queues(sk.cast_const().cast()) {
        write(seq, &queues);
    }
    note_address(sk);
    0
}

/// Notes where a backend's listener is, for the selector.
#[inline(always)]
fn note_address(sk: *mut c_void) {
    if let Some(tag) = tag::of(sk)
        && let Some(listener) = LISTENERS.get_ptr_mut(tag.slot)
    {
        // SAFETY: the daemon alone runs the iterator; the selector takes what is half written for what it is, a hint.
        unsafe { *listener = ListenerAddress { address: sk.expose_provenance() as u64, generation: tag.generation, reserved: 0 } };
    }
}

#[inline(always)]
fn queues(sk: *const u8) -> Option<SocketQueues> {
    let mut queues = SocketQueues {
        cookie: read(sk, OFFSET_SK_COOKIE.load())?,
        head_since: 0,
        syn_length: 0,
        accept_length: 0,
        accept_limit: 0,
        received: 0,
        receive_buffer: 0,
        drops: drops(sk)?,
    };
    let protocol: u16 = read(sk, OFFSET_SK_PROTOCOL.load())?;
    if protocol == u16::from(protocol::TCP) {
        queues.syn_length = read(sk, OFFSET_SYN_LENGTH.load())?;
        queues.accept_length = read(sk, OFFSET_SK_ACCEPT_LENGTH.load())?;
        queues.accept_limit = read(sk, OFFSET_SK_ACCEPT_LIMIT.load())?;
        queues.head_since = head_since(sk).unwrap_or(0);
    } else {
        let received: u32 = read(sk, OFFSET_SK_RECEIVED.load())?;
        // What the reader has taken and the kernel has not given back yet: as `ss` shows it.
        let deficit: u32 = read(sk, OFFSET_UDP_FORWARD_DEFICIT.load())?;
        queues.received = received.wrapping_sub(deficit);
        queues.receive_buffer = read(sk, OFFSET_SK_RECEIVE_BUFFER.load())?;
    }
    Some(queues)
}

/// How often the socket had no room. Newer kernels keep the count of UDP sockets in two, by NUMA node.
#[inline(always)]
fn drops(sk: *const u8) -> Option<u32> {
    if OFFSET_SK_DROP_COUNTERS.load() != ABSENT {
        let counters: *const u8 = read(sk, OFFSET_SK_DROP_COUNTERS.load())?;
        if !counters.is_null() {
            let here: u32 = read(counters, 0)?;
            let elsewhere: u32 = read(counters, OFFSET_DROPS_OF_OTHER_NODES.load())?;
            return Some(here.wrapping_add(elsewhere));
        }
    }
    read(sk, OFFSET_SK_DROPS.load())
}

/// Since when the first connection of the accept queue waits. Nothing is held meanwhile: it may be accepted and gone, and then what is
/// read is of another connection, or nothing. The daemon takes no answer for more than a hint.
#[inline(always)]
pub fn head_since(sk: *const u8) -> Option<u64> {
    let request: *const u8 = read(sk, OFFSET_ACCEPT_HEAD.load())?;
    if request.is_null() {
        return None;
    }
    let connection: *const u8 = read(request, OFFSET_REQUEST_SK.load())?;
    if connection.is_null() { None } else { established_at(connection) }
}
