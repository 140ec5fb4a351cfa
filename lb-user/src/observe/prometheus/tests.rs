//! The text as a whole, and what every family keeps to.
use std::{collections::BTreeSet, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::observe::sample;

/// Everything that can be written is: both protocols, with every family.
pub(super) fn everything() -> Snapshot {
    let mut snapshot = sample::small();
    let backends = snapshot.services[0].backends.clone();
    let queues = sample::datagram_queues();
    snapshot.services[1].backends = backends.into_iter().map(|backend| Backend { queues, accept_latency: None, ..backend }).collect();
    snapshot
}

#[test]
fn a_small_snapshot_gives_this_text() {
    sample::golden("small.prom", &render(&sample::small()).unwrap());
}

#[test]
fn every_reason_cause_miss_and_state_is_there_even_when_it_is_zero() {
    let text = render(&everything()).unwrap();
    for reason in Reason::ALL {
        let family = if reason.is_of_service() { "weir_packets_total{service=" } else { "weir_passed_packets_total{" };
        let label = format!("reason=\"{}\"", reason.label());
        assert!(text.lines().any(|line| line.starts_with(family) && line.contains(&label)), "{label}");
        let bytes = family.replace("packets", "bytes");
        assert!(text.lines().any(|line| line.starts_with(&bytes) && line.contains(&label)), "{label} of bytes");
    }
    for cause in Cause::ALL {
        let label = format!("cause=\"{}\"", cause.label());
        assert!(text.lines().any(|line| line.starts_with("weir_backend_selections_total{") && line.contains(&label)), "{label}");
    }
    for miss in SelectionMiss::ALL {
        assert!(text.contains(&format!("weir_selector_misses_total{{reason=\"{}\"}} ", miss.label())), "{miss:?}");
    }
    for state in State::ALL {
        assert!(text.contains(&format!("weir_backends{{service=\"web\",state=\"{}\"}} 1\n", state.label())), "{state:?}");
        assert!(!text.contains(&format!("weir_backends{{service=\"web\",state=\"{}\"}} 0\n", state.label())), "{state:?}");
    }
}

#[test]
fn what_a_series_counts_is_in_no_other() {
    let mut snapshot = sample::small();
    snapshot.services.truncate(1);
    let text = render(&snapshot).unwrap();
    let sum = |family: &str| -> f64 {
        let samples = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    for (family, expected) in [
        ("weir_packets_total", 4_120.0),
        ("weir_bytes_total", 2_507_200.0),
        ("weir_passed_packets_total", 17.0),
        ("weir_backend_selections_total", 180.0),
        ("weir_backend_connections_total", 177.0),
        ("weir_backends", 3.0),
    ] {
        assert!((sum(family) - expected).abs() < f64::EPSILON, "{family}: {}", sum(family));
    }
}

#[test]
fn labels_are_escaped() {
    let mut snapshot = sample::small();
    snapshot.services[0].backends[0].servers[0].command = "a\"b\\c\nd".to_owned();
    let text = render(&snapshot).unwrap();
    assert!(text.contains(r#"command="a\"b\\c\nd",inode="#), "{text}");
}

#[test]
fn a_failed_reload_and_a_dead_helper_are_zero_and_the_unknown_is_left_out() {
    let mut snapshot = sample::small();
    let daemon = snapshot.daemon.as_mut().unwrap();
    daemon.last_reload.as_mut().unwrap().error = Some("refused".to_owned());
    (daemon.helper_alive, daemon.last_scan) = (false, None);
    let text = render(&snapshot).unwrap();
    assert!(text.contains("weir_config_last_reload_successful 0\n") && text.contains("weir_helper_up 0\n"));
    assert!(!text.contains("weir_last_scan_duration_seconds"));
    snapshot.daemon.as_mut().unwrap().last_reload = None;
    let text = render(&snapshot).unwrap();
    assert!(text.contains("weir_config_last_reload_successful 1\n"), "the start took it");
    assert!(text.contains("weir_config_last_reload_timestamp_seconds 1800000000.25\n"));
    snapshot.daemon = None;
    assert!(!render(&snapshot).unwrap().contains("weir_daemon_start_time_seconds"));
}

#[test]
fn names_and_help_keep_the_conventions() {
    let text = render(&everything()).unwrap();
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.len() > 30 && help.ends_with('.'), "{name}: {help}");
            assert!(names.insert(name.to_owned()), "{name} is written twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name.starts_with("weir_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(!name.contains("__") && !name.ends_with('_'), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            for unit in ["milli", "micro", "nano", "minute", "hour", "percent", "kilo", "mega", "_ms", "_us", "_ns", "_kb"] {
                assert!(!name.contains(unit), "{name}: not a base unit");
            }
            assert!(!["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)), "{name}: a suffix of histograms");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(names.contains(name) || of_histogram.is_some_and(|name| names.contains(name)), "{line}: without HELP");
            assert!(!name.ends_with("_info") || line.ends_with(" 1"), "{line}");
        }
    }
    assert!(names.len() > 20, "{names:?}");
}

#[test]
fn no_series_is_written_twice() {
    let text = render(&everything()).unwrap();
    let mut series = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(name), "{name}");
    }
}

/// In time of this thread on a processor, because this machine may be busy; loose where the build is not optimised.
#[test]
fn a_hundred_services_of_sixteen_workers_are_written_quickly() {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let snapshot = sample::large(100, 16);
    let begin = now();
    let text = render(&snapshot).unwrap();
    let took = now().saturating_sub(begin);
    println!("{} series, {} kB in {took:?}", text.lines().filter(|line| !line.starts_with('#')).count(), text.len() / 1000);
    assert!(took.as_millis() < if cfg!(debug_assertions) { 500 } else { 50 }, "{took:?}");
}
