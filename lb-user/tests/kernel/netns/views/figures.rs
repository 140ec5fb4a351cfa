//! What a view shows, as numbers by name, and where views differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A number as it is shown: it may be this much more or less.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub value: f64,
    within: f64,
}

impl Shown {
    /// A number with all its digits. Prometheus' times are whole milliseconds, which moves a rate over seconds by some in 10,000.
    pub fn exact(value: f64) -> Self {
        Self { value, within: value.abs() * 1e-3 + 1e-9 }
    }

    /// A number as people read it, to its last digit: `156`, `1,156`, `12.3 k`, `150k`, `78%`, `7.8ms`, `1.2 s`, `< 0.1`. None where
    /// nothing is known; panics at anything else.
    pub fn read(text: &str) -> Option<Self> {
        if matches!(text, "" | "-" | "–") {
            return None;
        }
        if let Some(most) = text.strip_prefix("< ").and_then(|most| most.parse::<f64>().ok()) {
            return Some(Self { value: most / 2.0, within: most / 2.0 });
        }
        let plain = text.replace(',', "");
        let (number, unit) =
            plain.split_at(plain.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(plain.len()));
        let scale = match unit.trim() {
            "" | "s" => 1.0,
            "k" => 1e3,
            "M" => 1e6,
            "%" => 1e-2,
            "ms" => 1e-3,
            "µs" => 1e-6,
            _ => panic!("{text:?} is no number"),
        };
        let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let digit = 0.1_f64.powi(i32::try_from(decimals).expect("a few digits"));
        Some(Self { value: number.parse::<f64>().unwrap_or_else(|_| panic!("{text:?} is no number")) * scale, within: digit * scale })
    }

    /// `33 of 32` or `33/32`, as how full it is.
    pub fn filled(text: &str, between: &str) -> Option<Self> {
        let (length, limit) = text.split_once(between)?;
        let [length, limit] = [length, limit].map(|text| Self::read(text.trim()).expect("a number"));
        // Small numbers have all their digits; of `212k` the last may be off.
        let unsure = |shown: Self| if shown.within > 1.0 { shown.within } else { 0.0 };
        let value = length.value / limit.value.max(1.0);
        Some(Self { value, within: (unsure(length) + value * unsure(limit)) / limit.value.max(1.0) + 1e-9 })
    }

    fn fits(self, other: Self) -> bool {
        (self.value - other.value).abs() <= self.within + other.within
    }
}

/// What one view shows.
#[derive(Debug)]
pub struct Figures {
    pub view: &'static str,
    shown: BTreeMap<String, Shown>,
}

impl Figures {
    pub fn new(view: &'static str) -> Self {
        Self { view, shown: BTreeMap::new() }
    }

    /// Of a service; nothing where nothing is known.
    pub fn of_service(&mut self, service: &str, figure: &str, shown: Option<Shown>) {
        if let Some(shown) = shown {
            let before = self.shown.insert(format!("{service}: {figure}"), shown);
            assert!(before.is_none(), "{} shows two of {service}: {figure}", self.view);
        }
    }

    /// Of one of its workers.
    pub fn of_worker(&mut self, service: &str, worker: &str, figure: &str, shown: Option<Shown>) {
        self.of_service(&format!("{service} worker {worker}"), figure, shown);
    }

    /// How many packets a second somebody (`weir` or `kernel`) drops for a reason; what does not happen is not shown everywhere.
    pub fn of_reason(&mut self, service: &str, by: &str, reason: &str, shown: Option<Shown>) {
        self.of_service(service, &format!("drops, {by} {reason}"), shown.filter(|shown| shown.value > 0.0));
    }

    pub fn get(&self, name: &str) -> Option<Shown> {
        self.shown.get(name).copied()
    }
}

/// The figures that two views show and not alike, and those that one view shows alone.
pub fn disagreements(views: &[&Figures]) -> Vec<String> {
    let differs = |name: &String| {
        let shown: Vec<(&str, Shown)> = views.iter().filter_map(|view| Some((view.view, view.get(name)?))).collect();
        let alike = shown.iter().all(|(_, one)| shown.iter().all(|(_, other)| one.fits(*other)));
        let said: Vec<String> = shown.iter().map(|(view, shown)| format!("{view} {}", shown.value)).collect();
        (!alike || shown.len() < 2).then(|| format!("{name}: {}", said.join(", ")))
    };
    names(views).into_iter().filter_map(differs).collect()
}

fn names<'a>(views: &[&'a Figures]) -> BTreeSet<&'a String> {
    views.iter().flat_map(|view| view.shown.keys()).collect()
}

/// All figures, a line each, with a column for each view.
pub fn table(views: &[&Figures]) -> String {
    let mut table = format!("{:<40}", "");
    for view in views {
        let _ = write!(table, "{:>18}", view.view);
    }
    for name in names(views) {
        let _ = write!(table, "\n{name:<40}");
        for view in views {
            let _ = write!(table, "{:>18}", view.get(name).map_or_else(|| "-".to_owned(), |shown| format!("{:.5}", shown.value)));
        }
    }
    table
}
