//! `[[service]]`: one group of workers that share an address.
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use toml::{Spanned, de::DeValue};

use super::{
    Limits,
    daemon::{interface_name, one_of},
    prime,
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
    service_defence::{self, ServiceDefence},
};

/// One `[[service]]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Unique; `[a-z0-9][a-z0-9._-]*`, 1 to 63 characters.
    pub name: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port that the listeners are bound to, host byte order; never 0.
    pub port: u16,
    /// The address that the listeners are bound to, exactly as bound: `0.0.0.0` and `::` are the two wildcards.
    pub address: IpAddr,
    /// The device that the listeners are bound to (`SO_BINDTODEVICE`); `None`: those that are bound to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Entries of the Maglev table, a prime; `None`: chosen by the size of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
    /// Whether a group that another program steers is taken over.
    pub takeover: bool,
    /// Weight (0 to 100) of the worker with each index; the workers beyond the list have weight 1.
    pub weights: Vec<u32>,
    /// Its own part of the defence.
    #[serde(flatten)]
    pub defence: ServiceDefence,
    /// For UDP services that speak QUIC.
    #[serde(flatten)]
    pub quic: Option<Quic>,
}

/// How a QUIC packet names its worker, for packets of a client whose address changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quic {
    /// Position, 0 to 19, of the byte in the server's connection ID (RFC 9000, section 5.1: at most 20 bytes) that holds the worker's index.
    pub worker_byte: u8,
}

/// The transport protocols that Weir balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections, balanced when they open.
    Tcp,
    /// Datagrams, balanced by flow.
    Udp,
}

const NAME: Key = Key {
    name: "name",
    form: Form::Text("1 to 63 of a-z, 0-9, `.`, `_` and `-`, a letter or digit first"),
    fallback: Fallback::Required,
    example: r#""web""#,
    help: "The service's name in commands, metrics and logs. Unique.",
};
const PROTOCOL: Key = Key {
    name: "protocol",
    form: Form::OneOf(&["tcp", "udp"]),
    fallback: Fallback::Required,
    example: r#""tcp""#,
    help: "The transport protocol.",
};
const PORT: Key = Key {
    name: "port",
    form: Form::Integer { min: 1, max: 65_535 },
    fallback: Fallback::Required,
    example: "80",
    help: "The port that the listeners are bound to.",
};
const ADDRESS: Key = Key {
    name: "address",
    form: Form::Text("an IPv4 or IPv6 address"),
    fallback: Fallback::Words("`0.0.0.0` when `interface` is given; otherwise required"),
    example: r#""0.0.0.0""#,
    help: "The address that the listeners are bound to, exactly as they are bound: `0.0.0.0` and `::` are the two wildcards, and a group \
           bound to one is not found under the other. `ss -ltn` shows it.",
};
const INTERFACE: Key = Key {
    name: "interface",
    form: Form::Text("the name of a network device"),
    fallback: Fallback::Words("the listeners that are bound to no device"),
    example: r#""eth1""#,
    help: "The device that the listeners are bound to (SO_BINDTODEVICE).",
};
const TABLE_SIZE: Key = Key {
    name: "table_size",
    form: Form::Integer { min: prime::LEAST, max: prime::MOST },
    fallback: Fallback::Words("chosen by the size of the group, at most 65537 where that is enough"),
    example: "65537",
    help: "Entries of the service's Maglev table: a prime, at least 100 times the number of workers. A larger table spreads more evenly and \
           moves fewer flows when a worker leaves, and takes more kernel memory.",
};
const TAKEOVER: Key = Key {
    name: "takeover",
    form: Form::Boolean,
    fallback: Fallback::Value("false"),
    example: "true",
    help: "Whether to replace the program with which another one (nginx quic_bpf, Envoy, udpgrm) steers the group already. By default such \
           a group is left alone and reported.",
};
const WEIGHTS: Key = Key {
    name: "weights",
    form: Form::ListOf(&Form::Integer { min: 0, max: 100 }),
    fallback: Fallback::Value("[]"),
    example: "[2, 1, 1]",
    help: "Shares of new connections: the first number is for the worker with index 0, and so on, as `weir status` numbers them. A worker \
           beyond the list has weight 1; one with weight 0 gets no new connections.",
};
const QUIC: Key = Key {
    name: "quic",
    form: Form::Boolean,
    fallback: Fallback::Value("false"),
    example: "true",
    help: "UDP only: packets of a QUIC connection whose client address changed follow the server's connection ID to its worker.",
};
const QUIC_WORKER_BYTE: Key = Key {
    name: "quic_worker_byte",
    form: Form::Integer { min: 0, max: 19 },
    fallback: Fallback::Words("`0`, with `quic = true`"),
    example: "1",
    help: "With `quic = true`: the position, from 0, of the byte in the server's connection ID that holds the worker's index.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "service",
    repeated: true,
    help: "One service: the SO_REUSEPORT listeners of one address. `address` or `interface` has to be given; both may be. No two services \
           share a name, nor protocol, address, port and interface.",
    keys: &[
        &NAME,
        &PROTOCOL,
        &PORT,
        &ADDRESS,
        &INTERFACE,
        &TABLE_SIZE,
        &TAKEOVER,
        &WEIGHTS,
        &QUIC,
        &QUIC_WORKER_BYTE,
        &service_defence::SYN_DEFENCE,
        &service_defence::FLOOD_SYNS_PER_SECOND,
        &service_defence::FLOOD_STRAYS_PER_SECOND,
        &service_defence::ALLOW,
        &service_defence::DENY,
        &service_defence::NEW_CONNECTIONS_PER_PREFIX,
        &service_defence::UDP_PACKETS_PER_PREFIX,
        &service_defence::UDP_BYTES_PER_PREFIX,
    ],
};

/// A Maglev table spreads within one percent from 100 entries a backend (Eisenbud et al., NSDI 2016, section 5.3).
const TABLE_ENTRIES_PER_BACKEND: usize = 100;

/// What earlier services of the file claimed, and on which line.
#[derive(Default)]
pub(super) struct Claimed {
    names: HashMap<String, usize>,
    places: HashMap<(Protocol, u16, IpAddr, Option<String>), usize>,
    /// How many prefixes there are in their lists.
    prefixes: usize,
}

impl Service {
    /// Reads service number `index`; `None` when it has no sound name, protocol, port or place, all of which are noted.
    pub(super) fn read(
        report: &mut Report<'_>,
        value: &Spanned<DeValue<'_>>,
        index: usize,
        limits: &Limits,
        claimed: &mut Claimed,
    ) -> Option<Self> {
        let mut section = Section::open(report, &SCHEMA, format!("service[{index}]"), Some(value));
        if !value.get_ref().is_table() {
            return None;
        }
        for key in [&NAME, &PROTOCOL, &PORT] {
            section.require(key);
        }
        let name = section.text(&NAME, service_name);
        let protocol = section.text(&PROTOCOL, one_of::<Protocol>);
        let port = section.integer(&PORT).and_then(|port| u16::try_from(port).ok());
        let interface = section.text(&INTERFACE, interface_name);
        let address = address(&mut section, interface.as_ref());
        let quic = quic(&mut section, protocol);
        let weights = section.integers(&WEIGHTS).unwrap_or_default();
        check_weights(&mut section, &weights, limits);
        let table_size = table_size(&mut section, &weights);
        let takeover = section.boolean(&TAKEOVER).unwrap_or(false);
        let defence = ServiceDefence::read(&mut section, protocol, &mut claimed.prefixes);

        if let Some(name) = &name {
            claim(&mut section, &mut claimed.names, &NAME, name.clone(), "a name of its own");
        }
        let (protocol, port, address) = (protocol?, port?, address?);
        let place = (protocol, port, address, interface.clone());
        claim(&mut section, &mut claimed.places, &PORT, place, "a protocol, address, port and interface that no other service has");
        Some(Self { name: name?, protocol, port, address, interface, table_size, takeover, weights, defence, quic })
    }
}

fn claim<T: std::hash::Hash + Eq>(section: &mut Section<'_, '_, '_>, claimed: &mut HashMap<T, usize>, key: &Key, value: T, expected: &str) {
    let line = section.report.place(section.span(key).start).0;
    match claimed.entry(value) {
        Entry::Vacant(free) => {
            free.insert(line);
        }
        Entry::Occupied(first) => {
            section.refuse(key, expected, format!("the service of line {} has it: change or remove one", first.get()));
        }
    }
}

fn service_name(name: &str) -> Result<String, String> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if first && rest && name.len() <= 63 {
        return Ok(name.to_owned());
    }
    let mended: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let mended = mended.trim_start_matches(['.', '_', '-']);
    let mended = mended.get(..mended.len().min(63)).unwrap_or_default();
    Err(if mended.is_empty() { "write a name such as \"web\"".to_owned() } else { format!("\"{mended}\" would do") })
}

fn address(section: &mut Section<'_, '_, '_>, interface: Option<&String>) -> Option<IpAddr> {
    if !section.has(&ADDRESS) {
        if !section.has(&INTERFACE) {
            section.missing(
                &ADDRESS,
                "`address`, `interface` or both",
                r#"add `address = "0.0.0.0"` for listeners on every IPv4 address, "::" for IPv6, or the one that `ss -ltn` shows"#,
            );
        }
        return interface.map(|_| IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    let address = section.text(&ADDRESS, bound_address)?;
    let needs_device = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if needs_device && !section.has(&INTERFACE) {
        section.refuse(
            &ADDRESS,
            "a link-local address only together with `interface`",
            "add `interface = \"..\"`: it belongs to one device",
        );
    }
    Some(address)
}

fn bound_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| match text.split_once('%') {
        Some((address, zone)) => format!("write \"{address}\", and `interface = \"{zone}\"` on a line of its own"),
        None if text == "*" => "write \"0.0.0.0\" for every IPv4 address or \"::\" for every IPv6 address".to_owned(),
        None if text.parse::<std::net::SocketAddr>().is_ok() => "write the address alone; the port has its own key".to_owned(),
        None if text.contains('/') => "write one address: a listener is bound to an address, not to a network".to_owned(),
        None => "write an address, not a host name: the one that `ss -ltn` (`ss -lun` for UDP) shows".to_owned(),
    })?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(format!("write \"{}\": Weir holds both for the same", v6.to_canonical())),
        _ if address.is_multicast() => Err("write a unicast address: multicast and broadcast are never balanced".to_owned()),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("write a unicast address: multicast and broadcast are never balanced".to_owned()),
        _ => Ok(address),
    }
}

fn quic(section: &mut Section<'_, '_, '_>, protocol: Option<Protocol>) -> Option<Quic> {
    let on = section.boolean(&QUIC);
    let worker_byte = section.integer(&QUIC_WORKER_BYTE).and_then(|byte| u8::try_from(byte).ok());
    if on == Some(true) && protocol == Some(Protocol::Tcp) {
        section.refuse(&QUIC, "`quic` on UDP services only", "remove it, or write `protocol = \"udp\"`");
    }
    if section.has(&QUIC_WORKER_BYTE) && (on == Some(false) || !section.has(&QUIC)) {
        section.refuse(&QUIC_WORKER_BYTE, "`quic_worker_byte` only together with `quic = true`", "remove it, or write `quic = true`");
    }
    on?.then(|| Quic { worker_byte: worker_byte.unwrap_or(0) })
}

fn check_weights(section: &mut Section<'_, '_, '_>, weights: &[u32], limits: &Limits) {
    let most = limits.backends_per_service;
    if u32::try_from(weights.len()).unwrap_or(u32::MAX) > most {
        section.refuse(
            &WEIGHTS,
            format_args!("at most {most} weights, as `limits.backends_per_service` says"),
            format!("this list has {}: shorten it or raise the limit", weights.len()),
        );
    }
}

fn table_size(section: &mut Section<'_, '_, '_>, weights: &[u32]) -> Option<u32> {
    let size = section.integer(&TABLE_SIZE)?;
    if !prime::is_prime(size) {
        let near: Vec<String> = prime::neighbours(size).map(|prime| prime.to_string()).collect();
        section.refuse(&TABLE_SIZE, "a prime number", format!("{} is near", near.join(" or ")));
    } else if (size as usize) < weights.len() * TABLE_ENTRIES_PER_BACKEND {
        let least = weights.len() * TABLE_ENTRIES_PER_BACKEND;
        section.refuse(
            &TABLE_SIZE,
            "at least 100 entries for each worker that `weights` names",
            format!("leave it out, or choose a prime above {least}"),
        );
    }
    Some(size)
}

/// As the two flat keys of the file.
impl Serialize for Quic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = serializer.serialize_struct("Quic", 2)?;
        keys.serialize_field("quic", &true)?;
        keys.serialize_field("quic_worker_byte", &self.worker_byte)?;
        keys.end()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
