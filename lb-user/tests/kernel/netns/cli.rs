//! The command line as people and scripts meet it, beside a daemon that runs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::daemon::{Weir, binary};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("cli::every_help_has_an_example", every_help_has_an_example),
        trial("cli::every_command_speaks_json", every_command_speaks_json),
        trial("cli::no_escape_codes_in_pipes", no_escape_codes_in_pipes),
        trial("cli::without_a_daemon", without_a_daemon),
        trial("cli::the_example_file_is_right", the_example_file_is_right),
    ]
}

const COMMANDS: [&[&str]; 15] = [
    &["run"],
    &["stop"],
    &["status"],
    &["top"],
    &["drain"],
    &["undrain"],
    &["defence"],
    &["reload"],
    &["doctor"],
    &["explain"],
    &["trace"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["config", "example"],
];

fn weir(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("run weir")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn every_help_has_an_example() {
    let whole = text(&weir(&["--help"]));
    assert!(whole.contains("Examples:\n  weir run --iface eth0") && whole.contains("Exit codes:\n   0  done"), "{whole}");
    for command in COMMANDS {
        let help = text(&weir(&[command, &["--help"]].concat()));
        let example = format!("\n  weir {}", command.join(" "));
        assert!(help.contains("Examples:\n") && help.contains(&example), "no example of {command:?}: {help}");
    }
}

/// A daemon with a service of two backends, and what it stands on. The namespace ends last: with it end the processes inside.
fn running() -> (Pair, Workers, Weir) {
    let pair = Pair::new();
    let target = SocketAddr::new(pair.server_v4[0], 8080);
    let workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 2);
    let configuration = format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 8080\naddress = \"{}\"\n", target.ip());
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
    (pair, workers, weir)
}

fn every_command_speaks_json() {
    let (pair, _workers, weir) = running();
    let (client, server) = (format!("{}:4000", pair.client_v4[0]), format!("{}:8080", pair.server_v4[0]));
    let file = weir.configuration_path().display().to_string();
    let status = weir.cli(&["status", "--json"]);
    assert_eq!(status["services"][0]["name"], "web");
    assert_eq!(status["services"][0]["backends"].as_array().map(Vec::len), Some(2));
    assert!(weir.cli(&["explain", "tcp", &client, &server, "--json"]).is_object());
    assert!(weir.cli(&["explain", "tcp", &client, &server, "--without", "1", "--json"]).is_object());
    let defence = ["defence", "web", "on", "--json"];
    for order in [&["drain", "web", "1", "--json"][..], &["undrain", "web", "1", "--json"], &defence, &["reload", "--json"]] {
        assert!(weir.cli(order).is_object());
    }
    let doctor = pair.server.command(binary()).args(["doctor", "--iface", Pair::SERVER_DEVICE, "--json"]).output().expect("run weir");
    let doctor: Value = serde_json::from_str(&text(&doctor)).expect("JSON");
    assert!(doctor.to_string().contains(Pair::SERVER_DEVICE), "{doctor}");
    for command in
        [&["config", "check", &file, "--json"][..], &["config", "show", "--config", &file, "--json"], &["config", "show", "--json"]]
    {
        let object: Value = serde_json::from_str(&text(&self::weir(command))).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(object.is_object(), "{command:?}: {object}");
    }
    // Failures are objects too, on standard error, with the code that the process ends with.
    for (command, exit) in [
        (&["drain", "web", "7"][..], 10),
        (&["drain", "nothing", "1"], 10),
        (&["explain", "tcp", &client, "[::1]:80"], 2),
        (&["config", "check", "/nonesuch.toml"], 3),
        (&["status", "--instance", "nonesuch"], 8),
    ] {
        let output = if command.contains(&"--instance") {
            self::weir(&[command, &["--json"]].concat())
        } else {
            weir.cli_output(&[command, &["--json"]].concat())
        };
        let object: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|error| panic!("{command:?}: {error}: {output:?}"));
        assert_eq!((output.status.code(), &object["exit"]), (Some(exit), &Value::from(exit)), "{command:?}: {object}");
        assert!(object["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()) || exit == 3, "{command:?}: {object}");
        assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
    }
    assert!(weir.cli(&["stop", "--json"]).is_object());
}

fn no_escape_codes_in_pipes() {
    let (pair, _workers, weir) = running();
    let (client, server) = (format!("{}:4000", pair.client_v4[0]), format!("{}:8080", pair.server_v4[0]));
    for command in [&["status"][..], &["explain", "tcp", &client, &server], &["doctor"], &["drain", "web", "9"], &["reload"]] {
        let output = weir.cli_output(command);
        assert!(![output.stdout, output.stderr].concat().contains(&0x1b), "an escape code of {command:?}");
    }
    assert!(!weir.log().contains('\x1b'), "an escape code in the log");
    // On a terminal there are some, unless NO_COLOR says otherwise.
    let run_dir = weir.configuration_path().parent().map(Path::to_owned).expect("it is in a directory");
    let on_a_terminal = |no_color: &str| {
        let command = format!("{} status --instance {} --run-dir {}", binary().display(), weir.instance(), run_dir.display());
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_color);
        text(&script.output().expect("run script"))
    };
    assert!(on_a_terminal("").contains("\x1b["), "colours on a terminal");
    let plain = on_a_terminal("1");
    assert!(!plain.contains('\x1b') && plain.contains("web"), "{plain:?}");
}

/// Each command that wants a daemon says that there is none, with the code for that.
fn without_a_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let run_dir = directory.path().display().to_string();
    for command in [&["status"][..], &["stop"], &["reload"], &["drain", "web", "1"], &["explain", "tcp", "10.0.0.1:1", "10.0.0.2:2"]] {
        let output = weir(&[command, &["--run-dir", &run_dir, "--instance", "nonesuch"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{command:?}: {error}");
        assert!(error.contains("nonesuch") && error.contains("remedy: "), "{command:?}: {error}");
    }
}

fn the_example_file_is_right() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.toml");
    assert!(weir(&["config", "check", file]).status.success());
    let printed = text(&weir(&["config", "example"]));
    assert_eq!(printed, std::fs::read_to_string(file).expect("read it"), "what the command prints is what is committed");
}
