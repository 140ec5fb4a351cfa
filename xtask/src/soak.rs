//! `soak`: Weir disturbed at random for as long as one likes, everything checked, as root.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use anyhow::Result;

use crate::{
    build,
    cargo::{Artifacts, cargo},
    exec, setup,
};

/// Disturb Weir at random under steady load, and check that nothing is lost that should not be, that counters add up and that nothing leaks.
#[derive(clap::Args)]
pub struct Options {
    /// For how long.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// The chances of an earlier run again; otherwise the time is the seed, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Also write the report to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Commit a fault on purpose, to see that it is found.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sabotage {
    /// A worker is killed, and the checker is not told.
    UnclaimedKill,
    /// Some SYNs are dropped behind XDP.
    LostSyns,
    /// A table of a service is kept from being freed.
    HeldTable,
}

impl Options {
    /// As the soak itself takes them.
    fn arguments(&self) -> Vec<OsString> {
        let Self { minutes, seed, report, sabotage } = self;
        let mut arguments: Vec<OsString> = vec!["--minutes".into(), minutes.to_string().into()];
        if let Some(seed) = seed {
            arguments.extend(["--seed".into(), seed.to_string().into()]);
        }
        if let Some(report) = report {
            arguments.extend(["--report".into(), report.into()]);
        }
        if let Some(sabotage) = sabotage {
            let word = match sabotage {
                Sabotage::UnclaimedKill => "unclaimed-kill",
                Sabotage::LostSyns => "lost-syns",
                Sabotage::HeldTable => "held-table",
            };
            arguments.extend(["--sabotage".into(), word.into()]);
        }
        arguments
    }
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    setup::test_tools()?;
    let daemon = build::weir(&["--release"])?;
    // As the kernel tests are built, of whose modules it is made: after `cargo xtask test` there is little left to build.
    let mut build = cargo("test");
    let soak = Artifacts::build(build.args(["--workspace", "--features=lb-user/kernel-tests", "--bench=soak", "--no-run"]))?;
    let environment: [(&str, &OsStr); 1] = [("WEIR_BIN", daemon.executable("weir")?.as_os_str())];
    exec::exec(exec::as_root(soak.executable("soak")?, &environment)?.args(options.arguments()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        Arguments::try_parse_from(format!("soak {arguments}").split_whitespace()).map(|parsed| parsed.options)
    }

    #[test]
    fn the_soak_is_told_what_was_asked_for() {
        assert_eq!(parse("").unwrap().arguments(), ["--minutes", "3"]);
        let all = "--minutes 60 --seed 7 --report soak.md --sabotage lost-syns";
        assert_eq!(parse(all).unwrap().arguments(), all.split(' ').collect::<Vec<_>>());
        for refused in ["--minutes 0", "--seed x", "--sabotage other"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
