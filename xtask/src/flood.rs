//! `flood`: floods a network namespace of this machine, to try something out by hand.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    cargo::{Artifacts, cargo},
    exec, setup,
};

/// No flood is larger or longer.
const MOST_PACKETS: u64 = 50_000_000;
const MOST_SECONDS: u64 = 60;

/// Flood a network namespace of this machine with packets of random sources: out of a veth device of NETNS, to what its peer reaches.
#[derive(clap::Args)]
pub struct Options {
    /// The namespace, by the name that `ip netns` lists, from which the packets come: a client's.
    #[arg(long)]
    netns: String,
    /// A veth device in it, whose peer has GRO on or an XDP program: without, a veth takes no frames.
    #[arg(long, value_name = "DEV")]
    iface: String,
    /// Address and port that are flooded, IPv4 or IPv6.
    #[arg(long, value_name = "ADDR:PORT")]
    target: SocketAddr,
    /// What the packets are.
    #[arg(long, value_enum, default_value_t = Kind::Syn)]
    kind: Kind,
    /// How many, at most 50 million.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=MOST_PACKETS))]
    packets: u64,
    /// For how long, at most 60 s.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    seconds: u64,
    /// How many a second; as many as go, if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// The target is an IPv6 address: asked for, so that a mistake in it is found.
    #[arg(long)]
    ipv6: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Syn,
    Ack,
    Synack,
    Rst,
    Fin,
    Udp,
}

impl Kind {
    /// As the generator calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::Synack => "synack",
            Self::Rst => "rst",
            Self::Fin => "fin",
            Self::Udp => "udp",
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    ensure!(!options.ipv6 || options.target.is_ipv6(), "--ipv6, and {} is an address of IPv4", options.target);
    setup::toolchain()?;
    // The generator is the tests' and the benchmark's, and plays a role of theirs.
    let bench = Artifacts::build(cargo("bench").args(["--package=lb-user", "--bench=kernel", "--no-run"]))?;
    let mut command = exec::as_root(bench.executable("kernel")?, &[])?;
    exec::exec(command.args(["--role", "flood"]).arg(order(options)))
}

fn order(options: &Options) -> String {
    let Options { netns, iface, target, kind, packets, seconds, rate, ipv6: _ } = options;
    json!({
        "netns": netns, "device": iface, "target": target, "kind": kind.name(),
        "packets": packets, "seconds": seconds, "rate": rate,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        Arguments::try_parse_from(format!("flood {arguments}").split_whitespace()).map(|parsed| parsed.options)
    }

    #[test]
    fn a_flood_needs_a_namespace_and_keeps_its_bounds() {
        let whole = "--netns n --iface d --target 10.0.0.1:80";
        let ordered = order(&parse(&format!("{whole} --kind synack --rate 5")).unwrap());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&ordered).unwrap(),
            json!({"netns": "n", "device": "d", "target": "10.0.0.1:80", "kind": "synack", "packets": 1_000_000, "seconds": 10, "rate": 5})
        );
        for refused in ["--iface d --target 10.0.0.1:80", "--netns n --target 10.0.0.1:80", "--netns n --iface d"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
        for beyond in ["--packets 50000001", "--packets 0", "--seconds 61", "--rate 0"] {
            assert!(parse(&format!("{whole} {beyond}")).is_err(), "{beyond}");
        }
    }
}
