//! Counting packets on a device with tcpdump.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use super::netns::Entrance;
use super::servers::signal;

/// A running capture of the packets that match a filter.
#[derive(Debug)]
pub struct Capture {
    child: Option<Child>,
    file: NamedTempFile,
}

impl Capture {
    /// Starts to capture what `filter` (in tcpdump's language) matches on `device`, the first 2,048 bytes of each; returns once it listens.
    pub fn start(entrance: &Entrance, device: &str, filter: &str) -> Self {
        let file = NamedTempFile::with_prefix("weirt-capture-").expect("make a temporary file");
        let mut child = entrance
            .command("tcpdump")
            // Each packet has a place of the longest packet's size in a buffer of 8 MB: with tcpdump's own bound, that is 32 places.
            .args(["-n", "-q", "-Z", "root", "-U", "--immediate-mode", "-s", "2048", "-B", "8192", "-i", device, "-w"])
            .arg(file.path())
            .arg(filter)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start tcpdump");
        let mut messages = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("listening on") {
            let length = messages.read_line(&mut said).expect("read what tcpdump says");
            assert!(length > 0, "tcpdump ended: {said}");
        }
        // The pipe stays open in the child, so that its last words cannot end it by SIGPIPE.
        child.stderr = Some(messages.into_inner());
        Self { child: Some(child), file }
    }

    /// Ends the capture after a moment for the last packets and returns the file's packets (link-layer bytes).
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        let mut child = self.child.take().expect("it runs until it is finished");
        std::thread::sleep(Duration::from_millis(100));
        signal(child.id(), Signal::SIGINT);
        child.wait().expect("wait for tcpdump");
        packets(&std::fs::read(self.file.path()).expect("read the capture"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The packets of a pcap file in this machine's byte order: a header of 24 bytes, then 16 bytes before each packet.
fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut rest = file.get(24..).unwrap_or_default();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((packet, after)) = after.split_at_checked(length) else { break };
        packets.push(packet.to_vec());
        rest = after;
    }
    packets
}
