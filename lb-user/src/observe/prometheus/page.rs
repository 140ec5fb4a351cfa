//! `docs/metrics.md`: every family with its type, its labels and its meaning, as the daemon itself tells them to Prometheus.

use std::fmt::Write as _;

use lb_common::{Reason, abi::Restored, flood::Mode};

use super::{render, tests::everything};

const HEAD: &str = "# Metrics

<!-- Generated from lb-user/src/observe/prometheus; `WEIR_REGENERATE=1 cargo test -p lb-user --lib prometheus::page` writes it anew. -->

The daemon serves these at `/metrics` in Prometheus' text format (`--listen-metrics`, by default on 127.0.0.1:9464). Beside them,
`/healthz` answers while the process lives, `/readyz` while new connections are balanced, and `/api/v1/status` with what
`weir status --json` prints.

Units are base units, and what only grows ends in `_total`. The kernel keeps the counters: they go on while the daemon is restarted and
begin at zero with a new data plane. A label takes its values from a closed list, or from what the operator runs; no client's address is
ever one. What can happen and has not is there with zero. A backend is a listening socket; its number is that of `weir status`, and when
another socket takes the number later, its counters start again.

Histograms have bounds that are powers of two of seconds, from 1/16384 (61 microseconds) to 16: those of Prometheus' native histograms of
schema 0, so that nothing shifts when they are converted at the scrape (`convert_classic_histograms_to_nhcb`).

How many series there can be: about 75 for each service, and for each backend about 20, and 22 more where accept latency is measured; of
backends `observe.backend_series` (2,000) have series of their own, the others are one backend `other` for each service, and
`weir_folded_backends` counts them. The listeners of a service that is not balanced are one backend `unbalanced`. The kernel's drops have a
series for each reason that has occurred, of all together at most 8,192.
";

/// The page. The labels of a family are those of its first series: all have the same.
fn page() -> String {
    let text = render(&everything()).unwrap();
    let mut page = HEAD.to_owned();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else { continue };
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap();
        let series = lines.peek().unwrap();
        let labels: Vec<&str> = series.split('{').nth(1).map(names).unwrap_or_default();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "no labels".to_owned() } else { format!("labels {}", labels.join(", ")) };
        write!(page, "\n## `{name}`\n\n{kind}, {labels}. {help}\n").unwrap();
    }
    values(&mut page);
    page
}

/// What the values of the closed lists mean.
fn values(page: &mut String) {
    let reasons = |of_service: bool| Reason::ALL.into_iter().filter(move |reason| reason.is_of_service() == of_service);
    list(page, "`reason` of a service's packets", reasons(true).map(|reason| (reason.label(), reason.help())));
    list(page, "`reason` of packets of no service", reasons(false).map(|reason| (reason.label(), reason.help())));
    list(page, "`outcome` of a valid SYN cookie", Restored::ALL.into_iter().map(|outcome| (outcome.label(), outcome.help())));
    list(page, "`mode` of a service's SYN defence", Mode::ALL.into_iter().map(|mode| (mode.label(), mode.help())));
}

fn list<'a>(page: &mut String, title: &str, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    write!(page, "\n## {title}\n\n").unwrap();
    for (label, help) in entries {
        writeln!(page, "- **`{label}`**: {help}.").unwrap();
    }
}

/// The names in `a="..",b=".."} 1`. No value of the sample has a quote in it.
fn names(labels: &str) -> Vec<&str> {
    labels.split('"').step_by(2).filter_map(|part| part.trim_start_matches(',').strip_suffix('=')).collect()
}

#[test]
fn the_page_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("WEIR_REGENERATE").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == page(), "docs/metrics.md is out of date: run `WEIR_REGENERATE=1 cargo test -p lb-user --lib prometheus::page`");
}
