//! What a `[[service]]` says of its defence: its own stance and rates, and who is let in or kept out.
use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    Protocol,
    daemon::one_of,
    defence::{FLOOD_RATE, OPTIONAL_RATE, STANCES, Stance},
    prefix::Prefix,
    reader::Section,
    schema::{Fallback, Form, Key},
};

/// A service's own part of the defence, checked. `None`: as `[defence]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceDefence {
    /// When its SYNs are answered by cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_defence: Option<Stance>,
    /// SYNs per second that begin a flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood_syns_per_second: Option<u32>,
    /// Segments of no flow per second that begin one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood_strays_per_second: Option<u32>,
    /// Sources that the defence and the limits below do not touch; none of them is in `deny`.
    pub allow: Vec<Prefix>,
    /// Sources whose packets are dropped.
    pub deny: Vec<Prefix>,
    /// Most new connections per second and source prefix; 0 is no limit. 0 for UDP.
    pub new_connections_per_prefix: u32,
    /// Most packets per second and source prefix; 0 is no limit. 0 for TCP.
    pub udp_packets_per_prefix: u32,
    /// Most bytes per second and source prefix; 0 is no limit. 0 for TCP.
    pub udp_bytes_per_prefix: u32,
}

/// The programs' table of prefixes holds 65,536, of which some are Weir's own.
const MOST_PREFIXES: usize = 65_000;

const PREFIXES: Form = Form::ListOf(&Form::Text(r#"a network or an address, as in "192.0.2.0/24", "2001:db8::/32" or "192.0.2.7""#));

pub(super) const SYN_DEFENCE: Key = Key {
    name: "syn_defence",
    form: STANCES,
    fallback: Fallback::Words("what `[defence]` says"),
    example: r#""always""#,
    help: "TCP only: when this service's SYNs are answered by cookie.",
};
pub(super) const FLOOD_SYNS_PER_SECOND: Key = Key {
    name: "flood_syns_per_second",
    form: FLOOD_RATE,
    fallback: Fallback::Words("what `[defence]` says"),
    example: "50000",
    help: "TCP only: SYNs per second, all CPUs together, that begin a flood on this service.",
};
pub(super) const FLOOD_STRAYS_PER_SECOND: Key = Key {
    name: "flood_strays_per_second",
    form: FLOOD_RATE,
    fallback: Fallback::Words("what `[defence]` says"),
    example: "50000",
    help: "TCP only: segments of no known connection per second that begin a flood on this service.",
};
pub(super) const ALLOW: Key = Key {
    name: "allow",
    form: PREFIXES,
    fallback: Fallback::Value("[]"),
    example: r#"["192.0.2.0/24", "2001:db8::/32"]"#,
    help: "Sources that the defence and the limits below do not touch, such as the monitoring of your own. The closest prefix of `allow` and \
           `deny` decides. None by default: an address can be forged.",
};
pub(super) const DENY: Key = Key {
    name: "deny",
    form: PREFIXES,
    fallback: Fallback::Value("[]"),
    example: r#"["198.51.100.0/24"]"#,
    help: "Sources whose packets to this service are dropped. None by default. Both lists of all services together hold at most 65,000.",
};
pub(super) const NEW_CONNECTIONS_PER_PREFIX: Key = Key {
    name: "new_connections_per_prefix",
    form: OPTIONAL_RATE,
    fallback: Fallback::Value("0"),
    example: "1000",
    help: "TCP only: most new connections per second from one source prefix (/24 of IPv4, /56 of IPv6); SYNs beyond it are dropped. 0, the \
           default, is no limit: thousands of clients can stand behind one address.",
};
pub(super) const UDP_PACKETS_PER_PREFIX: Key = Key {
    name: "udp_packets_per_prefix",
    form: OPTIONAL_RATE,
    fallback: Fallback::Value("0"),
    example: "100000",
    help: "UDP only: most packets per second from one source prefix (/24 of IPv4, /56 of IPv6); those beyond it are dropped. 0, the default, \
           is no limit: what is much depends on the service.",
};
pub(super) const UDP_BYTES_PER_PREFIX: Key = Key {
    name: "udp_bytes_per_prefix",
    form: OPTIONAL_RATE,
    fallback: Fallback::Value("0"),
    example: "10000000",
    help: "UDP only: the same in bytes per second, headers included. 0, the default, is no limit.",
};

impl ServiceDefence {
    /// Reads the keys of a service of this protocol; none if the protocol is not known.
    /// `prefixes_before` is how many the services before it have in their lists, and then how many those and this one have.
    pub(super) fn read(section: &mut Section<'_, '_, '_>, protocol: Option<Protocol>, prefixes_before: &mut usize) -> Self {
        let allow = prefixes(section, &ALLOW, &[], prefixes_before);
        let deny = prefixes(section, &DENY, &allow, prefixes_before);
        let defence = Self {
            syn_defence: section.text(&SYN_DEFENCE, one_of::<Stance>),
            flood_syns_per_second: section.integer(&FLOOD_SYNS_PER_SECOND),
            flood_strays_per_second: section.integer(&FLOOD_STRAYS_PER_SECOND),
            allow,
            deny,
            new_connections_per_prefix: section.integer(&NEW_CONNECTIONS_PER_PREFIX).unwrap_or(0),
            udp_packets_per_prefix: section.integer(&UDP_PACKETS_PER_PREFIX).unwrap_or(0),
            udp_bytes_per_prefix: section.integer(&UDP_BYTES_PER_PREFIX).unwrap_or(0),
        };
        defence.check_protocol(section, protocol);
        defence
    }

    /// Refuses what a service of this protocol cannot have. A limit of 0 says nothing, and may stand anywhere.
    fn check_protocol(&self, section: &mut Section<'_, '_, '_>, protocol: Option<Protocol>) {
        let own = [
            (&SYN_DEFENCE, Protocol::Tcp, self.syn_defence.is_some()),
            (&FLOOD_SYNS_PER_SECOND, Protocol::Tcp, self.flood_syns_per_second.is_some()),
            (&FLOOD_STRAYS_PER_SECOND, Protocol::Tcp, self.flood_strays_per_second.is_some()),
            (&NEW_CONNECTIONS_PER_PREFIX, Protocol::Tcp, self.new_connections_per_prefix > 0),
            (&UDP_PACKETS_PER_PREFIX, Protocol::Udp, self.udp_packets_per_prefix > 0),
            (&UDP_BYTES_PER_PREFIX, Protocol::Udp, self.udp_bytes_per_prefix > 0),
        ];
        for (key, needed, is_said) in own {
            if is_said && protocol.is_some_and(|protocol| protocol != needed) {
                let services = if needed == Protocol::Tcp { "TCP" } else { "UDP" };
                let remedy = format!("remove it, or write `protocol = \"{needed}\"`");
                section.refuse(key, format_args!("`{}` on {services} services only", key.name), remedy);
            }
        }
    }
}

/// A list of prefixes, none twice and none that is allowed by the other list, and together with those before not too many.
fn prefixes(section: &mut Section<'_, '_, '_>, key: &Key, allowed: &[Prefix], before: &mut usize) -> Vec<Prefix> {
    let allowed: BTreeSet<&Prefix> = allowed.iter().collect();
    let mut seen = BTreeSet::new();
    let read = section.texts(key, |text| {
        let prefix: Prefix = text.parse()?;
        if allowed.contains(&prefix) {
            return Err(format!("`allow` has {prefix} as well: remove it from one of the two"));
        }
        if !seen.insert(prefix) {
            return Err(format!("{prefix} is in the list already: remove this one"));
        }
        Ok(prefix)
    });
    let read = read.unwrap_or_default();
    if *before <= MOST_PREFIXES && *before + read.len() > MOST_PREFIXES {
        let all = *before + read.len();
        let remedy =
            format!("up to here the lists have {all}: join networks that lie side by side, or leave such lists to the packet filter");
        section.refuse(key, format_args!("at most {MOST_PREFIXES} prefixes in `allow` and `deny` of all services together"), remedy);
    }
    *before += read.len();
    read
}
