//! The few calls of bpf(2) that aya has no safe form of: loading a program of a few instructions, making a map for a map of maps, and
//! asking how long a program's machine code is.
//!
//! Layouts: `union bpf_attr` and `struct bpf_prog_info` in `include/uapi/linux/bpf.h`. A kernel that knows fewer fields accepts a longer
//! attribute as long as what it does not know is zero.

use std::{
    borrow::Cow,
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

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_PROG_TYPE_SK_REUSEPORT: u32 = 21;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;
const BPF_SK_REUSEPORT_SELECT_OR_MIGRATE: u32 = 40;

/// Code, registers (source and destination), offset, immediate (Documentation/bpf/standardization/instruction-set.rst).
type Instruction = [u8; 8];

/// `r0 = 0; exit`: only the first byte is not zero.
static RETURN_ZERO: [Instruction; 2] = [instruction(0xb7, 0, 0, 0), EXIT];
/// `r0 = XDP_PASS; exit`.
static PASS: [Instruction; 2] = [instruction(0xb7, 0, 0, 2), EXIT];
const EXIT: Instruction = instruction(0x95, 0, 0, 0);
static LICENSE: &CStr = c"GPL";

/// Where a tracing program goes.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum AttachType {
    /// `BPF_TRACE_RAW_TP`: a tracepoint with typed arguments.
    RawTracepoint = 23,
    /// `BPF_TRACE_FEXIT`
    FunctionExit = 25,
    /// `BPF_TRACE_ITER`
    Iterator = 28,
}

/// A program, of two instructions if nothing else is said.
#[derive(Debug, Clone)]
pub struct Load {
    instructions: Cow<'static, [Instruction]>,
    program_type: u32,
    attach_type: u32,
    attach_to: u32,
    flags: u32,
}

impl Load {
    /// An XDP program that copes with packets in fragments.
    pub const fn xdp_with_fragments() -> Self {
        Self::of(BPF_PROG_TYPE_XDP, BPF_XDP, 0, BPF_F_XDP_HAS_FRAGS)
    }

    /// An XDP program that passes every packet.
    pub fn xdp_pass() -> Self {
        Self { instructions: Cow::Borrowed(&PASS), ..Self::of(BPF_PROG_TYPE_XDP, BPF_XDP, 0, 0) }
    }

    /// A tc program that hands a listener and a handshake's options to the kernel function `bpf_sk_assign_tcp_reqsk` of that id.
    pub fn assigning(function: u32) -> Self {
        Self { instructions: Cow::Owned(assigning(function.cast_signed())), ..Self::of(BPF_PROG_TYPE_SCHED_CLS, 0, 0, 0) }
    }

    /// A sk_reuseport program that is asked for migrations too.
    pub const fn select_or_migrate() -> Self {
        Self::of(BPF_PROG_TYPE_SK_REUSEPORT, BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, 0, 0)
    }

    /// A tracing program for the kernel type of that id.
    pub const fn tracing(attach_type: AttachType, attach_to: u32) -> Self {
        Self::of(BPF_PROG_TYPE_TRACING, attach_type as u32, attach_to, 0)
    }

    const fn of(program_type: u32, attach_type: u32, attach_to: u32, flags: u32) -> Self {
        Self { instructions: Cow::Borrowed(&RETURN_ZERO), program_type, attach_type, attach_to, flags }
    }
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, a, b, c, d, e, f]
}

/// The verifier wants to see where each argument comes from: a socket that was looked up, and attributes on the stack.
fn assigning(function: i32) -> Vec<Instruction> {
    const SKC_LOOKUP_TCP: i32 = 99;
    const SKC_TO_TCP_SOCK: i32 = 137;
    const SK_RELEASE: i32 = 86;
    // Registers are written as two digits: source, destination.
    let copy = |registers| instruction(0xbf, registers, 0, 0);
    let set = |register, value| instruction(0xb7, register, 0, value);
    let add = |register, value| instruction(0x07, register, 0, value);
    let store_zero = |offset| instruction(0x7a, 0x0a, offset, 0);
    let jump_if_null = |over| instruction(0x15, 0, over, 0);
    let call = |helper| instruction(0x85, 0, 0, helper);
    vec![
        copy(0x16),
        store_zero(-8),
        store_zero(-16),
        store_zero(-24),
        // The lookup: context, an IPv4 tuple on the stack, its length, the current namespace, no flags.
        copy(0xa2),
        add(2, -16),
        set(3, 12),
        set(4, -1),
        set(5, 0),
        call(SKC_LOOKUP_TCP),
        jump_if_null(12),
        copy(0x07),
        copy(0x01),
        call(SKC_TO_TCP_SOCK),
        jump_if_null(6),
        // The function: context, listener, attributes on the stack, their length.
        copy(0x61),
        copy(0x02),
        copy(0xa3),
        add(3, -24),
        set(4, 20),
        instruction(0x85, 0x20, 0, function),
        copy(0x71),
        call(SK_RELEASE),
        set(0, 0),
        EXIT,
    ]
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
    let Load { ref instructions, program_type, attach_type, attach_to, flags } = *program;
    let mut attribute = LoadAttribute {
        program_type,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        flags,
        attach_type,
        attach_to,
        ..LoadAttribute::default()
    };
    // SAFETY: the command takes this attribute; both addresses in it are of memory that outlives the call: as many
    // instructions as are said, and a string with its end.
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
