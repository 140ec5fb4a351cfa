//! `package`: the static binary, its man pages and completions, and the Debian package of all of it, below `target/packages`.

mod binary;
mod deb;
mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{build, cargo::workspace, exec, setup, vm};

/// The profile of Cargo.toml that packages are built with.
const PROFILE: &str = "dist";

/// The version of the package that an upgrade is tried with: the same program, under a number that no release has.
const NEXT_VERSION: &str = "999.0.0";

/// Build the static binary and the Debian package, and check both.
#[derive(clap::Args)]
pub struct Options {
    /// Only the static binary and its man pages and completions.
    #[arg(long)]
    no_deb: bool,
    /// Also install the package into a fresh Debian, use it there, remove it, and look for what is left; then the same under systemd in a
    /// virtual machine, where it is upgraded and purged while clients connect. Needs root.
    #[arg(long, conflicts_with = "no_deb")]
    trial: bool,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    setup::static_target(&target)?;
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;

    let artifacts = build::weir(&["--profile", PROFILE, "--target", &target])?;
    let weir = directory.join("weir");
    copy(artifacts.executable("weir")?, &weir)?;
    let size = binary::check(&weir)?;
    println!("{}: static, {size} bytes", weir.display());

    let manual = directory.join("manual");
    if manual.exists() {
        // A page of a command that is no more would go on being packaged.
        fs::remove_dir_all(&manual).with_context(|| format!("cannot remove {}", manual.display()))?;
    }
    exec::exec(Command::new(&weir).arg("manual").arg(&manual))?;
    if options.no_deb {
        return Ok(());
    }

    let package = deb::build(&target, &directory, None)?;
    let files = deb::check(&package)?;
    println!("{}: {files} files, as expected", package.display());
    if options.trial {
        trial::run(&package, &directory.join("debian"))?;
        println!("{}: installed, used and purged in a Debian of its own; nothing is left", package.display());
        let next = directory.join("next");
        fs::create_dir_all(&next).with_context(|| format!("cannot make {}", next.display()))?;
        let next = deb::build(&target, &next, Some(NEXT_VERSION))?;
        println!("{}: {}", package.display(), vm::try_package(&package, &next)?);
    }
    Ok(())
}

/// Where packages and what they are made of lie.
fn directory() -> PathBuf {
    workspace().join("target/packages")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
