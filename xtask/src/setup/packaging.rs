//! What `cargo xtask package` needs beyond the toolchain: a static C library, cargo-deb, debootstrap.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{CargoTool, apt};
use crate::{
    cargo::workspace,
    exec::{self, find_program},
};

const CARGO_DEB: CargoTool = CargoTool { name: "cargo-deb", version: "3.8.0", profile: "release", takes: "a minute or two" };

/// Makes sure that cargo can build for `target`, whose C library is musl: Rust's standard library for it, and a compiler for the C of
/// ring.
pub fn static_target(target: &str) -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = exec::output(Command::new(rustc).current_dir(workspace()).args(["--print", "target-libdir", "--target", target]))?;
    if !Path::new(library.trim()).is_dir() {
        if find_program("rustup").is_none() {
            bail!("this compiler has no standard library for {target}: install rustup (https://rustup.rs), which brings it");
        }
        eprintln!("xtask: adding the standard library for {target} to rustup's toolchain (a download of 30 MB)");
        exec::exec(Command::new("rustup").current_dir(workspace()).args(["target", "add", target]))?;
    }
    program("musl-gcc", "musl-tools", "the C compiler of the static binary").map(drop)
}

/// cargo-deb, and what it needs of Debian.
pub fn cargo_deb() -> Result<PathBuf> {
    program("dpkg-deb", "dpkg", "the tools of Debian's packages")?;
    CARGO_DEB.find()
}

/// debootstrap, which makes a Debian in a directory.
pub fn debootstrap() -> Result<PathBuf> {
    program("debootstrap", "debootstrap", "what makes a Debian in a directory")
}

/// A program, whose Debian package is installed if it is missing.
fn program(name: &str, package: &'static str, what: &str) -> Result<PathBuf> {
    if let Some(program) = find_program(name) {
        return Ok(program);
    }
    if !apt::exists() {
        bail!("{name} is missing ({what}): install it with your package manager");
    }
    if !exec::is_root()? {
        bail!("{name} is missing ({what}). Install it with:\n  {}", apt::command_for_user(&[package]));
    }
    apt::install(what, &[package])?;
    find_program(name).with_context(|| format!("{name} is still missing after the package {package} was installed"))
}
