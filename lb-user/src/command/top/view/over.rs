//! What lies over the tables: the help, and the question before an order.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::Line,
    widgets::{Block, Clear, Padding, Paragraph, Wrap},
};

use super::Theme;
use crate::{
    command::top::model::{Model, Order},
    observe::terminal::{clean, servers},
};

const HELP: &[&str] = &[
    "↑ ↓ j k          choose a row       PgUp PgDn g G  further",
    "Tab Enter Esc    services, workers  s  sort  r  reverse",
    "d  u             drain, undrain the chosen worker",
    "q  Ctrl-C        quit",
    "",
    "NEW    connections (UDP: flows) given to workers",
    "SEEN   all packets that XDP saw",
    "DROP   dropped by XDP, each under its reason",
    "LOST   behind XDP: dropped by the kernel, or no room at a socket",
    "Q      what waits and how much may; of a service the fullest queue",
    "WAIT   p99 until accept(2) (the mean where each is not measured),",
    "       or how long the first waits now if that is longer",
    "-      not measured here; `weir doctor` says why",
];

pub(super) fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP.iter().copied().map(Line::from).collect();
    popup(frame, area, " help: any key goes back ", lines);
}

pub(super) fn question(frame: &mut Frame<'_>, area: Rect, model: &Model, order: &Order) {
    let Order { service, backend, cookie, drain } = order;
    let found = model.snapshot.service(service).and_then(|service| service.backends.iter().find(|one| one.cookie == *cookie));
    let process = found.map_or_else(|| "gone".to_owned(), servers);
    let (what, effect) = if *drain {
        ("Drain", "It gets no new connections; those it has stay.")
    } else {
        ("Undrain", "It gets its share of new connections again.")
    };
    let lines = vec![
        Line::from(format!("{what} worker {backend} (process {process}) of {}?", clean(service))),
        Line::from(effect),
        Line::default(),
        Line::styled("y  yes     n  no", Theme::strong()),
    ];
    popup(frame, area, " are you sure? ", lines);
}

fn popup(frame: &mut Frame<'_>, area: Rect, title: &'static str, lines: Vec<Line<'_>>) {
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).saturating_add(1);
    let place = area.centered(Constraint::Length(70), Constraint::Length(height));
    let block = Block::bordered().title(Line::styled(title, Theme::strong())).padding(Padding::horizontal(1));
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), place);
}
