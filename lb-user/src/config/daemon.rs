//! `[daemon]`: where and how the daemon runs.
use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use toml::{Spanned, de::DeValue};

use super::{
    duration,
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema, closest},
};

/// `[daemon]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Names of the network devices whose packets are balanced. May be empty: then the command line has to name one.
    pub interfaces: Vec<String>,
    /// How XDP is attached.
    pub mode: Mode,
    /// Where /metrics is served.
    pub metrics_listen: MetricsListen,
    /// The web configuration: who may read the metrics and the page, and by which certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_config: Option<PathBuf>,
    /// Time between two full scans of the listeners, which repair whatever events missed; 1 s to 1 h.
    #[serde(serialize_with = "duration::serialize")]
    pub rescan_interval: Duration,
    /// Whether the data plane is taken away when the daemon ends.
    pub detach_on_exit: bool,
    /// Key of the flow hash, for reproducible tests; `None`: 16 bytes from the operating system.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_hex")]
    pub flow_hash_key: Option<[u8; 16]>,
}

/// How XDP is attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Native where the driver can, generic elsewhere.
    Auto,
    /// In the driver only; an interface that cannot is refused.
    Native,
    /// In the kernel's generic path, which works everywhere and is slower.
    Generic,
}

/// The address that /metrics is served at; `None` is `"off"`. Port 0 takes any free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsListen(pub Option<SocketAddr>);

const INTERFACES: Key = Key {
    name: "interfaces",
    form: Form::ListOf(&Form::Text("the name of a network device")),
    fallback: Fallback::Value("[]"),
    example: r#"["eth0"]"#,
    help: "The network devices to balance on. `--iface` on the command line replaces the whole list; one of the two has to name a device.",
};
const MODE: Key = Key {
    name: "mode",
    form: Form::OneOf(&["auto", "native", "generic"]),
    fallback: Fallback::Value(r#""auto""#),
    example: r#""auto""#,
    help: "How XDP is attached: `native` in the driver (an interface that cannot is refused), `generic` in the kernel's slower path that \
           every device has, `auto` native where the driver can and generic elsewhere.",
};
const METRICS_LISTEN: Key = Key {
    name: "metrics_listen",
    form: Form::Text(r#"an IP address with a port, or "off""#),
    fallback: Fallback::Value(r#""127.0.0.1:9464""#),
    example: r#""127.0.0.1:9464""#,
    help: "Where Prometheus metrics are served over HTTP. The metrics name your services and show their traffic: a non-loopback address \
           shows them to whoever reaches it. Port 0 takes a free one.",
};
const WEB_CONFIG: Key = Key {
    name: "web_config",
    form: Form::Text("the path of a file"),
    fallback: Fallback::Words("none: whoever reaches the address may read, over plain HTTP"),
    example: r#""/etc/weir/web.yml""#,
    help: "The web configuration of Prometheus' exporters, for /metrics and the page: TLS, client certificates and passwords (docs/page.md). \
           It is read again when it or a file it names has changed.",
};
const RESCAN_INTERVAL: Key = Key {
    name: "rescan_interval",
    form: Form::Text(r#"a duration from "1s" to "1h""#),
    fallback: Fallback::Value(r#""10s""#),
    example: r#""10s""#,
    help: "Time between two full scans of the listeners. Changes are noticed by event within milliseconds; the scan repairs what events \
           missed. Where a scan takes long, which it does with thousands of sockets, it is longer: at least 400 times that. Units: `ms`, \
           `s`, `m`, `h`.",
};
const DETACH_ON_EXIT: Key = Key {
    name: "detach_on_exit",
    form: Form::Boolean,
    fallback: Fallback::Value("false"),
    example: "true",
    help: "Whether the data plane is taken away when the daemon ends. By default it stays and goes on balancing, so that a restart loses \
           nothing; `weir stop` takes it away.",
};
const FLOW_HASH_KEY: Key = Key {
    name: "flow_hash_key",
    form: Form::Text("32 hexadecimal digits"),
    fallback: Fallback::Words("16 random bytes from the operating system"),
    example: r#""00112233445566778899aabbccddeeff""#,
    help: "Key of the flow hash. For reproducible tests only: whoever knows the key can aim all flows at one worker.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "daemon",
    repeated: false,
    help: "Where and how the daemon runs.",
    keys: &[&INTERFACES, &MODE, &METRICS_LISTEN, &WEB_CONFIG, &RESCAN_INTERVAL, &DETACH_ON_EXIT, &FLOW_HASH_KEY],
};

impl Default for Daemon {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: Mode::Auto,
            metrics_listen: MetricsListen(Some(SocketAddr::from(([127, 0, 0, 1], 9464)))),
            web_config: None,
            rescan_interval: Duration::from_secs(10),
            detach_on_exit: false,
            flow_hash_key: None,
        }
    }
}

impl Daemon {
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>) -> Self {
        let mut section = Section::open(report, &SCHEMA, "daemon".to_owned(), value);
        let default = Self::default();
        let mut seen = Vec::new();
        let interfaces = section.texts(&INTERFACES, |name| {
            let name = interface_name(name)?;
            if seen.contains(&name) {
                return Err(format!("{name} is in the list already: remove this one"));
            }
            seen.push(name.clone());
            Ok(name)
        });
        Self {
            interfaces: interfaces.unwrap_or(default.interfaces),
            mode: section.text(&MODE, one_of::<Mode>).unwrap_or(default.mode),
            metrics_listen: section.text(&METRICS_LISTEN, MetricsListen::from_str).unwrap_or(default.metrics_listen),
            web_config: section.text(&WEB_CONFIG, path),
            rescan_interval: section.text(&RESCAN_INTERVAL, rescan_interval).unwrap_or(default.rescan_interval),
            detach_on_exit: section.boolean(&DETACH_ON_EXIT).unwrap_or(default.detach_on_exit),
            flow_hash_key: section.text(&FLOW_HASH_KEY, hex_key),
        }
    }
}

/// Reads one word of an enumeration; the error is the remedy.
pub(super) fn one_of<T: ValueEnum>(word: &str) -> Result<T, String> {
    T::from_str(word, false).map_err(|_| {
        let words: Vec<_> = T::value_variants().iter().filter_map(ValueEnum::to_possible_value).map(|v| v.get_name().to_owned()).collect();
        match closest(word, words.iter().map(String::as_str)) {
            Some(close) => format!("did you mean \"{close}\"?"),
            None => "choose one of these".to_owned(),
        }
    })
}

/// A name that the kernel would take for a device (`dev_valid_name` in net/core/dev.c); the error is the remedy.
pub fn interface_name(name: &str) -> Result<String, String> {
    // IFNAMSIZ is 16 bytes with the closing zero.
    const LONGEST: usize = 15;
    if name.is_empty() {
        return Err("write the device's name, as `ip link` shows it".to_owned());
    }
    if name.len() > LONGEST {
        return Err(format!("a device's name has at most {LONGEST} bytes: see `ip link`"));
    }
    // The kernel's isspace() is ASCII and Latin-1; Weir prints names on one line, so all control characters are out.
    if name == "." || name == ".." || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return Err("a device's name holds no space, `/`, `:` or control character: see `ip link`".to_owned());
    }
    Ok(name.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("leave the key out to have none".to_owned()) } else { Ok(text.into()) }
}

fn rescan_interval(text: &str) -> Result<Duration, String> {
    duration::between(text, Duration::from_secs(1), Duration::from_secs(3600))
}

fn hex_key(text: &str) -> Result<[u8; 16], String> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("this has {} characters; leave the key out outside of tests", text.chars().count()));
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|error| error.to_string())
}

#[expect(clippy::ref_option, reason = "serde passes the field as it is declared")]
fn as_hex<S: Serializer>(key: &Option<[u8; 16]>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*key))),
        None => serializer.serialize_none(),
    }
}

/// The error is the remedy.
impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| {
            if text.parse::<std::net::IpAddr>().is_ok() {
                "add a port, as in \"127.0.0.1:9464\" or \"[::1]:9464\"".to_owned()
            } else {
                "write an address, not a host name, as in \"127.0.0.1:9464\", \"[::1]:9464\" or \"0.0.0.0:9464\"".to_owned()
            }
        })
    }
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl Serialize for MetricsListen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
