//! What the daemon is told: listeners that begin and end, connections that come and go, and what a socket's group is.
//!
//! None of this is on a packet's way, and Weir works without it: the daemon then finds listeners by its regular scan alone and leaves
//! out what it cannot count. The tracepoint `inet_sock_set_state` serves and not fentry, because a kernel or its policy may refuse the
//! trampolines that fentry needs while it offers every tracepoint.

use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_seq_write, bpf_sk_storage_get, bpf_sock_from_file,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use lb_common::abi::{BackendCounters, Event, EventKind, SocketFacts, SocketTag};

use crate::maps::{BACKEND_COUNTERS, BACKENDS, EVENTS, SOCKET_TAGS};

/// The states of a TCP socket (include/net/tcp_states.h).
mod state {
    pub const ESTABLISHED: u64 = 1;
    pub const SYN_SENT: u64 = 2;
    pub const SYN_RECV: u64 = 3;
    pub const CLOSE: u64 = 7;
    pub const LISTEN: u64 = 10;
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: a TCP socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let (sk, old, new): (*mut c_void, u64, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    match (old, new) {
        (_, state::LISTEN) => announce(&ctx, sk, EventKind::ListenStart),
        (state::LISTEN, state::CLOSE) => announce(&ctx, sk, EventKind::ListenStop),
        (state::SYN_RECV, state::ESTABLISHED) => count(sk, |counters| counters.established += 1),
        // A connection that was never established was never counted.
        (state::SYN_RECV | state::SYN_SENT | state::CLOSE, _) => {}
        (_, state::CLOSE) => count(sk, |counters| counters.closed += 1),
        _ => {}
    }
    0
}

/// Counts a connection for the slot of the listener it was made from.
#[inline(always)]
fn count(sk: *mut c_void, add: impl FnOnce(&mut BackendCounters)) {
    // SAFETY: the map is this object's, and `sk` is the tracepoint's first argument, a socket that the kernel holds.
    let tag = unsafe { bpf_sk_storage_get(core::ptr::from_ref(&SOCKET_TAGS).cast_mut().cast(), sk, core::ptr::null_mut(), 0) };
    if tag.is_null() {
        return;
    }
    // SAFETY: it is not null, and a socket's storage lives as long as the socket.
    let SocketTag { slot, generation } = unsafe { *tag.cast::<SocketTag>() };
    if BACKENDS.get(slot).is_none_or(|backend| backend.generation != generation) {
        return;
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's own value. A change that an interrupt on the same CPU overtakes can lose one count: the
        // price of having no shared atomic.
        add(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn announce(ctx: &BtfTracePointContext, sk: *mut c_void, kind: EventKind) {
    // SAFETY: `sk` is the tracepoint's first argument, a socket that the kernel holds.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // Where the daemon does not log at debug level it loads the programs with this switched off, and the verifier takes it out.
    debug!(ctx, "listener event {} of process {}", kind as u32, pid);
    // A full buffer loses the event: the daemon's full scan finds what happened.
    let _ = EVENTS.output(Event { cookie, kind: kind as u32, pid }, 0);
}

// Where the kernel keeps what `socket_facts` reads: offsets in bytes, found in the kernel's BTF by the daemon, since Rust's BPF has no
// CO-RE. What they hold in the object is odd on purpose: LLVM gives a constant of the programs (such as the key 0 of a map) the address
// of a global that holds the same value, and the daemon's number would then change that constant as well. (Odd, and small: they are added to pointers.)
#[unsafe(no_mangle)]
static OFFSET_SOCKET_SK: Global<u32> = Global::new(0xbad1);
#[unsafe(no_mangle)]
static OFFSET_SK_COOKIE: Global<u32> = Global::new(0xbad2);
#[unsafe(no_mangle)]
static OFFSET_SK_REUSEPORT: Global<u32> = Global::new(0xbad3);
#[unsafe(no_mangle)]
static OFFSET_REUSEPORT_PROGRAM: Global<u32> = Global::new(0xbad4);
#[unsafe(no_mangle)]
static OFFSET_PROGRAM_AUX: Global<u32> = Global::new(0xbad5);
#[unsafe(no_mangle)]
static OFFSET_AUX_ID: Global<u32> = Global::new(0xbad6);

/// The context of an iterator over the files of tasks (`struct bpf_iter__task_file`, kernel/bpf/task_iter.c): every member has 8 bytes.
#[repr(C)]
pub struct TaskFileContext {
    meta: *mut IteratorMeta,
    task: *mut c_void,
    descriptor: u32,
    padding: u32,
    file: *mut c_void,
}

/// `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
pub struct IteratorMeta {
    seq: *mut c_void,
}

/// Writes a [`SocketFacts`] for each socket among a process's files: whose program does its SO_REUSEPORT group have? No system call tells.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn socket_facts(ctx: *mut TaskFileContext) -> i32 {
    // SAFETY: the kernel hands the iterator its context; the null check is on the copy that is used.
    let (file, descriptor, seq) = unsafe { ((*ctx).file, (*ctx).descriptor, (*(*ctx).meta).seq) };
    if file.is_null() {
        return 0;
    }
    // SAFETY: a file that the iterator holds.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return 0;
    }
    if let Some(facts) = facts(socket.cast(), descriptor) {
        #[expect(clippy::cast_possible_truncation, reason = "24")]
        const LENGTH: u32 = size_of::<SocketFacts>() as u32;
        // SAFETY: the facts are plain bytes of the length said. A full buffer makes the kernel call again.
        unsafe { bpf_seq_write(seq.cast(), core::ptr::from_ref(&facts).cast_mut().cast(), LENGTH) };
    }
    0
}

#[inline(always)]
fn facts(socket: *const u8, descriptor: u32) -> Option<SocketFacts> {
    let sk: *const u8 = read(socket, OFFSET_SOCKET_SK.load())?;
    let cookie: u64 = read(sk, OFFSET_SK_COOKIE.load())?;
    let group: *const u8 = read(sk, OFFSET_SK_REUSEPORT.load())?;
    let mut facts = SocketFacts { cookie, descriptor, has_program: 0, program: 0, padding: 0 };
    if group.is_null() {
        return Some(facts);
    }
    let program: *const u8 = read(group, OFFSET_REUSEPORT_PROGRAM.load())?;
    if !program.is_null() {
        facts.has_program = 1;
        let aux: *const u8 = read(program, OFFSET_PROGRAM_AUX.load())?;
        facts.program = read(aux, OFFSET_AUX_ID.load())?;
    }
    Some(facts)
}

/// Reads kernel memory at an offset.
#[inline(always)]
fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
