//! Tables of figures: Markdown for people, JSON for machines.

use std::{fmt, path::Path};

use serde_json::{Value, json};

/// One part's figures.
#[derive(Debug)]
pub struct Table {
    /// What is measured, and how.
    pub about: String,
    /// The columns: what the JSON calls the figure, and what stands over the column, with its unit.
    pub columns: &'static [(&'static str, &'static str)],
    /// The first of each row is its name.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A list of objects, one for each row.
    pub fn json(&self) -> Value {
        let object = |row: &Vec<Value>| -> Value {
            let names = self.columns.iter().map(|(name, _)| (*name).to_owned());
            Value::Object(names.zip(row.iter().cloned()).collect())
        };
        json!({ "about": self.about, "rows": self.rows.iter().map(object).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}\n", self.about)?;
        let head: Vec<_> = self.columns.iter().map(|(_, head)| (*head).to_owned()).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        // No narrower than a rule can be: a column without a heading may be empty.
        let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        let line = |cells: &[String]| -> String {
            // Numbers, which is all but the names, stand at the right.
            let padded = cells.iter().zip(&widths).enumerate();
            let padded = padded.map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
            format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
        };
        writeln!(formatter, "{}", line(&head))?;
        let rule = widths.iter().enumerate().map(|(at, width)| "-".repeat(width - usize::from(at > 0)) + if at > 0 { ":" } else { "" });
        writeln!(formatter, "| {} |", rule.collect::<Vec<_>>().join(" | "))?;
        rows.iter().try_for_each(|row| writeln!(formatter, "{}", line(row)))
    }
}

/// Writes all tables into a file, by the names of their parts.
pub fn write_json(file: &Path, tables: &[(&str, Table)]) {
    let figures: serde_json::Map<_, _> = tables.iter().map(|(name, table)| ((*name).to_owned(), table.json())).collect();
    let text = serde_json::to_string_pretty(&figures).expect("figures are numbers and text");
    std::fs::write(file, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// A figure of its own: samples in one unit, and what their median is to stay below.
#[derive(Debug)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub samples: Vec<f64>,
    pub at_most: Option<f64>,
}

impl Figure {
    pub fn new(name: &str, unit: &'static str, samples: impl Into<Vec<f64>>, at_most: Option<f64>) -> Self {
        let mut samples = samples.into();
        samples.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit, samples, at_most }
    }

    fn row(&self) -> Vec<Value> {
        let median = median(&self.samples);
        let rounded = |value: f64| json!((value * 1000.0).round() / 1000.0);
        vec![
            json!(self.name),
            rounded(median),
            rounded(self.samples[0]),
            rounded(self.samples[self.samples.len() - 1]),
            json!(self.unit),
            json!(self.at_most),
            json!(self.at_most.map(|limit| median <= limit)),
        ]
    }
}

/// A table of figures that have little in common.
pub fn figures(about: String, figures: &[Figure]) -> Table {
    Table {
        about,
        columns: &[
            ("figure", "figure"),
            ("median", "median"),
            ("least", "least"),
            ("most", "most"),
            ("unit", "unit"),
            ("at_most", "to reach"),
            ("reached", ""),
        ],
        rows: figures.iter().map(Figure::row).collect(),
    }
}

/// The one in the middle of sorted samples.
pub fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "reached".to_owned(),
        Value::Bool(false) => "missed".to_owned(),
        // A whole number is one, whatever it was calculated as.
        other => other.to_string().trim_end_matches(".0").to_owned(),
    }
}
