//! Aligned columns for the terminal.

use super::terminal::{Ink, Style};

/// A column: its title, and what it shows of a row.
pub(super) struct Column<T> {
    title: &'static str,
    to_the_right: bool,
    cell: fn(&T) -> (String, Ink),
}

impl<T> Column<T> {
    /// Text.
    pub(super) fn left(title: &'static str, cell: fn(&T) -> (String, Ink)) -> Self {
        Self { title, to_the_right: false, cell }
    }

    /// Numbers.
    pub(super) fn right(title: &'static str, cell: fn(&T) -> (String, Ink)) -> Self {
        Self { title, to_the_right: true, cell }
    }
}

/// The titles and one line for each row, each indented by two, columns as wide as their widest cell and two apart.
pub(super) fn table<T>(columns: &[Column<T>], rows: &[T], style: Style) -> String {
    let titles = columns.iter().map(|column| (column.title.to_owned(), Ink::Bold)).collect();
    let mut lines: Vec<Vec<(String, Ink)>> = vec![titles];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()));
    let width = |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|(text, _)| text.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|index| width(index).unwrap_or_default()).collect();

    let mut out = String::new();
    for line in &lines {
        for ((column, width), (text, ink)) in columns.iter().zip(&widths).zip(line) {
            // Escapes have no width, so the padding stays outside.
            let padding = " ".repeat(width.saturating_sub(text.chars().count()));
            let painted = style.paint(*ink, text);
            let (before, after) = if column.to_the_right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            out.extend(["  ", before, &painted, after]);
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}
