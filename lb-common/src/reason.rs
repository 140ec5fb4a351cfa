//! Why a packet met the end it met: one enum, from which the counters, the metrics, the command line and the docs take their names.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the kernel's network stack, untouched (`XDP_PASS`).
    Pass,
}

/// The named reason of a verdict. Every packet that the XDP program sees is counted under exactly one of these.
///
/// The discriminant is the index of its counter in [`crate::abi::ServiceCounters`]: append, and raise
/// [`crate::abi::ABI_VERSION`] when one is added, moved or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// A frame that is neither IPv4 nor IPv6.
    NotIp = 0,
    /// IP, but neither TCP nor UDP nor an ICMP error about one of them.
    NotTransport = 1,
    /// TCP or UDP to a port that no service has.
    NotAPort = 2,
    /// A service has the port, but not at this address or not on this interface: forwarded and foreign traffic.
    NotAnAddress = 3,
    /// It goes to a service's address, but in a frame for another host's MAC address.
    OtherHost = 4,
    /// The packet ends inside a header.
    Truncated = 5,
    /// A header contradicts itself, such as a length below the header's own.
    Malformed = 6,
    /// More VLAN tags or IPv6 extension headers than Weir walks.
    TooDeep = 7,
    /// A fragment other than the first: it has no ports.
    LaterFragment = 8,
    /// A SYN that opens a TCP flow of a service.
    TcpOpened = 9,
    /// Any other TCP segment of a service.
    TcpEstablished = 10,
    /// A datagram of a UDP flow that the flow table does not hold (yet).
    UdpOpened = 11,
    /// A datagram of a UDP flow that has its worker.
    UdpEstablished = 12,
    /// The first fragment of a packet to a service.
    FirstFragment = 13,
    /// An ICMP error about a flow of a service.
    IcmpError = 14,
    /// It opens a flow of a service that has no backend: the kernel decides.
    NoBackend = 15,
    /// A map that must hold a record did not: never counted unless the daemon and the programs disagree.
    MapMiss = 16,
}

impl Reason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 17] = [
        Self::NotIp,
        Self::NotTransport,
        Self::NotAPort,
        Self::NotAnAddress,
        Self::OtherHost,
        Self::Truncated,
        Self::Malformed,
        Self::TooDeep,
        Self::LaterFragment,
        Self::TcpOpened,
        Self::TcpEstablished,
        Self::UdpOpened,
        Self::UdpEstablished,
        Self::FirstFragment,
        Self::IcmpError,
        Self::NoBackend,
        Self::MapMiss,
    ];

    /// The index of its counter.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What becomes of a packet with this reason.
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        Action::Pass
    }

    /// Whether the packet belongs to a service, so that the service's own counter has it.
    #[must_use]
    pub const fn is_of_service(self) -> bool {
        matches!(
            self,
            Self::TcpOpened
                | Self::TcpEstablished
                | Self::UdpOpened
                | Self::UdpEstablished
                | Self::FirstFragment
                | Self::IcmpError
                | Self::NoBackend
        )
    }

    /// The name in metrics and in output for machines: lower case, digits and underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotTransport => "not_transport",
            Self::NotAPort => "not_a_port",
            Self::NotAnAddress => "not_an_address",
            Self::OtherHost => "other_host",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
            Self::LaterFragment => "later_fragment",
            Self::TcpOpened => "tcp_opened",
            Self::TcpEstablished => "tcp_established",
            Self::UdpOpened => "udp_opened",
            Self::UdpEstablished => "udp_established",
            Self::FirstFragment => "first_fragment",
            Self::IcmpError => "icmp_error",
            Self::NoBackend => "no_backend",
            Self::MapMiss => "map_miss",
        }
    }

    /// One sentence for people.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::NotIp => "passed: neither IPv4 nor IPv6",
            Self::NotTransport => "passed: neither TCP nor UDP nor an ICMP error about one",
            Self::NotAPort => "passed: no service has this port",
            Self::NotAnAddress => "passed: a service has this port, but not at this address or not on this interface",
            Self::OtherHost => "passed: the frame is for another host's MAC address",
            Self::Truncated => "passed: the packet ends inside a header",
            Self::Malformed => "passed: a header contradicts itself",
            Self::TooDeep => "passed: more VLAN tags or extension headers than are walked",
            Self::LaterFragment => "passed: a fragment other than the first has no ports",
            Self::TcpOpened => "passed to the service: a SYN that opens a flow",
            Self::TcpEstablished => "passed to the service: a segment of a flow",
            Self::UdpOpened => "passed to the service: a datagram of a flow that has no worker yet",
            Self::UdpEstablished => "passed to the service: a datagram of a flow that has its worker",
            Self::FirstFragment => "passed to the service: the first fragment of a packet",
            Self::IcmpError => "passed to the service: an ICMP error about one of its flows",
            Self::NoBackend => "passed to the kernel's own choice: the service has no backend",
            Self::MapMiss => "passed: a map lacked a record it must hold; please report this",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_counters() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn labels_are_distinct_and_fit_prometheus() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
