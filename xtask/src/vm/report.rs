//! What came of it, and the table that shows it: kernel by scenario.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What must be loaded for packets to be balanced; the other programs are optional, and a kernel may lack what they need.
const NEEDED: [&str; 2] = ["ingress", "select_socket"];

/// The results of one kernel.
pub struct Row {
    pub kernel: String,
    pub took: Duration,
    pub results: Results,
}

/// What came of each scenario; none is one that was not reached.
#[derive(Default)]
pub struct Results {
    pub programs: Option<Result<Programs>>,
    pub packets: Option<Result<String>>,
    pub flood: Option<Result<Flood>>,
}

impl Row {
    /// Of a kernel on which nothing has been tried yet.
    pub fn new(kernel: &str) -> Self {
        Self { kernel: kernel.to_owned(), took: Duration::ZERO, results: Results::default() }
    }

    pub fn has_failed(&self) -> bool {
        let Results { programs, packets, flood } = &self.results;
        !matches!((programs, packets, flood), (Some(Ok(_)), Some(Ok(_)), Some(Ok(_))))
    }
}

/// The programs on a kernel.
pub struct Programs {
    /// Name, and how many instructions the verifier looked at.
    loaded: Vec<(String, u64)>,
    /// How long the kernel took for all of them.
    milliseconds: String,
    pinned: String,
    scheme: String,
}

impl Programs {
    pub fn read(status: &Value, milliseconds: String, pinned: String) -> Result<Self> {
        let programs = status["dataplane"]["programs"].as_array().context("the status lists no programs")?;
        let facts = |program: &Value| Some((program["name"].as_str()?.to_owned(), program["verified_instructions"].as_u64()?));
        let loaded: Vec<_> = programs.iter().filter_map(facts).collect();
        for needed in NEEDED {
            ensure!(loaded.iter().any(|(name, _)| name == needed), "{needed} is not loaded");
        }
        let scheme = status["defence"]["scheme"].as_str().unwrap_or("none").to_owned();
        Ok(Self { loaded, milliseconds, pinned, scheme })
    }
}

/// Clients in a flood.
pub struct Flood {
    scheme: String,
    /// Connections served, of how many.
    served: String,
    /// SYNs that hping3 sent, SYN-ACKs with cookies, and connections by cookie.
    sent: String,
    answered: u64,
    by_cookie: u64,
    /// TCP options of a client in calm, and in the flood.
    options: [String; 2],
}

impl Flood {
    /// Says what came of it, if it is as it should be.
    pub fn judge(status: &Value, options: [&str; 2], served: String, sent: String, answered: u64, by_cookie: u64) -> Result<Self> {
        let scheme = status["defence"]["scheme"].as_str().unwrap_or("none").to_owned();
        let options = options.map(kept);
        let (good, all) = served.split(',').next().and_then(|counts| counts.split_once(" of ")).context("no connection was counted")?;
        ensure!(good == all, "{good} of {all} connections were served");
        let connections: u64 = all.parse().context("connections are a number")?;
        ensure!(
            answered > connections && by_cookie >= connections,
            "{by_cookie} of {all} connections were made by a cookie ({answered} sent)"
        );
        let keeps_all = options[0] == options[1];
        ensure!(keeps_all == (scheme == "own"), "the scheme is {scheme}, and the options are {} instead of {}", options[1], options[0]);
        Ok(Self { scheme, served, sent, answered, by_cookie, options })
    }
}

/// The options that a line of `ss -tineO` tells of.
fn kept(line: &str) -> String {
    let words = line.split_whitespace();
    let known =
        words.map(|word| word.split_once(':').map_or(word, |(name, _)| name)).filter(|word| ["ts", "sack", "ecn", "wscale"].contains(word));
    let known: Vec<_> = known.collect();
    if known.is_empty() { "MSS alone".to_owned() } else { known.join(" ") }
}

pub fn table(rows: &[Row], is_emulated: bool) -> String {
    let mut text = "| kernel | programs (instructions verified) | cookies | packet tests | served in a flood | options in calm, in the flood | took |\n".to_owned();
    text.push_str("|---|---|---|---|---|---|---|\n");
    let mut problems = String::new();
    for Row { kernel, took, results } in rows {
        let Results { programs, packets, flood } = results;
        let mut cell = |name: &str, result: Option<Result<String, &anyhow::Error>>| match result {
            None => "not reached".to_owned(),
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                let _ = writeln!(problems, "Linux {kernel}, {name}: {error:#}");
                "FAILED".to_owned()
            }
        };
        let loaded = programs.as_ref().map(|result| result.as_ref().map(shown));
        let scheme = programs.iter().flatten().map(|programs| programs.scheme.clone()).next().unwrap_or_default();
        let loaded = cell("programs", loaded);
        let packets = cell("packet tests", packets.as_ref().map(|result| result.as_ref().map(ToString::to_string)));
        let served = cell("flood", flood.as_ref().map(|result| result.as_ref().map(shown_flood)));
        let options = flood.iter().flatten().map(|flood| flood.options.join(", ")).next().unwrap_or_default();
        let _ = writeln!(text, "| {kernel} | {loaded} | {scheme} | {packets} | {served} | {options} | {} s |", took.as_secs());
    }
    if is_emulated {
        text.push_str("\nThe processors are emulated (TCG): times and rates say nothing about Weir.\n");
    }
    text + &problems
}

fn shown(programs: &Programs) -> String {
    let Programs { loaded, milliseconds, pinned, scheme: _ } = programs;
    let each: Vec<_> = loaded.iter().map(|(name, instructions)| format!("{name} {instructions}")).collect();
    format!("{}; in {milliseconds} ms; {pinned} pins", each.join(", "))
}

fn shown_flood(flood: &Flood) -> String {
    let Flood { scheme, served, sent, answered, by_cookie, options: _ } = flood;
    format!("{served} s; {by_cookie} by cookie ({scheme}); {sent} SYNs sent, {answered} answered")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: &str = "ESTAB 0 0 10.99.0.2:34 10.99.0.1:80 ino:5 sk:1 <-> ts sack cubic wscale:7,7 rto:204 mss:1448 advmss:1448";
    const MSS: &str = "ESTAB 0 0 10.99.0.2:34 10.99.0.1:80 ino:5 sk:1 <-> cubic rto:204 mss:1460 advmss:1460";

    fn judge(scheme: &str, options: [&str; 2], served: &str, by_cookie: u64) -> Result<Flood> {
        let status = json!({"defence": {"scheme": scheme}});
        Flood::judge(&status, options, served.to_owned(), "9000".to_owned(), 8_000, by_cookie)
    }

    #[test]
    fn a_scheme_keeps_what_it_promises() {
        assert!(judge("own", [ALL, ALL], "200 of 200, slowest 0.1", 201).is_ok());
        assert!(judge("kernel", [ALL, MSS], "200 of 200, slowest 0.1", 201).is_ok());
        assert!(judge("own", [ALL, MSS], "200 of 200, slowest 0.1", 201).is_err(), "it keeps all");
        assert!(judge("kernel", [ALL, ALL], "200 of 200, slowest 0.1", 201).is_err(), "then it was no cookie of the kernel's");
    }

    #[test]
    fn every_client_is_served_and_by_a_cookie() {
        assert!(judge("own", [ALL, ALL], "199 of 200, slowest 0.1", 201).is_err());
        assert!(judge("own", [ALL, ALL], "200 of 200, slowest 0.1", 7).is_err());
        assert!(judge("own", [ALL, ALL], "", 201).is_err());
    }

    #[test]
    fn the_table_has_a_line_for_each_kernel_and_names_what_failed() {
        let results = Results { flood: Some(judge("own", [ALL, ALL], "1 of 200, slowest 0.1", 7)), ..Results::default() };
        let row = Row { kernel: "6.1".to_owned(), took: Duration::from_secs(3), results };
        assert!(row.has_failed());
        let text = table(&[row], true);
        assert!(text.contains("| 6.1 | not reached |") && text.contains("Linux 6.1, flood: 1 of 200 connections were served"), "{text}");
    }
}
