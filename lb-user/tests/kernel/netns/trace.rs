//! `weir trace`: what it shows is what came, and what became of it; what was not asked for is not shown.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;

use super::live::service_with_ready;
use crate::support::daemon::Weir;
use crate::support::netns::{Pair, tool};
use crate::support::packet::{ACK, SYN};
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("trace::refused_packets_of_a_client_and_their_capture", refused_packets_of_a_client_and_their_capture),
        trial("trace::an_answer_is_shown_with_who_asked", an_answer_is_shown_with_who_asked),
        trial("trace::above_the_rate_packets_are_counted_and_nothing_is_written_afterwards", above_the_rate_packets_are_counted),
        trial("trace::one_at_a_time_and_no_wrong_names", one_at_a_time_and_no_wrong_names),
    ]
}

const PORT: u16 = 80;
/// No flags at all: refused, and never answered.
const NULL: u8 = 0;

struct Stage {
    // In the order in which they end.
    weir: Weir,
    _workers: Workers,
    pair: Pair,
}

impl Stage {
    fn new() -> Self {
        let pair = Pair::new();
        crate::support::flood::ready(&pair);
        let workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], PORT)), 2);
        let configuration =
            format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = {PORT}\naddress = \"{}\"\n", pair.server_v4[0]);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
        service_with_ready(&weir, 2);
        Self { weir, _workers: workers, pair }
    }

    /// Runs `weir trace` to its end, and `send` again and again meanwhile.
    fn trace(&self, arguments: &[&str], mut send: impl FnMut()) -> Output {
        let deadline = Instant::now() + Duration::from_secs(10);
        std::thread::scope(|scope| {
            let trace = scope.spawn(|| self.weir.cli_output(&[&["trace"], arguments].concat()));
            while !trace.is_finished() {
                assert!(Instant::now() < deadline, "weir trace does not end");
                send();
                std::thread::sleep(Duration::from_millis(5));
            }
            trace.join().expect("weir trace")
        })
    }
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn refused_packets_of_a_client_and_their_capture() {
    let stage = Stage::new();
    let [wanted, other] = [0, 1].map(|number| RawClient::new(&stage.pair, false, number));
    let source = wanted.address().to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace.pcapng").display().to_string();
    let send = || {
        for client in [&other, &wanted] {
            client.send(&[client.tcp(4_000, PORT).flags(NULL), client.tcp(4_000, PORT).flags(ACK)]);
        }
    };
    let arguments = ["--json", "--src", &source, "--reason", "drop", "--service", "web", "--count", "5", "--pcap", &file];
    let shown = lines(&stage.trace(&arguments, send));
    assert_eq!(shown.len(), 5, "{shown:?}");
    for packet in &shown {
        let expected = [
            ("source", format!("{source}:4000")),
            ("destination", format!("{}:{PORT}", stage.pair.server_v4[0])),
            ("kind", "no flags".to_owned()),
            ("service", "web".to_owned()),
            ("verdict", "drop".to_owned()),
            ("reason", "null_flags".to_owned()),
            ("interface", Pair::SERVER_DEVICE.to_owned()),
        ];
        for (key, value) in expected {
            assert_eq!(packet[key], value, "{key} of {packet}");
        }
    }
    // Another program reads the file, and finds the packets and why they were refused.
    let fields = ["frame.comment", "ip.src", "tcp.flags", "tcp.dstport", "frame.interface_name"];
    let mut tshark = vec!["-r", &file, "-T", "fields", "-E", "separator=,"];
    for field in fields {
        tshark.extend(["-e", field]);
    }
    let line = format!("web: drop null_flags,{source},0x0000,{PORT},{}", Pair::SERVER_DEVICE);
    assert_eq!(tool("tshark", &tshark).lines().collect::<Vec<_>>(), vec![line; 5]);
}

/// The answer is written over the SYN: it is shown, and found by the address of the client.
fn an_answer_is_shown_with_who_asked() {
    let stage = Stage::new();
    // What XDP sends back by a veth arrives only where the other end runs a program.
    stage.pair.client_takes_what_xdp_sends(true);
    let client = RawClient::new(&stage.pair, false, 0);
    let source = client.address().to_string();
    stage.weir.cli(&["defence", "web", "on", "--json"]);
    let mut port = 5_000;
    let send = || {
        port += 1;
        client.send(&[client.tcp(port, PORT).flags(SYN).options(&[2, 4, 5, 0xb4])]);
    };
    let output = stage.trace(&["--src", &source, "--reason", "answer", "--count", "3"], send);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.lines().count() == 3, "{output:?}");
    for line in text.lines() {
        assert!(line.contains(&format!(" tcp {source}:50")) && line.contains("SYN, answered SYN ACK"), "{line}");
        assert!(line.ends_with(" web  answer  cookie_sent"), "{line}");
    }
}

fn above_the_rate_packets_are_counted() {
    let stage = Stage::new();
    let client = RawClient::new(&stage.pair, false, 0);
    let burst: Vec<_> = (0..200).map(|from| client.tcp(10_000 + from, PORT).flags(NULL)).collect();
    let output = stage.trace(&["--rate", "2", "--count", "2", "--reason", "null_flags"], || client.send(&burst));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.contains("2 packets shown; "), "{output:?}");
    let above: u64 = log.split("shown; ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a number");
    assert!(above >= 100, "{log}");
    // Nobody asks any more: the next trace finds nothing that came in between.
    client.send(&burst);
    let shown = lines(&stage.trace(&["--json", "--count", "1", "--reason", "pass", "--service", "web"], || {
        client.send(&[client.tcp(7_000, PORT).flags(ACK)]);
    }));
    assert_eq!(shown[0]["kind"], "ACK", "{shown:?}");
}

fn one_at_a_time_and_no_wrong_names() {
    let stage = Stage::new();
    let refused = |arguments: &[&str], exit: i32, says: &str| {
        let output = stage.weir.cli_output(&[&["trace"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{error}");
        assert!(error.contains(says), "{error}");
    };
    refused(&["--service", "wob"], 10, "the services are web");
    refused(&["--reason", "null_flag"], 2, "did you mean `null_flags`?");
    refused(&["--src", "192.0.2.0/33"], 2, "a number from 0 to 32");
    refused(&["--pcap", "/nonesuch/file"], 2, "--pcap");
    let mut first = Command::new(crate::support::daemon::binary());
    let run_dir = stage.weir.configuration_path().parent().expect("it is in a directory").to_owned();
    first.args(["trace", "--instance", stage.weir.instance(), "--run-dir"]).arg(run_dir);
    let mut first = first.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("run weir");
    crate::support::wait::eventually(Duration::from_secs(5), || {
        let output = stage.weir.cli_output(&["trace", "--service", "wob"]);
        if output.status.code() == Some(7) { Ok(()) } else { Err(format!("{output:?}")) }
    });
    // Killed, it leaves the lock; the programs' filter ends by itself.
    first.kill().expect("kill it");
    first.wait().expect("its end");
    refused(&["--service", "wob"], 10, "wob");
}
