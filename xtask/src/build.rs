//! `build`: the daemon with the kernel's object inside.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    cargo::{Artifacts, cargo},
    setup,
};

/// Build the daemon `weir` with the kernel's object inside.
#[derive(clap::Args)]
pub struct Options {
    /// Without optimisation; the kernel's object is the same.
    #[arg(long)]
    debug: bool,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    let artifacts = weir(if options.debug { &[] } else { &["--release"] })?;
    let (daemon, object) = (artifacts.executable("weir")?, artifacts.object()?);
    println!("{}: {} KiB, of which the kernel's object is {} KiB", daemon.display(), kibibytes(daemon)?, kibibytes(&object)?);
    Ok(())
}

/// Builds the daemon with these arguments to cargo.
pub fn weir(arguments: &[&str]) -> Result<Artifacts> {
    let artifacts = Artifacts::build(cargo("build").args(["--package=lb-user", "--bin=weir"]).args(arguments))?;
    artifacts.object()?;
    Ok(artifacts)
}

fn kibibytes(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(metadata.len().div_ceil(1024))
}
