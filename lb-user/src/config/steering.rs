//! `[steering]`: when new connections go elsewhere than the table says.
use std::time::Duration;

use lb_common::relief::{FULL, Relief};
use serde::{Serialize, Serializer};
use toml::{Spanned, de::DeValue};

use super::{
    duration,
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
};

/// `[steering]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Steering {
    /// How full a worker's accept queue may get, in percent of its limit; 0 is no bound.
    pub overfull_percent: u32,
    /// How long a connection may wait for its worker before others are spared the wait; none is no bound.
    #[serde(serialize_with = "serialize_stalled_after")]
    pub stalled_after: Option<Duration>,
}

const OVERFULL_PERCENT: Key = Key {
    name: "overfull_percent",
    form: Form::Integer { min: 0, max: 100 },
    fallback: Fallback::Value("90"),
    example: "50",
    help: "TCP only: a worker whose accept queue is so full, in percent of its limit, gets no new connection until the queue is shorter; the \
           better of two others gets it. 0 is never. At 90, the default, a worker is spared when the kernel is about to drop what comes.",
};
const STALLED_AFTER: Key = Key {
    name: "stalled_after",
    form: Form::Text(r#"a duration from "1ms" to "1m", or "off""#),
    fallback: Fallback::Value(r#""1s""#),
    example: r#""20ms""#,
    help: "TCP only: a worker at which a connection has waited so long to be accepted gets no new one until it accepts again; the better of \
           two others gets it. Workers that take long over a request and accept nothing meanwhile need 20 ms or less; the default is for those that \
           hang. The clock of this has the kernel's tick, 1 to 10 ms.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "steering",
    repeated: false,
    help: "When new connections go elsewhere than the table says: workers that do not keep up are relieved. A running daemon takes it at \
           reload. `weir_backend_selections_total` counts such connections by the cause `relief`.",
    keys: &[&OVERFULL_PERCENT, &STALLED_AFTER],
};

impl Default for Steering {
    fn default() -> Self {
        Self { overfull_percent: 90, stalled_after: Some(Duration::from_secs(1)) }
    }
}

impl Steering {
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>) -> Self {
        let mut section = Section::open(report, &SCHEMA, "steering".to_owned(), value);
        let default = Self::default();
        Self {
            overfull_percent: section.integer(&OVERFULL_PERCENT).unwrap_or(default.overfull_percent),
            stalled_after: section.text(&STALLED_AFTER, stalled_after).unwrap_or(default.stalled_after),
        }
    }

    /// The same for the programs.
    #[must_use]
    pub fn relief(&self) -> Relief {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Relief {
            stalled_after: self.stalled_after.map_or(0, nanoseconds),
            // Rounded up: 1 % is not never.
            overfull: (self.overfull_percent * FULL).div_ceil(100),
            reserved: 0,
        }
    }
}

fn stalled_after(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    duration::between(text, Duration::from_millis(1), Duration::from_secs(60)).map(Some)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn serialize_stalled_after<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(duration) => duration::serialize(duration, serializer),
        None => serializer.serialize_str("off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_get_shares_and_nanoseconds() {
        let relief = |overfull_percent, stalled_after| Steering { overfull_percent, stalled_after }.relief();
        assert_eq!(relief(0, None), Relief::default());
        assert_eq!(relief(1, None).overfull, 11);
        assert_eq!(relief(100, Some(Duration::from_millis(20))), Relief { stalled_after: 20_000_000, overfull: FULL, reserved: 0 });
        assert!(Steering::default().relief().is_on());
    }
}
