//! The services, one a row.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::Line,
};

use super::{
    Theme, WIDE,
    grid::{self, Body, Column, cut, text},
    is_flooded, rate_or_dash, section, time,
};
use crate::{
    command::top::model::{Focus, Model, entrance, fullest, queues},
    observe::{
        rates::quantile,
        snapshot::Service,
        terminal::{clean, duration},
    },
    plan::State,
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let wide = area.width >= WIDE;
    let mut columns = vec![
        Column::left("SERVICE", Constraint::Min(16)),
        Column::right("READY", 5),
        Column::left("DEFENCE", Constraint::Length(9)),
        Column::right("NEW/s", 6),
        Column::right("SEEN/s", 6),
        Column::right("DROP/s", 6),
        Column::right("LOST/s", 6),
        Column::left("ACCEPT Q", Constraint::Length(if wide { 15 } else { 9 })),
        Column::left("SYN Q", Constraint::Length(if wide { 15 } else { 9 })),
    ];
    if wide {
        columns.push(Column::right("ACCEPT p99", 10));
    }
    let services = model.services();
    let chosen = model.chosen_service().map(|service| &service.name);
    let rows = Body {
        rows: services.iter().map(|service| row(model, service, wide, theme)).collect(),
        chosen: services.iter().position(|service| Some(&service.name) == chosen),
        in_focus: model.focus == Focus::Services,
    };
    let turned = if model.services_reversed { ", reversed" } else { "" };
    let title = Line::from(format!(" {} services by {}{turned} ", services.len(), model.service_order.label()));
    let style = if rows.in_focus { Theme::strong() } else { Theme::plain() };
    grid::draw(frame, area, section(title.style(style), theme), &columns, rows, theme);
}

fn row(model: &Model, service: &Service, wide: bool, theme: Theme) -> Vec<Line<'static>> {
    let rates = model.rates_of(service);
    let number = |of: Option<f64>, matters: bool| {
        let style = if matters && of.is_some_and(|of| of > 0.0) { theme.warning() } else { Theme::plain() };
        text(rate_or_dash(of), style)
    };
    let width = if wide { 10 } else { 4 };
    let mut row = vec![
        text(cut(&clean(&service.name), if wide { 40 } else { 16 }), Theme::plain()),
        ready(service, theme),
        defence(service, theme),
        number(rates.map(|rates| rates.connections), false),
        number(rates.map(|rates| rates.seen.packets), false),
        number(rates.map(|rates| rates.dropped.packets), true),
        number(model.lost(service), true),
        grid::share(fullest(queues(service).map(entrance)), width, theme),
        grid::share(fullest(queues(service).map(|queues| queues.syn_queue)), width, theme),
    ];
    if wide {
        row.push(text(time(rates.and_then(|rates| quantile(rates.accept_latency.as_ref()?, 0.99))), Theme::plain()));
    }
    row
}

/// `3/4`: how many of its workers are ready.
fn ready(service: &Service, theme: Theme) -> Line<'static> {
    if !service.balanced {
        return text("-", theme.dim());
    }
    let (ready, all) = (service.backends.iter().filter(|backend| backend.state == State::Ready).count(), service.backends.len());
    let style = match ready {
        0 => theme.bad(),
        _ if ready < all => theme.warning(),
        _ => theme.good(),
    };
    text(format!("{ready}/{all}"), style)
}

/// `flood 83s`, `lingering`, `calm`
fn defence(service: &Service, theme: Theme) -> Line<'static> {
    let Some(defence) = &service.defence else { return text("-", theme.dim()) };
    if !is_flooded(service) {
        return text(cut(&clean(&defence.mode), 9), Theme::plain());
    }
    #[expect(clippy::cast_precision_loss, reason = "a flood of more than 2^53 seconds is not shown to the second")]
    let lasted = defence.flood_seconds.map(|seconds| duration(seconds as f64).replace(' ', "")).unwrap_or_default();
    // One unit is enough where there is no room for two.
    let lasted: String = lasted.split_inclusive(|character: char| character.is_alphabetic()).next().unwrap_or_default().to_owned();
    text(cut(&format!("FLOOD {lasted}"), 9), theme.alarm())
}
