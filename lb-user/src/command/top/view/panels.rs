//! What was dropped and why, and how the last minutes went, of the chosen service.

use lb_common::Action;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::{Paragraph, Sparkline, SparklineBar},
};

use super::{Theme, rate, section};
use crate::{
    command::top::model::{Model, Moment},
    config::Protocol,
    observe::{rates::action, terminal::clean},
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let [left, right] = Layout::horizontal([Constraint::Percentage(45), Constraint::Fill(1)]).spacing(1).areas(area);
    drops(frame, left, model, theme);
    history(frame, right, model, theme);
}

fn drops(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let block = section(Line::from(" drops/s by reason "), theme);
    let room = usize::from(area.height.saturating_sub(1));
    let rates = model.chosen_service().and_then(|service| Some((service, model.rates_of(service)?)));
    let lines = match rates {
        None => vec![Line::styled("-", theme.dim())],
        Some((service, rates)) => {
            let mut drops: Vec<(String, &str, f64)> = rates
                .drops()
                .into_iter()
                .map(|(reason, rate)| (clean(reason), if action(reason) == Some(Action::Drop) { "xdp" } else { "kernel" }, rate))
                .collect();
            if let Some(no_room) = rates.no_room(service.protocol).filter(|rate| *rate > 0.0) {
                drops.push(("no_room".to_owned(), "socket", no_room));
            }
            drops.sort_by(|one, other| other.2.total_cmp(&one.2));
            listed(drops, room, theme)
        }
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The largest that fit, and how many more there are.
fn listed(drops: Vec<(String, &str, f64)>, room: usize, theme: Theme) -> Vec<Line<'static>> {
    if drops.is_empty() {
        return vec![Line::styled("none", theme.good())];
    }
    let shown = if drops.len() > room { room.saturating_sub(1) } else { drops.len() };
    let line = |(reason, place, per_second): &(String, &str, f64)| {
        Line::from(vec![
            Span::styled(format!("{:>6} ", rate(*per_second)), theme.warning()),
            Span::raw(reason.clone()),
            Span::styled(format!(" {place}"), theme.dim()),
        ])
    };
    let mut lines: Vec<Line<'static>> = drops.iter().take(shown).map(line).collect();
    if let Some(rest) = drops.get(shown..).filter(|rest| !rest.is_empty()) {
        let sum: f64 = rest.iter().map(|(_, _, rate)| rate).sum();
        lines.push(Line::styled(format!("{:>6} of {} more reasons", rate(sum), rest.len()), theme.dim()));
    }
    lines
}

/// What of a moment is shown.
type Value = fn(&Moment) -> f64;

fn history(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let block = section(Line::from(" the last looks, newest at the right "), theme);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let service = model.chosen_service();
    let moments: Vec<Moment> =
        service.and_then(|service| model.history.get(&service.name)).map(|all| all.iter().copied().collect()).unwrap_or_default();
    let waiting = if service.is_some_and(|service| service.protocol == Protocol::Udp) { "bytes wait" } else { "to accept" };
    let rows = Layout::vertical([Constraint::Length(1); 3]).spacing(1).split(inside);
    let series: [(&str, Value); 3] =
        [("new/s", |moment| moment.connections), ("dropped/s", |moment| moment.drops), (waiting, |moment| count(moment.waiting))];
    for ((label, value), row) in series.into_iter().zip(rows.iter()) {
        let values: Vec<f64> = moments.iter().map(value).collect();
        spark(frame, *row, label, &values, theme);
    }
}

/// `dropped/s ▁▂▅▇█▂  12 max 340`
fn spark(frame: &mut Frame<'_>, area: Rect, label: &str, values: &[f64], theme: Theme) {
    let [name, bars, figures] = Layout::horizontal([Constraint::Length(10), Constraint::Fill(1), Constraint::Length(16)]).areas(area);
    frame.render_widget(Paragraph::new(Span::styled(label.to_owned(), theme.dim())), name);
    let room = usize::from(bars.width);
    let shown = &values[values.len().saturating_sub(room)..];
    // Thousandths, so that rates below one are seen too; the newest stands at the right.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates, and nothing is below zero")]
    let data = shown.iter().map(|value| SparklineBar::from((value * 1000.0) as u64));
    let before = std::iter::repeat_n(SparklineBar::from(0), room - shown.len());
    frame.render_widget(Sparkline::default().data(before.chain(data).collect::<Vec<_>>()).style(theme.good()), bars);
    let figures_text = match (shown.last(), shown.iter().copied().reduce(f64::max)) {
        (Some(last), Some(most)) => format!(" {} max {}", rate(*last), rate(most)),
        _ => " -".to_owned(),
    };
    frame.render_widget(Paragraph::new(figures_text), figures);
}

#[expect(clippy::cast_precision_loss, reason = "a bar of eight steps")]
fn count(waiting: u64) -> f64 {
    waiting as f64
}
