//! The files of deploy/ among themselves and beside the code: what a Prometheus and a Grafana would not say, or not before somebody looks.
//! The kernel tests run them in a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lb_common::{Action, Reason};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The dashboards by the names of their files.
fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(root().join("deploy/grafana/dashboards")).expect("the dashboards");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    names.map(|name| (name.clone(), serde_json::from_str(&read(&format!("deploy/grafana/dashboards/{name}"))).expect("JSON"))).collect()
}

/// What stands behind `key` on a line of its own, in the order of the lines.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn a_panel_says_what_it_shows_and_stands_alone() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 4);
    let uids: BTreeSet<_> = dashboards.iter().map(|(_, dashboard)| dashboard["uid"].as_str().expect("a uid")).collect();
    assert_eq!(uids.len(), dashboards.len(), "{uids:?}");
    for (file, dashboard) in &dashboards {
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().expect("panels") {
            let place = format!("{file}, {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{place}: its id is another's");
            let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
            assert!(side("x") + side("w") <= 24, "{place}: wider than the page");
            for cell in (side("x")..side("x") + side("w")).flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y))) {
                assert!(cells.insert(cell), "{place}: lies on another panel");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{place}: no description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{place}: no unit");
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{place}: no query");
            for source in targets.iter().chain([panel]).map(|part| &part["datasource"]["uid"]) {
                assert_eq!(source, "${datasource}", "{place}");
            }
        }
    }
}

/// Every metric that a query or a rule names is one that the daemon has, or that a rule records.
#[test]
fn what_is_asked_for_is_there() {
    let rules = read("deploy/prometheus/weir.rules.yml");
    let page = read("docs/metrics.md");
    let recorded = values(&rules, "- record: ");
    let is_known = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        recorded.contains(&name) || [name, family].iter().any(|name| page.contains(&format!("## `{name}`\n")))
    };
    let mut texts: Vec<(String, String)> = dashboards().into_iter().map(|(file, dashboard)| (file, dashboard.to_string())).collect();
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with(['#', '-']) && line.contains("weir_"));
    texts.push(("weir.rules.yml".to_owned(), expressions.collect::<Vec<_>>().join("\n")));
    for (file, text) in texts {
        let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)));
        let metrics: BTreeSet<_> = words.filter(|word| word.starts_with("weir_") || word.contains(":weir_")).collect();
        assert!(metrics.len() > 5, "{file}: {metrics:?}");
        for metric in metrics {
            assert!(is_known(metric), "{file}: {metric} is neither in docs/metrics.md nor recorded");
        }
    }
}

/// An alert has its section in the runbook and its cases; neither has others.
#[test]
fn an_alert_has_its_section_and_its_cases() {
    let (rules, runbook) = (read("deploy/prometheus/weir.rules.yml"), read("docs/runbook.md"));
    let alerts = values(&rules, "- alert: ");
    assert!(alerts.len() > 10, "{alerts:?}");
    let sections: Vec<_> = values(&runbook, "## ").into_iter().filter(|title| title.starts_with("Weir")).collect();
    assert_eq!(sections, alerts, "the sections of docs/runbook.md, in the order of the rules");
    let anchors: Vec<_> = alerts.iter().map(|alert| format!("docs/runbook.md#{}", alert.to_lowercase())).collect();
    assert_eq!(values(&rules, "runbook: "), anchors);
    for section in runbook.split("\n## Weir").skip(1) {
        for part in ["**Means**", "**Look at**", "**Do**"] {
            assert!(section.contains(part), "{part} is missing below Weir{}", section.lines().next().unwrap_or_default());
        }
    }

    let cases = read("deploy/prometheus/weir.rules.test.yml");
    for alert in &alerts {
        let case = cases.split("  - name: ").find(|case| case.lines().next() == Some(*alert)).unwrap_or_else(|| panic!("{alert}: no case"));
        assert!(case.contains(&format!("alertname: {alert}}}")), "{alert}: no moment at which it must not fire");
        assert!(case.contains("exp_alerts:"), "{alert}: no moment at which it fires");
    }
}

/// What the rules take for dropped is what the code drops.
#[test]
fn dropped_packets_are_those_that_the_code_drops() {
    let rules = read("deploy/prometheus/weir.rules.yml");
    let (_, rest) = rules.split_once("record: service:weir_dropped_packets:rate1m").expect("the rule");
    let (_, rest) = rest.split_once("reason!~\"").expect("its reasons");
    let listed: BTreeSet<&str> = rest.split('"').next().expect("their end").split('|').collect();
    let of_services = Reason::ALL.into_iter().filter(|reason| reason.is_of_service());
    let kept: BTreeSet<&str> = of_services.filter(|reason| reason.action() != Action::Drop).map(Reason::label).collect();
    assert_eq!(listed, kept);
}

/// The files that the containers are given are there, and Grafana finds its dashboards where they are put.
#[test]
fn compose_names_files_that_are_there() {
    let compose = read("deploy/compose.yaml");
    let given: Vec<_> = values(&compose, "- ./").into_iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(given.len(), 3, "{given:?}");
    for path in given {
        assert!(root().join("deploy").join(path).is_dir(), "deploy/{path}");
    }
    let provider = read("deploy/grafana/provisioning/dashboards/weir.yml");
    let [path] = values(&provider, "path: ")[..] else { panic!("one path: {provider}") };
    assert!(compose.contains(&format!("./grafana/dashboards:{path}:ro")));
    let interval = |file: &str, key: &str| -> String {
        let text = read(file);
        (*values(&text, key).first().unwrap_or_else(|| panic!("{file}: {key}"))).to_owned()
    };
    assert_eq!(
        interval("deploy/prometheus/prometheus.yml", "scrape_interval: "),
        interval("deploy/grafana/provisioning/datasources/prometheus.yml", "timeInterval: ")
    );
}

/// Whoever starts Weir gives it the same capabilities: the service, the command for a container, Kubernetes.
#[test]
fn each_way_to_start_it_grants_the_same_capabilities() {
    let unit = read("deploy/systemd/weir.service");
    let service: BTreeSet<_> = values(&unit, "CapabilityBoundingSet=")[0].split(' ').map(|name| name.trim_start_matches("CAP_")).collect();
    assert_eq!(service.len(), 5, "{service:?}");

    let set = read("deploy/kubernetes/daemon-set.yaml");
    let list = values(&set, "add: [")[0].trim_end_matches(']');
    assert_eq!(list.split(", ").collect::<BTreeSet<_>>(), service, "deploy/kubernetes");

    let page = read("docs/install.md");
    let words: Vec<_> = page.split_whitespace().collect();
    let added = words.windows(2).filter_map(|words| (words[0] == "--cap-add").then_some(words[1]));
    assert_eq!(added.collect::<BTreeSet<_>>(), service, "docs/install.md");
}
