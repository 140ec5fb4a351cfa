//! `demo`: Weir at work in network namespaces of this machine, to look at.

use std::os::unix::process::CommandExt as _;

use anyhow::{Result, anyhow};
use serde_json::json;

use crate::{bench, exec, setup};

/// Show Weir at work: nginx with four workers, a client, a flood, and where to watch; in network namespaces that Ctrl-C takes away.
#[derive(clap::Args)]
pub struct Options {
    /// How long each of the seven steps of the tour is shown, in seconds.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=60))]
    step: u64,
    /// End after the tour, instead of going on with calm and flood in turns until Ctrl-C.
    #[arg(long)]
    once: bool,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    setup::some_tools(&["nginx", "ip", "hping3"])?;
    // It has what this plays: namespaces, servers, clients and a flood.
    let mut command = bench::program()?;
    command.args(["--role", "demo"]).arg(json!({ "step": options.step, "once": options.once }).to_string());
    // In our place, not below us: Ctrl-C is meant for it.
    let error = command.exec();
    Err(anyhow!(error).context(format!("cannot run {}", exec::shown(&command))))
}
