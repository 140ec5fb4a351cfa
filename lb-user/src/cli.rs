//! The command line: every command with its arguments, and how `weir run` lays its arguments over the file.
mod examples;

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, Parser, Subcommand, value_parser};

use lb_common::{Action, Reason};

use self::examples::{
    CONFIG_EXAMPLES, DEFENCE_EXAMPLES, DOCTOR_EXAMPLES, DRAIN_EXAMPLES, EXAMPLES, EXPLAIN_EXAMPLES, RELOAD_EXAMPLES, RUN_EXAMPLES,
    STATUS_EXAMPLES, STOP_EXAMPLES, TOP_EXAMPLES, TRACE_EXAMPLES, UNDRAIN_EXAMPLES,
};
use crate::{
    api::protocol::Order,
    config::{Config, MetricsListen, Mode, Prefix, Protocol, interface_name},
    exit::{Exit, Failure, fail},
};

/// Where the pins of all instances are.
const PIN_ROOT: &str = "/sys/fs/bpf/weir";
/// Where the control sockets and locks of all instances are.
const RUN_DIR: &str = "/run/weir";

const ABOUT: &str = "An XDP load balancer for SO_REUSEPORT workers that holds back SYN floods";

fn after_help() -> String {
    format!("{EXAMPLES}\n\nExit codes:\n{}", Exit::table())
}

/// An XDP load balancer for `SO_REUSEPORT` workers that holds back SYN floods.
#[derive(Debug, Clone, Parser)]
#[command(name = "weir", version, about = ABOUT, after_help = after_help())]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArgs {
    /// The instance: each has its own daemon, pins, socket and lock; 1 to 32 of a-z, 0-9 and `-`.
    #[arg(long, global = true, value_name = "NAME", default_value = "default", value_parser = instance_name)]
    pub instance: String,
    /// Print JSON: one object for the result, or one on standard error for the failure.
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more: -v for debug, -vv for trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Directory below which each instance has its control socket and lock.
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory on a bpf file system below which each instance has its pins.
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = PIN_ROOT)]
    pub pin_root: PathBuf,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Attach to the interfaces, balance, and serve metrics until SIGTERM.
    Run(RunArgs),
    /// End the daemon, detach every program and remove all pins: packets go as if Weir had never been there.
    #[command(after_help = STOP_EXAMPLES)]
    Stop,
    /// Show interfaces, services and backends; from the pinned maps when the daemon is down.
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
    /// Watch services and workers live in this terminal: rates, queues, accept latency, drops, floods; drain a worker.
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Give a backend no new connections; those it has stay.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(BackendArgs),
    /// Give a drained backend new connections again.
    #[command(after_help = UNDRAIN_EXAMPLES)]
    Undrain(BackendArgs),
    /// Force the SYN defence of a TCP service on or off, or have the configuration decide again.
    #[command(after_help = DEFENCE_EXAMPLES)]
    Defence(DefenceArgs),
    /// Have the daemon read its configuration file again; a file with a fault changes nothing.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload,
    /// Say what this kernel, card and sysctl settings allow, each line with its effect and remedy.
    Doctor(DoctorArgs),
    /// Say which service and backend a flow goes to on the live tables, by which step and why.
    Explain(ExplainArgs),
    /// Show packets with their verdicts and reasons as they come, and keep them as a pcapng file.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Check, show or start a configuration file; needs no daemon and no root.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write the man pages and the shells' completions, for a package.
    #[command(hide = true)]
    Manual {
        /// The directory, below which `man` and `completions` are made.
        directory: PathBuf,
    },
}

/// Arguments of `weir run`. They win over the file.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// A network device to balance on; repeat it for more. Replaces `daemon.interfaces` of the file.
    #[arg(long = "iface", value_name = "IF", value_parser = interface_name)]
    pub interfaces: Vec<String>,
    /// The configuration file. Without one, every TCP group found becomes a service.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How XDP is attached.
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Where to serve metrics: an address with a port, or `off`.
    #[arg(long, value_name = "ADDR")]
    pub listen_metrics: Option<MetricsListen>,
    /// Who may read the metrics and the page, and by which certificate: a web configuration of Prometheus' exporters.
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Make services of the groups found, beyond what the file says; `tcp`, `udp` or `tcp,udp`.
    #[arg(long, value_name = "PROTO", value_delimiter = ',')]
    pub discover: Vec<Protocol>,
    /// Attach inside this network namespace: a path, or a name that `ip netns` shows.
    #[arg(long, value_name = "PATH|NAME")]
    pub netns: Option<NetworkNamespace>,
    /// Take the data plane away when the daemon ends; by default it stays and goes on balancing.
    #[arg(long)]
    pub detach_on_exit: bool,
}

/// A backend of a service.
#[derive(Debug, Clone, Args)]
pub struct BackendArgs {
    /// The service's name, as `weir status` shows it.
    pub service: String,
    /// The backend, as `weir status` shows it.
    pub backend: String,
}

/// Arguments of `weir defence`.
#[derive(Debug, Clone, Args)]
pub struct DefenceArgs {
    /// The service's name, as `weir status` shows it.
    pub service: String,
    /// What its SYN defence is told.
    pub order: Order,
}

/// Arguments of `weir top`.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// How often to look, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = value_parser!(u64).range(1..=60))]
    pub interval: u64,
}

/// Arguments of `weir doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub struct DoctorArgs {
    /// Look at this network device too; repeat it for more.
    #[arg(long = "iface", value_name = "IF", value_parser = interface_name)]
    pub interfaces: Vec<String>,
}

/// Arguments of `weir explain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct ExplainArgs {
    /// The transport protocol.
    #[arg(value_name = "PROTO")]
    pub protocol: Protocol,
    /// The client's address and port, as in `192.0.2.7:40000` or `[2001:db8::7]:40000`.
    #[arg(value_name = "SRC:PORT", value_parser = endpoint)]
    pub source: SocketAddr,
    /// The address and port that the client asked for; of the same family.
    #[arg(value_name = "DST:PORT", value_parser = endpoint)]
    pub destination: SocketAddr,
    /// Say what would move if this backend left: for this flow, and as a share of all.
    #[arg(long, value_name = "BACKEND")]
    pub without: Option<String>,
}

/// Arguments of `weir trace`.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Only packets to this service, as `weir status` shows it.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Only packets of clients in this network, as in `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.7`.
    #[arg(long = "src", value_name = "PREFIX")]
    pub source: Option<Prefix>,
    /// Only packets with this reason, or those that `pass`, that Weir does `drop` or does `answer`; repeat it for more.
    #[arg(long = "reason", value_name = "REASON")]
    pub reasons: Vec<TracedReason>,
    /// End after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The most packets a second; what is above is counted.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Write the packets' first bytes to this file as pcapng too.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// Which reasons `weir trace` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TracedReason {
    /// This one.
    One(Reason),
    /// All that do this.
    All(Action),
}

/// The error says what would be right.
impl FromStr for TracedReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(action) = Action::ALL.into_iter().find(|action| action.label() == text) {
            return Ok(Self::All(action));
        }
        let found = Reason::ALL.into_iter().find(|reason| reason.label() == text);
        found.map(Self::One).ok_or_else(|| {
            let nearest = Reason::ALL.into_iter().min_by_key(|reason| strsim::damerau_levenshtein(reason.label(), text));
            let nearest = nearest.map_or_else(String::new, |reason| format!("; did you mean `{}`?", reason.label()));
            format!("write `pass`, `drop`, `answer`, or a reason of docs/metrics.md{nearest}")
        })
    }
}

/// The commands below `weir config`.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = CONFIG_EXAMPLES)]
pub enum ConfigCommand {
    /// Check a file and print every fault with its line and remedy.
    #[command(after_help = CONFIG_EXAMPLES)]
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Print the effective configuration with all defaults: of a file, or what holds without one.
    #[command(after_help = CONFIG_EXAMPLES)]
    Show {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a file to start from: every key, commented out, with its default and meaning.
    #[command(after_help = CONFIG_EXAMPLES)]
    Example,
}

/// A network namespace as a path that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNamespace(pub PathBuf);

impl GlobalArgs {
    /// The directory that holds this instance's pins.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.pin_root.join(&self.instance)
    }
}

impl RunArgs {
    /// The configuration to run with: the file's, or the defaults, with these arguments laid over it.
    pub fn configuration(&self) -> Result<Config, Failure> {
        let config = self.config.as_ref().map(Config::load).transpose()?;
        self.apply(config.unwrap_or_default())
    }

    /// Lays the command line over `config` and checks that the whole has something to do.
    pub fn apply(&self, mut config: Config) -> Result<Config, Failure> {
        let Self { interfaces, config: _, mode, listen_metrics, web_config, discover, netns: _, detach_on_exit } = self;
        if !interfaces.is_empty() {
            config.daemon.interfaces.clear();
            for name in interfaces {
                if !config.daemon.interfaces.contains(name) {
                    config.daemon.interfaces.push(name.clone());
                }
            }
        }
        config.daemon.mode = mode.unwrap_or(config.daemon.mode);
        config.daemon.metrics_listen = listen_metrics.unwrap_or(config.daemon.metrics_listen);
        config.daemon.web_config = web_config.clone().or(config.daemon.web_config);
        config.daemon.detach_on_exit |= detach_on_exit;
        config.discovery.tcp |= discover.contains(&Protocol::Tcp);
        config.discovery.udp |= discover.contains(&Protocol::Udp);

        if config.daemon.interfaces.is_empty() {
            let remedy = "name a device with --iface, or in the file's `daemon.interfaces`; `ip link` lists them";
            return Err(fail(Exit::Usage, "no interface to balance on", remedy));
        }
        if config.services.is_empty() && !config.discovery.tcp && !config.discovery.udp {
            let remedy = "add a [[service]], write `tcp = true` below [discovery], or give --discover tcp";
            return Err(fail(Exit::Configuration, "nothing to balance: the file names no service and discovers none", remedy));
        }
        Ok(config)
    }
}

impl ExplainArgs {
    /// Refuses a flow from one address family to the other.
    pub fn check(&self) -> Result<(), Failure> {
        if self.source.is_ipv4() == self.destination.is_ipv4() {
            return Ok(());
        }
        let what = format!("{} and {} are of different address families", self.source, self.destination);
        Err(fail(Exit::Usage, what, "give both as IPv4 or both as IPv6"))
    }
}

/// The error says what would be right.
impl FromStr for NetworkNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return Ok(Self(PathBuf::from(text)));
        }
        if matches!(text, "" | "." | "..") {
            return Err("give a path, or a name that `ip netns` shows".to_owned());
        }
        Ok(Self(PathBuf::from("/run/netns").join(text)))
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    let sound = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if sound && (1..=32).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("an instance's name is 1 to 32 of a-z, 0-9 and `-`".to_owned())
}

fn endpoint(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, as in 192.0.2.7:40000 or [2001:db8::7]:40000".to_owned())
}

#[cfg(test)]
mod tests;
