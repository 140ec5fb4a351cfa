//! The few calls of bpf(2) that aya has no safe form of: loading a program of two instructions, making a map for a map of maps, and
//! asking how long a program's machine code is.
//!
//! Layouts: `union bpf_attr` and `struct bpf_prog_info` in `include/uapi/linux/bpf.h`. A kernel that knows fewer fields accepts a longer
//! attribute as long as what it does not know is zero.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_F_INNER_MAP: u32 = 1 << 12;

const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_PROG_TYPE_SK_REUSEPORT: u32 = 21;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;
const BPF_SK_REUSEPORT_SELECT_OR_MIGRATE: u32 = 40;

/// `r0 = 0; exit`, 8 bytes each, the same on either byte order: only the first byte is not zero.
static RETURN_ZERO: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
static LICENSE: &CStr = c"GPL";

/// Where a tracing program goes.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum AttachType {
    /// `BPF_TRACE_RAW_TP`: a tracepoint with typed arguments.
    RawTracepoint = 23,
    /// `BPF_TRACE_FENTRY`
    FunctionEntry = 24,
    /// `BPF_TRACE_ITER`
    Iterator = 28,
}

/// A program that returns 0.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    program_type: u32,
    attach_type: u32,
    attach_to: u32,
    flags: u32,
}

impl Load {
    /// An XDP program that copes with packets in fragments.
    pub const fn xdp_with_fragments() -> Self {
        Self { program_type: BPF_PROG_TYPE_XDP, attach_type: BPF_XDP, attach_to: 0, flags: BPF_F_XDP_HAS_FRAGS }
    }

    /// A sk_reuseport program that is asked for migrations too.
    pub const fn select_or_migrate() -> Self {
        let attach_type = BPF_SK_REUSEPORT_SELECT_OR_MIGRATE;
        Self { program_type: BPF_PROG_TYPE_SK_REUSEPORT, attach_type, attach_to: 0, flags: 0 }
    }

    /// A tracing program for the kernel type of that id.
    pub const fn tracing(attach_type: AttachType, attach_to: u32) -> Self {
        Self { program_type: BPF_PROG_TYPE_TRACING, attach_type: attach_type as u32, attach_to, flags: 0 }
    }
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to `core_relo_cnt`. What is not named here stays zero.
#[derive(Default)]
#[repr(C)]
struct LoadAttribute {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
    debug_information: [u32; 9],
    attach_to: u32,
    attach_program: u32,
    relocations: u32,
}

const _: () = assert!(size_of::<LoadAttribute>() == 120);

/// `union bpf_attr` of `BPF_MAP_CREATE`, up to `inner_map_fd`.
#[derive(Default)]
#[repr(C)]
struct MapAttribute {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttribute {
    descriptor: u32,
    length: u32,
    information: u64,
}

/// The start of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgramInformation {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    compiled_bytes: u32,
    translated_bytes: u32,
}

/// Loads a program. It is gone when the descriptor is closed.
pub fn load(program: &Load) -> io::Result<OwnedFd> {
    let Load { program_type, attach_type, attach_to, flags } = *program;
    let mut attribute = LoadAttribute {
        program_type,
        instruction_count: 2,
        instructions: ptr::from_ref(&RETURN_ZERO).addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        flags,
        attach_type,
        attach_to,
        ..LoadAttribute::default()
    };
    // SAFETY: the command takes this attribute; both addresses in it are of statics, two instructions and a string with its end.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &mut attribute) }?;
    // SAFETY: the command returns a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Makes an array whose members may have different sizes, and a map of maps for it.
pub fn inner_maps() -> io::Result<()> {
    let array = MapAttribute { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1, ..MapAttribute::default() };
    let inner = create(MapAttribute { flags: BPF_F_INNER_MAP, ..array })?;
    let number = u32::try_from(inner.as_raw_fd()).map_err(io::Error::other)?;
    let outer =
        MapAttribute { map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS, key_size: 4, value_size: 4, max_entries: 1, flags: 0, inner_map: number };
    create(outer).map(drop)
}

/// How many bytes of machine code a program has: 0 if it is interpreted, or if this process may not ask.
pub fn compiled_bytes(program: &OwnedFd) -> io::Result<u32> {
    let mut information = ProgramInformation::default();
    let descriptor = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let length = u32::try_from(size_of::<ProgramInformation>()).map_err(io::Error::other)?;
    let mut attribute = InfoAttribute { descriptor, length, information: ptr::from_mut(&mut information).expose_provenance() as u64 };
    // SAFETY: the command takes this attribute and writes at most `length` bytes to the structure, which lives until after the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(information.compiled_bytes)
}

fn create(mut attribute: MapAttribute) -> io::Result<OwnedFd> {
    // SAFETY: the command takes this attribute, which holds no address.
    let descriptor = unsafe { bpf(BPF_MAP_CREATE, &mut attribute) }?;
    // SAFETY: the command returns a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `bpf(2)`.
///
/// # Safety
/// The attribute is the one of the command, and every address in it is of memory that the command may read or write as it does.
unsafe fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the length is that of the attribute.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
