//! `audit`: what Weir is built from, by cargo-deny: licences, sources, and the advisories of RustSec, which are those of cargo-audit.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cargo::workspace, exec, setup::CargoTool};

const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2", profile: "dev", takes: "a minute or two" };
/// What is looked into: the workspace, and the fuzz targets, which have a lock file of their own.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "lb-common/fuzz/Cargo.toml"];

/// Check the licences and sources of all that Weir is built from, and whether something is known against a version of it.
///
/// The advisories are fetched from GitHub. Without a way there they are left out, which is said in the last line.
#[derive(clap::Args)]
pub struct Options {
    /// Fail where the advisories cannot be had.
    #[arg(long)]
    require_advisories: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let deny = Deny { program: CARGO_DENY.find()? };
    for manifest in MANIFESTS {
        deny.check(manifest, &["bans", "licenses", "sources"]).context("a licence or a source that deny.toml does not allow")?;
    }
    if !deny.fetches() {
        if options.require_advisories {
            bail!("the advisories cannot be fetched: is there a way to github.com?");
        }
        println!("licences and sources are good; the advisories cannot be fetched, and were NOT looked at");
        return Ok(());
    }
    for manifest in MANIFESTS {
        deny.check(manifest, &["advisories"]).context("something is known against a version of Cargo.lock: `cargo update -p CRATE`")?;
    }
    println!("licences and sources are good, and no advisory is known as of now");
    Ok(())
}

struct Deny {
    program: PathBuf,
}

impl Deny {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(workspace()).args(["--log-level", "error"]).args(arguments);
        command
    }

    /// What deny.toml only warns of is not shown.
    fn check(&self, manifest: &str, checks: &[&str]) -> Result<()> {
        let mut command = self.command(&["--locked", "--manifest-path", manifest, "check", "--hide-inclusion-graph"]);
        command.args(checks);
        exec::exec(&mut command)
    }

    /// Fetches the advisories.
    fn fetches(&self) -> bool {
        self.command(&["fetch", "db"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}
