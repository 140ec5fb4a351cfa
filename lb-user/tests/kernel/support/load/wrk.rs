//! wrk, for load that is not ours: run it, read what it prints.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::support::netns::Entrance;

/// A wrk that runs.
#[derive(Debug)]
pub struct Wrk {
    child: Option<Child>,
    /// It is read when wrk has started already.
    _script: NamedTempFile,
}

/// Lua that wrk runs at its end: by itself it tells no 99.9 %. In microseconds.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  io.write(string.format("percentiles: %d %d %d\n", latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

/// What wrk counted. Connections it lost and opened again show as `read` errors.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WrkReport {
    pub requests: u64,
    pub connect_errors: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub timeouts: u64,
    /// Responses that are neither 2xx nor 3xx.
    pub bad_status: u64,
    /// From sending a request to the end of its response, in microseconds: what 50, 99 and 99.9 of a hundred did not exceed. Connecting is
    /// not among it, waiting to be accepted is.
    pub latency: [u64; 3],
}

impl Wrk {
    /// Starts wrk with two threads; it runs for whole seconds. `close` asks for a new connection for every request.
    pub fn start(entrance: &Entrance, connections: u32, duration: Duration, close: bool, url: &str) -> Self {
        let mut command = entrance.command("wrk");
        command.args(["--threads", "2", "--timeout", "5s"]);
        command.args(["--connections", &connections.to_string(), "--duration", &format!("{}s", duration.as_secs().max(1))]);
        if close {
            command.args(["--header", "Connection: close"]);
        }
        let mut script = NamedTempFile::new().expect("make wrk's script");
        script.write_all(SCRIPT.as_bytes()).expect("write wrk's script");
        command.arg("--script").arg(script.path());
        let child = command.arg(url).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start wrk");
        Self { child: Some(child), _script: script }
    }

    /// Waits for its end and reads what it counted.
    pub fn finish(mut self) -> WrkReport {
        let output = self.child.take().expect("it runs until it is finished").wait_with_output().expect("wait for wrk");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "wrk failed ({}): {text}", output.status);
        WrkReport::parse(&text).unwrap_or_else(|| panic!("wrk said something else than expected: {text}"))
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl WrkReport {
    /// Reads wrk's text: `N requests in ..`, what our script writes, and only where there were any, the lines of errors.
    pub fn parse(text: &str) -> Option<Self> {
        let mut report = Self::default();
        let mut complete = false;
        for line in text.lines().map(str::trim) {
            if let Some((requests, _)) = line.split_once(" requests in ") {
                report.requests = requests.parse().ok()?;
                complete = true;
            } else if let Some(errors) = line.strip_prefix("Socket errors: ") {
                let numbers: Vec<u64> = errors.split(", ").filter_map(|part| part.split_once(' ')?.1.parse().ok()).collect();
                [report.connect_errors, report.read_errors, report.write_errors, report.timeouts] = numbers.try_into().ok()?;
            } else if let Some(times) = line.strip_prefix("percentiles: ") {
                let times: Vec<u64> = times.split(' ').filter_map(|time| time.parse().ok()).collect();
                report.latency = times.try_into().ok()?;
            } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses: ") {
                report.bad_status = count.parse().ok()?;
            }
        }
        complete.then_some(report)
    }

    /// Errors of every kind.
    pub fn errors(&self) -> u64 {
        let Self { requests: _, connect_errors, read_errors, write_errors, timeouts, bad_status, latency: _ } = self;
        connect_errors + read_errors + write_errors + timeouts + bad_status
    }
}
