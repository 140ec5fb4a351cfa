//! Programs that `cargo install` builds, below `target`.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    cargo::workspace,
    exec::{self, find_program},
};

/// A program of crates.io.
#[derive(Debug, Clone, Copy)]
pub struct CargoTool {
    /// Of the crate and of the program.
    pub name: &'static str,
    /// What is installed: the last that the project was tried with.
    pub version: &'static str,
    /// `release`, or `dev` where what it does takes no time and building it would.
    pub profile: &'static str,
    /// How long that takes.
    pub takes: &'static str,
}

impl CargoTool {
    /// Where it is: on `PATH`, or below `target`, where it is built if it is missing.
    pub fn find(&self) -> Result<PathBuf> {
        let Self { name, version, profile, takes } = self;
        let directory = workspace().join("target").join(name);
        let installed = directory.join("bin").join(name);
        if let Some(program) = find_program(name) {
            return Ok(program);
        }
        if !installed.is_file() {
            eprintln!("xtask: installing {name} {version} into {} ({takes})", directory.display());
            let build = directory.join("install");
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["install", name, "--quiet", "--locked", "--version", version, "--profile", profile, "--root"]);
            cargo.arg(&directory).arg("--target-dir").arg(&build).env_remove("CARGO_TARGET_DIR");
            exec::exec(&mut cargo)
                .with_context(|| format!("{name} could not be built: it needs crates.io (or a filled cargo cache); or put one on PATH"))?;
            fs::remove_dir_all(&build).with_context(|| format!("cannot remove what {name} was built in"))?;
        }
        Ok(installed)
    }
}
