//! `[defence]`: how Weir tells a flood, and what it does while there is one.
use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Spanned, de::DeValue};

use super::{
    daemon::one_of,
    duration,
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
};

/// The bounds of a rate that begins a flood: below is everyday traffic, above is more than a card brings.
pub(super) const FLOOD_RATE: Form = Form::Integer { min: 100, max: 10_000_000 };
/// The bounds of a limit per second that can be off, with 0.
pub(super) const OPTIONAL_RATE: Form = Form::Integer { min: 0, max: 1_000_000_000 };
const CAP: Form = Form::Integer { min: 1, max: 1_000_000_000 };
/// The stances that a service can be told.
pub(super) const STANCES: Form = Form::OneOf(&["auto", "always", "off"]);

/// `[defence]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Defence {
    /// The stance of the services that say nothing themselves.
    pub syn_defence: Stance,
    /// Whose cookies are sent.
    pub scheme: SchemeChoice,
    /// SYNs per second to one service, all CPUs together, that begin a flood; 100 to 10,000,000.
    pub flood_syns_per_second: u32,
    /// Segments of no flow per second to one service that begin one; 100 to 10,000,000.
    pub flood_strays_per_second: u32,
    /// How long both rates have to stay below half of what began the flood until it is over; 1 s to 10 min.
    #[serde(serialize_with = "duration::serialize")]
    pub quiet_time: Duration,
    /// How long a flood lasts at the least; 1 s to 1 h.
    #[serde(serialize_with = "duration::serialize")]
    pub minimum_time: Duration,
    /// How long a cookie key is used for new cookies; it is honoured for as long again. 10 s to 10 min.
    #[serde(serialize_with = "duration::serialize")]
    pub key_lifetime: Duration,
    /// Whether the kernel's scheme may set `net.ipv4.tcp_syncookies = 2` for the time of a flood.
    pub manage_sysctl: bool,
    /// Most SYN-ACKs that Weir sends per second, of all services; at least 1.
    pub syn_acks_per_second: u32,
    /// Most SYN-ACKs that it sends per second to one source prefix (/24 of IPv4, /56 of IPv6); at least 1.
    pub syn_acks_per_prefix: u32,
    /// Most wrong cookies per second that it looks at from one source prefix; at least 1.
    pub failed_cookies_per_prefix: u32,
    /// Most SYNs per second that only the kernel can answer (MD5, TCP-AO, MPTCP) and that pass to it during a flood; at least 1.
    pub kernel_only_syns_per_second: u32,
}

/// When a service's SYNs are answered by cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stance {
    /// Never, and nothing is refused.
    Off,
    /// While there is a flood.
    #[default]
    Auto,
    /// At all times.
    Always,
}

/// Whose cookies are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SchemeChoice {
    /// Weir's own where the kernel can take them, the kernel's elsewhere.
    #[default]
    Auto,
    /// Weir's own.
    Own,
    /// The kernel's.
    Kernel,
}

/// As the file has it.
impl fmt::Display for Stance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::Always => "always",
        })
    }
}

const SYN_DEFENCE: Key = Key {
    name: "syn_defence",
    form: STANCES,
    fallback: Fallback::Value(r#""auto""#),
    example: r#""auto""#,
    help: "When the SYNs of a TCP service are answered by cookie, from the card: `auto` while there is a flood, `always`, or `off`, which also \
           refuses nothing. It is `auto` because that changes nothing as long as there is no flood. A service can say otherwise for itself.",
};
const SCHEME: Key = Key {
    name: "scheme",
    form: Form::OneOf(&["auto", "own", "kernel"]),
    fallback: Fallback::Value(r#""auto""#),
    example: r#""auto""#,
    help: "Whose cookies are sent: `own` keeps every TCP option and needs `bpf_sk_assign_tcp_reqsk` (Linux 6.9), `kernel` works from 6.1 and \
           loses some. `auto` takes the better one that the kernel has; `weir doctor` says which that is.",
};
const FLOOD_SYNS_PER_SECOND: Key = Key {
    name: "flood_syns_per_second",
    form: FLOOD_RATE,
    fallback: Fallback::Value("50000"),
    example: "50000",
    help: "SYNs per second to one service, all CPUs together, that begin a flood. The default is above what real clients opened against the \
           fastest server that two cores ran when it was chosen (about 25,000 a second), and few enough for the kernel: at the 5 us that it \
           took for a SYN they are a quarter of one core. Raise it for a service with more clients. A flood of fewer begins one as well \
           once it has filled the listener's SYN queue.",
};
const FLOOD_STRAYS_PER_SECOND: Key = Key {
    name: "flood_strays_per_second",
    form: FLOOD_RATE,
    fallback: Fallback::Value("50000"),
    example: "50000",
    help: "Segments of no known connection per second to one service (ACKs, SYN-ACKs, RSTs, FINs) that begin a flood. In calm one segment of \
           32 is looked up. Connections that end in a reset leave some, so a busy service has as many as it has clients: the default is that \
           of SYNs.",
};
const QUIET_TIME: Key = Key {
    name: "quiet_time",
    form: Form::Text(r#"a duration from "1s" to "10m""#),
    fallback: Fallback::Value(r#""10s""#),
    example: r#""10s""#,
    help: "How long both rates have to stay below half of what began the flood until it is over. The default spans the pauses of a flood that \
           comes in pulses.",
};
const MINIMUM_TIME: Key = Key {
    name: "minimum_time",
    form: Form::Text(r#"a duration from "1s" to "1h""#),
    fallback: Fallback::Value(r#""10s""#),
    example: r#""10s""#,
    help: "How long a flood lasts at the least. The default keeps a short burst to one change there and back, each of which is logged.",
};
const KEY_LIFETIME: Key = Key {
    name: "key_lifetime",
    form: Form::Text(r#"a duration from "10s" to "10m""#),
    fallback: Fallback::Value(r#""60s""#),
    example: r#""60s""#,
    help: "How long a cookie key is used for new cookies; it is honoured for as long again, so a cookie holds for one to two lifetimes. The \
           default is the kernel's own period: clients who repeat their ACK for a minute still get in, and nobody has longer to guess a key.",
};
const MANAGE_SYSCTL: Key = Key {
    name: "manage_sysctl",
    form: Form::Boolean,
    fallback: Fallback::Value("true"),
    example: "false",
    help: "Whether the `kernel` scheme may set `net.ipv4.tcp_syncookies = 2` for the time of a flood; what was there before is put back. It \
           may, because otherwise that scheme works only while the listener's SYN queue is full.",
};
const SYN_ACKS_PER_SECOND: Key = Key {
    name: "syn_acks_per_second",
    form: CAP,
    fallback: Fallback::Value("10000000"),
    example: "1000000",
    help: "Most SYN-ACKs that Weir sends per second, of all services together; SYNs beyond it are dropped. The default is more than most \
           machines can send, so that a flood from forged addresses cannot use it up; lower it to spare the way out.",
};
const SYN_ACKS_PER_PREFIX: Key = Key {
    name: "syn_acks_per_prefix",
    form: CAP,
    fallback: Fallback::Value("100000"),
    example: "10000",
    help: "Most SYN-ACKs that Weir sends per second to one source prefix (/24 of IPv4, /56 of IPv6); SYNs beyond it are dropped. The default \
           is more than the clients behind one network open, and bounds what forged SYNs can have sent to somebody else's.",
};
const FAILED_COOKIES_PER_PREFIX: Key = Key {
    name: "failed_cookies_per_prefix",
    form: CAP,
    fallback: Fallback::Value("10000"),
    example: "1000",
    help: "Most wrong cookies per second from one source prefix (/24 of IPv4, /56 of IPv6); beyond it that prefix's cookies are dropped \
           unseen. A client's ACK that comes too late is one; the default leaves room for a whole network of them, and none for guessing.",
};
const KERNEL_ONLY_SYNS_PER_SECOND: Key = Key {
    name: "kernel_only_syns_per_second",
    form: CAP,
    fallback: Fallback::Value("1000"),
    example: "1000",
    help: "Most SYNs per second with MD5, TCP-AO or MPTCP, of all services together, that pass to the kernel during a flood: a cookie cannot \
           hold what they ask for. The default is more than routers and phones open, and no burden to the kernel.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "defence",
    repeated: false,
    help: "The SYN defence of TCP services: what counts as a flood, and what is done while there is one. A reload takes changes at once.",
    keys: &[
        &SYN_DEFENCE,
        &SCHEME,
        &FLOOD_SYNS_PER_SECOND,
        &FLOOD_STRAYS_PER_SECOND,
        &QUIET_TIME,
        &MINIMUM_TIME,
        &KEY_LIFETIME,
        &MANAGE_SYSCTL,
        &SYN_ACKS_PER_SECOND,
        &SYN_ACKS_PER_PREFIX,
        &FAILED_COOKIES_PER_PREFIX,
        &KERNEL_ONLY_SYNS_PER_SECOND,
    ],
};

impl Default for Defence {
    fn default() -> Self {
        Self {
            syn_defence: Stance::Auto,
            scheme: SchemeChoice::Auto,
            flood_syns_per_second: 50_000,
            flood_strays_per_second: 50_000,
            quiet_time: Duration::from_secs(10),
            minimum_time: Duration::from_secs(10),
            key_lifetime: Duration::from_secs(60),
            manage_sysctl: true,
            syn_acks_per_second: 10_000_000,
            syn_acks_per_prefix: 100_000,
            failed_cookies_per_prefix: 10_000,
            kernel_only_syns_per_second: 1_000,
        }
    }
}

impl Defence {
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        let mut section = Section::open(report, &SCHEMA, "defence".to_owned(), value);
        let default = Self::default();
        let within = |least: Duration, most: Duration| move |text: &str| duration::between(text, least, most);
        Self {
            syn_defence: section.text(&SYN_DEFENCE, one_of::<Stance>).unwrap_or(default.syn_defence),
            scheme: section.text(&SCHEME, one_of::<SchemeChoice>).unwrap_or(default.scheme),
            flood_syns_per_second: section.integer(&FLOOD_SYNS_PER_SECOND).unwrap_or(default.flood_syns_per_second),
            flood_strays_per_second: section.integer(&FLOOD_STRAYS_PER_SECOND).unwrap_or(default.flood_strays_per_second),
            quiet_time: section.text(&QUIET_TIME, within(SECOND, 600 * SECOND)).unwrap_or(default.quiet_time),
            minimum_time: section.text(&MINIMUM_TIME, within(SECOND, 3600 * SECOND)).unwrap_or(default.minimum_time),
            key_lifetime: section.text(&KEY_LIFETIME, within(10 * SECOND, 600 * SECOND)).unwrap_or(default.key_lifetime),
            manage_sysctl: section.boolean(&MANAGE_SYSCTL).unwrap_or(default.manage_sysctl),
            syn_acks_per_second: section.integer(&SYN_ACKS_PER_SECOND).unwrap_or(default.syn_acks_per_second),
            syn_acks_per_prefix: section.integer(&SYN_ACKS_PER_PREFIX).unwrap_or(default.syn_acks_per_prefix),
            failed_cookies_per_prefix: section.integer(&FAILED_COOKIES_PER_PREFIX).unwrap_or(default.failed_cookies_per_prefix),
            kernel_only_syns_per_second: section.integer(&KERNEL_ONLY_SYNS_PER_SECOND).unwrap_or(default.kernel_only_syns_per_second),
        }
    }
}
