//! What is wrong with a configuration file: every fault with its place, the value found, what would be right and the remedy.
use std::{fmt, io, path::PathBuf};

use serde::Serialize;

/// One fault of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Line of the value (of the key, for an unknown key), counted from 1.
    pub line: usize,
    /// Column of that place in characters, counted from 1.
    pub column: usize,
    /// The key's path, such as `service[0].port` (services are counted from 0); empty for a syntax fault.
    pub key: String,
    /// The value as the file has it, or `nothing`.
    pub found: String,
    /// What would be right.
    pub expected: String,
    /// What to do about it.
    pub remedy: String,
}

/// All faults of one file, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// The file's name, as it was given.
    pub file: String,
    /// The faults, by line and column.
    pub faults: Vec<Fault>,
}

/// Why a configuration could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read, or is not UTF-8.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was read and refused as a whole.
    #[error(transparent)]
    Refused(#[from] Faults),
}

impl Faults {
    /// One line: which file, and how many faults.
    #[must_use]
    pub fn summary(&self) -> String {
        let plural = if self.faults.len() == 1 { "" } else { "s" };
        format!("{}: refused as a whole for {} fault{plural}", self.file, self.faults.len())
    }
}

/// The summary, then two lines for each fault.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary())?;
        for Fault { line, column, key, found, expected, remedy } in &self.faults {
            let separator = if key.is_empty() { "" } else { ": " };
            write!(f, "\n{}:{line}:{column}: {key}{separator}found {found}, expected {expected}\n    remedy: {remedy}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
