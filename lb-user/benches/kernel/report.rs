//! Tables of figures: Markdown for people, JSON for machines.

use std::fmt;

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
        let width = |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
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

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "reached".to_owned(),
        Value::Bool(false) => "missed".to_owned(),
        other => other.to_string(),
    }
}
