//! The helper's side: it waits for a request, answers it, and does nothing else.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::kcmp;
use super::proc::{Link, Proc};
use super::wire::{self, HOLDER_WORDS, Kind, REPLY_WORDS, REQUEST_WORDS, Selection};
use super::{HOLDERS_PER_SOCKET, Refusal};
use crate::listeners::socket::{self, Kind as SocketKind};

/// Sockets of one process that are asked for one by one, each a walk over the members of its epoll instance. Beyond this one pass over
/// fdinfo is cheaper, though it holds the instance's lock for longer.
const KCMP_SOCKETS: usize = 64;

/// What the helper needs for its answers.
#[derive(Debug)]
pub(super) struct Answerer {
    proc: Proc,
    /// The device of sockfs in the form of `st_dev`, and in the form that epoll's fdinfo prints.
    sockfs: u64,
    sockfs_printed: u32,
}

/// Answers requests until the daemon closes its end.
pub(super) fn serve(channel: BorrowedFd<'_>, mut answerer: Answerer) -> io::Result<()> {
    loop {
        let Some((kind, request, body)) = receive_request(channel)? else { return Ok(()) };
        match answerer.answer(kind, &body) {
            Ok(Answer::Rows(rows)) => wire::send(channel, Kind::Rows, request, &rows)?,
            Ok(Answer::Socket(taken)) => wire::hand_over(channel, request, taken)?,
            Err(refusal) => wire::send(channel, Kind::Refused, request, &refusal.to_words())?,
        }
    }
}

fn receive_request(channel: BorrowedFd<'_>) -> io::Result<Option<(Kind, u32, Vec<u32>)>> {
    let mut body: Vec<u32> = Vec::new();
    loop {
        let packet = match wire::receive(channel, RecvFlags::empty()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let Some(packet) = packet else { return Ok(None) };
        // A request beyond the limit is cut: then its count does not fit its length, and it is refused as malformed.
        let space = REQUEST_WORDS.saturating_sub(body.len()).min(packet.body.len());
        body.extend_from_slice(&packet.body[..space]);
        if !packet.more {
            return Ok(Some((packet.kind, packet.request, body)));
        }
    }
}

enum Answer {
    Rows(Vec<u32>),
    Socket(OwnedFd),
}

impl Answerer {
    /// `channel` is any socket: its device is that of all sockets.
    pub(super) fn new(channel: BorrowedFd<'_>) -> io::Result<Self> {
        let sockfs = rustix::fs::fstat(channel)?.st_dev;
        // st_dev is new_encode_dev(); the kernel prints the device itself, 20 bits of minor below 12 of major (linux/kdev_t.h).
        let sockfs_printed = rustix::fs::major(sockfs) << 20 | rustix::fs::minor(sockfs);
        Ok(Self { proc: Proc::open()?, sockfs, sockfs_printed })
    }

    fn answer(&mut self, kind: Kind, body: &[u32]) -> Result<Answer, Refusal> {
        let selection = || Selection::from_words(body).ok_or(Refusal::Malformed);
        match kind {
            Kind::Holders => self.holders(&selection()?).map(Answer::Rows),
            Kind::Pollers => self.pollers(&selection()?).map(Answer::Rows),
            Kind::StillPolled => self.still_polled(body).map(Answer::Rows),
            Kind::Waits => self.waits(body).map(Answer::Rows),
            Kind::Take => match *body {
                [inode, pid, descriptor] => self.take(inode, pid, descriptor.cast_signed()).map(Answer::Socket),
                _ => Err(Refusal::Malformed),
            },
            Kind::Ready | Kind::Failed | Kind::Rows | Kind::Taken | Kind::Refused => Err(Refusal::Malformed),
        }
    }

    fn pids(&mut self, selection: &Selection) -> Result<Vec<u32>, Refusal> {
        if selection.pids.is_empty() { self.proc.pids().map_err(Refusal::from) } else { Ok(selection.pids.clone()) }
    }

    fn holders(&mut self, selection: &Selection) -> Result<Vec<u32>, Refusal> {
        let mut seen = vec![0; selection.inodes.len()];
        let mut rows = vec![0];
        let mut held = Vec::new();
        for pid in self.pids(selection)? {
            held.clear();
            let result = self.proc.descriptors(pid, |descriptor, link| {
                if let Link::Socket(inode) = link {
                    match selection.inodes.binary_search(&inode) {
                        Ok(at) if seen[at] < HOLDERS_PER_SOCKET => {
                            seen[at] += 1;
                            held.push((inode, descriptor));
                        }
                        Err(_) if selection.inodes.is_empty() => held.push((inode, descriptor)),
                        _ => {}
                    }
                }
                ControlFlow::Continue(())
            });
            count_denied(result, &mut rows)?;
            if held.is_empty() {
                continue;
            }
            if rows.len() + held.len() * HOLDER_WORDS > REPLY_WORDS {
                return Err(Refusal::TooMuch);
            }
            let command = self.proc.command(pid);
            // Ascending by descriptor: /proc lists them so.
            for &(inode, descriptor) in &held {
                rows.extend([inode, pid, descriptor.cast_unsigned()]);
                rows.extend(command.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)));
            }
        }
        Ok(rows)
    }

    fn pollers(&mut self, selection: &Selection) -> Result<Vec<u32>, Refusal> {
        let mut rows = vec![0];
        for pid in self.pids(selection)? {
            let wanted = |inode: u32| selection.inodes.is_empty() || selection.inodes.binary_search(&inode).is_ok();
            self.polled(pid, wanted, usize::MAX, &mut rows)?;
        }
        Ok(rows)
    }

    fn still_polled(&mut self, pairs: &[u32]) -> Result<Vec<u32>, Refusal> {
        let (pairs, []) = pairs.as_chunks::<2>() else { return Err(Refusal::Malformed) };
        if !pairs.is_sorted_by(|left, right| left < right) {
            return Err(Refusal::Malformed);
        }
        let mut rows = vec![0];
        for of_process in pairs.chunk_by(|left, right| left[0] == right[0]) {
            let wanted = |inode: u32| of_process.binary_search_by_key(&inode, |pair| pair[1]).is_ok();
            self.polled(of_process[0][0], wanted, of_process.len(), &mut rows)?;
        }
        Ok(rows)
    }

    /// Adds a row (inode, pid) for each wanted socket that this process has in an epoll instance. `all` is how many there can be: the
    /// search ends when they are found, which with servers is early, as they open these descriptors before their connections.
    fn polled(&mut self, pid: u32, wanted: impl Fn(u32) -> bool, all: usize, rows: &mut Vec<u32>) -> Result<(), Refusal> {
        let (mut instances, mut held, mut polled) = (Vec::new(), Vec::new(), Vec::new());
        let mut ask = |instance, (inode, descriptor): (u32, i32)| {
            if !polled.contains(&inode) && kcmp::polls(pid, instance, descriptor) == Ok(true) {
                polled.push(inode);
            }
            polled.len()
        };
        let result = self.proc.descriptors(pid, |descriptor, link| {
            let mut found = 0;
            match link {
                Link::Epoll => {
                    instances.push(descriptor);
                    for &socket in held.iter().take(KCMP_SOCKETS) {
                        found = ask(descriptor, socket);
                    }
                }
                Link::Socket(inode) if wanted(inode) => {
                    held.push((inode, descriptor));
                    for &instance in instances.iter().filter(|_| held.len() <= KCMP_SOCKETS) {
                        found = ask(instance, (inode, descriptor));
                    }
                }
                Link::Socket(_) | Link::IoUring | Link::Other => {}
            }
            if found == all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        count_denied(result, rows)?;
        // A process that holds none of the sockets is never asked for its fdinfo.
        if held.is_empty() {
            return Ok(());
        }
        // Too many to ask for, or nothing found: the kernel may lack kcmp, or a socket was registered under a number that was closed since.
        if held.len() > KCMP_SOCKETS || polled.is_empty() {
            for &instance in &instances {
                let result = self.proc.epoll(pid, instance, self.sockfs_printed, |inode| {
                    if wanted(inode) {
                        polled.push(inode);
                    }
                });
                count_denied(result, rows)?;
            }
        }
        polled.sort_unstable();
        polled.dedup();
        if rows.len() + polled.len() * 2 > REPLY_WORDS {
            return Err(Refusal::TooMuch);
        }
        rows.extend(polled.iter().flat_map(|&inode| [inode, pid]));
        Ok(())
    }

    fn waits(&mut self, pids: &[u32]) -> Result<Vec<u32>, Refusal> {
        let mut rows = vec![0];
        for &pid in pids {
            let result = self.proc.waits(pid);
            if let Ok(bits) = result {
                rows.extend([pid, bits]);
            }
            count_denied(result.map(|_| ()), &mut rows)?;
        }
        Ok(rows)
    }

    /// Takes the socket and then looks at what was taken: the process may have closed it, or ended and its pid been used again, at any
    /// moment before, but what a descriptor refers to does not change any more.
    fn take(&self, inode: u32, pid: u32, descriptor: i32) -> Result<OwnedFd, Refusal> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Refusal::NoSuchProcess)?;
        if descriptor < 0 {
            return Err(Refusal::NoSuchDescriptor);
        }
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH | Errno::INVAL => Refusal::NoSuchProcess,
            other => other.into(),
        })?;
        let taken = pidfd_getfd(&process, descriptor, PidfdGetfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => Refusal::NoSuchProcess,
            Errno::BADF => Refusal::NoSuchDescriptor,
            Errno::PERM => Refusal::Denied,
            other => other.into(),
        })?;
        let status = rustix::fs::fstat(&taken).map_err(Refusal::from)?;
        if status.st_dev != self.sockfs || status.st_ino != u64::from(inode) {
            return Err(Refusal::AnotherSocket);
        }
        match socket::kind(&taken).map_err(Refusal::from)? {
            SocketKind::TcpListener | SocketKind::UdpBound => Ok(taken),
            SocketKind::Other => Err(Refusal::NotAListener),
        }
    }
}

/// Counts a process that may not be read in the first word; one that is gone is nothing.
fn count_denied(result: rustix::io::Result<()>, rows: &mut [u32]) -> Result<(), Refusal> {
    match result {
        Ok(()) | Err(Errno::NOENT | Errno::SRCH) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => {
            if let Some(denied) = rows.first_mut() {
                *denied += 1;
            }
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}
