//! `fuzz`: the fuzz targets of lb-common, each for a while, with cargo-fuzz, which is installed below `target` if it is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo::workspace, exec, setup::CargoTool};

const CARGO_FUZZ: CargoTool =
    CargoTool { name: "cargo-fuzz", version: "0.13.2", profile: "release", takes: "less than a minute, with a C++ compiler" };

/// Fuzz the parsers, the cookies and the answers to SYNs: each target for some seconds. What it finds fails the command and stays.
#[derive(clap::Args)]
pub struct Options {
    /// For how long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these targets; all if none is named.
    targets: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let fuzz = Fuzz::new()?;
    let known = fuzz.targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        anyhow::bail!("there is no fuzz target {unknown}; there are {}", known.join(", "));
    }
    let targets = if options.targets.is_empty() { &known } else { &options.targets };
    for target in targets {
        eprintln!("xtask: fuzzing {target} for {} s", options.seconds);
        fuzz.run(target, options.seconds)?;
    }
    Ok(())
}

/// cargo-fuzz, and where it works.
struct Fuzz {
    program: PathBuf,
    /// lb-common, below which it looks for `fuzz`.
    package: PathBuf,
    /// Where corpora and builds go.
    directory: PathBuf,
}

impl Fuzz {
    fn new() -> Result<Self> {
        let directory = workspace().join("target/fuzz");
        Ok(Self { program: CARGO_FUZZ.find()?, package: workspace().join("lb-common"), directory })
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        // The sanitizer is a flag of nightly compilers, which this one takes when it is told to.
        command.current_dir(&self.package).env("RUSTC_BOOTSTRAP", "1").arg(subcommand);
        for name in ["CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR"] {
            command.env_remove(name);
        }
        command
    }

    fn targets(&self) -> Result<Vec<String>> {
        let list = exec::output(&mut self.command("list"))?;
        let targets: Vec<_> = list.lines().map(str::to_owned).collect();
        ensure!(!targets.is_empty(), "lb-common/fuzz has no targets");
        Ok(targets)
    }

    fn run(&self, target: &str, seconds: u64) -> Result<()> {
        let corpus = self.directory.join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let mut command = self.command("run");
        command.arg("--target-dir").arg(self.directory.join("build")).arg(target).arg(corpus).arg(seeds(target));
        command.args(["--", &format!("-max_total_time={seconds}"), "-print_final_stats=1", "-verbosity=0"]);
        exec::exec(&mut command)
            .with_context(|| format!("{target} found something: the input is in lb-common/fuzz/artifacts/{target}, make a test of it"))
    }
}

/// The seeds of a target, seen from lb-common. What answers the options of SYNs has those of what reads them.
fn seeds(target: &str) -> PathBuf {
    Path::new("fuzz/seeds").join(if target == "syn_ack" { "tcp_options" } else { target })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let manifest = fs::read_to_string(workspace().join("lb-common/fuzz/Cargo.toml")).unwrap();
        let targets: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).skip(1).collect();
        assert!(targets.len() >= 4, "{targets:?}");
        for target in targets {
            assert!(workspace().join("lb-common").join(seeds(target)).is_dir(), "{target}");
        }
    }
}
