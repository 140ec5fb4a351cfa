//! Programs that are not Weir's: a few instructions each, loaded and attached by hand.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::programs::ProgramInfo;

use crate::dataplane::bpf::{self, Kind, instruction};

const OBJ_GET: libc::c_long = 7;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

const ATTACH_TYPE_XDP: u32 = 37;

const NATIVE: u32 = 1 << 2;
const GENERIC: u32 = 1 << 1;

/// `struct bpf_attr` of BPF_LINK_CREATE for XDP.
#[repr(C)]
struct Link {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// An XDP program named `stranger` that passes everything.
pub fn xdp() -> OwnedFd {
    load(bpf::XDP, 2)
}

/// An XDP program that sends every frame back to where it came from.
pub fn bouncer() -> OwnedFd {
    use instruction::{add, copy, exit, jump_if_above, load_half, load_word, set, store_half, store_word};
    const TX: i32 = 3;
    const PASS: i32 = 2;
    let swap = [
        // r2 = data, r3 = data_end; the header's 14 bytes have to be there.
        load_word(2, 1, 0),
        load_word(3, 1, 4),
        copy(4, 2),
        add(4, 14),
        jump_if_above(4, 3, 10),
        load_word(5, 2, 0),
        load_half(6, 2, 4),
        load_word(7, 2, 6),
        load_half(8, 2, 10),
        store_word(2, 0, 7),
        store_half(2, 4, 8),
        store_word(2, 6, 5),
        store_half(2, 10, 6),
        set(0, TX),
        exit(),
        set(0, PASS),
        exit(),
    ];
    bpf::load(bpf::XDP, "bouncer", &swap).expect("the verifier takes the program")
}

/// A sk_reuseport program named `stranger` that leaves the choice to the kernel.
pub fn selector() -> OwnedFd {
    load(bpf::SELECTOR, 1)
}

/// Attaches an XDP program to the interface of that name in the calling thread's namespace, until the link is dropped.
pub fn link_xdp(program: &OwnedFd, interface: &str, native: bool) -> OwnedFd {
    let index = nix::net::if_::if_nametoindex(interface).expect("the interface's index");
    let flags = if native { NATIVE } else { GENERIC };
    made(LINK_CREATE, &Link { program: number(program), interface: index, attach_type: ATTACH_TYPE_XDP, flags })
}

/// Puts a program in the place of the one that a pinned link holds.
pub fn replace(pin: &Path, program: &OwnedFd) {
    #[repr(C)]
    struct Get {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let link = made(OBJ_GET, &Get { path: path.as_ptr().expose_provenance() as u64, descriptor: 0, flags: 0 });
    let result = call(LINK_UPDATE, &[number(&link), number(program), 0, 0]);
    assert_eq!(result, 0, "replace the program of {}: {}", pin.display(), io::Error::last_os_error());
}

/// Gives the group of a socket this selector.
pub fn attach_selector(socket: &impl AsRawFd, program: &OwnedFd) {
    let program = program.as_raw_fd();
    // SAFETY: the value is a descriptor's number, of the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_EBPF,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<i32>()).expect("four"),
        )
    };
    assert_eq!(result, 0, "attach a selector: {}", io::Error::last_os_error());
}

/// The id of a program of this process.
pub fn id(program: &OwnedFd) -> u32 {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).expect("read the program's fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("prog_id:")).expect("the kernel says the id");
    line.trim().parse().expect("a number")
}

/// Whether a program still exists.
pub fn exists(id: u32) -> bool {
    aya::programs::loaded_programs().map_while(Result::ok).any(|program: ProgramInfo| program.id() == id)
}

/// `r0 = value; exit`
fn load(kind: Kind, value: i32) -> OwnedFd {
    bpf::load(kind, "stranger", &[instruction::set(0, value), instruction::exit()]).expect("a program of two instructions")
}

fn number(descriptor: &OwnedFd) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

fn call<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
    // SAFETY: the attributes are a structure of plain numbers without padding, and what they point to outlives the call.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) }
}

fn made<T>(command: libc::c_long, attributes: &T) -> OwnedFd {
    let result = call(command, attributes);
    assert!(result >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(result).expect("a descriptor")) }
}
