//! What was compared, as bars: one SVG file that needs nothing else, for a light page and a dark one.

use std::path::Path;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use serde_json::Value;

use crate::report::Table;

/// A column of a part's table.
struct Panel {
    part: &'static str,
    column: &'static str,
    /// The rows are those whose names begin so; the rest of the name is written beside the bar.
    rows: &'static str,
    title: &'static str,
}

const PANELS: &[Panel] = &[
    Panel { part: "compare_spread", column: "per_second", rows: "", title: "Connections a second, full speed (more is better)" },
    Panel { part: "compare_spread", column: "cpu_us", rows: "", title: "CPU for a connection, µs (less is better)" },
    Panel { part: "compare_spread", column: "p99_ms", rows: "", title: "p99 at full speed, ms (less is better)" },
    Panel { part: "compare_spread", column: "most_paced", rows: "", title: "Busiest worker in calm, the mean is 1 (less is better)" },
    Panel { part: "compare_reload", column: "failed", rows: "", title: "Failed connections in reloads (less is better)" },
    Panel { part: "compare_slow_worker", column: "p99_ms", rows: "", title: "p99 beside a slow worker, ms (less is better)" },
    Panel { part: "flood", column: "ns_per_packet", rows: "SYN flood: ", title: "A SYN of a flood, ns of CPU (less is better)" },
    Panel { part: "flood", column: "ns_per_packet", rows: "ACK flood: ", title: "An ACK of a flood, ns of CPU (less is better)" },
];

/// Panels beside each other.
const COLUMNS: usize = 2;
const WIDTH: i32 = 508;
const LABELS: i32 = 228;
/// What the longest bar leaves for its figure.
const FIGURES: i32 = 60;
const TITLE: i32 = 34;
const ROW: i32 = 21;
const BAR: i32 = 12;
const MARGIN: i32 = 12;
/// plotters draws text at four fifths of the size that it is told.
const TITLE_SIZE: u32 = 18;
const TEXT_SIZE: u32 = 16;

const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xeb);
const OTHERS: RGBColor = RGBColor(0x8c, 0x95, 0x9f);
/// The colours are those of a light page; where the reader has a dark one, they are exchanged.
const STYLE: &str = "<title>What was compared, as bars; the figures are in the tables</title>
<style>@media (prefers-color-scheme: dark) {
[fill=\"#FFFFFF\"] { fill: #0d1117 } [fill=\"#1F2328\"] { fill: #e6edf3 } [fill=\"#1F6FEB\"] { fill: #58a6ff } [fill=\"#8C959F\"] { fill: #6e7681 }
}</style>";

/// Draws the panels whose parts were measured; no file without any.
pub fn draw(file: &Path, tables: &[(&str, Table)]) {
    let panels: Vec<_> = PANELS.iter().filter_map(|panel| Some((panel.title, bars(panel, tables)?))).collect();
    let lines: Vec<_> = panels.chunks(COLUMNS).collect();
    let heights: Vec<_> = lines.iter().map(|line| line.iter().map(|(_, bars)| height(bars)).max().unwrap_or(0)).collect();
    if panels.is_empty() {
        return;
    }
    let size = (WIDTH * to_pixels(COLUMNS), heights.iter().sum::<i32>() + MARGIN);
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, (size.0.unsigned_abs(), size.1.unsigned_abs())).into_drawing_area();
        area.fill(&PAPER).expect("a text takes all that is drawn");
        let mut top = MARGIN;
        for (line, height) in lines.iter().zip(&heights) {
            for (column, (title, bars)) in line.iter().enumerate() {
                panel(&area, (WIDTH * to_pixels(column) + MARGIN, top), title, bars);
            }
            top += height;
        }
        area.present().expect("a text takes all that is drawn");
    }
    let (head, rest) = picture.split_once('\n').expect("the head is a line");
    std::fs::write(file, format!("{head}\n{STYLE}\n{rest}")).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Names and figures of a panel's bars; none when its part was not measured.
fn bars(panel: &Panel, tables: &[(&str, Table)]) -> Option<Vec<(String, f64)>> {
    let (_, table) = tables.iter().find(|(part, _)| *part == panel.part)?;
    let column = table.columns.iter().position(|(name, _)| *name == panel.column).expect("a column that the part has");
    let bar = |row: &Vec<Value>| {
        let name = row[0].as_str()?.strip_prefix(panel.rows)?;
        // Floors are no choice that anybody has.
        (!name.starts_with('(')).then_some((name.to_owned(), row[column].as_f64()?))
    };
    Some(table.rows.iter().filter_map(bar).collect())
}

fn height(bars: &[(String, f64)]) -> i32 {
    TITLE + ROW * to_pixels(bars.len()) + MARGIN
}

#[expect(clippy::cast_possible_truncation, reason = "a share of some hundred pixels")]
fn panel(area: &Area<'_>, (left, top): (i32, i32), title: &str, bars: &[(String, f64)]) {
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let room = WIDTH - 2 * MARGIN - LABELS - FIGURES;
    text(area, title, (left, top + TITLE / 2), TITLE_SIZE, HPos::Left);
    for (number, (name, value)) in bars.iter().enumerate() {
        let middle = top + TITLE + ROW * to_pixels(number) + ROW / 2;
        let (begin, end) = (left + LABELS, left + LABELS + (f64::from(room) * value / longest) as i32);
        let colour = if name.starts_with("Weir") { OURS } else { OTHERS };
        // Nothing is a line, so that it is seen to have been measured.
        let corners = [(begin, middle - BAR / 2), (end.max(begin + 1), middle + BAR / 2)];
        area.draw(&Rectangle::new(corners, colour.filled())).expect("a text takes all that is drawn");
        text(area, name, (begin - 6, middle), TEXT_SIZE, HPos::Right);
        text(area, &value.to_string(), (end + 6, middle), TEXT_SIZE, HPos::Left);
    }
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), height: u32, side: HPos) {
    let style = ("sans-serif", height).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style)).expect("a text takes all that is drawn");
}

fn to_pixels(count: usize) -> i32 {
    i32::try_from(count).expect("a picture is small")
}
