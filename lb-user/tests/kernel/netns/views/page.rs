//! What the page shows: what it is sent, and what a browser makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::SERVICES;
use super::figures::{Figures, Shown};
use crate::support::browser::Browser;
use crate::support::replay::Replay;

const SOON: Duration = Duration::from_secs(20);
/// The stream of events again, for its first: the moment that is shown.
const MOMENT: &str = r#"new Promise((done) => {
    const source = new EventSource("/api/v1/events");
    source.addEventListener("opening", ({ data }) => { source.close(); done(JSON.parse(data).moment); });
})"#;

/// The numbers it has, and those that can be read on it.
pub fn shown(replay: &Replay) -> [Figures; 2] {
    let mut browser = Browser::start();
    browser.looks(1280, 900, "light", "no-preference");
    browser.open(&format!("http://{}/", replay.http_address()));
    // There are rates only when the second snapshot has come.
    browser.wait_for(SOON, "document.getElementById('figures').textContent !== ''");
    let moment = browser.value(MOMENT);
    assert_eq!(moment["folded"], 0);
    [sent(&moment), drawn(&mut browser)]
}

fn number(value: &Value) -> Option<Shown> {
    value.as_f64().map(Shown::exact)
}

/// How full a queue is.
fn filled(queue: &Value) -> Option<Shown> {
    Some(Shown::exact(queue["length"].as_f64()? / queue["limit"].as_f64()?.max(1.0)))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A mode as Grafana has it.
fn mode(name: &str) -> Option<Shown> {
    let mut modes = ["calm", "lingering", "flood"].into_iter().zip([0.0, 1.0, 2.0]);
    modes.find(|(mode, _)| *mode == name).map(|(_, value)| Shown::exact(value))
}

fn sent(moment: &Value) -> Figures {
    let mut figures = Figures::new("page, sent");
    for lane in list(&moment["services"]) {
        let (name, rates) = (text(&lane["name"]), &lane["rates"]);
        for (figure, value) in [
            ("new/s", &rates["connections"]),
            ("seen/s", &rates["seen"]["packets"]),
            ("dropped/s", &rates["dropped"]["packets"]),
            ("overflows/s", &rates["overflows"]),
            ("lost/s", &rates["lost"]),
            ("handshake p50", &rates["handshake_median"]),
            ("handshake p99", &rates["handshake_p99"]),
        ] {
            figures.of_service(name, figure, number(value));
        }
        figures.of_service(name, "flood", lane["defence"]["mode"].as_str().and_then(mode));
        figures.of_service(name, "oldest wait", waited(&lane["queues"]));
        for dropped in list(&rates["drops"]) {
            figures.of_reason(name, text(&dropped["by"]), text(&dropped["reason"]), number(&dropped["rate"]));
        }
        for worker in list(&lane["workers"]) {
            let (index, queues) = (worker["index"].to_string(), &worker["queues"]);
            for (figure, value) in [
                ("new/s", number(&worker["connections"])),
                ("open", number(&worker["open"])),
                ("share", number(&worker["share"])),
                ("overflows/s", number(&worker["overflows"])),
                ("lost/s", number(&worker["lost"])),
                ("accept queue", filled(&queues["accept"])),
                ("SYN queue", filled(&queues["syn"])),
                ("receive queue", filled(&queues["receive"])),
                ("oldest wait", waited(queues)),
                ("accept p99", number(&worker["accept_p99"])),
            ] {
                figures.of_worker(name, &index, figure, value);
            }
        }
    }
    figures
}

/// How long the first in the queue has waited: no time where none waits.
fn waited(queues: &Value) -> Option<Shown> {
    queues["accept"].is_object().then(|| Shown::exact(queues["oldest_wait"].as_f64().unwrap_or(0.0)))
}

/// The rows of a table by what stands over their cells.
fn table(browser: &mut Browser, id: &str) -> Vec<BTreeMap<String, String>> {
    // A cell's own text: what is explained below it comes after.
    let cells = format!(
        "[...document.querySelectorAll('#{id} tr')].map((row) => [...row.cells].map((cell) => cell.firstChild?.textContent ?? ''))"
    );
    let rows: Vec<Vec<String>> = serde_json::from_value(browser.value(&cells)).expect("rows of text");
    let Some((head, rows)) = rows.split_first() else { return Vec::new() };
    rows.iter().map(|row| head.iter().cloned().zip(row.iter().cloned()).collect()).collect()
}

fn drawn(browser: &mut Browser) -> Figures {
    let mut figures = Figures::new("page, drawn");
    let read = |row: &BTreeMap<String, String>, column: &str| row.get(column).and_then(|text| Shown::read(text));
    let services = table(browser, "list");
    assert_eq!(services.len(), SERVICES.len(), "{services:?}");
    for row in &services {
        let name = &row["Service"];
        for (figure, column) in [("new/s", "Connections/s"), ("seen/s", "Packets/s"), ("dropped/s", "Dropped/s"), ("lost/s", "Lost/s")] {
            figures.of_service(name, figure, read(row, column));
        }
        figures.of_service(name, "flood", mode(&row["Defence"]));
    }
    for service in SERVICES {
        let choice = "document.getElementById('choice')";
        browser.value(&format!("{choice}.value = '{service}'; {choice}.dispatchEvent(new Event('change'))"));
        browser.wait_for(SOON, &format!("document.getElementById('list-title').textContent === 'Workers of {service}'"));
        for row in table(browser, "list") {
            let index = row["Worker"].split(' ').next().unwrap_or_default();
            let filled = |column: &str| row.get(column).and_then(|text| Shown::filled(text, " of "));
            for (figure, shown) in [
                ("new/s", read(&row, "Connections/s")),
                ("open", read(&row, "Open")),
                ("lost/s", read(&row, "Lost/s")),
                ("accept queue", filled("Accept queue")),
                ("SYN queue", filled("SYN queue")),
                ("receive queue", filled("Receive bytes")),
                ("oldest wait", read(&row, "Oldest waits")),
                ("accept p99", read(&row, "Accept p99")),
            ] {
                figures.of_worker(service, index, figure, shown);
            }
        }
        for row in table(browser, "drops") {
            let rate = read(&row, "Packets/s");
            match row["By"].as_str() {
                "Weir" => figures.of_reason(service, "weir", &row["Reason"], rate),
                "the kernel" => figures.of_reason(service, "kernel", &row["Reason"], rate),
                "the socket" => figures.of_service(service, "overflows/s", rate),
                other => panic!("dropped by {other}"),
            }
        }
    }
    figures
}
