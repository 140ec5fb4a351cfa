//! A real Prometheus with the files of deploy/, its times shortened, asked over its HTTP interface.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::dashboards::deploy;
use super::http::get_once;
use super::metrics::Labels;
use super::netns::tool;
use super::wait::eventually;

/// Debian's Prometheus, scraping one Weir each second or holding what was scraped. Dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

/// A rule as Prometheus knows it.
#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub is_alert: bool,
    /// As Prometheus writes it: on one line, with spaces around operators.
    pub expression: String,
    /// What was wrong at its last evaluation; empty when nothing was.
    pub problem: String,
}

impl Prometheus {
    /// Starts it with deploy/prometheus: looks and evaluations each second, and `for` and windows shortened to what a test can wait for.
    pub fn start(weir: SocketAddr, address: SocketAddr) -> Self {
        let configuration = deployed("prometheus.yml");
        assert!(configuration.contains("interval: 5s") && configuration.contains("127.0.0.1:9464"), "{configuration}");
        let configuration = configuration.replace("interval: 5s", "interval: 1s").replace("127.0.0.1:9464", &weir.to_string());
        Self::launch(directory(), &configuration, &shortened(&deployed("weir.rules.yml")), address)
    }

    /// Starts one that scrapes nothing and holds these scrapes, with the rules of deploy/prometheus; `window` is the shorter of theirs.
    pub fn holding(scrapes: &[Scrape<'_>], window: &str, address: SocketAddr) -> Self {
        let directory = directory();
        let (samples, data) = (directory.path().join("samples"), directory.path().join("data"));
        let lines: Vec<String> = scrapes.iter().flat_map(Scrape::samples).chain(["# EOF\n".to_owned()]).collect();
        fs::write(&samples, lines.concat()).expect("write the samples");
        fs::create_dir(&data).expect("make the directory of the data");
        let (samples, data) = (samples.display().to_string(), data.display().to_string());
        tool("promtool", &["tsdb", "create-blocks-from", "openmetrics", &samples, &data]);
        let rules = deployed("weir.rules.yml").replace("[1m]", &format!("[{window}]"));
        Self::launch(directory, "rule_files: [weir.rules.yml]\n", &rules, address)
    }

    fn launch(directory: TempDir, configuration: &str, rules: &str, address: SocketAddr) -> Self {
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("write a file of Prometheus'");
        write("prometheus.yml", configuration);
        write("weir.rules.yml", rules);

        let log = fs::File::create(directory.path().join("log")).expect("create its log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start prometheus");
        let prometheus = Self { child, address, directory };
        eventually(Duration::from_secs(20), || match get_once(address, "/-/ready", Duration::from_secs(2)) {
            Ok(response) if response.status == 200 => Ok(()),
            other => Err(format!("Prometheus is not ready: {other:?}; its log: {}", prometheus.log())),
        });
        prometheus
    }

    /// The value of each series that a query gives now.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let data = self.get(&format!("/api/v1/query?query={}", percent_encoded(expression)))?;
        let series = data["result"].as_array().ok_or("no result")?;
        Ok(series.iter().filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect())
    }

    /// The series that a query gives at a time in milliseconds since 1970, with their labels.
    pub fn query_at(&self, expression: &str, milliseconds: u64) -> Vec<(Labels, f64)> {
        let time = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
        let path = format!("/api/v1/query?time={time}&query={}", percent_encoded(expression));
        let data = self.get(&path).unwrap_or_else(|problem| panic!("{expression}: {problem}"));
        let series = |one: &Value| {
            let labels = serde_json::from_value(one["metric"].clone()).expect("labels");
            (labels, one["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a value"))
        };
        data["result"].as_array().expect("a result").iter().map(series).collect()
    }

    /// All rules.
    pub fn rules(&self) -> Vec<Rule> {
        let data = self.get("/api/v1/rules").expect("the rules");
        let groups = data["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rule = |rule: &Value| Rule {
            name: text(&rule["name"]),
            is_alert: rule["type"] == "alerting",
            expression: text(&rule["query"]),
            problem: text(&rule["lastError"]),
        };
        rules.map(rule).collect()
    }

    /// The names of the alerts that fire.
    pub fn firing(&self) -> BTreeSet<String> {
        let data = self.get("/api/v1/alerts").expect("the alerts");
        let alerts = data["alerts"].as_array().expect("alerts");
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
    }

    /// The `data` of an answer.
    fn get(&self, path: &str) -> Result<Value, String> {
        let response = get_once(self.address, path, Duration::from_secs(10))?;
        let mut body: Value = serde_json::from_slice(&response.body).map_err(|error| format!("{path}: {error}"))?;
        if body["status"] == "success" { Ok(body["data"].take()) } else { Err(body["error"].to_string()) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a scrape brought, and when, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    pub text: &'a str,
    pub at: u64,
}

impl Scrape<'_> {
    /// Its samples in the OpenMetrics format, each with its time.
    fn samples(&self) -> impl Iterator<Item = String> {
        // promtool cuts what is below a millisecond: half of one keeps a time that binary numbers do not hold above its own.
        let time = format!("{}.{:03}5", self.at / 1000, self.at % 1000);
        let samples = self.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        samples.map(move |line| format!("{line} {time}\n"))
    }
}

/// A file of deploy/prometheus.
fn deployed(name: &str) -> String {
    fs::read_to_string(deploy().join("prometheus").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("weirt-").tempdir().expect("make a temporary directory")
}

/// The rules with each `for` one second, and windows of seconds instead of minutes. Thresholds stay.
fn shortened(rules: &str) -> String {
    let lines = rules.lines().map(|line| {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("for: ") { format!("{}for: 1s", &line[..indent]) } else { line.to_owned() }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains("for: 1s") && text.contains("[1m]") && text.contains("[5m]"), "the times that are shortened");
    text.replace("[1m]", "[5s]").replace("[5m]", "[10s]")
}

/// Everything but letters and digits as `%XX`.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}
