//! The figures of the data plane on this machine: `cargo xtask bench [FILTER ..] [--json FILE] [--markdown FILE] [--svg FILE]`, as root.
//!
//! Each part measures one thing and gives one [`Table`]; a part is a file and a line in [`PARTS`]. Markdown goes to the terminal as the
//! parts end, the same figures go to the files as JSON, into a page of the documentation, and as bars. The packets are rows of the packet
//! table of the kernel tests.

// The tests' own modules: what is measured is what is tested.
#[expect(dead_code, reason = "a library for the tests: the benchmark uses a part of it")]
#[path = "../../tests/kernel/dataplane/mod.rs"]
mod dataplane;
#[expect(dead_code, reason = "a library for the tests: the benchmark uses a part of it")]
#[path = "../../tests/kernel/support/mod.rs"]
mod support;

mod compare;
mod daemon;
mod drops;
mod flood;
mod packets;
mod page;
mod plot;
mod programs;
mod report;
mod selector;
mod swap;

use std::{path::Path, process::ExitCode};

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
    ("compare_spread", compare::spread::measure),
    ("compare_reload", compare::reload::measure),
    ("compare_slow_worker", compare::slow_worker::measure),
];

/// The files that are written when they are asked for.
const OUTPUTS: [&str; 3] = ["--json", "--markdown", "--svg"];

/// What is to be measured: all, or what has one of these in the name of its part or in its own.
#[derive(Debug)]
struct Filter {
    texts: Vec<String>,
    /// The part's name has one, so all of the part is wanted.
    whole_part: bool,
}

impl Filter {
    fn of_part(part: &str, texts: &[String]) -> Self {
        Self { texts: texts.to_vec(), whole_part: texts.is_empty() || texts.iter().any(|text| part.contains(text)) }
    }

    /// Whether the figure of this name is wanted.
    fn takes(&self, name: &str) -> bool {
        self.whole_part || self.texts.iter().any(|text| name.contains(text))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--role") {
        // A worker process that a part has started.
        return support::roles::play(words);
    }

    let (mut texts, mut files) = (Vec::new(), [const { None }; 3]);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            _ => match OUTPUTS.iter().position(|output| *output == word) {
                Some(output) => files[output] = Some(words.next().unwrap_or_else(|| panic!("{word} FILE"))),
                None => texts.push(word),
            },
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the benchmark loads programs into the kernel: run it as root");
        return ExitCode::FAILURE;
    }

    let [json, markdown, svg] = files.each_ref().map(|file| file.as_deref().map(Path::new));
    let facts = markdown.map(|_| page::facts());
    let mut tables = Vec::new();
    for (name, measure) in PARTS {
        let table = measure(&Filter::of_part(name, &texts));
        if !table.rows.is_empty() {
            println!("{table}");
            tables.push((*name, table));
        }
    }
    if let Some(file) = json {
        report::write_json(file, &tables);
    }
    if let (Some(file), Some(facts)) = (markdown, facts) {
        page::update(file, &tables, &facts);
    }
    if let Some(file) = svg {
        plot::draw(file, &tables);
    }
    ExitCode::SUCCESS
}
