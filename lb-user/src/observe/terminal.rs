//! The snapshot for people: `weir status`. Nothing is wider than [`WIDTH`], unless one word is.

pub(crate) mod defence;

use std::{env, fmt::Write as _, io::IsTerminal as _, net::IpAddr};

use super::{
    snapshot::{Backend, Dataplane, ReasonCount, Service, Snapshot},
    table::{Column, table},
};
use crate::{
    config::Protocol,
    plan::{Note, OtherListener, State, Unbalanced},
};

/// The widest line, in characters.
pub const WIDTH: usize = 100;

/// Room for a command, which has at most 15 bytes in Linux.
const COMMAND_WIDTH: usize = 15;

/// Above this share of its capacity a map is shown.
const NEARLY_FULL: f64 = 0.8;

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI escapes may be written.
    pub colour: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Ink {
    Plain,
    Bold,
    Good,
    Warning,
    Bad,
}

impl Style {
    /// No colours.
    pub const PLAIN: Self = Self { colour: false };

    /// Colours if standard output is a terminal that knows them and `NO_COLOR` (no-color.org) is unset or empty.
    #[must_use]
    pub fn of_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self { colour: std::io::stdout().is_terminal() && !refused && !dumb }
    }

    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Good => "32",
            Ink::Warning => "33",
            Ink::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The whole status.
#[must_use]
pub fn status(snapshot: &Snapshot, style: Style) -> String {
    let mut out = String::new();
    header(&mut out, snapshot, style);
    for service in &snapshot.services {
        out.push('\n');
        of_service(&mut out, service, snapshot, style);
    }
    if snapshot.services.is_empty() {
        let why = if snapshot.others.is_empty() { "no listener was found" } else { "for each listener it says below why it is none" };
        let _ = writeln!(out, "\nno services: {why}");
    }
    footer(&mut out, snapshot, style);
    out
}

fn header(out: &mut String, snapshot: &Snapshot, style: Style) {
    let Snapshot { instance, daemon, dataplane, notes, .. } = snapshot;
    let name = style.paint(Ink::Bold, &format!("weir {}", clean(instance)));
    if let Some(daemon) = daemon {
        let _ = writeln!(out, "{name}: daemon {}, pid {}, up {}", clean(&daemon.version), daemon.pid, duration(daemon.uptime));
    } else {
        let _ = writeln!(out, "{name}: {}", style.paint(Ink::Bad, "the daemon is not running; figures read from the pinned maps"));
    }
    let interfaces: Vec<String> =
        dataplane.interfaces.iter().map(|interface| format!("{} ({})", clean(&interface.name), clean(&interface.mode))).collect();
    if interfaces.is_empty() {
        let _ = writeln!(out, "  {}", style.paint(Ink::Bad, "attached to no interface"));
    } else {
        let attached = format!("{}, for {}", interfaces.join(", "), duration(dataplane.uptime));
        hanging(out, "  attached to ", &attached, style, Ink::Plain);
    }
    maps(out, dataplane, style);
    if let Some(daemon) = daemon {
        if !daemon.helper_alive {
            hanging(
                out,
                "  ! ",
                "the privileged helper has ended: no new listener can join until the daemon is restarted",
                style,
                Ink::Bad,
            );
        }
        if !daemon.events {
            hanging(out, "  ! ", "listeners are found by the periodic scan only: no events come from the kernel", style, Ink::Warning);
        }
        if let Some(error) = daemon.last_reload.as_ref().and_then(|reload| reload.error.as_ref()) {
            hanging(
                out,
                "  ! ",
                &format!("the last reload was refused, and what ran before still runs: {}", clean(error)),
                style,
                Ink::Bad,
            );
        }
    }
    of_notes(out, notes, style);
}

fn maps(out: &mut String, dataplane: &Dataplane, style: Style) {
    for map in &dataplane.maps {
        let fill = ratio(map.entries, map.capacity);
        if fill >= NEARLY_FULL {
            let text = format!("map {} is {} full: {} of {} entries", clean(&map.name), percent(fill), map.entries, map.capacity);
            hanging(out, "  ! ", &text, style, Ink::Warning);
        }
    }
}

fn of_service(out: &mut String, service: &Service, Snapshot { others, defence, .. }: &Snapshot, style: Style) {
    let name = clean(&service.name);
    let endpoint = endpoint(service.protocol, service.address, service.device.as_deref(), service.port);
    // A service that was discovered is named by its address.
    let title = if name == endpoint { String::new() } else { format!("  {endpoint}") };
    let sockets = if service.balanced { states(&service.backends) } else { listeners(service, others) };
    let _ = writeln!(out, "{}{title}  {sockets}", style.paint(Ink::Bold, &name));
    if let Some(line) = service.defence.as_ref().and_then(|of_service| defence::line(of_service, defence)) {
        let ink = if line.is_warning { Ink::Warning } else { Ink::Plain };
        hanging(out, "  SYN defence: ", &line.text, style, ink);
    }
    let (refused, let_in): (Vec<ReasonCount>, Vec<ReasonCount>) = service.packets.iter().cloned().partition(defence::is_refused);
    if service.packets.is_empty() {
        out.push_str("  packets: none yet\n");
    } else if !let_in.is_empty() {
        hanging(out, "  packets: ", &packets(&let_in), style, Ink::Plain);
    }
    if !refused.is_empty() {
        hanging(out, "  refused: ", &packets(&refused), style, Ink::Plain);
    }
    if !service.backends.is_empty() {
        out.push_str(&table(&columns(service.protocol), &service.backends, style));
    }
    of_notes(out, &service.notes, style);
}

/// `3 backends: 2 ready, 1 draining`
fn states(backends: &[Backend]) -> String {
    let counts = State::ALL.into_iter().filter_map(|state| {
        let count = backends.iter().filter(|backend| backend.state == state).count();
        (count > 0).then(|| format!("{count} {}", state.label()))
    });
    match backends.len() {
        0 => "no backends".to_owned(),
        1 => format!("1 backend: {}", backends[0].state.label()),
        all => format!("{all} backends: {}", counts.collect::<Vec<_>>().join(", ")),
    }
}

/// `1 listener, not balanced: not SO_REUSEPORT`
fn listeners(service: &Service, others: &[OtherListener]) -> String {
    let place = (service.protocol, service.address, service.port);
    let other = others.iter().find(|other| (other.protocol, other.address, other.port) == place);
    let why = match other.map(|other| other.why) {
        Some(Unbalanced::NotReuseport) => ": not SO_REUSEPORT",
        Some(Unbalanced::SteeredByAnother) => ": another program steers it",
        Some(Unbalanced::OverLimit) => ": a limit is reached",
        Some(Unbalanced::Unreachable) => ": no interface of Weir leads to it",
        Some(Unbalanced::NotNamed) | None => "",
    };
    let plural = if service.listeners == 1 { "" } else { "s" };
    format!("{} listener{plural}, not balanced{why}", service.listeners)
}

fn columns(protocol: Protocol) -> Vec<Column<Backend>> {
    let mut columns = vec![
        Column::right("BACKEND", |backend: &Backend| (backend.index.to_string(), Ink::Plain)),
        Column::left("STATE", |backend| {
            let ink = match backend.state {
                State::Ready => Ink::Good,
                State::Draining => Ink::Warning,
                State::Unserved => Ink::Bad,
            };
            (backend.state.label().to_owned(), ink)
        }),
        Column::right("SHARE", |backend| (percent(backend.share), Ink::Plain)),
        Column::left("PROCESS", |backend| (servers(backend), Ink::Plain)),
        Column::right("CHOSEN", |backend| (short(backend.chosen), Ink::Plain)),
        Column::right("SELECTED", |backend| (short(backend.selections()), Ink::Plain)),
    ];
    if protocol == Protocol::Tcp {
        columns.extend([
            Column::right("CONNS", |backend: &Backend| (short(backend.established), Ink::Plain)),
            Column::right("OPEN", |backend| (short(backend.open), Ink::Plain)),
            Column::right("QUEUE", |backend| match backend.queues.accept_queue {
                Some(queue) => {
                    // A full queue shows one more than its limit.
                    let ink = if queue.length > queue.limit { Ink::Bad } else { Ink::Plain };
                    (format!("{}/{}", queue.length, queue.limit), ink)
                }
                None => ("-".to_owned(), Ink::Plain),
            }),
        ]);
    }
    columns
}

/// `4712 nginx`, with how many others share the socket.
pub(crate) fn servers(backend: &Backend) -> String {
    let Some(first) = backend.servers.first() else { return "unknown".to_owned() };
    let others = backend.servers.len() - 1;
    let more = if others == 0 { String::new() } else { format!(" +{others}") };
    let command: String = clean(&first.command).chars().take(COMMAND_WIDTH - more.len().min(COMMAND_WIDTH)).collect();
    format!("{} {command}{more}", first.pid)
}

fn footer(out: &mut String, snapshot: &Snapshot, style: Style) {
    let Snapshot { others, passed, selector_misses, .. } = snapshot;
    if !others.is_empty() {
        let _ = writeln!(out, "\n{}", style.paint(Ink::Bold, "listeners that are not balanced"));
    }
    for other in others {
        hanging(out, "  ", &of_other(other), style, Ink::Plain);
    }
    let passed: Vec<ReasonCount> = passed.iter().filter(|count| count.packets > 0).cloned().collect();
    if !passed.is_empty() {
        out.push('\n');
        hanging(out, "packets of no service: ", &packets(&passed), style, Ink::Plain);
    }
    let misses: Vec<String> =
        selector_misses.iter().filter(|(_, count)| **count > 0).map(|(why, count)| format!("{} {}", clean(why), short(*count))).collect();
    if !misses.is_empty() {
        hanging(out, "left to the kernel's own choice: ", &misses.join(", "), style, Ink::Warning);
    }
}

fn of_other(other: &OtherListener) -> String {
    let OtherListener { protocol, address, port, commands, why } = other;
    let commands = if commands.is_empty() { "unknown".to_owned() } else { clean(&commands.join(", ")) };
    format!("{}  {commands}: {}", endpoint(*protocol, *address, None, *port), in_words(*why))
}

/// Why a listener is not balanced, and what would change it.
#[must_use]
pub const fn in_words(why: Unbalanced) -> &'static str {
    match why {
        Unbalanced::NotReuseport => "a socket alone, without SO_REUSEPORT: there is nothing to spread",
        Unbalanced::SteeredByAnother => "another program steers its group; `takeover = true` in its service replaces that program",
        Unbalanced::Unreachable => "no interface of Weir leads to it; name one that does with --iface",
        Unbalanced::NotNamed => "no service names it, and discovery is off for its protocol; see --discover",
        Unbalanced::OverLimit => "a limit is reached; raise it in [limits]",
    }
}

fn of_notes(out: &mut String, notes: &[Note], style: Style) {
    for Note { text, remedy } in notes {
        hanging(out, "  ! ", &clean(text), style, Ink::Warning);
        if !remedy.is_empty() {
            hanging(out, "    remedy: ", &clean(remedy), style, Ink::Plain);
        }
    }
}

/// `tcp_opened 120 (7.2 kB), tcp_established 4000 (2.5 MB)`
fn packets(counts: &[ReasonCount]) -> String {
    let counts = counts.iter().map(|count| format!("{} {} ({}B)", clean(&count.reason), short(count.packets), scaled(count.bytes)));
    counts.collect::<Vec<_>>().join(", ")
}

/// As discovered services are named: `tcp/0.0.0.0%eth1:80`, `udp/[::]:53`.
pub(crate) fn endpoint(protocol: Protocol, address: IpAddr, device: Option<&str>, port: u16) -> String {
    let device = device.map(|device| format!("%{}", clean(device))).unwrap_or_default();
    match address {
        IpAddr::V4(address) => format!("{protocol}/{address}{device}:{port}"),
        IpAddr::V6(address) => format!("{protocol}/[{address}{device}]:{port}"),
    }
}

/// Writes `first` and `text`, broken between words; the lines after the first are indented to where the text begins.
fn hanging(out: &mut String, first: &str, text: &str, style: Style, ink: Ink) {
    let indent = first.chars().count();
    let mut lines = vec![String::new()];
    let mut used = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let line_is_empty = lines.last().is_none_or(String::is_empty);
        if !line_is_empty && used + 1 + length > WIDTH {
            lines.push(String::new());
            used = indent;
        }
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    for (number, line) in lines.iter().enumerate() {
        let lead = if number == 0 { first.to_owned() } else { " ".repeat(indent) };
        let _ = writeln!(out, "{lead}{}", style.paint(ink, line));
    }
}

/// Without control characters: a process chooses its own command name, and root's terminal must not obey it.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// Exact below 100,000; then three digits: `123k`, `1.23M`.
pub(crate) fn short(count: u64) -> String {
    if count < 100_000 { count.to_string() } else { scaled(count).replace(' ', "") }
}

/// Three digits and a decimal prefix: `999 `, `1.23 k`, `45.6 M`.
pub(crate) fn scaled(value: u64) -> String {
    let mut divisor = 1_u64;
    let mut prefixes = ["", "k", "M", "G", "T", "P", "E"].into_iter();
    let mut prefix = prefixes.next().unwrap_or_default();
    for larger in prefixes {
        if value / divisor < 1000 {
            break;
        }
        divisor *= 1000;
        prefix = larger;
    }
    let (whole, rest) = (value / divisor, value % divisor);
    // Cut, not rounded: 999,999 is `999 k`, and no figure shows more than there is.
    match whole {
        _ if divisor == 1 => format!("{whole} {prefix}"),
        100.. => format!("{whole} {prefix}"),
        10..100 => format!("{whole}.{} {prefix}", rest / (divisor / 10)),
        0..10 => format!("{whole}.{:02} {prefix}", rest / (divisor / 100)),
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The two largest units: `12 s`, `3 min 20 s`, `5 h 2 min`, `2 d 4 h`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates, and below zero is zero")]
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests;
