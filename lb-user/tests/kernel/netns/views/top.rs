//! What `weir top` shows, on a terminal wide enough for all of it.

use std::time::Duration;

use super::SERVICES;
use super::figures::{Figures, Shown};
use crate::support::daemon::binary;
use crate::support::replay::Replay;
use crate::support::terminal::Terminal;

const SIZE: (u16, u16) = (50, 140);
/// How long it may take to draw one.
const FRAME: Duration = Duration::from_millis(500);

/// Its figures once the second snapshot is there.
pub fn shown(replay: &Replay) -> Figures {
    let identity = replay.identity();
    let arguments: Vec<&str> = std::iter::once("top").chain(identity.iter().map(String::as_str)).collect();
    let mut terminal = Terminal::start(binary(), &arguments, &[], SIZE);
    terminal.see("rates", |rows| rows[1].starts_with("seen "));
    terminal.press("s");
    terminal.see_text("services by name");

    let mut figures = Figures::new("top");
    let mut names = SERVICES;
    names.sort_unstable();
    terminal.press("g");
    for (number, name) in names.into_iter().enumerate() {
        if number > 0 {
            terminal.press("j");
        }
        let titled = |row: &String| row.starts_with(&format!(" {name} ("));
        terminal.see(name, |rows| rows.iter().any(titled));
        // What was read may be half a frame; nothing new comes after it.
        std::thread::sleep(FRAME);
        let rows = terminal.rows();
        let title = rows.iter().position(titled).expect("just seen");
        let panels = rows.iter().position(|row| row.contains("drops/s by reason")).expect("the panel of drops");
        let of_service = rows[..title].iter().find(|row| row.split_whitespace().next() == Some(name)).expect("the service's row");
        service(&mut figures, name, of_service);
        handshakes(&mut figures, name, &rows[title]);
        for row in rows[title + 2..panels].iter().filter(|row| !row.trim().is_empty()) {
            worker(&mut figures, name, row);
        }
        for row in &rows[panels + 1..rows.len() - 1] {
            dropped(&mut figures, name, row);
        }
    }
    terminal.press("q");
    assert_eq!(terminal.ended().code(), Some(0));
    figures
}

/// `web 1/2 FLOOD 1m 156 150k 25001 11 ███▏·· 78% ▏····· 1% 1.2ms`: how long a flood has lasted may be missing.
fn service(figures: &mut Figures, name: &str, row: &str) {
    let mut words: Vec<&str> = row.split_whitespace().collect();
    let mode = match words[2] {
        "FLOOD" => Some(2.0),
        "lingering" => Some(1.0),
        "calm" => Some(0.0),
        _ => None,
    };
    if mode == Some(2.0) && words[3].ends_with(char::is_alphabetic) {
        words.remove(3);
    }
    let (ready, _) = words[1].split_once('/').expect("ready of all");
    // The bar of a queue stands before its number, a queue that there is not has neither.
    let fullest = if words[7] == "-" { None } else { Shown::read(words[8]) };
    for (figure, shown) in [
        ("ready", Shown::read(ready)),
        ("flood", mode.map(Shown::exact)),
        ("new/s", Shown::read(words[3])),
        ("seen/s", Shown::read(words[4])),
        ("dropped/s", Shown::read(words[5])),
        ("lost/s", Shown::read(words[6])),
        ("fullest queue", fullest),
    ] {
        figures.of_service(name, figure, shown);
    }
}

/// `api (tcp/..) · workers by number · handshake p50 732µs p99 972µs`
fn handshakes(figures: &mut Figures, name: &str, title: &str) {
    let Some((_, times)) = title.split_once("handshake ") else { return };
    let words: Vec<&str> = times.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("p50", "p99"), "{title}");
    figures.of_service(name, "handshake p50", Shown::read(words[1]));
    figures.of_service(name, "handshake p99", Shown::read(words[3]));
}

/// `1 ready 5001 kernel 33.3% 120 7 ········ 0/511 ········ 0/511 7.8ms 0`, from its end: the process may be of several words.
fn worker(figures: &mut Figures, service: &str, row: &str) {
    let mut words: Vec<&str> = row.split_whitespace().collect();
    let index = words[0].to_owned();
    let mut last = || words.pop().unwrap_or_else(|| panic!("too few words: {row}"));
    figures.of_worker(service, &index, "lost/s", Shown::read(last()));
    let _wait = last();
    let mut queue = || {
        let filled = Shown::filled(last(), "/");
        if filled.is_some() {
            let _bar = last();
        }
        filled
    };
    let (syn, entrance) = (queue(), queue());
    figures.of_worker(service, &index, "SYN queue", syn);
    figures.of_worker(service, &index, if syn.is_some() { "accept queue" } else { "receive queue" }, entrance);
    for figure in ["open", "new/s", "share"] {
        figures.of_worker(service, &index, figure, Shown::read(last()));
    }
}

/// ` 25000 cookie_refused xdp`, with the sparklines behind it. The smallest may be there together: ` 1.7 of 2 more reasons`.
fn dropped(figures: &mut Figures, name: &str, row: &str) {
    let words: Vec<&str> = row.split_whitespace().collect();
    let [rate, reason, by, ..] = words[..] else { return };
    match by {
        "xdp" => figures.of_reason(name, "weir", reason, Shown::read(rate)),
        "kernel" => figures.of_reason(name, "kernel", reason, Shown::read(rate)),
        "socket" => figures.of_service(name, "overflows/s", Shown::read(rate)),
        _ => {}
    }
}
