//! The figures of the data plane on this machine: `cargo xtask bench [FILTER] [--json FILE]`, as root.
//!
//! Each part measures one thing and gives one [`Table`]; a part is a file and a line in [`PARTS`]. Markdown goes to the terminal as the
//! parts end, the same figures go to the file as JSON. The packets are rows of the packet table of the kernel tests.

// The tests' own modules: what is measured is what is tested.
#[expect(dead_code, reason = "a library for the tests: the benchmark uses a part of it")]
#[path = "../../tests/kernel/dataplane/mod.rs"]
mod dataplane;
#[expect(dead_code, reason = "a library for the tests: the benchmark uses a part of it")]
#[path = "../../tests/kernel/support/mod.rs"]
mod support;

mod daemon;
mod drops;
mod flood;
mod packets;
mod programs;
mod report;
mod selector;
mod swap;

use std::process::ExitCode;

use crate::report::Table;

/// Measures those of a part's figures that the filter takes.
type Measure = fn(&Filter) -> Table;

/// The parts, in the order of their running.
const PARTS: &[(&str, Measure)] = &[
    ("programs", programs::measure),
    ("packets", packets::measure),
    ("selector", selector::measure),
    ("swap", swap::measure),
    ("kernel_drops", drops::measure),
    ("daemon", daemon::measure),
    ("flood", flood::measure),
];

/// What is to be measured: all, or what has this in the name of its part or in its own.
#[derive(Debug)]
struct Filter {
    text: String,
    /// The part's name has it, so all of the part is wanted.
    whole_part: bool,
}

impl Filter {
    /// Whether the figure of this name is wanted.
    fn takes(&self, name: &str) -> bool {
        self.whole_part || name.contains(&self.text)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--role") {
        // A worker process that a part has started.
        return support::roles::play(words);
    }

    let mut text = String::new();
    let mut json = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = Some(words.next().expect("--json FILE")),
            // What `cargo bench` adds.
            "--bench" => {}
            _ => text = word,
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the benchmark loads programs into the kernel: run it as root");
        return ExitCode::FAILURE;
    }

    let mut figures = serde_json::Map::new();
    for (name, measure) in PARTS {
        let filter = Filter { whole_part: name.contains(&text), text: text.clone() };
        let table = measure(&filter);
        if !table.rows.is_empty() {
            println!("{table}");
            figures.insert((*name).to_owned(), table.json());
        }
    }
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&figures).expect("figures are numbers and text");
        std::fs::write(&file, text + "\n").unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    ExitCode::SUCCESS
}
