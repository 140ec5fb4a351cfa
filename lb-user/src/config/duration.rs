//! Durations as people write them: a whole number and a unit.
use std::time::Duration;

use serde::Serializer;

/// Milliseconds in a unit, largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads `10s`, `500ms`, `5m` or `1h`; the error is the remedy.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, milliseconds)| milliseconds);
    match (number.parse::<u64>().ok(), milliseconds) {
        (Some(number), None) => Err(format!("add a unit, as in \"{number}s\": ms, s, m or h")),
        (Some(number), Some(milliseconds)) => {
            number.checked_mul(*milliseconds).map(Duration::from_millis).ok_or_else(|| "choose a smaller number".to_owned())
        }
        (None, _) => Err("write a whole number and a unit (ms, s, m or h), as in \"10s\"".to_owned()),
    }
}

/// The same within bounds, both included.
pub(super) fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = parse(text)?;
    if duration < least {
        return Err(format!("\"{}\" is the least", written(&least)));
    }
    if duration > most {
        return Err(format!("\"{}\" is the most", written(&most)));
    }
    Ok(duration)
}

/// Writes a duration as [`parse`] reads it.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&written(duration))
}

/// In the largest unit that holds it without a fraction; below a millisecond is cut off.
fn written(duration: &Duration) -> String {
    let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, milliseconds) = UNITS.into_iter().find(|(_, m)| whole >= *m && whole.is_multiple_of(*m)).unwrap_or(("ms", 1));
    format!("{}{unit}", whole / milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_with_a_unit_and_nothing_else() {
        for (text, milliseconds) in [("10s", 10_000), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "10", "10 s", "-1s", "1.5s", "1h30m", "10S", "99999999999999999999s", "9999999999999999999h", "٣s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
