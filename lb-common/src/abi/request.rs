//! A valid cookie ACK on its way from XDP to `restore_request`: what stands in the packet's metadata, and what becomes of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first word of a [`RestoreRequest`], which tells it from other programs' metadata. A change of the layout changes it.
pub const RESTORE_MAGIC: u32 = u32::from_be_bytes(*b"Wei1");

/// The number that `restore_request` calls in the object in place of the kernel function `bpf_sk_assign_tcp_reqsk`. No helper has it,
/// and the daemon puts the function's own number there before it loads the program.
pub const ASSIGN_PLACEHOLDER: u32 = 0x7fff_0001;

/// The options of a connection that was opened by a cookie: `struct bpf_tcp_req_attrs` (include/net/tcp.h), which the kernel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestAttributes {
    /// The client's timestamp, of the ACK.
    pub received_timestamp: u32,
    /// The timestamp that the client echoes: the one that the SYN-ACK carried.
    pub echoed_timestamp: u32,
    /// The client's maximum segment size. The kernel refuses less than 536 over IPv4 and less than 1,220 over IPv6.
    pub maximum_segment_size: u16,
    /// The window scale that the SYN-ACK announced, at most 14.
    pub receive_window_scale: u8,
    /// The client's window scale, at most 14.
    pub send_window_scale: u8,
    /// Whether ECN was agreed on: 0 or 1, as all that follow.
    pub has_ecn: u8,
    /// Whether window scaling was.
    pub has_window_scale: u8,
    /// Whether selective acknowledgement was.
    pub has_selective_acknowledgement: u8,
    /// Whether timestamps were.
    pub has_timestamps: u8,
    /// Whether the timestamps that the SYN-ACK began are in microseconds.
    pub has_microsecond_timestamps: u8,
    /// Zero, or the kernel refuses it.
    pub reserved: [u8; 3],
}

/// The metadata that `ingress` writes in front of a valid cookie ACK.
///
/// It says nothing in its first 16 bytes. In generic mode the kernel copies a packet that others share, and forgets the length of its
/// Ethernet header on the way (`__copy_skb_header` leaves out `mac_len`, net/core/skbuff.c; seen on Linux 6.18): to a tc program such a
/// packet begins with its IP header, and the metadata seems to lie 14 bytes farther back than it does. What stands behind the first 16
/// bytes can be read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RestoreRequest {
    /// Zero.
    pub room: [u32; 4],
    /// [`RESTORE_MAGIC`].
    pub magic: u32,
    /// What the cookie and the ACK say of the connection.
    pub attributes: RequestAttributes,
}

impl RestoreRequest {
    /// Where the magic stands, in bytes.
    pub const AT: usize = 16;
    /// Where it seems to stand in a packet whose Ethernet header is not seen.
    pub const AT_WITHOUT_ETHERNET: usize = Self::AT - crate::wire::ethernet::LENGTH;

    /// The metadata for a connection with these options.
    #[inline(always)]
    #[must_use]
    pub const fn new(attributes: RequestAttributes) -> Self {
        Self { room: [0; 4], magic: RESTORE_MAGIC, attributes }
    }

    /// The request in words, as it stands in the metadata.
    #[inline(always)]
    #[must_use]
    pub fn words(self) -> [u32; 10] {
        zerocopy::transmute!(self)
    }

    /// The attributes in what was read in words from the magic on, if it is such a request.
    #[inline(always)]
    #[must_use]
    pub fn attributes_of([magic, a, b, c, d, e]: [u32; 6]) -> Option<RequestAttributes> {
        (magic == RESTORE_MAGIC).then(|| zerocopy::transmute!([a, b, c, d, e]))
    }
}

/// What became of a cookie ACK in `restore_request`: the index of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Restored {
    /// The kernel makes the connection when it gets to the ACK.
    Restored = 0,
    /// There is a connection, or what is left of one: another ACK of the same client came first.
    AlreadyThere = 1,
    /// Nobody listens any more: the kernel answers the client with a reset.
    NoListener = 2,
    /// The kernel did not take the options, or had no memory: it answers the client with a reset.
    Refused = 3,
    /// The packet's headers could not be read.
    Unreadable = 4,
}

impl Restored {
    /// Every outcome, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::Restored, Self::AlreadyThere, Self::NoListener, Self::Refused, Self::Unreadable];

    /// The name in metrics and in output for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::AlreadyThere => "already_there",
            Self::NoListener => "no_listener",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::Restored => "the kernel makes the connection, with the options that the client was promised",
            Self::AlreadyThere => "nothing had to be done: another packet of the same client came first",
            Self::NoListener => "the listener is gone since, and the kernel answers with a reset",
            Self::Refused => "the kernel did not take the options or had no memory, and answers with a reset",
            Self::Unreadable => "the packet's headers could not be read; please report this",
        }
    }
}

/// One CPU's counters of cookie ACKs, indexed by [`Restored`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RestoreCounters {
    /// Indexed by [`Restored`].
    pub by_outcome: [u64; Restored::ALL.len()],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_counters() {
        for (index, outcome) in Restored::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn a_request_is_told_by_its_first_word() {
        let attributes =
            RequestAttributes { received_timestamp: 7, maximum_segment_size: 1460, has_ecn: 1, ..RequestAttributes::default() };
        let [_, _, _, _, words @ ..] = RestoreRequest::new(attributes).words();
        let mut words: [u32; 6] = words;
        assert_eq!(RestoreRequest::attributes_of(words), Some(attributes));
        words[0] ^= 1;
        assert_eq!(RestoreRequest::attributes_of(words), None);
    }

    #[test]
    fn the_attributes_lie_as_the_kernel_reads_them() {
        let attributes = RequestAttributes {
            received_timestamp: 1,
            echoed_timestamp: 2,
            maximum_segment_size: 3,
            receive_window_scale: 4,
            send_window_scale: 5,
            has_ecn: 6,
            has_window_scale: 7,
            has_selective_acknowledgement: 8,
            has_timestamps: 9,
            has_microsecond_timestamps: 10,
            reserved: [0; 3],
        };
        let bytes = [&1u32.to_ne_bytes()[..], &2u32.to_ne_bytes(), &3u16.to_ne_bytes(), &[4, 5, 6, 7, 8, 9, 10, 0, 0, 0]].concat();
        assert_eq!(attributes.as_bytes(), bytes);
    }
}
