//! The queries of deploy/grafana's dashboards, as Grafana asks them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What Grafana puts in for the variables of a dashboard; `$instance` is any.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// The window of a rate, as PromQL writes it.
    pub rate_interval: &'a str,
    /// A regular expression.
    pub service: &'a str,
}

/// The directory of what is deployed.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The queries of panels, variables and annotations by where they are, such as `Weir: flood, panel 10 By reason, 0`.
pub fn queries(variables: Variables<'_>) -> BTreeMap<String, String> {
    let mut queries = BTreeMap::new();
    for file in fs::read_dir(deploy().join("grafana/dashboards")).expect("the dashboards") {
        let path = file.expect("a dashboard").path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).expect("read it")).expect("JSON");
        let name = dashboard["title"].as_str().expect("a title");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut add = |place: &str, number: usize, query: &str| {
            let query = query.replace("$__rate_interval", variables.rate_interval);
            let query = query.replace("$instance", ".*").replace("$service", variables.service);
            assert!(!query.contains('$'), "{name}, {place}: a variable that this test does not know: {query}");
            queries.insert(format!("{name}, {place}, {number}"), query);
        };
        for panel in list(&dashboard["panels"]) {
            for (number, target) in list(&panel["targets"]).iter().enumerate() {
                let place = format!("panel {} {}", panel["id"], panel["title"].as_str().unwrap_or_default());
                add(&place, number, target["expr"].as_str().expect("a query"));
            }
        }
        for annotation in list(&dashboard["annotations"]["list"]) {
            add(&annotation["name"].to_string(), 0, &without_thresholds(annotation["expr"].as_str().expect("a query")));
        }
        for variable in list(&dashboard["templating"]["list"]) {
            if let Some(inside) = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values(")) {
                let (series, label) = inside.trim_end_matches(')').rsplit_once(", ").expect("series and label");
                add(&variable["name"].to_string(), 0, &format!("count by ({label}) ({series})"));
            }
        }
    }
    queries
}

/// A condition without its comparisons to numbers, so that it gives what it compares.
pub fn without_thresholds(condition: &str) -> String {
    const COMPARISONS: [&str; 6] = [">", "<", ">=", "<=", "==", "!="];
    let mut words: Vec<&str> = condition.split(' ').collect();
    let mut at = 0;
    while at + 1 < words.len() {
        let number = words[at + 1].trim_end_matches(')');
        if COMPARISONS.contains(&words[at]) && number.parse::<f64>().is_ok() {
            // A bracket that closes behind the number stays.
            words[at + 1] = &words[at + 1][number.len()..];
            words.remove(at);
        }
        at += 1;
    }
    words.join(" ")
}
