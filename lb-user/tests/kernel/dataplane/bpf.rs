//! The commands of bpf(2) that the tests need and aya has not: programs written by hand, their pins and test runs, batch lookups.

pub mod maps;

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
pub const PROG_TEST_RUN: libc::c_long = 10;
const MAP_LOOKUP_BATCH: libc::c_long = 24;

const MAP_TYPE_PROG_ARRAY: u32 = 3;
/// A kind of program: `enum bpf_prog_type`, `enum bpf_attach_type`, and flags of its loading.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    program: u32,
    attach: u32,
    flags: u32,
}

/// An XDP program that takes frames of several buffers.
pub const XDP: Kind = Kind { program: 6, attach: 37, flags: 1 << 5 };
/// A selector of a SO_REUSEPORT group.
pub const SELECTOR: Kind = Kind { program: 21, attach: 39, flags: 0 };

/// What a test run is given besides the program.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The frame, at least 14 bytes of it.
    pub frame: &'a [u8],
    /// How many bytes stand in the first buffer, the rest following in others (Linux 6.18): as many as fit if not given.
    pub first_buffer: Option<usize>,
    /// The interface it comes in by; the loopback interface if not given.
    pub interface: Option<u32>,
    /// How often the program is run on it.
    pub repeat: u32,
}

/// What a test run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub verdict: u32,
    /// The frame as the program left it, and what the kernel did not write of a buffer filled with [`DIRT`] and larger than the frame.
    pub frame: Vec<u8>,
    /// What the program put in front of it as metadata.
    pub metadata: Vec<u8>,
    /// The mean duration of one run, in nanoseconds.
    pub nanoseconds: u32,
}

/// What fills every buffer that a test hands out.
pub const DIRT: u8 = 0xa5;
/// How many bytes the output buffer has more than the frame: more than any metadata.
pub const SPARE: usize = 64;
/// A longer frame does not fit the first buffer of a test run: its context, which would say how much of it is there, is not given.
pub const FITS_FIRST_BUFFER: usize = 3_000;

/// `struct xdp_md`.
#[repr(C)]
pub struct Context {
    pub data: u32,
    pub data_end: u32,
    pub data_meta: u32,
    pub ingress_ifindex: u32,
    pub rx_queue_index: u32,
    pub egress_ifindex: u32,
}

/// `union bpf_attr` of a test run.
#[repr(C)]
#[derive(Default)]
pub struct TestRun {
    pub program: u32,
    pub verdict: u32,
    pub size_in: u32,
    pub size_out: u32,
    pub data_in: u64,
    pub data_out: u64,
    pub repeat: u32,
    pub duration: u32,
    pub context_size_in: u32,
    pub context_size_out: u32,
    pub context_in: u64,
    pub context_out: u64,
    pub flags: u32,
    pub cpu: u32,
    pub batch_size: u32,
    pub padding: u32,
}

/// Runs an XDP program on a frame (BPF_PROG_TEST_RUN, net/bpf/test_run.c).
pub fn test_run(program: BorrowedFd<'_>, run: &Run<'_>) -> io::Result<Outcome> {
    let mut frame = vec![DIRT; run.frame.len() + SPARE];
    let context = Context {
        data: 0,
        data_end: number(run.first_buffer.unwrap_or(run.frame.len())),
        data_meta: 0,
        ingress_ifindex: run.interface.unwrap_or(0),
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let has_context = run.first_buffer.is_some() || run.interface.is_some() || run.frame.len() < FITS_FIRST_BUFFER;
    let mut left = Context { data: 0, data_end: 0, data_meta: 0, ingress_ifindex: 0, rx_queue_index: 0, egress_ifindex: 0 };
    let mut attributes = TestRun {
        program: descriptor(program),
        size_in: number(run.frame.len()),
        size_out: number(frame.len()),
        data_in: address(run.frame),
        data_out: frame.as_mut_ptr().expose_provenance() as u64,
        repeat: run.repeat,
        context_size_in: if has_context { number(size_of::<Context>()) } else { 0 },
        context_in: if has_context { (&raw const context).expose_provenance() as u64 } else { 0 },
        context_size_out: if has_context { number(size_of::<Context>()) } else { 0 },
        context_out: if has_context { (&raw mut left).expose_provenance() as u64 } else { 0 },
        ..TestRun::default()
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    // The kernel says how long the frame is now; what lies behind must still be dirt, else it is kept and shows as a difference.
    let length = attributes.size_out as usize;
    let end = frame[length.min(frame.len())..].iter().rposition(|byte| *byte != DIRT).map_or(length, |at| length + at + 1);
    frame.truncate(end);
    // The metadata is what lies before the start of the data, all of it counted from the start of the metadata.
    let metadata = frame.drain(..left.data as usize).collect();
    Ok(Outcome { verdict: attributes.verdict, frame, metadata, nanoseconds: attributes.duration })
}

/// Loads a program of these instructions under a name of at most 15 bytes.
pub fn load(kind: Kind, name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut log = vec![0_u8; 65_536];
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    let mut attributes = Attributes {
        kind: kind.program,
        count: number(instructions.len()),
        instructions: address(instructions),
        license: address(b"Dual MIT/GPL\0"),
        log_level: 1,
        log_size: number(log.len()),
        log: log.as_mut_ptr().expose_provenance() as u64,
        kernel_version: 0,
        flags: kind.flags,
        name: padded,
        interface: 0,
        attach_type: kind.attach,
    };
    made(call(PROG_LOAD, &mut attributes)).map_err(|error| {
        let text: Vec<_> = log.into_iter().take_while(|byte| *byte != 0).collect();
        io::Error::new(error.kind(), format!("{error}: {}", String::from_utf8_lossy(&text)))
    })
}

/// Pins a program at a path below a bpffs, for tools that take one by its name.
pub fn pin(program: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        path: u64,
        program: u32,
        flags: u32,
    }
    let path = std::ffi::CString::new(path).map_err(io::Error::other)?;
    let mut attributes = Attributes { path: address(path.as_bytes_with_nul()), program: descriptor(program), flags: 0 };
    call(OBJ_PIN, &mut attributes).map(drop)
}

/// Makes an array of one program, for tail calls.
pub fn program_array(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        kind: u32,
        key_size: u32,
        value_size: u32,
        entries: u32,
    }
    #[repr(C)]
    struct Update {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let map = made(call(MAP_CREATE, &mut Create { kind: MAP_TYPE_PROG_ARRAY, key_size: 4, value_size: 4, entries: 1 }))?;
    let (key, value) = ([0_u32], [descriptor(program)]);
    let mut update = Update { map: descriptor_of(&map), padding: 0, key: address(&key), value: address(&value), flags: 0 };
    call(MAP_UPDATE_ELEM, &mut update)?;
    Ok(map)
}

/// Reads the first `count` elements of an array whose values are `words` words of 64 bits long (of a per-CPU array: of all CPUs).
pub fn lookup_batch(map: BorrowedFd<'_>, count: usize, words: usize) -> io::Result<Vec<u64>> {
    let mut next = [0_u32];
    let mut keys = vec![0_u32; count];
    let mut values = vec![0_u64; count * words];
    let mut attributes = maps::Batch {
        begin: 0,
        next: next.as_mut_ptr().expose_provenance() as u64,
        keys: keys.as_mut_ptr().expose_provenance() as u64,
        values: values.as_mut_ptr().expose_provenance() as u64,
        count: number(count),
        map: descriptor(map),
        element_flags: 0,
        flags: 0,
    };
    match call(MAP_LOOKUP_BATCH, &mut attributes) {
        Ok(_) => {}
        // The array ended there: all of it has been read.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    assert_eq!(attributes.count as usize, count, "the array has fewer elements");
    Ok(values)
}

/// Instructions (Documentation/bpf/standardization/instruction-set.rst), each as the 64 bits that the kernel reads.
pub mod instruction {
    /// `r(to) = r(from)`.
    pub const fn copy(to: u8, from: u8) -> u64 {
        encode(0xbf, to, from, 0, 0)
    }

    /// `r(to) = value`.
    pub const fn set(to: u8, value: i32) -> u64 {
        encode(0xb7, to, 0, 0, value)
    }

    /// `r(to) += value`.
    pub const fn add(to: u8, value: i32) -> u64 {
        encode(0x07, to, 0, 0, value)
    }

    /// `*(u64 *)(r(base) + offset) = value`, sign-extended.
    pub const fn store(base: u8, offset: i16, value: i32) -> u64 {
        encode(0x7a, base, 0, offset, value)
    }

    /// `*(u32 *)(r(base) + offset) = value`.
    pub const fn store_word_of(base: u8, offset: i16, value: i32) -> u64 {
        encode(0x62, base, 0, offset, value)
    }

    /// `r(to) = *(u32 *)(r(base) + offset)`.
    pub const fn load_word(to: u8, base: u8, offset: i16) -> u64 {
        encode(0x61, to, base, offset, 0)
    }

    /// `r(to) = *(u16 *)(r(base) + offset)`.
    pub const fn load_half(to: u8, base: u8, offset: i16) -> u64 {
        encode(0x69, to, base, offset, 0)
    }

    /// `r(to) = *(u8 *)(r(base) + offset)`.
    pub const fn load_byte(to: u8, base: u8, offset: i16) -> u64 {
        encode(0x71, to, base, offset, 0)
    }

    /// `r(to) &= value`.
    pub const fn and(to: u8, value: i32) -> u64 {
        encode(0x57, to, 0, 0, value)
    }

    /// `if r(register) != value goto` so many instructions on.
    pub const fn jump_unless_equal(register: u8, value: i32, over: i16) -> u64 {
        encode(0x55, register, 0, over, value)
    }

    /// `if r(left) > r(right) goto` so many instructions on.
    pub const fn jump_if_greater(left: u8, right: u8, over: i16) -> u64 {
        encode(0x2d, left, right, over, 0)
    }

    /// `*(u32 *)(r(base) + offset) = r(from)`.
    pub const fn store_word(base: u8, offset: i16, from: u8) -> u64 {
        encode(0x63, base, from, offset, 0)
    }

    /// `*(u16 *)(r(base) + offset) = r(from)`.
    pub const fn store_half(base: u8, offset: i16, from: u8) -> u64 {
        encode(0x6b, base, from, offset, 0)
    }

    /// A helper's call.
    pub const fn call(helper: i32) -> u64 {
        encode(0x85, 0, 0, 0, helper)
    }

    /// `if r(register) != 0 goto` so many instructions on.
    pub const fn jump_if_not_zero(register: u8, over: i16) -> u64 {
        encode(0x55, register, 0, over, 0)
    }

    /// `if r(register) > r(limit) goto` so many instructions on.
    pub const fn jump_if_above(register: u8, limit: u8, over: i16) -> u64 {
        encode(0x2d, register, limit, over, 0)
    }

    /// `r(to) =` a map's address, by its descriptor; two instructions long.
    pub const fn map(to: u8, descriptor: i32) -> [u64; 2] {
        [encode(0x18, to, 1, 0, descriptor), 0]
    }

    /// The end of the program.
    pub const fn exit() -> u64 {
        encode(0x95, 0, 0, 0, 0)
    }

    /// Any instruction, by its fields.
    pub const fn encode(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
        let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), immediate.to_le_bytes());
        u64::from_le_bytes([code, from << 4 | to, a, b, c, d, e, f])
    }
}

/// A command of bpf(2): what it returns, a descriptor for some.
pub fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are laid out as the command wants them (include/uapi/linux/bpf.h), are as long as is said, and every
    // address in them is of a buffer that outlives the call and is as long as its length there says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).expect("a descriptor or 0")) }
}

fn made(result: io::Result<i32>) -> io::Result<OwnedFd> {
    // SAFETY: the command has just made this descriptor, and nobody else knows it.
    result.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A buffer's address, as the attributes want it.
pub fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr().expose_provenance() as u64
}

/// A descriptor's number, as the attributes want it.
pub fn descriptor(of: BorrowedFd<'_>) -> u32 {
    u32::try_from(of.as_raw_fd()).expect("an open descriptor")
}

fn descriptor_of(map: &OwnedFd) -> u32 {
    u32::try_from(map.as_raw_fd()).expect("an open descriptor")
}

/// A size, as the attributes want it.
pub fn number(size: usize) -> u32 {
    u32::try_from(size).expect("a size of 32 bits")
}
