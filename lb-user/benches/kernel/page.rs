//! Tables in a page of the documentation: each between two marks, with the machine and the date.
//!
//! What else stands on the page is written by people, and stays.

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    report::Table,
    support::{
        cpu::{Processor, Processors},
        netns::tool,
    },
};

const END: &str = "<!-- end of what was measured -->";

/// The mark behind which a part's table stands.
fn mark(part: &str) -> String {
    format!("<!-- measured by cargo xtask bench {part} -->")
}

/// Replaces the tables of the parts that were measured; a page that is not there has all of them and nothing else. `facts` are [`facts`]
/// from before.
pub fn update(file: &Path, tables: &[(&str, Table)], facts: &str) {
    let mut page = match fs::read_to_string(file) {
        Ok(page) => page,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tables.iter().map(|(part, _)| format!("{}\n{END}\n", mark(part))).collect::<Vec<_>>().join("\n")
        }
        Err(error) => panic!("{}: {error}", file.display()),
    };
    for (part, table) in tables {
        let parted = page.split_once(&mark(part)).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        page = match parted {
            Some((before, after)) => format!("{before}{}\n{table}\n{facts}\n{END}{after}", mark(part)),
            None => panic!("{} has no {} with {END} behind it", file.display(), mark(part)),
        };
    }
    fs::write(file, page).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// When, on what machine, and beside which programs. It takes a second, to see what else the machine does.
pub fn facts() -> String {
    let before = Processors::read();
    std::thread::sleep(Duration::from_secs(1));
    let now = Processors::read().since(&before);
    let busiest = now.0.iter().map(Processor::busy).fold(0.0, f64::max);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let versions = [("nginx", "-v"), ("haproxy", "-v"), ("nft", "-v"), ("wrk", "-v")].map(|(program, flag)| version(program, flag));
    format!(
        "Measured on {}: Linux {}, {}, {} GB, {processors} processors, the \
         busiest of which others kept at {:.0} % before it began; {}.\n",
        tool("date", &["-u", "+%F"]).trim(),
        tool("uname", &["-r"]).trim(),
        field("/proc/cpuinfo", "model name"),
        memory.div_ceil(1024 * 1024),
        busiest * 100.0,
        versions.join(", ")
    )
}

/// What a program says that it is, in its first line: the name, and what begins with a number.
fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {program}: {error}"));
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let number = |word: &&str| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit()) && word.contains('.');
    let words = said.lines().next().unwrap_or_default().split([' ', '/']);
    format!("{program} {}", words.filter(|word| !word.is_empty()).find(number).unwrap_or("of unknown version").trim_start_matches('v'))
}
