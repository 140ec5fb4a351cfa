//! An iterator over a process's files: whose program does the SO_REUSEPORT group of each socket among them have?

use aya_ebpf::{Global, cty::c_void, helpers::bpf_sock_from_file};
use lb_common::abi::SocketFacts;

use super::memory::{IteratorMeta, OFFSET_SK_COOKIE, read, write};

// Offsets: see `memory`.
#[unsafe(no_mangle)]
static OFFSET_SOCKET_SK: Global<u32> = Global::new(0xbad1);
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
        write(seq, &facts);
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
