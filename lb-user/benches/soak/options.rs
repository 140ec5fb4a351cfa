//! What the soak is told on its command line.

use std::{path::PathBuf, time::Duration};

/// A deliberate fault in the second round, to see that the check that has to find it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sabotage {
    /// A worker is killed, and nobody is told.
    UnclaimedKill,
    /// SYNs are dropped behind XDP.
    LostSyns,
    /// A table of Weir's is kept.
    HeldTable,
}

/// How long, by which chances, and where the report goes.
#[derive(Debug)]
pub struct Options {
    pub length: Duration,
    pub seed: u64,
    pub report: Option<PathBuf>,
    pub sabotage: Option<Sabotage>,
}

impl Options {
    /// Reads the arguments of `cargo xtask soak`, which has checked them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let mut options = Self { length: Duration::from_secs(180), seed, report: None, sabotage: None };
        while let Some(word) = words.next() {
            // What `cargo bench` adds.
            if word == "--bench" {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
            match word.as_str() {
                "--minutes" => options.length = Duration::from_secs(60 * number()?),
                "--seed" => options.seed = number()?,
                "--report" => options.report = Some(PathBuf::from(value)),
                "--sabotage" => {
                    options.sabotage = Some(match value.as_str() {
                        "unclaimed-kill" => Sabotage::UnclaimedKill,
                        "lost-syns" => Sabotage::LostSyns,
                        "held-table" => Sabotage::HeldTable,
                        _ => return Err(format!("--sabotage unclaimed-kill, lost-syns or held-table, not {value}")),
                    });
                }
                _ => return Err(format!("no such option: {word}")),
            }
        }
        Ok(options)
    }
}
