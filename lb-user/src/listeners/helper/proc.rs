//! What the helper reads from /proc. Pure parsing apart from the reading.
//!
//! Processes come and go during a scan: one that is gone is skipped. One that cannot be read is counted, so that the daemon can say so.

use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

/// `anon_inode:[io_uring]` is the longest link of interest; a longer one is cut and then matches nothing.
const LINK_BYTES: usize = 48;
/// Threads of one process whose wait is looked at.
const THREADS: usize = 4096;

/// What a descriptor of a process is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Socket(u32),
    Epoll,
    IoUring,
    Other,
}

/// Reads the target of a /proc/PID/fd link.
pub(super) fn link(target: &[u8]) -> Link {
    match target {
        b"anon_inode:[eventpoll]" => Link::Epoll,
        b"anon_inode:[io_uring]" => Link::IoUring,
        _ => target
            .strip_prefix(b"socket:[")
            .and_then(|rest| rest.strip_suffix(b"]"))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .map_or(Link::Other, Link::Socket),
    }
}

/// The socket that one line of an epoll instance's fdinfo names: `tfd: 4 events: 2019 data: 55 pos:0 ino:a6f1 sdev:9` (`ino` and
/// `sdev` in hexadecimal, `ep_show_fdinfo` in fs/eventpoll.c). None for another line and for a file outside sockfs, whose device is
/// `sockfs` in the kernel's own form: inode numbers are unique only within one file system.
pub(super) fn polled(line: &[u8], sockfs: u32) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let inode = fields.find_map(|field| field.strip_prefix("ino:"))?;
    let device = fields.find_map(|field| field.strip_prefix("sdev:"))?;
    (u32::from_str_radix(device, 16) == Ok(sockfs)).then(|| u32::from_str_radix(inode, 16).ok())?
}

/// Ways to serve a socket without epoll; bits of a `Waits` row.
pub(super) const WAITS_IN_CALL: u32 = 1;
pub(super) const WAITS_IN_POLL: u32 = 2;
pub(super) const WAITS_IN_RING: u32 = 4;

/// What a thread waits in, by the kernel function that /proc/PID/task/TID/wchan names.
///
/// accept: `inet_csk_accept` and `inet_csk_wait_for_connect`; recvmsg of UDP: `__skb_wait_for_more_packets`; poll and select:
/// `do_sys_poll`, `do_poll`, `do_select`, `poll_schedule_timeout`. A compiler's suffix (`.isra.0`) may follow.
pub(super) fn wait(function: &[u8]) -> u32 {
    const CALLS: [&[u8]; 3] = [b"inet_csk_accept", b"inet_csk_wait_for_connect", b"__skb_wait_for_more_packets"];
    const POLLS: [&[u8]; 4] = [b"do_sys_poll", b"do_poll", b"do_select", b"poll_schedule_timeout"];
    let any = |names: &[&[u8]]| names.iter().any(|name| function.starts_with(name));
    if any(&CALLS) {
        WAITS_IN_CALL
    } else if any(&POLLS) {
        WAITS_IN_POLL
    } else {
        0
    }
}

/// The /proc of this process's pid namespace.
#[derive(Debug)]
pub(super) struct Proc {
    root: OwnedFd,
    entries: Vec<u8>,
    threads: Vec<u8>,
}

impl Proc {
    pub(super) fn open() -> io::Result<Self> {
        let root = rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, entries: Vec::with_capacity(32 * 1024), threads: Vec::with_capacity(4 * 1024) })
    }

    fn directory(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Every process, in the order of /proc, which is ascending.
    pub(super) fn pids(&mut self) -> io::Result<Vec<u32>> {
        let directory = self.directory(".")?;
        let mut pids = Vec::new();
        let mut entries = RawDir::new(&directory, self.entries.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    /// Calls `each` for every descriptor of a process, ascending, until it breaks off. The threads of a process share one table, unless one of them has
    /// unshared it; such a thread's own descriptors are not seen.
    pub(super) fn descriptors(&mut self, pid: u32, mut each: impl FnMut(i32, Link) -> ControlFlow<()>) -> rustix::io::Result<()> {
        let directory = self.directory(&format!("{pid}/fd"))?;
        let mut entries = RawDir::new(&directory, self.entries.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(descriptor) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            let mut target = [MaybeUninit::uninit(); LINK_BYTES];
            match readlinkat_raw(&directory, entry.file_name(), &mut target[..]) {
                Ok((target, _)) => {
                    if each(descriptor, link(target)).is_break() {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The command name, padded with zeros.
    pub(super) fn command(&self, pid: u32) -> [u8; 16] {
        let mut name = [0; 16];
        if let Ok(file) = openat(&self.root, format!("{pid}/comm"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            let length = rustix::io::read(&file, &mut name[..]).unwrap_or(0);
            let end = name[..length].iter().position(|&byte| byte == b'\n').unwrap_or(length);
            name[end..].fill(0);
        }
        name
    }

    /// Calls `each` with the inode of every socket in an epoll instance.
    pub(super) fn epoll(&self, pid: u32, descriptor: i32, sockfs: u32, mut each: impl FnMut(u32)) -> rustix::io::Result<()> {
        let file = openat(&self.root, format!("{pid}/fdinfo/{descriptor}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        read_lines(&file, |line| each_polled(line, sockfs, &mut each))
    }

    /// In what calls the threads of a process wait, as `WAITS_IN_*` bits.
    pub(super) fn waits(&mut self, pid: u32) -> rustix::io::Result<u32> {
        let mut bits = 0;
        self.descriptors(pid, |_, link| {
            if link == Link::IoUring {
                bits |= WAITS_IN_RING;
            }
            ControlFlow::Continue(())
        })?;
        let directory = self.directory(&format!("{pid}/task"))?;
        let mut threads = RawDir::new(&directory, self.threads.spare_capacity_mut());
        for _ in 0..THREADS {
            let Some(thread) = threads.next() else { break };
            let thread = thread?;
            let Some(number) = thread.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(file) = openat(&directory, format!("{number}/wchan"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { continue };
            let mut function = [0; 64];
            if let Ok(length) = rustix::io::read(&file, &mut function[..]) {
                bits |= wait(&function[..length]);
            }
        }
        Ok(bits)
    }
}

fn each_polled(line: &[u8], sockfs: u32, each: &mut impl FnMut(u32)) {
    if let Some(inode) = polled(line, sockfs) {
        each(inode);
    }
}

/// Calls `each` with every line of a file. A line that does not fit the buffer is dropped.
fn read_lines(file: impl AsFd, mut each: impl FnMut(&[u8])) -> rustix::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut kept = 0;
    loop {
        let length = match rustix::io::read(&file, &mut buffer[kept..]) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let filled = kept + length;
        let mut rest = &buffer[..filled];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            each(&rest[..end]);
            rest = &rest[end + 1..];
        }
        if length == 0 {
            each(rest);
            return Ok(());
        }
        kept = if rest.len() == buffer.len() { 0 } else { rest.len() };
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn links_are_told_apart() {
        assert_eq!(link(b"socket:[42737]"), Link::Socket(42737));
        assert_eq!(link(b"anon_inode:[eventpoll]"), Link::Epoll);
        assert_eq!(link(b"anon_inode:[io_uring]"), Link::IoUring);
        for other in [&b"socket:[x]"[..], b"socket:[4294967296]", b"socket:[1", b"/tmp/socket:[1]", b"pipe:[1]", b""] {
            assert_eq!(link(other), Link::Other, "{other:?}");
        }
    }

    #[test]
    fn epoll_lines_name_sockets_of_sockfs_only() {
        let line = b"tfd:        4 events:     2019 data:     5587be679e90  pos:0 ino:a6f1 sdev:9";
        assert_eq!(polled(line, 9), Some(0xa6f1));
        assert_eq!(polled(line, 10), None);
        for other in
            [&b"pos:\t0"[..], b"ino:\t1038", b"tfd: 4 events: 19", b"tfd: 4 ino:xyz sdev:9", b"tfd: 4 ino:1ffffffff sdev:9", b"\xff"]
        {
            assert_eq!(polled(other, 9), None, "{other:?}");
        }
    }

    #[test]
    fn waits_are_known_by_the_kernel_function() {
        assert_eq!(wait(b"inet_csk_accept"), WAITS_IN_CALL);
        assert_eq!(wait(b"__skb_wait_for_more_packets"), WAITS_IN_CALL);
        assert_eq!(wait(b"do_sys_poll.constprop.0"), WAITS_IN_POLL);
        for other in [&b"do_epoll_wait"[..], b"sigsuspend.isra.0", b"0", b""] {
            assert_eq!(wait(other), 0);
        }
    }

    #[test]
    fn lines_are_whole_across_reads() {
        let mut file = tempfile();
        let text = (0..5000).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
        io::Write::write_all(&mut file, text.as_bytes()).expect("write");
        io::Seek::rewind(&mut file).expect("rewind");
        let mut lines = Vec::new();
        read_lines(&file, |line| lines.push(String::from_utf8(line.to_vec()).expect("text"))).expect("read");
        assert_eq!(lines.join("\n"), text);
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("lines", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd").into()
    }

    #[test]
    fn this_process_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let inode = u32::try_from(crate::listeners::socket::inode(&listener).expect("inode")).expect("32 bits");
        let mut proc = Proc::open().expect("open");
        let pid = std::process::id();
        let pids = proc.pids().expect("pids");
        assert!(pids.contains(&pid) && pids.is_sorted());
        let mut found = Vec::new();
        let mut collect = |descriptor, link| {
            found.push((descriptor, link));
            ControlFlow::Continue(())
        };
        proc.descriptors(pid, &mut collect).expect("descriptors");
        assert!(found.contains(&(listener.as_raw_fd(), Link::Socket(inode))));
        assert_ne!(proc.command(pid)[0], 0);
        let mut seen = 0;
        let first_only = |_, _| {
            seen += 1;
            ControlFlow::Break(())
        };
        proc.descriptors(pid, first_only).expect("descriptors");
        assert_eq!(seen, 1);
        assert_eq!(proc.descriptors(u32::MAX, |_, _| ControlFlow::Continue(())), Err(Errno::NOENT));
    }
}
