//! The command line: every command with its arguments, and how `weir run` lays its arguments over the file.
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{
    config::{Config, MetricsListen, Mode, Protocol, interface_name},
    exit::{Exit, Failure, fail},
};

/// Where the pins of all instances are.
const PIN_ROOT: &str = "/sys/fs/bpf/weir";
/// Where the control sockets and locks of all instances are.
const RUN_DIR: &str = "/run/weir";

const ABOUT: &str = "An XDP load balancer for SO_REUSEPORT workers that holds back SYN floods";

const EXAMPLES: &str = "\
Examples:
  weir run --iface eth0                     balance every TCP SO_REUSEPORT group reachable through eth0
  weir run --config /etc/weir/weir.toml     balance the services that the file names
  weir config check /etc/weir/weir.toml     all faults of a file, with line and remedy
  weir status                               interfaces, services, backends
  weir drain web 3                          no new connections for backend 3 of service web
  weir doctor --iface eth0                  what this kernel and this card allow
  weir explain tcp 192.0.2.7:40000 198.51.100.1:443
                                            which worker this connection goes to, and why";

const RUN_EXAMPLES: &str = "\
Examples:
  weir run --iface eth0 --discover udp      TCP groups and UDP groups
  weir run --config weir.toml --iface eth1  the file's services, on eth1 instead of the file's interfaces
  weir run --iface v0 --netns blue --instance blue
                                            inside the namespace blue, beside other instances

`weir config example` prints a file to start from; `weir --help` lists the exit codes.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  weir explain tcp 192.0.2.7:40000 198.51.100.1:443
  weir explain udp [2001:db8::7]:40000 [2001:db8::1]:443 --without 3";

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
    Stop,
    /// Show interfaces, services and backends; from the pinned maps when the daemon is down.
    Status,
    /// Give a backend no new connections; those it has stay.
    Drain(BackendArgs),
    /// Give a drained backend new connections again.
    Undrain(BackendArgs),
    /// Have the daemon read its configuration file again; a file with a fault changes nothing.
    Reload,
    /// Say what this kernel, card and sysctl settings allow, each line with its effect and remedy.
    Doctor(DoctorArgs),
    /// Say which service and backend a flow goes to on the live tables, by which step and why.
    Explain(ExplainArgs),
    /// Check, show or start a configuration file; needs no daemon and no root.
    #[command(subcommand)]
    Config(ConfigCommand),
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

/// Arguments of `weir doctor`.
#[derive(Debug, Clone, Args)]
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

/// The commands below `weir config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check a file and print every fault with its line and remedy.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Print the effective configuration with all defaults: of a file, or what holds without one.
    Show {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a file to start from: every key, commented out, with its default and meaning.
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
        let Self { interfaces, config: _, mode, listen_metrics, discover, netns: _, detach_on_exit } = self;
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
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn run(arguments: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from([&["weir", "run"], arguments].concat()).unwrap();
        match cli.command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_examples_and_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("weir run --iface eth0"), "{help}");
        for exit in Exit::ALL {
            assert!(help.contains(exit.meaning()), "{exit:?} is missing in:\n{help}");
        }
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let all = [EXAMPLES, RUN_EXAMPLES, EXPLAIN_EXAMPLES];
        let lines: Vec<&str> = all.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("  weir ")).collect();
        assert_eq!(lines.len(), 12);
        for line in lines {
            let arguments = line.split("  ").next().unwrap().split(' ');
            let parsed = Cli::try_parse_from(std::iter::once("weir").chain(arguments));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn global_arguments_stand_before_and_after_the_command() {
        for arguments in
            [["weir", "--instance", "blue", "--json", "-vv", "status"], ["weir", "status", "-vv", "--json", "--instance", "blue"]]
        {
            let global = Cli::try_parse_from(arguments).unwrap().global;
            assert_eq!((global.instance.as_str(), global.json, global.verbose), ("blue", true, 2));
            assert_eq!(global.pin_dir(), PathBuf::from("/sys/fs/bpf/weir/blue"));
        }
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_would_be_right() {
        for (arguments, says) in [
            (&["weir", "--instance", "Blue", "status"][..], "a-z, 0-9"),
            (&["weir", "--instance", "../etc", "status"], "a-z, 0-9"),
            (&["weir", "--instance", "", "status"], "a-z, 0-9"),
            (&["weir", "--instance", "012345678901234567890123456789012", "status"], "1 to 32"),
            (&["weir", "run", "--iface", "a/b"], "`/`"),
            (&["weir", "run", "--iface", "abcdefghijklmnop"], "at most 15"),
            (&["weir", "run", "--mode", "fast"], "native"),
            (&["weir", "run", "--listen-metrics", "localhost:9464"], "not a host name"),
            (&["weir", "run", "--discover", "tcp,sctp"], "udp"),
            (&["weir", "run", "--netns", ".."], "ip netns"),
            (&["weir", "explain", "tcp", "192.0.2.7", "198.51.100.1:443"], "and a port"),
        ] {
            let error = Cli::try_parse_from(arguments).unwrap_err();
            assert!(error.to_string().contains(says), "{arguments:?}: {error}");
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{arguments:?}");
        }
        assert_eq!(Cli::try_parse_from(["weir", "drain", "web"]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let text = r#"
            [daemon]
            interfaces = ["eth0", "eth1"]
            mode = "native"
            metrics_listen = "off"
            [[service]]
            name = "dns"
            protocol = "udp"
            port = 53
            address = "::"
        "#;
        let file = Config::parse("weir.toml", text).unwrap();
        assert_eq!(run(&[]).apply(file.clone()).unwrap(), file);

        let arguments = ["--iface", "v0", "--iface", "v0", "--mode", "generic", "--listen-metrics", "[::1]:1", "--discover", "udp,tcp"];
        let merged = run(&arguments).apply(file.clone()).unwrap();
        assert_eq!((merged.daemon.interfaces, merged.daemon.mode), (vec!["v0".to_owned()], Mode::Generic));
        assert_eq!(merged.daemon.metrics_listen.to_string(), "[::1]:1");
        assert!(merged.discovery.tcp && merged.discovery.udp && !merged.daemon.detach_on_exit);
        assert_eq!(merged.services, file.services);
        assert!(run(&["--detach-on-exit"]).apply(file).unwrap().daemon.detach_on_exit);
    }

    #[test]
    fn a_run_with_nothing_to_do_is_refused() {
        let failure = run(&[]).apply(Config::default()).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let idle = Config::parse("weir.toml", "[discovery]\ntcp = false\n").unwrap();
        let failure = run(&["--iface", "eth0"]).apply(idle.clone()).unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(run(&["--iface", "eth0", "--discover", "udp"]).apply(idle).is_ok());
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_refused_with_code_3() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.toml");
        let run = RunArgs { config: Some(path.clone()), ..RunArgs::default() };
        let failure = run.configuration().unwrap_err();
        assert_eq!(failure.exit, Exit::Configuration);
        assert!(failure.render().contains(path.to_str().unwrap()), "{}", failure.render());

        std::fs::write(&path, "[daemon]\ninterfaces = [\"eth0\"]\nmode = \"nativ\"\n").unwrap();
        let failure = run.configuration().unwrap_err();
        assert!(failure.render().contains("weir.toml:3:8: daemon.mode: found \"nativ\""), "{}", failure.render());
        std::fs::write(&path, "[daemon]\ninterfaces = [\"eth0\"]\nmode = \"native\"\n").unwrap();
        assert_eq!(run.configuration().unwrap().daemon.mode, Mode::Native);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(run.configuration().unwrap_err().exit, Exit::Configuration);
    }

    #[test]
    fn a_namespace_is_a_path_or_a_name() {
        assert_eq!(run(&["--netns", "blue"]).netns, Some(NetworkNamespace("/run/netns/blue".into())));
        assert_eq!(run(&["--netns", "/proc/1/ns/net"]).netns, Some(NetworkNamespace("/proc/1/ns/net".into())));
    }

    #[test]
    fn explain_wants_one_address_family() {
        for (source, destination, sound) in
            [("192.0.2.7:1", "192.0.2.8:2", true), ("[::1]:1", "[::2]:2", true), ("192.0.2.7:1", "[::2]:2", false)]
        {
            let cli = Cli::try_parse_from(["weir", "explain", "udp", source, destination]).unwrap();
            let Command::Explain(explain) = cli.command else { panic!("not explain") };
            assert_eq!(explain.check().is_ok(), sound, "{source} {destination}");
        }
    }
}
