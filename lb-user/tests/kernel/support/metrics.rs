//! The Prometheus text format, read back: enough of it to ask a test's questions.

use std::collections::BTreeMap;

/// The labels of one series, by name.
pub type Labels = BTreeMap<String, String>;

/// All series of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub BTreeMap<(String, Labels), f64>);

impl Metrics {
    /// Reads a scrape; panics at a line that is no sample.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(|line| sample(line).unwrap_or_else(|| panic!("no sample of the text format: {line:?}"))).collect())
    }

    /// The one series of this name that carries all these labels (others may be there); panics when there are several.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.matching(name, labels).collect();
        assert!(found.len() <= 1, "{name}{labels:?} fits {} series: {found:?}", found.len());
        found.first().map(|(_, value)| *value)
    }

    /// The sum of the series of this name that carry all these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// [`Metrics::sum`] of a metric that counts things.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(self.sum(name, labels))
    }

    /// The counts of a metric by one of its labels, among the series that carry `labels`.
    pub fn counts_by(&self, name: &str, label: &str, labels: &[(&str, &str)]) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (own, value) in self.matching(name, labels) {
            *counts.entry(own.get(label).cloned().unwrap_or_default()).or_default() += whole(value);
        }
        counts
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a Labels, f64)> {
        let fits = move |own: &Labels| labels.iter().all(|(label, value)| own.get(*label).is_some_and(|given| given == value));
        self.0.iter().filter(move |((given, own), _)| given == name && fits(own)).map(|((_, own), value)| (own, *value))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked the line before")]
fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value < 2_f64.powi(53) && value.fract() == 0.0, "{value} is no count");
    value as u64
}

/// `name{label="value",...} 1.5 [timestamp]`
fn sample(line: &str) -> Option<((String, Labels), f64)> {
    let name_end = line.find(|character: char| character == '{' || character.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Labels::new(), rest),
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(((name.to_owned(), labels), value))
}

/// Reads up to the closing brace; values know the escapes `\\`, `\"` and `\n`.
fn labels(mut text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        text = &rest[end + 1..];
    }
}
