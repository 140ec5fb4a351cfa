//! The workers of the chosen service, one a row.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    Theme, WIDE, entrance_title,
    grid::{self, Body, Column, cut, text},
    rate_or_dash, section, time, title_of,
};
use crate::{
    command::top::model::{Focus, Model, entrance, wait},
    config::Protocol,
    observe::{
        rates::{BackendRates, quantile},
        snapshot::{Backend, Histogram, Service},
        terminal::{percent, servers, short},
    },
    plan::State,
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let Some(service) = model.chosen_service() else {
        let text = "no services: no listener was found that packets of Weir's interfaces go to";
        return frame.render_widget(Paragraph::new(text).block(section(Line::from(" workers "), theme)), area);
    };
    let in_focus = model.focus == Focus::Workers;
    let block = section(title(model, service, in_focus), theme);
    let workers = model.workers();
    if workers.is_empty() {
        let text = if service.balanced { "no workers" } else { "counted and defended, not balanced: it has no workers to choose from" };
        return frame.render_widget(Paragraph::new(text).block(block), area);
    }
    let wide = area.width >= WIDE;
    let rates = |backend: &Backend| model.rates_of(service)?.backends.get(&backend.cookie);
    let rows = Body {
        rows: workers
            .iter()
            .map(|backend| row(service.protocol, backend, (rates(backend), model.lost_at(service, backend)), wide, theme))
            .collect(),
        chosen: workers.iter().position(|backend| Some(backend.cookie) == model.chosen_worker().map(|worker| worker.cookie)),
        in_focus,
    };
    grid::draw(frame, area, block, &columns(service.protocol, wide), rows, theme);
}

fn columns(protocol: Protocol, wide: bool) -> Vec<Column> {
    let queue = Constraint::Length(if wide { 20 } else { 14 });
    let mut columns = vec![
        Column::right("#", 3),
        Column::left("STATE", Constraint::Length(8)),
        Column::left("PROCESS", Constraint::Min(11)),
        Column::right("NEW/s", 5),
        Column::right("OPEN", 5),
        Column::left(entrance_title(protocol), queue),
        Column::left("SYN Q", queue),
        Column::right("WAIT", 6),
        Column::right("LOST", 5),
    ];
    if wide {
        columns.insert(3, Column::right("SHARE", 6));
    }
    columns
}

fn row(
    protocol: Protocol,
    backend: &Backend,
    (rates, lost): (Option<&BackendRates>, Option<f64>),
    wide: bool,
    theme: Theme,
) -> Vec<Line<'static>> {
    let state = match backend.state {
        State::Ready => theme.good(),
        State::Draining => theme.warning(),
        State::Unserved => theme.bad(),
    };
    let wait = wait(backend, rates);
    let bar = if wide { 8 } else { 4 };
    let open = if protocol == Protocol::Tcp { short(backend.open) } else { "-".to_owned() };
    let mut row = vec![
        text(backend.index.to_string(), Theme::plain()),
        text(backend.state.label(), state),
        text(cut(&servers(backend), if wide { 24 } else { 11 }), Theme::plain()),
        text(rate_or_dash(rates.map(|rates| rates.connections)), Theme::plain()),
        text(open, Theme::plain()),
        grid::queue(entrance(&backend.queues), bar, theme),
        grid::queue(backend.queues.syn_queue, bar, theme),
        text(time(wait), if wait.is_some_and(|wait| wait >= 1.0) { theme.bad() } else { Theme::plain() }),
        text(rate_or_dash(lost), if lost.is_some_and(|lost| lost > 0.0) { theme.bad() } else { Theme::plain() }),
    ];
    if wide {
        row.insert(3, text(percent(backend.share), Theme::plain()));
    }
    row
}

/// The service, how its workers are sorted, and how long things take.
fn title(model: &Model, service: &Service, in_focus: bool) -> Line<'static> {
    let rates = model.rates_of(service);
    let times = |of: &str, times: Option<&Histogram>| {
        let at = |q| time(times.and_then(|times| quantile(times, q)));
        // Before there is a rate, and where nothing is measured, a title of dashes says nothing.
        if times.is_some_and(|times| times.count() > 0) { format!("· {of} p50 {} p99 {} ", at(0.5), at(0.99)) } else { String::new() }
    };
    let turned = if model.workers_reversed { ", reversed" } else { "" };
    let style = if in_focus { Theme::strong() } else { Theme::plain() };
    Line::from(vec![
        Span::styled(format!(" {} · workers by {}{turned} ", cut(&title_of(service), 44), model.worker_order.label()), style),
        Span::raw(times("handshake", rates.and_then(|rates| rates.handshake_time.as_ref()))),
    ])
}
