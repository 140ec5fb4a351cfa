//! What the page shows: a moment of the snapshot with its rates, and the ten minutes before it. Pure.
//!
//! A moment is bounded however many services there are, because it is sent to every reader each second: [`SERVICES`] services, and
//! [`WORKERS`] workers among them; those in trouble come first, and how many are left out is said.

mod history;
mod moment;

pub use history::{History, MOMENTS};
pub use moment::{Moment, SERVICES, WORKERS};

use lb_common::Reason;
use serde::Serialize;

/// What the page needs once: the names of things, and what happened before it was opened.
#[derive(Debug, Serialize)]
pub struct Opening<'a> {
    /// What each of Weir's reasons means.
    reasons: Vec<Meaning>,
    /// The columns of the rows of the history and of [`Moment`].
    columns: &'static [&'static str],
    /// The past.
    history: &'a History,
    /// The present; none before the first moment.
    moment: Option<&'a Moment>,
}

/// A reason of Weir's in words.
#[derive(Debug, Serialize)]
struct Meaning {
    reason: &'static str,
    action: &'static str,
    help: &'static str,
}

impl<'a> Opening<'a> {
    /// What is told to a page that opens now.
    #[must_use]
    pub fn new(history: &'a History, moment: Option<&'a Moment>) -> Self {
        let reasons =
            Reason::ALL.into_iter().map(|reason| Meaning { reason: reason.label(), action: reason.action().label(), help: reason.help() });
        Self { reasons: reasons.collect(), columns: &moment::COLUMNS, history, moment }
    }
}

#[cfg(test)]
mod tests;
