//! The model as a frame: head, services, workers of the chosen one, what was dropped and how it went, keys. No I/O.

mod grid;
mod over;
mod panels;
mod services;
mod theme;
mod workers;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Wrap},
};

use self::grid::cut;
pub(super) use self::theme::Theme;
use super::model::{Model, Over};
use crate::{
    config::Protocol,
    observe::{
        snapshot::Service,
        terminal::{clean, defence, duration, endpoint, short},
    },
};

/// The least that the tables fit in.
pub(super) const WIDTH: u16 = 80;
/// The least that every part has a row in.
pub(super) const HEIGHT: u16 = 20;
/// From here on there is room for more columns.
const WIDE: u16 = 110;
/// Drops and sparklines, with their title.
const PANELS: u16 = 6;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    if area.width < WIDTH || area.height < HEIGHT {
        return too_small(frame, area);
    }
    let said = said(model, area.width, theme);
    let [head, rest, foot] = Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    let lines = u16::try_from(said.len()).unwrap_or(u16::MAX);
    // Titles and the row of columns, and at most half of what there is.
    let half = rest.height.saturating_sub(PANELS + lines) / 2;
    let services = u16::try_from(model.snapshot.services.len().max(1) + 2).unwrap_or(u16::MAX).min(half);
    let parts = [Constraint::Length(services), Constraint::Length(lines), Constraint::Min(3), Constraint::Length(PANELS)];
    let [services, notes, workers, panels] = Layout::vertical(parts).areas(rest);
    frame.render_widget(Paragraph::new(heading(model, theme)), head);
    services::draw(frame, services, model, theme);
    frame.render_widget(Paragraph::new(said), notes);
    workers::draw(frame, workers, model, theme);
    panels::draw(frame, panels, model, theme);
    frame.render_widget(Paragraph::new(keys(model, theme)), foot);
    match &model.over {
        Over::Nothing => {}
        Over::Help => over::help(frame, area),
        Over::Question(order) => over::question(frame, area, model, order),
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("weir top needs {WIDTH} columns and {HEIGHT} rows; this terminal has {} and {}. q quits.", area.width, area.height);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

/// Who is shown, and the whole of what happens.
fn heading(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = &model.snapshot;
    let interfaces: Vec<String> =
        snapshot.dataplane.interfaces.iter().map(|one| format!("{} ({})", clean(&one.name), clean(&one.mode))).collect();
    let attached = if interfaces.is_empty() { "attached to no interface".to_owned() } else { interfaces.join(", ") };
    let name = Span::styled(format!("weir {}", clean(&snapshot.instance)), Theme::strong());
    let who = match (&model.failure, &snapshot.daemon) {
        (Some(why), _) => Span::styled(format!("  no answer, what is shown is old: {}", clean(why)), theme.bad()),
        (None, None) => Span::styled("  no daemon runs; figures read from the pinned maps", theme.bad()),
        (None, Some(daemon)) => {
            Span::raw(format!("  daemon {}, pid {}, up {}", clean(&daemon.version), daemon.pid, duration(daemon.uptime)))
        }
    };
    let mut second = Vec::new();
    if let Some(rates) = &model.rates {
        let sum = |of: &dyn Fn(&Service) -> Option<f64>| rate(snapshot.services.iter().filter_map(of).sum());
        let of = |service: &Service| rates.services.get(&service.name);
        second.push(Span::raw(format!(
            "seen {}/s  new {}/s  dropped {}/s  lost {}",
            sum(&|service| Some(of(service)?.seen.packets)),
            sum(&|service| Some(of(service)?.connections)),
            sum(&|service| Some(of(service)?.dropped.packets)),
            snapshot
                .services
                .iter()
                .filter_map(|service| model.lost(service))
                .reduce(|all, one| all + one)
                .map_or_else(|| "-".to_owned(), |lost| format!("{}/s", rate(lost))),
        )));
    } else {
        second.push(Span::raw("rates follow with the next look"));
    }
    let floods: Vec<&str> = snapshot.services.iter().filter(|one| is_flooded(one)).map(|service| service.name.as_str()).collect();
    second.push(match floods[..] {
        [] => Span::styled("  no flood", theme.good()),
        [one] => Span::styled(format!("  FLOOD on {}", clean(one)), theme.alarm()),
        [one, ..] => Span::styled(format!("  FLOOD on {} and {} more", clean(one), floods.len() - 1), theme.alarm()),
    });
    vec![Line::from(vec![name, who, Span::styled(format!("  {attached}"), theme.dim())]), Line::from(second)]
}

/// What there is to say about the chosen service: what it is if it only has a name, its defence, the first note.
fn said(model: &Model, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let Some(service) = model.chosen_service() else { return Vec::new() };
    let mut lines = Vec::new();
    if let Some(line) = service.defence.as_ref().and_then(|of_service| defence::line(of_service, &model.snapshot.defence)) {
        let style = if line.is_warning { theme.warning() } else { Theme::plain() };
        lines.push(Line::styled(cut(&format!("SYN defence: {}", line.text), width.into()), style));
    }
    if let Some(note) = service.notes.first() {
        let more = if service.notes.len() > 1 { format!(" (and {} more: `weir status`)", service.notes.len() - 1) } else { String::new() };
        let text = cut(&clean(&note.text), usize::from(width).saturating_sub(2 + more.len()));
        lines.push(Line::styled(format!("! {text}{more}"), theme.warning()));
    }
    lines
}

/// What was done, or the keys.
fn keys(model: &Model, theme: Theme) -> Line<'static> {
    if let Some(message) = &model.message {
        let style = if message.is_bad { theme.bad() } else { Theme::strong() };
        return Line::styled(clean(&message.text), style);
    }
    let keys = [("↑↓", "choose"), ("Tab", "other table"), ("s", "sort"), ("d", "drain"), ("u", "undrain"), ("?", "help"), ("q", "quit")];
    let spans = keys.into_iter().flat_map(|(key, what)| [Span::styled(key, Theme::strong()), Span::raw(format!(" {what}  "))]);
    Line::from(spans.collect::<Vec<_>>())
}

fn is_flooded(service: &Service) -> bool {
    service.defence.as_ref().is_some_and(|defence| defence.mode == "flood")
}

/// The name, and where it listens if the name does not say so.
fn title_of(service: &Service) -> String {
    let (name, place) = (clean(&service.name), endpoint(service.protocol, service.address, service.device.as_deref(), service.port));
    if name == place { name } else { format!("{name} ({place})") }
}

fn section(title: Line<'_>, theme: Theme) -> Block<'_> {
    Block::new().borders(Borders::TOP).border_style(theme.dim()).title(title)
}

/// What the queue in front of the workers is called.
const fn entrance_title(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "ACCEPT Q",
        Protocol::Udp => "RECEIVE Q",
    }
}

/// A rate: one decimal below ten, whole beyond.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates, and no rate is below zero")]
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        // 9.97 would be shown as 10.0.
        _ if rate < 9.95 => format!("{rate:.1}"),
        _ => short(rate.round() as u64),
    }
}

fn rate_or_dash(of: Option<f64>) -> String {
    of.map_or_else(|| "-".to_owned(), rate)
}

/// A short time: `250µs`, `1.2ms`, `38ms`, `4.5s`, `120s`; none is `-`.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.000_999_5 => format!("{:.0}µs", seconds * 1e6),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1}ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0}ms", seconds * 1e3),
        Some(seconds) if seconds < 9.95 => format!("{seconds:.1}s"),
        Some(seconds) => format!("{seconds:.0}s"),
    }
}
