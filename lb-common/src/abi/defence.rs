//! The SYN defence: what the daemon tells the programs, per service and for all, and what they keep on the way.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    Address,
    cookie::Willing,
    flood::{FloodState, Mode, Sign, Thresholds},
    limiter::Bucket,
};

/// How a service is defended: written by the daemon, indexed like the service's counters. All zero: not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DefencePolicy {
    /// How a flood is told, and how long it and its cookies last.
    pub thresholds: Thresholds,
    /// Until this time (nanoseconds of CLOCK_MONOTONIC) there is a flood, whatever the rates: the listener's SYN queue is full. After it
    /// cookies linger as after any flood. 0 for none.
    pub full_until: u64,
    /// [`Stance`] as a number.
    pub stance: u32,
    /// [`policy_flags`].
    pub flags: u32,
    /// The room that the kernel will offer a new connection in bytes (`tcp_full_space`); see [`announced_window`].
    pub window_space: u32,
    /// The window scale that the kernel will use for what it receives: 0 to 14.
    pub window_scale: u32,
    /// New connections a second from one source prefix on this CPU; 0 for no limit.
    pub new_connections: u32,
    /// Datagrams a second from one source prefix on this CPU; 0 for no limit.
    pub datagrams: u32,
    /// Bytes of datagrams a second from one source prefix on this CPU; 0 for no limit.
    pub datagram_bytes: u32,
    /// Zero.
    pub padding: u32,
}

/// The flags of a [`DefencePolicy`].
pub mod policy_flags {
    /// A socket listens, so that XDP may answer for it.
    pub const HAS_LISTENER: u32 = 1;
    /// The service has a list of prefixes that it allows or denies.
    pub const HAS_PREFIXES: u32 = 2;
    /// A cookie's connection would not survive this host's packet filter: XDP answers no SYN.
    pub const UNSAFE: u32 = 4;
    /// A cookie of Weir's own would not survive, the kernel's would: its SYNs are answered by [`Scheme::Kernel`](super::Scheme::Kernel).
    pub const KERNEL_SCHEME: u32 = 8;
}

/// What the operator wants for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stance {
    /// No defence: nothing is dropped or answered.
    Off = 0,
    /// Defence while there is a flood.
    Auto = 1,
    /// Defence as in a flood, always.
    Always = 2,
}

impl DefencePolicy {
    /// Whether anything is dropped or answered for the service, ever.
    #[inline(always)]
    #[must_use]
    pub const fn is_defended(&self) -> bool {
        self.stance != Stance::Off as u32
    }

    /// What the defence does at a time.
    #[inline(always)]
    #[must_use]
    pub const fn mode(&self, state: &FloodState, now: u64) -> Mode {
        if self.stance == Stance::Always as u32 || now < self.full_until {
            return Mode::Flood;
        }
        match state.mode(&self.thresholds, now) {
            Mode::Calm if self.full_until != 0 && now < self.full_until.saturating_add(self.thresholds.linger) => Mode::Lingering,
            mode => mode,
        }
    }

    /// Whether SYNs are answered at a time.
    #[inline(always)]
    #[must_use]
    pub const fn answers_syns(&self, state: &FloodState, now: u64) -> bool {
        self.stance == Stance::Always as u32 || now < self.full_until || state.answers_syns(&self.thresholds, now)
    }

    /// Whether there is a flood of this sign.
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self, state: &FloodState, sign: Sign, now: u64) -> bool {
        match sign {
            Sign::Syn => self.answers_syns(state, now),
            Sign::Strays(_) => matches!(self.mode(state, now), Mode::Flood),
        }
    }

    /// Whether the mode is calm whatever the time, so that nobody need ask for the time.
    #[inline(always)]
    #[must_use]
    pub const fn is_calm_for_sure(&self, state: &FloodState) -> bool {
        self.stance != Stance::Always as u32 && self.full_until == 0 && state.entered == 0
    }
}

/// The window that the kernel will offer a client with this MSS, unscaled as a SYN-ACK has it (`tcp_select_initial_window`,
/// net/ipv4/tcp_output.c): the room rounded down to whole segments, and what 16 bits hold.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "it is compared with 16 bits' most before")]
pub const fn announced_window(space: u32, maximum_segment_size: u16) -> u16 {
    let segment = maximum_segment_size as u32;
    let whole = if segment != 0 && space > segment { space - space % segment } else { space };
    if whole < u16::MAX as u32 { whole as u16 } else { u16::MAX }
}

/// How cookies are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Scheme {
    /// Not at all: the kernel would refuse them.
    #[default]
    None = 0,
    /// Weir's own, restored by `bpf_sk_assign_tcp_reqsk` (Linux 6.9).
    Own = 1,
    /// The kernel's, made by `bpf_tcp_gen_syncookie`.
    Kernel = 2,
}

impl Scheme {
    /// The name in metrics and in output for machines.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Own => "own",
            Self::Kernel => "kernel",
        }
    }
}

/// A key of cookies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CookieKey {
    /// The key, from the operating system's random numbers.
    pub words: [u64; 2],
    /// Until when its cookies are honoured: nanoseconds of CLOCK_MONOTONIC. 0: it is no key.
    pub honoured_until: u64,
}

/// What the daemon renews each second; while it does not, XDP answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LiveState {
    /// When it was renewed, in nanoseconds of CLOCK_MONOTONIC.
    pub renewed_at: u64,
    /// Two living keys, by parity. A new one is written in the place of the older and only then named by `parity`.
    pub keys: [CookieKey; 2],
    /// When the key that makes cookies was made.
    pub key_made_at: u64,
    /// Which key makes cookies: 0 or 1.
    pub parity: u32,
    /// [`Scheme`] as a number.
    pub scheme: u32,
    /// [`live_flags`].
    pub flags: u32,
    /// How many CPUs packets may come in by, rounded up to a power of two.
    pub cpus: u32,
    /// SYN-ACKs a second on one CPU, to all.
    pub syn_acks: u32,
    /// SYN-ACKs a second on one CPU, to one source prefix.
    pub syn_acks_to_prefix: u32,
    /// Wrong cookies a second on one CPU from one source prefix; what comes above is dropped unread.
    pub wrong_cookies: u32,
    /// SYNs a second on one CPU that only the kernel can answer.
    pub kernel_only_syns: u32,
    /// What net.ipv4.tcp_syncookies was before the daemon changed it, plus 1; 0 if it has not changed it. For who has to restore it.
    pub syncookies_before: u32,
    /// The inode of the network namespace that this is about.
    pub namespace: u32,
}

/// The flags of a [`LiveState`].
pub mod live_flags {
    /// net.ipv4.tcp_window_scaling
    pub const WINDOW_SCALE: u32 = 1;
    /// net.ipv4.tcp_sack
    pub const SELECTIVE_ACKNOWLEDGEMENT: u32 = 2;
    /// net.ipv4.tcp_ecn
    pub const CONGESTION_NOTIFICATION: u32 = 4;
    /// net.ipv4.tcp_timestamps
    pub const TIMESTAMPS: u32 = 8;
}

impl LiveState {
    /// How long a record that nobody renews is good: 10 s, in nanoseconds.
    pub const GOOD_FOR: u64 = 10_000_000_000;

    /// Whether the daemon lives, as far as this record tells.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(&self, now: u64) -> bool {
        self.renewed_at != 0 && now < self.renewed_at.saturating_add(Self::GOOD_FOR)
    }

    /// The key of a parity, if its cookies are still honoured.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self, parity: u32, now: u64) -> Option<[u64; 2]> {
        let CookieKey { words, honoured_until } = self.keys[(parity & 1) as usize];
        if now < honoured_until { Some(words) } else { None }
    }

    /// What the host is willing to use.
    #[inline(always)]
    #[must_use]
    pub const fn willing(&self) -> Willing {
        Willing {
            window_scale: self.flags & live_flags::WINDOW_SCALE != 0,
            selective_acknowledgement: self.flags & live_flags::SELECTIVE_ACKNOWLEDGEMENT != 0,
            congestion_notification: self.flags & live_flags::CONGESTION_NOTIFICATION != 0,
            timestamps: self.flags & live_flags::TIMESTAMPS != 0,
        }
    }
}

/// The key of a prefix of sources: of one service. In the kernel's tries the length comes first, in bits of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey {
    /// The service's index, in network byte order: a trie compares bytes from the first.
    pub service: [u8; 4],
    /// The address as 16 bytes in network byte order.
    pub address: [u8; 16],
}

impl PrefixKey {
    /// The bits before the address, all of which count always.
    pub const SERVICE_BITS: u32 = 32;

    /// A key from its fields.
    #[inline(always)]
    #[must_use]
    pub fn new(service: u32, address: Address) -> Self {
        Self { service: service.to_be_bytes(), address: address.bytes() }
    }
}

/// What becomes of a packet from a listed prefix: the value of the trie.
pub mod prefix_action {
    /// As if it were not listed: where an IPv6 prefix would cover IPv4 addresses as well.
    pub const NONE: u32 = 0;
    /// It is under no limit.
    pub const ALLOW: u32 = 1;
    /// It opens no flow.
    pub const DENY: u32 = 2;
}

/// What the tokens in a prefix's bucket are for, beside the service in the same word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// SYN-ACKs made in XDP, whatever the service.
    SynAck = 1 << 16,
    /// Wrong cookies, whatever the service.
    WrongCookie = 2 << 16,
    /// New connections of a service.
    NewConnection = 3 << 16,
    /// Datagrams of a service.
    Datagram = 4 << 16,
    /// Bytes of datagrams of a service.
    DatagramBytes = 5 << 16,
}

/// A slot of the table of buckets: whoever comes with another tag takes it, with a full bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixBucket {
    /// Whose it is ([`crate::tag::Place::tag`]).
    pub tag: u32,
    /// Zero.
    pub padding: u32,
    /// The bucket.
    pub bucket: Bucket,
}

impl PrefixBucket {
    /// The bucket, of this owner.
    #[inline(always)]
    pub const fn of(&mut self, tag: u32, now: u64, burst: u32) -> &mut Bucket {
        if self.tag != tag {
            self.tag = tag;
            self.bucket = Bucket::full(now, burst);
        }
        &mut self.bucket
    }
}

/// A slot of the table of known flows: a flow's tag, and until when it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KnownFlow {
    /// Whose it is ([`crate::tag::Place::tag`]), and how many flows of the slot had been reset: the sum of the two.
    pub tag: u32,
    /// Until when, in units of 2²⁰ ns (about a millisecond) of CLOCK_MONOTONIC, modulo 2³².
    pub until: u32,
}

impl KnownFlow {
    /// How long a flow is taken for known, in its units: a quarter of a second.
    ///
    /// Long enough for the stack to make the socket of a cookie's connection, and for most segments to be spared the lookup of it. No
    /// longer: a client who has left TIME_WAIT early (net.ipv4.tcp_tw_reuse, after a second) comes back by the same addresses and ports,
    /// and what it then sends is to be judged anew.
    pub const LIFE: u32 = 238;

    /// The entry of a flow from now on, where `ended` flows of its slot have been reset so far.
    #[inline(always)]
    #[must_use]
    pub const fn from_now(tag: u32, ended: u32, now: u64) -> Self {
        Self { tag: tag.wrapping_add(ended), until: units(now).wrapping_add(Self::LIFE) }
    }

    /// Whether it still counts. The clock of the entry wraps after 52 days.
    #[inline(always)]
    #[must_use]
    pub const fn lives(&self, now: u64) -> bool {
        self.until.wrapping_sub(units(now)).wrapping_sub(1) < Self::LIFE
    }

    /// Whether it is the entry of the flow with this tag, and no flow of its slot was reset since (perhaps this one, by a segment that
    /// another CPU saw).
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, tag: u32, ended: u32) -> bool {
        self.tag == tag.wrapping_add(ended)
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
const fn units(now: u64) -> u32 {
    (now >> 20) as u32
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_known_flow_is_forgotten_after_a_quarter_of_a_second_even_where_its_clock_wraps() {
        for now in [5 * SECOND, (1 << 52) - SECOND, (1 << 52) - 1, u64::MAX - 9 * SECOND] {
            for ended in [0, 1, u32::MAX] {
                let entry = KnownFlow::from_now(7, ended, now);
                assert!(entry.lives(now) && entry.lives(now + 24 * SECOND / 100) && !entry.lives(now + 26 * SECOND / 100), "{now}");
                assert!(entry.is_of(7, ended) && !entry.is_of(8, ended));
                assert!(!entry.is_of(7, ended.wrapping_add(1)), "a reset");
            }
        }
        assert!(!KnownFlow::default().lives(SECOND), "an empty slot");
    }

    #[test]
    fn a_window_is_whole_segments_and_fits_16_bits() {
        assert_eq!(announced_window(65_536, 1460), 64_240, "44 segments");
        assert_eq!(announced_window(65_536, 536), 65_392);
        assert_eq!(announced_window(1_000, 1460), 1_000);
        assert_eq!(announced_window(6_291_456, 1460), 65_535);
        assert_eq!(announced_window(65_536, 0), 65_535);
    }

    #[test]
    fn the_mode_is_the_stance_the_queue_and_the_rate() {
        let policy = DefencePolicy { stance: Stance::Auto as u32, ..DefencePolicy::default() };
        let calm = FloodState::default();
        assert!(policy.is_calm_for_sure(&calm) && policy.mode(&calm, SECOND) == Mode::Calm);
        let thresholds = Thresholds { linger: 3 * SECOND, ..Thresholds::default() };
        let full = DefencePolicy { full_until: 5 * SECOND, thresholds, ..policy };
        assert!(!full.is_calm_for_sure(&calm));
        let modes = [4, 5, 7, 8].map(|second| full.mode(&calm, second * SECOND));
        assert_eq!(modes, [Mode::Flood, Mode::Lingering, Mode::Lingering, Mode::Calm]);
        let always = DefencePolicy { stance: Stance::Always as u32, ..policy };
        assert!(!always.is_calm_for_sure(&calm) && always.mode(&calm, 0) == Mode::Flood);
        assert!(always.answers_syns(&calm, 0) && full.answers_syns(&calm, 4 * SECOND) && !full.answers_syns(&calm, 5 * SECOND));
        assert!(!policy.answers_syns(&calm, SECOND));
    }

    #[test]
    fn a_daemon_that_is_silent_for_10_seconds_is_dead() {
        let mut live = LiveState::new_zeroed();
        assert!(!live.is_live(0), "never written");
        live.renewed_at = 50 * SECOND;
        assert!(live.is_live(50 * SECOND) && live.is_live(60 * SECOND - 1) && !live.is_live(60 * SECOND));
        live.keys[1] = CookieKey { words: [1, 2], honoured_until: 70 * SECOND };
        assert_eq!([live.key(1, 70 * SECOND - 1), live.key(1, 70 * SECOND), live.key(0, 0)], [Some([1, 2]), None, None]);
    }
}
