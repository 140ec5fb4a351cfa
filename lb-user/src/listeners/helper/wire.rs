//! What daemon and helper say to each other over a `SOCK_SEQPACKET` socket pair.
//!
//! A message is one packet or several. Each packet is a run of 32-bit words in host byte order: kind, 1 if more packets of the message
//! follow or else 0, the number of the request, then up to [`PACKET_WORDS`] words of the body. Both ends check every length.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};

/// Words before the body of each packet.
const HEADER_WORDS: usize = 3;
/// Words of a body in one packet: 32 KiB, well below the default send buffer.
pub(super) const PACKET_WORDS: usize = 8 * 1024;
/// Words of a whole request: the inodes of four full sockarrays.
pub(super) const REQUEST_WORDS: usize = 256 * 1024;
/// Words of a whole reply, 16 MiB.
pub(super) const REPLY_WORDS: usize = 4 * 1024 * 1024;
/// Words of one entry of a `Holders` reply: inode, pid, descriptor, 16 bytes of command name.
pub(super) const HOLDER_WORDS: usize = 7;

/// The kind of a message. Requests are the daemon's, the others the helper's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Request: who holds these sockets. Body as [`Selection`].
    Holders = 1,
    /// Request: hand over one socket. Body: inode, pid, descriptor.
    Take = 2,
    /// Request: which processes poll these sockets. Body as [`Selection`].
    Pollers = 3,
    /// Request: how these processes wait. Body: pids.
    Waits = 4,
    /// Request: which of these processes still poll these sockets. Body: pairs of pid and inode, ascending.
    StillPolled = 5,
    /// The helper is confined and ready. No body.
    Ready = 100,
    /// The helper could not confine itself and exits. Body: step, errno.
    Failed = 101,
    /// The rows asked for. Body: number of processes that could not be read, then the rows.
    Rows = 102,
    /// The socket asked for, as `SCM_RIGHTS` of the first packet; the last says that the helper has closed its own. No body.
    Taken = 103,
    /// No. Body: a [`super::Refusal`] as two words.
    Refused = 104,
}

impl Kind {
    fn from_word(word: u32) -> Option<Self> {
        [
            Self::Holders,
            Self::Take,
            Self::Pollers,
            Self::Waits,
            Self::StillPolled,
            Self::Ready,
            Self::Failed,
            Self::Rows,
            Self::Taken,
            Self::Refused,
        ]
        .into_iter()
        .find(|&kind| kind as u32 == word)
    }
}

/// Which sockets and which processes a question is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Inodes, sorted. Empty: every socket of the processes.
    pub inodes: Vec<u32>,
    /// Pids, sorted. Empty: every process.
    pub pids: Vec<u32>,
}

impl Selection {
    pub(super) fn new(inodes: &[u32], pids: &[u32]) -> Self {
        let sorted = |words: &[u32]| {
            let mut words = words.to_vec();
            words.sort_unstable();
            words.dedup();
            words
        };
        Self { inodes: sorted(inodes), pids: sorted(pids) }
    }

    /// The number of inodes, the inodes, the pids.
    pub(super) fn to_words(&self) -> Vec<u32> {
        let mut words = vec![u32::try_from(self.inodes.len()).unwrap_or(u32::MAX)];
        words.extend_from_slice(&self.inodes);
        words.extend_from_slice(&self.pids);
        words
    }

    /// None if the count is wrong, the order is not strict, or it asks for every socket of every process.
    pub(super) fn from_words(words: &[u32]) -> Option<Self> {
        let (&count, rest) = words.split_first()?;
        let (inodes, pids) = rest.split_at_checked(count as usize)?;
        let strict = |words: &[u32]| words.windows(2).all(|pair| pair[0] < pair[1]);
        let sound = strict(inodes) && strict(pids) && !(inodes.is_empty() && pids.is_empty());
        sound.then(|| Self { inodes: inodes.to_vec(), pids: pids.to_vec() })
    }
}

/// One packet as it was received.
#[derive(Debug)]
pub(super) struct Packet {
    pub kind: Kind,
    pub more: bool,
    pub request: u32,
    pub body: Vec<u32>,
    pub descriptor: Option<OwnedFd>,
}

/// Sends one message.
pub(super) fn send(socket: BorrowedFd<'_>, kind: Kind, request: u32, body: &[u32]) -> io::Result<()> {
    let mut rest = body;
    loop {
        let (part, after) = rest.split_at(rest.len().min(PACKET_WORDS));
        rest = after;
        let more = !rest.is_empty();
        send_packet(socket, [kind as u32, u32::from(more), request], part, &mut SendAncillaryBuffer::default())?;
        if !more {
            return Ok(());
        }
    }
}

/// Hands over a descriptor in a `Taken` message of two packets: the sender has closed its own when it sends the second, so that the
/// receiver, once it has both, is the only one of the two that holds the socket.
pub(super) fn hand_over(socket: BorrowedFd<'_>, request: u32, descriptor: OwnedFd) -> io::Result<()> {
    let rights = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&rights));
    send_packet(socket, [Kind::Taken as u32, 1, request], &[], &mut control)?;
    drop(descriptor);
    send(socket, Kind::Taken, request, &[])
}

fn send_packet(
    socket: BorrowedFd<'_>,
    header: [u32; HEADER_WORDS],
    body: &[u32],
    control: &mut SendAncillaryBuffer<'_, '_, '_>,
) -> io::Result<()> {
    let bytes: Vec<u8> = header.iter().chain(body).flat_map(|word| word.to_ne_bytes()).collect();
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            // A packet is sent whole or not at all.
            other => return other.map(|_| ()).map_err(io::Error::from),
        }
    }
}

/// Receives one packet; none when the other end is closed. A packet that breaks the rules is `InvalidData`.
pub(super) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; (HEADER_WORDS + PACKET_WORDS) * 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptor = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            descriptor = rights.last();
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    // Ancillary data has room for one descriptor, and no more is ever sent: it was cut because this process may open no more files.
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(malformed("packet too long"));
    }
    let (words, rest) = bytes[..message.bytes].as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let (Some(kind), Some(more @ 0..=1), Some(request), []) = (words.next().and_then(Kind::from_word), words.next(), words.next(), rest)
    else {
        return Err(malformed("packet header"));
    };
    Ok(Some(Packet { kind, more: more == 1, request, body: words.collect(), descriptor }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socketpair")
    }

    fn next(socket: &OwnedFd) -> Packet {
        receive(socket.as_fd(), RecvFlags::empty()).expect("receive").expect("a packet")
    }

    #[test]
    fn a_long_message_comes_in_packets() {
        let (left, right) = pair();
        let body: Vec<u32> = (0..u32::try_from(PACKET_WORDS).expect("fits") + 5).collect();
        send(left.as_fd(), Kind::Rows, 7, &body).expect("send");
        drop(left);
        let first = next(&right);
        assert!(first.more && first.body.len() == PACKET_WORDS);
        let last = next(&right);
        assert_eq!((last.kind, last.request, last.more), (Kind::Rows, 7, false));
        assert_eq!([first.body, last.body].concat(), body);
        assert!(receive(right.as_fd(), RecvFlags::empty()).expect("receive").is_none(), "the end is told");
    }

    #[test]
    fn a_descriptor_comes_first_and_the_word_that_it_was_closed_last() {
        let _alone = crate::listeners::no_forks();
        let (left, right) = pair();
        let (reading, writing) = io::pipe().expect("pipe");
        hand_over(left.as_fd(), 3, writing.into()).expect("send");
        let first = next(&right);
        assert_eq!((first.kind, first.request, first.more), (Kind::Taken, 3, true));
        let last = next(&right);
        assert_eq!((last.kind, last.request, last.more), (Kind::Taken, 3, false));
        assert!(last.descriptor.is_none());
        let received = io::PipeWriter::from(first.descriptor.expect("a descriptor"));
        io::Write::write_all(&mut &received, b"x").expect("the same pipe");
        drop(received);
        assert_eq!(io::read_to_string(reading).expect("the end: no other writer"), "x");
    }

    #[test]
    fn packets_that_break_the_rules_are_refused() {
        let long = vec![0_u8; (HEADER_WORDS + PACKET_WORDS) * 4 + 4];
        let rows: [&[u8]; 5] = [&[1], &[0; 12], &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], &long];
        for row in rows {
            let (left, right) = pair();
            rustix::net::send(&left, row, SendFlags::empty()).expect("send");
            let error = receive(right.as_fd(), RecvFlags::empty()).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{} bytes", row.len());
        }
    }

    #[test]
    fn selections_are_checked() {
        let selection = Selection::new(&[9, 3, 9], &[5]);
        assert_eq!(Selection::from_words(&selection.to_words()), Some(Selection { inodes: vec![3, 9], pids: vec![5] }));
        for words in [&[][..], &[0], &[2, 1], &[2, 5, 5], &[0, 7, 6], &[u32::MAX, 1]] {
            assert_eq!(Selection::from_words(words), None, "{words:?}");
        }
    }
}
