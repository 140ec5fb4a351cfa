//! `test`: the host tests as the calling user, then the kernel tests as root.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    cargo::{Artifacts, cargo, workspace},
    exec, setup,
};

/// Build and pass every test: those of the host, then those that need root and this kernel.
#[derive(clap::Args)]
pub struct Options {
    /// Only the tests that need no root.
    #[arg(long)]
    host_only: bool,
    /// Those that take minutes each as well.
    #[arg(long, conflicts_with = "host_only")]
    long: bool,
    /// Only tests whose name contains this.
    filter: Option<OsString>,
    /// Arguments of the test programs, such as `--nocapture`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Options {
    fn test_program_arguments(&self) -> impl Iterator<Item = &OsString> {
        self.filter.iter().chain(&self.arguments)
    }
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    if !options.host_only {
        setup::test_tools()?;
    }

    let mut results = vec![timed("host tests", || host(options))];
    if !options.host_only {
        results.push(timed("kernel tests", || kernel(options)));
    }

    println!();
    for (name, duration, result) in &results {
        match result {
            Ok(()) => println!("{name}: passed in {} s", duration.as_secs()),
            Err(error) => println!("{name}: FAILED after {} s: {error:#}", duration.as_secs()),
        }
    }
    if results.iter().any(|(_, _, result)| result.is_err()) {
        bail!("not every test passed");
    }
    Ok(())
}

fn timed(name: &'static str, test: impl FnOnce() -> Result<()>) -> (&'static str, Duration, Result<()>) {
    let start = Instant::now();
    let result = test();
    (name, start.elapsed(), result)
}

fn host(options: &Options) -> Result<()> {
    exec::exec(cargo("test").args(["--workspace", "--no-fail-fast", "--"]).args(options.test_program_arguments()))
}

/// The tests of lb-user/tests/kernel, which start both daemons whose paths they find in the environment.
fn kernel(options: &Options) -> Result<()> {
    let next_abi = next_abi_daemon()?;
    let daemon = build::weir(&["--release"])?;
    let mut build = cargo("test");
    // The whole workspace, as in the host tests: with lb-user alone its dependencies would have other features, and be built again.
    let tests = Artifacts::build(build.args(["--workspace", "--features=lb-user/kernel-tests", "--test=kernel", "--no-run"]))?;

    let mut environment: Vec<(&str, &OsStr)> =
        vec![("WEIR_BIN", daemon.executable("weir")?.as_os_str()), ("WEIR_NEXT_ABI_BIN", next_abi.as_os_str())];
    if options.long {
        environment.push(("WEIR_LONG", OsStr::new("1")));
    }
    let mut command = exec::as_root(tests.executable("kernel")?, &environment)?;
    exec::exec(command.current_dir(workspace().join("lb-user")).args(options.test_program_arguments()))
}

/// A daemon of another ABI version, for the test that upgrades a running data plane. It has little to do, so it is built as the host tests
/// are, whose libraries are there.
fn next_abi_daemon() -> Result<PathBuf> {
    let artifacts = Artifacts::build(cargo("build").args(["--workspace", "--bin=weir", "--features=lb-user/next-abi"]))?;
    let directory = workspace().join("target/next-abi");
    let copy = directory.join("weir");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    fs::copy(artifacts.executable("weir")?, &copy).with_context(|| format!("cannot copy the daemon to {}", copy.display()))?;
    Ok(copy)
}
