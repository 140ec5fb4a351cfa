//! `bench`: the figures of the data plane on this machine, measured as root.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Command,
};

use anyhow::Result;

use crate::{
    build,
    cargo::{Artifacts, cargo},
    exec, setup,
};

/// Measure the data plane on this machine: a Markdown table, and the same figures as JSON when asked for.
#[derive(clap::Args)]
pub struct Options {
    /// Also write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Put the tables between the marks of this page, with the machine and the date; a file that is not there becomes one.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Draw what `compare` and `flood` have measured into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Only the measurements whose name contains one of these; `compare` and `flood` take twelve minutes together.
    filters: Vec<OsString>,
    /// Further arguments of the benchmark.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    let mut command = program()?;
    for (output, file) in [("--json", &options.json), ("--markdown", &options.markdown), ("--svg", &options.svg)] {
        if let Some(file) = file {
            command.arg(output).arg(file);
        }
    }
    exec::exec(command.args(&options.filters).args(&options.arguments))
}

/// The benchmark as root, which knows the daemon: both are built.
pub fn program() -> Result<Command> {
    let daemon = build::weir(&["--release"])?;
    let bench = Artifacts::build(cargo("bench").args(["--package=lb-user", "--bench=kernel", "--no-run"]))?;
    let environment: [(&str, &OsStr); 1] = [("WEIR_BIN", daemon.executable("weir")?.as_os_str())];
    exec::as_root(bench.executable("kernel")?, &environment)
}
