//! Installing a compiler that has the sources of `core`: by rustup where there is a rustup, else from Debian's packages.

use std::{fmt::Write as _, process::Command};

use anyhow::{Result, bail};

use super::apt;
use crate::{
    exec,
    toolchain::{Compiler, compiler::candidates},
};

/// Debian's newest compiler, which has its sources and a libLLVM of its own. It leaves rustup's toolchains as they are.
const PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];

/// Installs what is missing and returns the compiler, or says what was tried and which command would help.
pub fn install() -> Result<Compiler> {
    let mut tried = String::new();
    let mut remedies = Vec::new();
    for sysroot in candidates().iter().filter(|sysroot| sysroot.join("bin/rustc").is_file()) {
        let _ = write!(tried, "\n  {}: no sources of core (lib/rustlib/src/rust), or too old, or another LLVM", sysroot.display());
    }

    if exec::find_program("rustup").is_some() {
        let mut command = Command::new("rustup");
        command.args(["component", "add", "rust-src", "--toolchain", "stable"]);
        eprintln!("xtask: adding the sources of core to rustup's stable toolchain (a download of 3 MB)");
        if let Err(error) = exec::exec(&mut command) {
            let _ = write!(tried, "\n  rustup: {error}");
        } else if let Some(compiler) = Compiler::find() {
            return Ok(compiler);
        }
        remedies.push(exec::shown(&command));
    }

    if apt::exists() {
        match apt::install("a compiler with the sources of core (about 150 MB; a minute or two)", &PACKAGES) {
            Ok(()) => match Compiler::find() {
                Some(compiler) => return Ok(compiler),
                None => tried.push_str("\n  Debian's packages are installed, but their compiler is too old or has another LLVM"),
            },
            Err(error) => {
                let _ = write!(tried, "\n  apt: {error:#}");
                remedies.push(apt::command_for_user(&PACKAGES));
            }
        }
    }

    if remedies.is_empty() {
        remedies.push("install rustup (https://rustup.rs), then rustup component add rust-src".to_owned());
    }
    bail!("no compiler on this machine can build for the kernel. Tried:{tried}\nEither of these helps:\n  {}", remedies.join("\n  "));
}
