//! `setup`: finds or installs what the other commands need. When nothing is missing it changes nothing and says nothing.

use anyhow::Result;

use crate::{
    cargo,
    toolchain::{self, Compiler, Toolchain},
};

mod apt;
mod cargo_tool;
mod compiler;
mod linker;
mod packaging;
mod tools;

pub use cargo_tool::CargoTool;
pub use packaging::{cargo_deb, debootstrap, static_target};

/// Install what is missing: a compiler and a linker for the kernel's object, and the tools of the tests.
#[derive(clap::Args)]
pub struct Options {
    /// Also install the programs that the tests use (nginx, haproxy, wrk and others).
    #[arg(long)]
    tests: bool,
}

pub fn run(options: &Options) -> Result<()> {
    toolchain()?;
    if options.tests { test_tools() } else { Ok(()) }
}

/// Makes sure that lb-user's build script finds a toolchain for the kernel's object.
pub fn toolchain() -> Result<()> {
    let directory = toolchain::directory(&cargo::workspace());
    if Toolchain::find(&directory)?.is_some() {
        return Ok(());
    }
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => compiler::install()?,
    };
    if toolchain::linker::find(&compiler, &directory).is_none() {
        linker::build(&compiler, &directory)?;
    }
    // Finding it again records it.
    anyhow::ensure!(Toolchain::find(&directory)?.is_some(), "the toolchain in {} is not usable after setup", directory.display());
    Ok(())
}

/// Makes sure that the programs that the tests run are there.
pub fn test_tools() -> Result<()> {
    tools::install_missing(&tools::Needed::All)
}

/// Makes sure that these programs are there, which are some of those that the tests run.
pub fn some_tools(programs: &'static [&'static str]) -> Result<()> {
    tools::install_missing(&tools::Needed::Named(programs))
}
