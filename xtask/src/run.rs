//! `run`: builds the daemon as the calling user and becomes it, as root.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
};

use anyhow::{Result, anyhow};

use crate::{build, exec, setup};

/// Build the daemon and start it: what follows goes to `weir run`.
#[derive(clap::Args)]
#[command(disable_help_flag = true, override_usage = "cargo xtask run --iface IFACE [ARGUMENTS OF weir run]")]
pub struct Options {
    /// The arguments of `weir run`, such as `--iface eth0`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    let artifacts = build::weir(&["--release"])?;
    let daemon = artifacts.executable("weir")?;
    let log = env::var_os("RUST_LOG");
    let environment: Vec<(&str, &OsStr)> = log.iter().map(|filter| ("RUST_LOG", filter.as_os_str())).collect();
    let mut command = exec::as_root(daemon, &environment)?;
    command.arg("run").args(&options.arguments);
    // In our place, not below us: the signals that end us are meant for the daemon.
    let error = command.exec();
    Err(anyhow!(error).context(format!("cannot run {}", exec::shown(&command))))
}
