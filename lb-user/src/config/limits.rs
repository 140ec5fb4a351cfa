//! `[limits]`: the sizes of the kernel's maps. They are fixed when the data plane is loaded.
use serde::Serialize;
use toml::{Spanned, de::DeValue};

use super::{
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
};

/// `[limits]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Most services at one time, named and discovered; 1 to 4096.
    pub services: u32,
    /// Most backends of all services together; 1 to 65,536.
    pub backends: u32,
    /// Most backends of one service; 1 to 5000, and no more than `backends`.
    pub backends_per_service: u32,
    /// Entries of the table that keeps a UDP flow at its worker; 1024 to 16,777,216.
    pub udp_flows: u32,
    /// Most new entries of that table per second and CPU; 0 to 10,000,000.
    pub udp_new_flows_per_second: u32,
    /// Entries, for each CPU, of the table of known flows; a power of two, 1024 to 1,048,576.
    pub known_flows: u32,
    /// Source prefixes, for each CPU, whose rates are limited at one time; a power of two, 1024 to 1,048,576.
    pub prefix_buckets: u32,
}

const SERVICES: Key = Key {
    name: "services",
    form: Form::Integer { min: 1, max: 4096 },
    fallback: Fallback::Value("1024"),
    example: "1024",
    help: "Most services at one time, named and discovered together.",
};
const BACKENDS: Key = Key {
    name: "backends",
    form: Form::Integer { min: 1, max: 65_536 },
    fallback: Fallback::Value("8192"),
    example: "8192",
    help: "Most backends (listening sockets) of all services together.",
};
const BACKENDS_PER_SERVICE: Key = Key {
    name: "backends_per_service",
    form: Form::Integer { min: 1, max: 5000 },
    fallback: Fallback::Words("`2048`, or `backends` where that is less"),
    example: "2048",
    help: "Most backends of one service. A Maglev table wants 100 entries for each of them to spread evenly, hence the bound.",
};
const UDP_FLOWS: Key = Key {
    name: "udp_flows",
    form: Form::Integer { min: 1024, max: 16_777_216 },
    fallback: Fallback::Value("65536"),
    example: "65536",
    help: "Entries of the table that keeps a UDP flow at its worker while the workers change. When it is full the oldest flow leaves it.",
};
const UDP_NEW_FLOWS_PER_SECOND: Key = Key {
    name: "udp_new_flows_per_second",
    form: Form::Integer { min: 0, max: 10_000_000 },
    fallback: Fallback::Value("10000"),
    example: "10000",
    help: "Most new entries of that table per second and CPU. Above it (and always, with 0) the hash alone decides, and a counter says so.",
};
const KNOWN_FLOWS: Key = Key {
    name: "known_flows",
    form: Form::Integer { min: 1024, max: 1_048_576 },
    fallback: Fallback::Value("16384"),
    example: "16384",
    help: "Entries, for each CPU, of the table of flows that were known a moment ago, which spares a lookup for each of their segments during \
           a flood. A power of two. The default holds what one CPU sees within seconds, and fits its cache; one more costs a lookup.",
};
const PREFIX_BUCKETS: Key = Key {
    name: "prefix_buckets",
    form: Form::Integer { min: 1024, max: 1_048_576 },
    fallback: Fallback::Value("16384"),
    example: "16384",
    help: "Source prefixes, for each CPU, whose rates are limited at one time; a prefix more takes the place of another, whose rate then \
           counts anew. A power of two. The default holds more networks than reach a limit at once, and fits the CPU's cache.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "limits",
    repeated: false,
    help: "The sizes of the kernel's tables. They are fixed when the data plane is loaded: a change takes `weir stop` and a new start.",
    keys: &[&SERVICES, &BACKENDS, &BACKENDS_PER_SERVICE, &UDP_FLOWS, &UDP_NEW_FLOWS_PER_SECOND, &KNOWN_FLOWS, &PREFIX_BUCKETS],
};

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 1024,
            backends: 8192,
            backends_per_service: 2048,
            udp_flows: 65_536,
            udp_new_flows_per_second: 10_000,
            known_flows: 16_384,
            prefix_buckets: 16_384,
        }
    }
}

impl Limits {
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>) -> Self {
        let mut section = Section::open(report, &SCHEMA, "limits".to_owned(), value);
        let default = Self::default();
        let backends = section.integer(&BACKENDS).unwrap_or(default.backends);
        let per_service = section.integer(&BACKENDS_PER_SERVICE);
        if per_service.is_some_and(|n| n > backends) {
            section.refuse(
                &BACKENDS_PER_SERVICE,
                format_args!("at most the limit of all services together, {backends}"),
                "lower it, or raise `backends`",
            );
        }
        Self {
            services: section.integer(&SERVICES).unwrap_or(default.services),
            backends,
            backends_per_service: per_service.unwrap_or(default.backends_per_service.min(backends)),
            udp_flows: section.integer(&UDP_FLOWS).unwrap_or(default.udp_flows),
            udp_new_flows_per_second: section.integer(&UDP_NEW_FLOWS_PER_SECOND).unwrap_or(default.udp_new_flows_per_second),
            known_flows: power_of_two(&mut section, &KNOWN_FLOWS).unwrap_or(default.known_flows),
            prefix_buckets: power_of_two(&mut section, &PREFIX_BUCKETS).unwrap_or(default.prefix_buckets),
        }
    }
}

/// A size that the programs reduce a hash to by a mask. The bounds of the key's form are powers of two.
fn power_of_two(section: &mut Section<'_, '_, '_>, key: &Key) -> Option<u32> {
    let size = section.integer(key)?;
    if !size.is_power_of_two() {
        let above = size.next_power_of_two();
        section.refuse(key, "a power of two", format!("{} or {above} is near", above / 2));
    }
    Some(size)
}
