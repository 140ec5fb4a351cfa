//! `[observe]`: what is watched beside packets, and how often.
use std::time::Duration;

use serde::Serialize;
use toml::{Spanned, de::DeValue};

use super::{
    duration,
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
};

/// `[observe]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observe {
    /// Time between two looks at the queues of listeners; 100 ms to 1 minute.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// Whether the kernel's drops are counted.
    pub kernel_drops: bool,
    /// How many backends have series of their own in /metrics.
    pub backend_series: u32,
}

const INTERVAL: Key = Key {
    name: "interval",
    form: Form::Text(r#"a duration from "100ms" to "1m""#),
    fallback: Fallback::Value(r#""1s""#),
    example: r#""250ms""#,
    help: "Time between two looks at the queues of listeners: how finely it is told which queue was full when something was dropped, and how \
           long connections waited. What is shown of queues themselves is as fresh as the question. A look at 10,000 listeners takes some \
           milliseconds.",
};
const KERNEL_DROPS: Key = Key {
    name: "kernel_drops",
    form: Form::Boolean,
    fallback: Fallback::Value("true"),
    example: "false",
    help: "Whether packets to services that the kernel drops behind XDP are counted by the kernel's reason. A program then runs for each \
           packet that the machine drops.",
};
const BACKEND_SERIES: Key = Key {
    name: "backend_series",
    form: Form::Integer { min: 0, max: 65_536 },
    fallback: Fallback::Value("2000"),
    example: "500",
    help: "How many backends have series of their own in /metrics, about 20 each, and 22 more where accept latency is measured. Those beyond are counted together, for each service, as \
           backend `other`, and `weir_folded_backends` says how many they are. `weir status` shows all.",
};

pub(super) const SCHEMA: Schema = Schema {
    name: "observe",
    repeated: false,
    help: "What is watched beside packets, and how often.",
    keys: &[&INTERVAL, &KERNEL_DROPS, &BACKEND_SERIES],
};

impl Default for Observe {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), kernel_drops: true, backend_series: 2000 }
    }
}

impl Observe {
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>) -> Self {
        let mut section = Section::open(report, &SCHEMA, "observe".to_owned(), value);
        let default = Self::default();
        Self {
            interval: section.text(&INTERVAL, interval).unwrap_or(default.interval),
            kernel_drops: section.boolean(&KERNEL_DROPS).unwrap_or(default.kernel_drops),
            backend_series: section.integer(&BACKEND_SERIES).unwrap_or(default.backend_series),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    duration::between(text, Duration::from_millis(100), Duration::from_secs(60))
}
