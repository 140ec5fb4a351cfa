//! The services of the packet tests that have a SYN defence, and what the daemon would tell the programs about it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use lb_common::{
    Address,
    abi::{CookieKey, DefencePolicy, LiveState, Scheme, Stance, live_flags, policy_flags, service_flags},
    flood::{FloodState, Thresholds},
    tag::TagKey,
    wire::protocol::{TCP, UDP},
};
use zerocopy::FromBytes as _;

use super::world::{LOOPBACK, SERVER, SERVER6, Service};

/// Port 9001: defended as in a flood, always.
pub const FLOODED: u32 = 10;
/// Port 9002: defended when there is a flood, and there never is.
pub const CALM: u32 = 11;
/// Port 9003: its flood is over, and cookies are still honoured.
pub const LINGERING: u32 = 12;
/// Port 9004, in calm: [`CONNECTIONS`] a second for each prefix, and lists of prefixes.
pub const LIMITED: u32 = 13;
/// Port 9005, UDP: [`DATAGRAMS`] and [`DATAGRAM_BYTES`] a second for each prefix.
pub const METERED: u32 = 14;
/// Port 9006, in a flood: no SO_REUSEPORT group.
pub const UNBALANCED: u32 = 15;
/// Port 9007, in a flood: the daemon has seen a listener that has gone.
pub const DEAF: u32 = 16;
/// Port 9008, in a flood: the daemon has seen no listener.
pub const ABSENT: u32 = 17;
/// Port 9009, in a flood: this host's packet filter would break a cookie's connection.
pub const UNSAFE: u32 = 18;
/// Port 9010, in a flood: on a loopback device.
pub const LOCAL: u32 = 19;
/// Port 9011, in calm until [`SYNS_OF_A_FLOOD`] have come in a window of 10 ms.
pub const RISING: u32 = 20;
/// Port 9012, in a flood: its table has no backend.
pub const EMPTIED: u32 = 21;

/// The port of a defended service.
pub const fn port(service: u32) -> u16 {
    assert!(service >= FLOODED && service <= EMPTIED);
    #[expect(clippy::cast_possible_truncation, reason = "12 services")]
    {
        9_001 + (service - FLOODED) as u16
    }
}

/// The limits of [`LIMITED`] and [`METERED`], on one CPU.
pub const CONNECTIONS: u32 = 2;
pub const DATAGRAMS: u32 = 3;
pub const DATAGRAM_BYTES: u32 = 1_000;
/// What begins a flood on [`RISING`].
pub const SYNS_OF_A_FLOOD: u32 = 8;
pub const STRAYS_OF_A_FLOOD: u32 = 64;

/// What the host announces: 64 KiB of room, a window scale of 9.
pub const WINDOW_SPACE: u32 = 65_536;
pub const WINDOW_SCALE: u8 = 9;
/// The MSS that it announces.
pub const ANNOUNCED_SEGMENT: u16 = 1_460;

/// The two keys of cookies, by parity, and which of them makes cookies.
pub const KEYS: [[u64; 2]; 2] = [[0x1f0e_2d3c_4b5a_6978, 0x8796_a5b4_c3d2_e1f0], [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]];
pub const PARITY: u32 = 1;

/// The key of the tables that packets fill: any numbers will do.
pub static TAG_KEY: LazyLock<TagKey> = LazyLock::new(|| {
    let words: Vec<u64> =
        (1..=22_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ n.wrapping_mul(0xd6e8_feb8_6659_fd93)).collect();
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    TagKey::read_from_bytes(&bytes).expect("22 words")
});

/// What is said of all services at the time of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The daemon lives, both keys do, and no limit is near.
    #[default]
    Awake,
    /// The daemon has not been heard of for 10 s.
    Asleep,
    /// It was never heard of.
    Unborn,
    /// The kernel would refuse cookies.
    Schemeless,
    /// Cookies are the kernel's.
    KernelScheme,
    /// The old key is no longer honoured.
    OneKey,
    /// The host uses none of the options.
    Unwilling,
    /// No SYN-ACK may be sent.
    Capped,
    /// None may be sent to any one prefix.
    PrefixCapped,
    /// Every prefix has sent all the wrong cookies it may.
    Guessed,
    /// No SYN that only the kernel can answer may pass.
    NoKernelOnly,
}

impl State {
    pub const ALL: [Self; 11] = [
        Self::Awake,
        Self::Asleep,
        Self::Unborn,
        Self::Schemeless,
        Self::KernelScheme,
        Self::OneKey,
        Self::Unwilling,
        Self::Capped,
        Self::PrefixCapped,
        Self::Guessed,
        Self::NoKernelOnly,
    ];

    /// The record that says so at this time (nanoseconds of CLOCK_MONOTONIC).
    pub fn live(self, now: u64) -> LiveState {
        let limit = |state| if self == state { 0 } else { u32::MAX };
        let key = |parity: usize, honoured_until| CookieKey { words: KEYS[parity], honoured_until };
        let minute = now + 60_000_000_000;
        LiveState {
            renewed_at: match self {
                // The programs' clock is up to 10 ms old.
                Self::Asleep => now - LiveState::GOOD_FOR - 50_000_000,
                Self::Unborn => 0,
                _ => now,
            },
            keys: [key(0, if self == Self::OneKey { now - 50_000_000 } else { minute }), key(1, 2 * minute)],
            key_made_at: 0,
            syncookies_before: 0,
            namespace: 0,
            parity: PARITY,
            scheme: match self {
                Self::Schemeless => Scheme::None,
                Self::KernelScheme => Scheme::Kernel,
                _ => Scheme::Own,
            } as u32,
            flags: if self == Self::Unwilling { 0 } else { ALL_OPTIONS },
            cpus: *CPUS,
            syn_acks: limit(Self::Capped),
            syn_acks_to_prefix: limit(Self::PrefixCapped),
            wrong_cookies: limit(Self::Guessed),
            kernel_only_syns: limit(Self::NoKernelOnly),
        }
    }
}

/// How many CPUs there are, as the programs want it: a power of two, rounded up.
static CPUS: LazyLock<u32> =
    LazyLock::new(|| u32::try_from(aya::util::nr_cpus().expect("the number of CPUs").next_power_of_two()).expect("a number of CPUs"));

const ALL_OPTIONS: u32 =
    live_flags::WINDOW_SCALE | live_flags::SELECTIVE_ACKNOWLEDGEMENT | live_flags::CONGESTION_NOTIFICATION | live_flags::TIMESTAMPS;

/// The services.
pub fn services() -> Vec<Service> {
    let both = || [IpAddr::V4(SERVER), IpAddr::V6(SERVER6)].map(Address::from).to_vec();
    let flags = |index| match index {
        UNBALANCED => service_flags::UNBALANCED,
        LOCAL => service_flags::LOOPBACK,
        _ => 0,
    };
    let protocol = |index| if index == METERED { UDP } else { TCP };
    let service = |index| Service {
        index,
        protocol: protocol(index),
        port: port(index),
        addresses: both(),
        interface: LOOPBACK,
        flags: flags(index),
    };
    (FLOODED..=EMPTIED).map(service).collect()
}

/// How each is defended. A service that is not in it is not.
pub fn policies() -> BTreeMap<u32, DefencePolicy> {
    let policy = |index| {
        let listener = if matches!(index, ABSENT | METERED) { 0 } else { policy_flags::HAS_LISTENER };
        let flags = listener
            | match index {
                UNSAFE => policy_flags::UNSAFE,
                LIMITED => policy_flags::HAS_PREFIXES,
                _ => 0,
            };
        let stance = match index {
            METERED => Stance::Off,
            CALM | LINGERING | LIMITED | RISING => Stance::Auto,
            _ => Stance::Always,
        };
        let (syns, strays) = if index == RISING { (SYNS_OF_A_FLOOD, STRAYS_OF_A_FLOOD) } else { (u32::MAX, u32::MAX) };
        let thresholds = Thresholds { syns, strays, quiet: QUIET, minimum: MINIMUM, linger: LINGER };
        let only = |service, limit| if index == service { limit } else { 0 };
        DefencePolicy {
            thresholds,
            full_until: 0,
            stance: stance as u32,
            flags,
            window_space: WINDOW_SPACE,
            window_scale: WINDOW_SCALE.into(),
            new_connections: only(LIMITED, CONNECTIONS),
            datagrams: only(METERED, DATAGRAMS),
            datagram_bytes: only(METERED, DATAGRAM_BYTES),
            padding: 0,
        }
    };
    (FLOODED..=EMPTIED).map(|index| (index, policy(index))).collect()
}

const QUIET: u64 = 1_000_000_000;
const MINIMUM: u64 = 2_000_000_000;
const LINGER: u64 = 120_000_000_000;

/// The flood on a service at this time.
pub fn flood(service: u32, now: u64) -> FloodState {
    if service == LINGERING {
        // The times of the floods are shorter than the time since the machine came up, which the test cannot choose.
        return FloodState { entered: now - MINIMUM - 1_000_000_000, hot: now - QUIET - 1_000_000_000, syns: now - QUIET - 1_000_000_000 };
    }
    FloodState::default()
}

/// The lists of [`LIMITED`]: a prefix, its length in the bits of its family, and whether it is allowed (else it is denied).
pub const LISTS: [(IpAddr, u32, bool); 4] = [
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), 24, false),
    (IpAddr::V4(Ipv4Addr::new(203, 0, 113, 128)), 25, true),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0)), 48, false),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 0)), 64, true),
];
