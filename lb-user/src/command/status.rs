//! `weir status`.

use super::{print, print_json, snapshot};
use crate::{
    cli::GlobalArgs,
    exit::{Exit, Failure},
    observe::{
        snapshot::Snapshot,
        terminal::{self, Style},
    },
};

/// Shows the daemon's picture; without a daemon the one that `offline` makes from the pinned maps, which says so itself
/// ([`Snapshot::daemon`] is none) and fails with [`Exit::NotRunning`] when there are none.
pub fn run(global: &GlobalArgs, offline: impl FnOnce() -> Result<Snapshot, Failure>) -> Result<Exit, Failure> {
    let snapshot = picture(global, offline)?;
    if global.json { print_json(&snapshot) } else { print(&terminal::status(&snapshot, Style::of_stdout())) }
}

pub(super) fn picture(global: &GlobalArgs, offline: impl FnOnce() -> Result<Snapshot, Failure>) -> Result<Snapshot, Failure> {
    if let Some(snapshot) = snapshot(global)? {
        return Ok(snapshot);
    }
    let snapshot = offline()?;
    Ok(Snapshot { daemon: None, ..snapshot })
}
