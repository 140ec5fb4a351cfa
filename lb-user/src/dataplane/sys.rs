//! The bpf(2) commands that aya 0.14 does not offer: batch updates, links of our own making, iterators with a target, socket options.
//!
//! Each function is safe to call: the attributes are built here, and every pointer in them is to memory that outlives the call.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use zerocopy::{Immutable, IntoBytes};

/// The commands of bpf(2), include/uapi/linux/bpf.h.
#[derive(Clone, Copy)]
enum Command {
    MapLookupElem = 1,
    MapUpdateElem = 2,
    MapDeleteElem = 3,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    RawTracepointOpen = 17,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
    IterCreate = 33,
}

/// What a link attaches to: `enum bpf_attach_type`.
#[derive(Clone, Copy)]
enum AttachType {
    TraceIter = 28,
    Xdp = 37,
    TcxIngress = 46,
}

/// How an XDP program is attached (`XDP_FLAGS_*`, include/uapi/linux/if_link.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the network stack, for any device.
    Generic,
    /// In the device's driver.
    Native,
}

fn bpf<A: IntoBytes + Immutable>(command: Command, attributes: &A) -> io::Result<i32> {
    let bytes = attributes.as_bytes();
    // SAFETY: the kernel reads `bytes.len()` bytes of attributes; the callers below put only pointers to live memory in them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, bytes.as_ptr(), bytes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

fn descriptor(result: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(result) }
}

fn number(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Sets many elements of a map by one call: `keys[n]` to `values[n]`.
///
/// For a map of maps the values are descriptors of the inner maps, and the call returns after one RCU grace period: no program still
/// reads what was there before.
pub fn update_batch<V: IntoBytes + Immutable>(map: impl AsFd, keys: &[u32], values: &[V]) -> io::Result<()> {
    if keys.len() != values.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    if keys.is_empty() {
        return Ok(());
    }
    let attributes = BatchAttributes {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map: number(map),
        elem_flags: 0,
        flags: 0,
    };
    bpf(Command::MapUpdateBatch, &attributes).map(drop)
}

/// Writes all elements of an array of 32-bit values that was made with BPF_F_MMAPABLE: 65,537 in a tenth of a millisecond, where a
/// batch update takes a hundred times as long.
pub fn write_array(map: impl AsFd, elements: &[u32]) -> io::Result<()> {
    /// An element takes a multiple of eight bytes (`array_map_alloc`, kernel/bpf/arraymap.c).
    const STRIDE: usize = 8;
    if elements.is_empty() {
        return Ok(());
    }
    let length = elements.len() * STRIDE;
    let (protection, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, map.as_fd().as_raw_fd());
    // SAFETY: the kernel chooses where, so no memory of ours is replaced.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, descriptor, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for (index, element) in elements.iter().enumerate() {
        // SAFETY: the mapping is `length` bytes long and begins at a page; the kernel refuses one that is longer than the array. Nobody
        // else writes there: the map is in no map of maps yet.
        unsafe { base.byte_add(index * STRIDE).cast::<u32>().write(*element) };
    }
    // SAFETY: the mapping is ours, and no reference into it is left.
    if unsafe { libc::munmap(base, length) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets one element of a map whose values are descriptors as 64-bit numbers: a socket array.
pub fn set_descriptor(map: impl AsFd, key: u32, value: impl AsFd) -> io::Result<()> {
    let value = u64::from(number(value));
    let attributes =
        ElementAttributes { map: number(map), padding: 0, key: address(&raw const key), value: address(&raw const value), flags: 0 };
    bpf(Command::MapUpdateElem, &attributes).map(drop)
}

/// The value of one element of a map whose values have 64 bits, such as the cookie of the socket in a slot of a socket array.
pub fn lookup(map: impl AsFd, key: u32) -> io::Result<Option<u64>> {
    let mut value = 0u64;
    let attributes =
        ElementAttributes { map: number(map), padding: 0, key: address(&raw const key), value: address(&raw mut value), flags: 0 };
    match bpf(Command::MapLookupElem, &attributes) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the value of one element, which is as long as `value`.
pub fn lookup_bytes(map: impl AsFd, key: u32, value: &mut [u8]) -> io::Result<()> {
    let attributes =
        ElementAttributes { map: number(map), padding: 0, key: address(&raw const key), value: address(value.as_mut_ptr()), flags: 0 };
    bpf(Command::MapLookupElem, &attributes).map(drop)
}

/// Removes one element. That there was none is no error.
pub fn delete(map: impl AsFd, key: u32) -> io::Result<()> {
    let attributes = ElementAttributes { map: number(map), padding: 0, key: address(&raw const key), value: 0, flags: 0 };
    match bpf(Command::MapDeleteElem, &attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreateAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// Attaches an XDP program to an interface by a link.
pub fn link_xdp(program: impl AsFd, interface: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let flags = match mode {
        XdpMode::Generic => 1 << 1,
        XdpMode::Native => 1 << 2,
    };
    let attributes = LinkCreateAttributes {
        program: number(program),
        target: interface,
        attach_type: AttachType::Xdp as u32,
        flags,
        iter_info: 0,
        iter_info_len: 0,
        padding: 0,
    };
    bpf(Command::LinkCreate, &attributes).map(descriptor)
}

/// Attaches a tc program by a link to what comes in by an interface, before all others there: one of those may keep a packet to itself.
pub fn link_tcx(program: impl AsFd, interface: u32) -> io::Result<OwnedFd> {
    /// `BPF_F_BEFORE`, relative to nothing.
    const FIRST: u32 = 1 << 3;
    let attributes = LinkCreateAttributes {
        program: number(program),
        target: interface,
        attach_type: AttachType::TcxIngress as u32,
        flags: FIRST,
        iter_info: 0,
        iter_info_len: 0,
        padding: 0,
    };
    bpf(Command::LinkCreate, &attributes).map(descriptor)
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkUpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link, atomically.
pub fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    bpf(Command::LinkUpdate, &LinkUpdateAttributes { link: number(link), program: number(program), flags: 0, old_program: 0 }).map(drop)
}

/// Detaches a link, whoever else still holds it.
pub fn detach_link(link: impl AsFd) -> io::Result<()> {
    bpf(Command::LinkDetach, &number(link)).map(drop)
}

/// `struct xdp_md`: where the frame begins in what is handed over, and where it comes in.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct TestRunAttributes {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Lets a frame with metadata before it come in by an interface of the calling thread's namespace, as if its driver had run this XDP
/// program on it (Linux 5.18). When it returns, the stack has the frame.
pub fn receive(program: impl AsFd, metadata: &[u8], frame: &[u8], interface: u32) -> io::Result<()> {
    /// `BPF_F_TEST_XDP_LIVE_FRAMES`
    const LIVE: u32 = 1 << 1;
    let bytes = [metadata, frame].concat();
    let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let context = XdpContext {
        data: size(metadata.len())?,
        data_end: size(bytes.len())?,
        data_meta: 0,
        ingress_ifindex: interface,
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    let attributes = TestRunAttributes {
        program: number(program),
        verdict: 0,
        size_in: size(bytes.len())?,
        size_out: 0,
        data_in: address(bytes.as_ptr()),
        data_out: 0,
        repeat: 1,
        duration: 0,
        context_size_in: size(size_of::<XdpContext>())?,
        context_size_out: 0,
        context_in: address(&raw const context),
        context_out: 0,
        flags: LIVE,
        cpu: 0,
        batch_size: 1,
        padding: 0,
    };
    bpf(Command::ProgTestRun, &attributes).map(drop)
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawTracepointAttributes {
    name: u64,
    program: u32,
    padding: u32,
}

/// Attaches a program to the tracepoint, or the exit of a function, that it was loaded for.
pub fn link_tracepoint(program: impl AsFd) -> io::Result<OwnedFd> {
    bpf(Command::RawTracepointOpen, &RawTracepointAttributes { name: 0, program: number(program), padding: 0 }).map(descriptor)
}

/// `union bpf_iter_link_info` for the iterators over tasks.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IterateTask {
    tid: u32,
    pid: u32,
    pid_fd: u32,
}

/// Runs an iterator over the files of one process and returns what it wrote as a file to read.
pub fn iterate_files(program: impl AsFd, pid: u32) -> io::Result<File> {
    iterate(program, &IterateTask { tid: 0, pid, pid_fd: 0 })
}

/// Runs an iterator over the sockets that have a value in a map and returns what it wrote as a file to read.
pub fn iterate_storage(program: impl AsFd, map: impl AsFd) -> io::Result<File> {
    // `union bpf_iter_link_info` with the map's descriptor.
    let target = number(map);
    iterate(program, &target)
}

/// Runs an iterator over what the target says.
fn iterate<T: IntoBytes + Immutable>(program: impl AsFd, target: &T) -> io::Result<File> {
    let attributes = LinkCreateAttributes {
        program: number(program),
        target: 0,
        attach_type: AttachType::TraceIter as u32,
        flags: 0,
        iter_info: address(std::ptr::from_ref(target)),
        iter_info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        padding: 0,
    };
    let link = bpf(Command::LinkCreate, &attributes).map(descriptor)?;
    let file = bpf(Command::IterCreate, &[number(&link), 0]).map(descriptor)?;
    Ok(File::from(file))
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins a map, a program or a link. An existing pin is an error.
pub fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(Command::ObjPin, &ObjectAttributes { path: address(path.as_ptr()), fd: number(object), flags: 0 }).map(drop)
}

/// Opens what is pinned at a path; `None` if nothing is.
pub fn open_pin(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    match bpf(Command::ObjGet, &ObjectAttributes { path: address(path.as_ptr()), fd: 0, flags: 0 }) {
        Ok(fd) => Ok(Some(descriptor(fd))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the SO_REUSEPORT group of a socket the program that selects among its sockets, in place of the one it has, atomically.
pub fn attach_selector(socket: impl AsFd, program: impl AsFd) -> io::Result<()> {
    set_socket_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, number(program))
}

/// Leaves the SO_REUSEPORT group of a socket to the kernel's own hash. That it had no program is no error.
pub fn detach_selector(socket: impl AsFd) -> io::Result<()> {
    match set_socket_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Sets a socket option whose value has 32 bits.
pub fn set_socket_option(socket: impl AsFd, level: i32, option: i32, value: u32) -> io::Result<()> {
    // SAFETY: the option's value is the 4 bytes at `value`, which live until the call returns.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many packets a socket has dropped (`SK_MEMINFO_DROPS` of include/uapi/linux/sock_diag.h).
pub fn dropped_by_socket(socket: impl AsFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut information = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&information)).map_err(io::Error::other)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to the array, and how many to `length`; both live until the call returns.
    let result =
        unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_MEMINFO, information.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(information[SK_MEMINFO_DROPS]) }
}

/// How many bytes of `struct tcp_info` are asked for: up to `tcpi_rcv_wnd`.
pub const TCP_INFORMATION: usize = 236;

/// What the kernel tells of a TCP connection: the start of `struct tcp_info` (include/uapi/linux/tcp.h), zeros where it tells less.
pub fn tcp_information(socket: impl AsFd) -> io::Result<[u8; TCP_INFORMATION]> {
    let mut information = [0; TCP_INFORMATION];
    let mut length = libc::socklen_t::try_from(TCP_INFORMATION).map_err(io::Error::other)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to the array, and how many to `length`; both live until the call returns.
    let result =
        unsafe { libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, information.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(information) }
}
