//! Floods as others make them, with known tools.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use crate::support::netns::Entrance;

/// A tool that floods, for a bounded time; dropping it kills it.
#[derive(Debug)]
pub struct ToolFlood {
    child: Child,
    /// What stands before the number of packets in what the tool prints at its end, and what stands behind it.
    says_sent: &'static str,
    _configuration: Option<NamedTempFile>,
}

/// hping3: SYNs without options, their sources anything at all, with a pause between two or as fast as they go. IPv4 only.
pub fn hping3(entrance: &Entrance, target: SocketAddr, pause: Option<Duration>, duration: Duration) -> ToolFlood {
    let mut command = bounded(entrance, duration, "hping3");
    match pause {
        Some(pause) => command.args(["--interval", &format!("u{}", pause.as_micros())]),
        None => command.arg("--flood"),
    };
    command.args(["-q", "-S", "--rand-source", "-p", &target.port().to_string(), &target.ip().to_string()]);
    // It counts on its standard error.
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    ToolFlood::start(&mut command, " packets transmitted", None)
}

/// trafgen: as many SYNs without options out of `device`, so many a second or as fast as they go, their sources anything at all. IPv4 only.
pub fn trafgen(
    entrance: &Entrance,
    device: &str,
    target: SocketAddr,
    mac: [u8; 6],
    packets: u64,
    rate: Option<u64>,
    duration: Duration,
) -> ToolFlood {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let text = format!(
        "{{ eth(da={mac}), ipv4(da={}, sa=drnd(), ttl=64, df), tcp(sp=drnd(), dp={}, seq=drnd(), win=64240, syn) }}\n",
        target.ip(),
        target.port()
    );
    let file = NamedTempFile::with_prefix("weirt-trafgen-").expect("make a temporary file");
    fs::write(file.path(), text).expect("write trafgen's packet");
    let mut command = bounded(entrance, duration, "trafgen");
    command.args(["--dev", device, "--cpus", "1", "--num", &packets.to_string(), "--conf"]).arg(file.path());
    if let Some(rate) = rate {
        // Its own `--rate` sends what a tenth of a second takes in one go, which is milliseconds of a processor and more than a veth holds.
        command.args(["--gap", &format!("{}us", (1_000_000 / rate.max(1)).max(1))]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    ToolFlood::start(&mut command, " packets outgoing", Some(file))
}

/// A command that `timeout` ends by SIGINT, at which both tools say what they have sent. It ends also when nobody is left to kill it.
fn bounded(entrance: &Entrance, duration: Duration, program: &str) -> Command {
    let mut command = entrance.command("timeout");
    command.args(["--signal=INT", "--kill-after=2", &format!("{}", duration.as_secs_f64()), program]);
    command.process_group(0).stdin(Stdio::null());
    command
}

impl ToolFlood {
    fn start(command: &mut Command, says_sent: &'static str, configuration: Option<NamedTempFile>) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self { child, says_sent, _configuration: configuration }
    }

    /// Waits for its end and says how many packets the tool counts as sent.
    pub fn finish(mut self) -> u64 {
        let mut text = String::new();
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let read = [out.map(|mut out| out.read_to_string(&mut text)), err.map(|mut err| err.read_to_string(&mut text))];
        assert!(read.into_iter().flatten().all(|result| result.is_ok()), "the tool's words are text");
        self.child.wait().expect("wait for the tool");
        let before = text.split(self.says_sent).next().filter(|before| before.len() < text.len());
        let number = before.and_then(|before| before.split_whitespace().next_back()?.parse().ok());
        number.unwrap_or_else(|| panic!("the tool did not say what it sent: {text}"))
    }

    /// Ends it now.
    pub fn stop(self) -> u64 {
        self.signal(Signal::SIGINT);
        self.finish()
    }

    fn signal(&self, signal: Signal) {
        // The group: `timeout` and the tool.
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")), signal);
    }
}

impl Drop for ToolFlood {
    fn drop(&mut self) {
        // Not when it has been waited for: the number may be another process's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
