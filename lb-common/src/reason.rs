//! Why a packet met the end it met: one enum, from which the counters, the metrics, the command line and the docs take their names.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the kernel's network stack (`XDP_PASS`).
    Pass,
    /// It ends here (`XDP_DROP`).
    Drop,
    /// It has become its own answer and goes back by where it came from (`XDP_TX`).
    Transmit,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Drop, Self::Transmit];

    /// The word for people and machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Transmit => "answer",
        }
    }
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
    /// A SYN in a flood, answered with a SYN cookie from the card.
    CookieSent = 17,
    /// The first segment of a client whose SYN cookie came back right.
    CookieAccepted = 18,
    /// In a flood: an ACK of no flow, without a valid cookie.
    CookieRefused = 19,
    /// In a flood: an ACK of no flow whose cookie would be of a key that is no longer honoured.
    CookieExpired = 20,
    /// In a flood: an ACK of no flow from a prefix that has sent too many wrong cookies, dropped unread.
    CookieGuessing = 21,
    /// In a flood: a SYN-ACK of no flow.
    StraySynAck = 22,
    /// In a flood: a RST of no flow.
    StrayReset = 23,
    /// In a flood: the first fragment of a TCP segment of no flow.
    StrayFragment = 24,
    /// A TCP segment with no flag at all.
    NullFlags = 25,
    /// A TCP segment with FIN, PSH or URG, and none of SYN, RST and ACK.
    XmasFlags = 26,
    /// A TCP segment with SYN and FIN.
    SynFinFlags = 27,
    /// A TCP segment with SYN and RST.
    SynResetFlags = 28,
    /// A TCP header shorter than 20 bytes or longer than its packet.
    BadDataOffset = 29,
    /// A first fragment that ends inside the TCP header (RFC 1858).
    TinyFragment = 30,
    /// A packet whose source is its destination ("land").
    Land = 31,
    /// From a source that cannot be real: loopback, multicast, broadcast, unspecified, or an address of this host.
    ImpossibleSource = 32,
    /// In a flood: a SYN with data that is no Fast Open.
    SynWithData = 33,
    /// In a flood: a SYN behind IP options or extension headers.
    SynBehindOptions = 34,
    /// In a flood: a SYN that only the kernel can answer (MD5, TCP-AO, MPTCP, an MSS below the least), passed within the limit.
    KernelOnlySyn = 35,
    /// The same above the limit.
    KernelOnlySynOverLimit = 36,
    /// In a flood: a SYN from a prefix that has had its share of SYN-ACKs.
    SynAckPrefixLimit = 37,
    /// In a flood: a SYN above the global cap of SYN-ACKs.
    SynAckCap = 38,
    /// In a flood: a SYN that XDP must not answer (no daemon for 10 s, no listener, or the kernel would refuse the cookie), passed.
    DefenceAsleep = 39,
    /// In a flood: a SYN on a driver that carries no packet metadata, passed.
    NoMetadata = 40,
    /// In a flood: a SYN of a connection that the kernel knows, passed.
    FloodSyn = 41,
    /// It would open a flow, from a prefix on the service's deny list.
    DeniedSource = 42,
    /// A SYN above the service's limit of new connections for its source prefix.
    NewFlowsOverLimit = 43,
    /// A datagram above the service's limit of packets or bytes for its source prefix.
    DatagramsOverLimit = 44,
}

impl Reason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 45] = [
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
        Self::CookieSent,
        Self::CookieAccepted,
        Self::CookieRefused,
        Self::CookieExpired,
        Self::CookieGuessing,
        Self::StraySynAck,
        Self::StrayReset,
        Self::StrayFragment,
        Self::NullFlags,
        Self::XmasFlags,
        Self::SynFinFlags,
        Self::SynResetFlags,
        Self::BadDataOffset,
        Self::TinyFragment,
        Self::Land,
        Self::ImpossibleSource,
        Self::SynWithData,
        Self::SynBehindOptions,
        Self::KernelOnlySyn,
        Self::KernelOnlySynOverLimit,
        Self::SynAckPrefixLimit,
        Self::SynAckCap,
        Self::DefenceAsleep,
        Self::NoMetadata,
        Self::FloodSyn,
        Self::DeniedSource,
        Self::NewFlowsOverLimit,
        Self::DatagramsOverLimit,
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
        match self {
            Self::CookieSent => Action::Transmit,
            Self::CookieRefused
            | Self::CookieExpired
            | Self::CookieGuessing
            | Self::StraySynAck
            | Self::StrayReset
            | Self::StrayFragment
            | Self::NullFlags
            | Self::XmasFlags
            | Self::SynFinFlags
            | Self::SynResetFlags
            | Self::BadDataOffset
            | Self::TinyFragment
            | Self::Land
            | Self::ImpossibleSource
            | Self::SynWithData
            | Self::SynBehindOptions
            | Self::KernelOnlySynOverLimit
            | Self::SynAckPrefixLimit
            | Self::SynAckCap
            | Self::DeniedSource
            | Self::NewFlowsOverLimit
            | Self::DatagramsOverLimit => Action::Drop,
            _ => Action::Pass,
        }
    }

    /// Whether the packet belongs to a service, so that the service's own counter has it.
    #[must_use]
    pub const fn is_of_service(self) -> bool {
        !matches!(
            self,
            Self::NotIp
                | Self::NotTransport
                | Self::NotAPort
                | Self::NotAnAddress
                | Self::OtherHost
                | Self::Truncated
                | Self::Malformed
                | Self::TooDeep
                | Self::LaterFragment
                | Self::MapMiss
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
            Self::CookieSent => "cookie_sent",
            Self::CookieAccepted => "cookie_accepted",
            Self::CookieRefused => "cookie_refused",
            Self::CookieExpired => "cookie_expired",
            Self::CookieGuessing => "cookie_guessing",
            Self::StraySynAck => "stray_syn_ack",
            Self::StrayReset => "stray_reset",
            Self::StrayFragment => "stray_fragment",
            Self::NullFlags => "null_flags",
            Self::XmasFlags => "xmas_flags",
            Self::SynFinFlags => "syn_fin_flags",
            Self::SynResetFlags => "syn_reset_flags",
            Self::BadDataOffset => "bad_data_offset",
            Self::TinyFragment => "tiny_fragment",
            Self::Land => "land",
            Self::ImpossibleSource => "impossible_source",
            Self::SynWithData => "syn_with_data",
            Self::SynBehindOptions => "syn_behind_options",
            Self::KernelOnlySyn => "kernel_only_syn",
            Self::KernelOnlySynOverLimit => "kernel_only_syn_over_limit",
            Self::SynAckPrefixLimit => "syn_ack_prefix_limit",
            Self::SynAckCap => "syn_ack_cap",
            Self::DefenceAsleep => "defence_asleep",
            Self::NoMetadata => "no_metadata",
            Self::FloodSyn => "flood_syn",
            Self::DeniedSource => "denied_source",
            Self::NewFlowsOverLimit => "new_flows_over_limit",
            Self::DatagramsOverLimit => "datagrams_over_limit",
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
            Self::CookieSent => "answered: a SYN cookie went back from the card",
            Self::CookieAccepted => "passed to the service: a valid SYN cookie came back",
            Self::CookieRefused => "dropped: an ACK of no flow, without a valid cookie",
            Self::CookieExpired => "dropped: an ACK of no flow, of a time whose cookies are no longer honoured",
            Self::CookieGuessing => "dropped unread: an ACK of no flow from a prefix that has sent too many wrong cookies",
            Self::StraySynAck => "dropped: a SYN-ACK of no flow",
            Self::StrayReset => "dropped: a RST of no flow",
            Self::StrayFragment => "dropped: the first fragment of a segment of no flow",
            Self::NullFlags => "dropped: a segment with no flag",
            Self::XmasFlags => "dropped: a segment with FIN, PSH or URG and none of SYN, RST and ACK",
            Self::SynFinFlags => "dropped: a segment with SYN and FIN",
            Self::SynResetFlags => "dropped: a segment with SYN and RST",
            Self::BadDataOffset => "dropped: a TCP header shorter than 20 bytes or longer than its packet",
            Self::TinyFragment => "dropped: a first fragment that ends inside the TCP header",
            Self::Land => "dropped: its source is its destination",
            Self::ImpossibleSource => "dropped: from a loopback, multicast, broadcast or unspecified address, or one of this host's own",
            Self::SynWithData => "dropped: a SYN with data that is no Fast Open",
            Self::SynBehindOptions => "dropped: a SYN behind IP options or extension headers",
            Self::KernelOnlySyn => "passed to the service: a SYN with MD5, TCP-AO, MPTCP or a tiny MSS, which only the kernel can answer",
            Self::KernelOnlySynOverLimit => "dropped: a SYN that only the kernel can answer, above the limit for these",
            Self::SynAckPrefixLimit => "dropped: a SYN from a prefix that has had its share of SYN-ACKs",
            Self::SynAckCap => "dropped: a SYN above the cap of SYN-ACKs in all",
            Self::DefenceAsleep => {
                "passed to the service in a flood: XDP must not answer (no live daemon, no listener, or the kernel would refuse cookies)"
            }
            Self::NoMetadata => {
                "passed to the service in a flood: the interface's driver carries no packet metadata, so a cookie could not be honoured"
            }
            Self::FloodSyn => "passed to the service in a flood: a SYN of a connection that the kernel still knows",
            Self::DeniedSource => "dropped: from a prefix on the service's deny list",
            Self::NewFlowsOverLimit => "dropped: above the service's limit of new connections for one source prefix",
            Self::DatagramsOverLimit => "dropped: above the service's limit of packets or bytes for one source prefix",
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
