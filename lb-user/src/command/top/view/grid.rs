//! A table of columns of fixed width, and the bars in it.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Cell, Row, Table, TableState},
};

use super::Theme;
use crate::{
    command::top::model::fill,
    observe::{snapshot::Queue, terminal::short},
};

/// A column: its title, how wide it is, and which side it stands on.
pub(super) struct Column {
    pub title: &'static str,
    pub width: Constraint,
    pub alignment: Alignment,
}

impl Column {
    pub(super) const fn left(title: &'static str, width: Constraint) -> Self {
        Self { title, width, alignment: Alignment::Left }
    }

    pub(super) const fn right(title: &'static str, width: u16) -> Self {
        Self { title, width: Constraint::Length(width), alignment: Alignment::Right }
    }
}

/// The rows and which of them is chosen.
pub(super) struct Body {
    pub rows: Vec<Vec<Line<'static>>>,
    pub chosen: Option<usize>,
    pub in_focus: bool,
}

/// Draws the rows that fit, the chosen one among them.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, block: Block<'_>, columns: &[Column], rows: Body, theme: Theme) {
    let Body { rows, chosen, in_focus } = rows;
    let titles = columns.iter().map(|column| Cell::new(Line::styled(column.title, theme.dim()).alignment(column.alignment)));
    let header = Row::new(titles.collect::<Vec<_>>());
    let rows = rows.into_iter().map(|cells| {
        let aligned = cells.into_iter().zip(columns).map(|(line, column)| Cell::new(line.alignment(column.alignment)));
        Row::new(aligned.collect::<Vec<_>>())
    });
    let table = Table::new(rows.collect::<Vec<_>>(), columns.iter().map(|column| column.width))
        .header(header)
        .block(block)
        .row_highlight_style(Theme::chosen(in_focus));
    let mut state = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table, area, &mut state);
}

/// A cell of text.
pub(super) fn text(text: impl Into<String>, style: Style) -> Line<'static> {
    Line::from(Span::styled(text.into(), style))
}

/// `███▌·· 12/511`: the bar has `width` characters, the numbers stand to its right.
pub(super) fn queue(queue: Option<Queue>, width: u16, theme: Theme) -> Line<'static> {
    let Some(queue) = queue else { return text("-", theme.dim()) };
    let numbers = format!(" {}/{}", short(queue.length.into()), short(queue.limit.into()));
    bar(fill(queue), width, numbers, theme)
}

/// `███▌·· 58%`
pub(super) fn share(queue: Option<Queue>, width: u16, theme: Theme) -> Line<'static> {
    let Some(queue) = queue else { return text("-", theme.dim()) };
    bar(fill(queue), width, format!("{:>4.0}%", (fill(queue) * 100.0).min(999.0)), theme)
}

fn bar(fill: f64, width: u16, behind: String, theme: Theme) -> Line<'static> {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and eight times the width")]
    let rounded = (fill.clamp(0.0, 1.0) * f64::from(width) * 8.0).round() as usize;
    // What waits is seen, be it one of thousands.
    let steps = if fill > 0.0 { rounded.max(1) } else { 0 };
    let mut solid = "█".repeat(steps / 8);
    solid.push_str(EIGHTHS[steps % 8]);
    let empty = "·".repeat(usize::from(width) - steps.div_ceil(8));
    Line::from(vec![Span::styled(solid, theme.level(fill)), Span::styled(empty, theme.dim()), Span::raw(behind)])
}

/// At most so many characters; what is cut shows.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
