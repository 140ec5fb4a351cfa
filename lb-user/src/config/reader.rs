//! Typed readers over the spanned TOML tree. A reader that meets a fault notes it and goes on, so that one run finds them all.
use std::{fmt::Display, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    SECTIONS,
    fault::{Fault, Faults},
    schema::{Form, Key, Schema, closest},
};

/// Longest piece of the file that a fault quotes, in characters.
const QUOTE_LIMIT: usize = 60;

/// Where faults are collected.
pub(super) struct Report<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    faults: Vec<Fault>,
}

impl<'t> Report<'t> {
    pub fn new(text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts, faults: Vec::new() }
    }

    /// Line and column (in characters) of a byte offset, both counted from 1.
    pub fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// The byte offset of a line, counted from 1, and a column in characters, counted from 0.
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    /// The value as the file has it: its first line, cut to a length that a message can hold.
    pub fn quote(&self, span: &Range<usize>) -> String {
        let source = self.text.get(span.clone()).unwrap_or_default().trim();
        let line = source.lines().next().unwrap_or_default();
        let mut quote: String = line.chars().take(QUOTE_LIMIT).collect();
        if quote.len() < source.len() {
            quote.push_str(" ..");
        }
        if quote.is_empty() { "nothing".to_owned() } else { quote }
    }

    /// Notes that the value at `span` is wrong.
    pub fn refuse(&mut self, span: &Range<usize>, key: impl Into<String>, expected: impl Display, remedy: impl Into<String>) {
        let found = self.quote(span);
        self.note(span.start, key, found, expected, remedy);
    }

    /// Notes a fault whose value is not simply the text at its place.
    pub fn note(&mut self, at: usize, key: impl Into<String>, found: impl Into<String>, expected: impl Display, remedy: impl Into<String>) {
        let (line, column) = self.place(at);
        let (key, found, remedy) = (key.into(), found.into(), remedy.into());
        self.faults.push(Fault { line, column, key, found, expected: expected.to_string(), remedy });
    }

    /// All faults, by place, if there are any.
    pub fn finish(mut self, file: &str) -> Result<(), Faults> {
        if self.faults.is_empty() {
            return Ok(());
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        Err(Faults { file: file.to_owned(), faults: self.faults })
    }
}

/// One table of the file, read key by key. An absent section reads as an empty one.
pub(super) struct Section<'r, 't, 'v> {
    pub report: &'r mut Report<'t>,
    path: String,
    /// The header, for faults about keys that are missing.
    header: Range<usize>,
    table: Option<&'v DeTable<'v>>,
    /// Keys that misspelt ones of the file most likely mean: noted once, they are not missing on top of it.
    meant: Vec<&'static str>,
}

impl<'r, 't, 'v> Section<'r, 't, 'v> {
    /// Opens the section at `value`; unknown keys and a value that is no table are noted here.
    pub fn open(report: &'r mut Report<'t>, schema: &Schema, path: String, value: Option<&'v Spanned<DeValue<'v>>>) -> Self {
        let header = value.map_or(0..0, Spanned::span);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            report.refuse(
                &value.span(),
                &*path,
                "a table",
                format!("write {} on a line of its own, and its keys below it", schema.header()),
            );
        }
        let mut meant = Vec::new();
        for name in table.into_iter().flat_map(DeTable::keys) {
            if !schema.keys.iter().any(|key| key.name == name.get_ref()) {
                meant.extend(refuse_unknown_key(report, schema, &path, name));
            }
        }
        Self { report, path, header, table, meant }
    }

    /// Whether the file has the key, right or wrong, or misspelt.
    pub fn has(&self, key: &Key) -> bool {
        self.value(key).is_some() || self.meant.contains(&key.name)
    }

    /// Where the key's value is; the section's header if the key is absent.
    pub fn span(&self, key: &Key) -> Range<usize> {
        self.value(key).map_or_else(|| self.header.clone(), Spanned::span)
    }

    /// Notes that the key's value is wrong.
    pub fn refuse(&mut self, key: &Key, expected: impl Display, remedy: impl Into<String>) {
        let (span, path) = (self.span(key), self.path_of(key));
        self.report.refuse(&span, path, expected, remedy);
    }

    /// Notes that a key is missing.
    pub fn missing(&mut self, key: &Key, expected: impl Display, remedy: impl Into<String>) {
        let path = self.path_of(key);
        self.report.note(self.header.start, path, "nothing", expected, remedy);
    }

    /// Notes the key as missing unless the file has it.
    pub fn require(&mut self, key: &Key) {
        if !self.has(key) {
            self.missing(key, &key.form, format!("add a line such as `{} = {}`", key.name, key.example));
        }
    }

    pub fn boolean(&mut self, key: &Key) -> Option<bool> {
        let value = self.value(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.refuse_type(key, value);
        }
        boolean
    }

    /// A whole number within the bounds of the key's form.
    pub fn integer(&mut self, key: &Key) -> Option<u32> {
        let value = self.value(key)?;
        self.bounded(key, &key.form, value)
    }

    /// A string, read by `parse`, whose error is the remedy.
    pub fn text<T>(&mut self, key: &Key, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        self.parsed(key, &key.form, value, parse)
    }

    /// A list of strings, each read by `parse`; elements that are wrong are noted and left out.
    pub fn texts<T>(&mut self, key: &Key, mut parse: impl FnMut(&str) -> Result<T, String>) -> Option<Vec<T>> {
        self.list(key, |section, form, element| section.parsed(key, form, element, &mut parse))
    }

    /// A list of whole numbers within the bounds of the element's form.
    pub fn integers(&mut self, key: &Key) -> Option<Vec<u32>> {
        self.list(key, |section, form, element| section.bounded(key, form, element))
    }

    fn list<T>(&mut self, key: &Key, mut read: impl FnMut(&mut Self, &Form, &'v Spanned<DeValue<'v>>) -> Option<T>) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let (Some(elements), Form::ListOf(form)) = (value.get_ref().as_array(), &key.form) else {
            let quote = self.report.quote(&value.span());
            self.refuse(key, &key.form, format!("write `{} = [{quote}]`", key.name));
            return None;
        };
        Some(elements.iter().filter_map(|element| read(self, form, element)).collect())
    }

    fn parsed<T>(
        &mut self,
        key: &Key,
        form: &Form,
        value: &Spanned<DeValue<'v>>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.refuse_type(key, value);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(remedy) => {
                let path = self.path_of(key);
                self.report.refuse(&value.span(), path, form, remedy);
                None
            }
        }
    }

    fn bounded(&mut self, key: &Key, form: &Form, value: &Spanned<DeValue<'v>>) -> Option<u32> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.refuse_type(key, value);
            return None;
        };
        let (min, max) = if let Form::Integer { min, max } = form { (*min, *max) } else { (0, u32::MAX) };
        let wide = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        let narrow = u32::try_from(wide).ok().filter(|n| (min..=max).contains(n));
        if narrow.is_none() {
            let remedy = if wide < i128::from(min) { format!("{min} is the least") } else { format!("{max} is the most") };
            let path = self.path_of(key);
            self.report.refuse(&value.span(), path, form, remedy);
        }
        narrow
    }

    fn refuse_type(&mut self, key: &Key, value: &Spanned<DeValue<'v>>) {
        let form = if let (Form::ListOf(element), false) = (&key.form, value.get_ref().is_array()) { element } else { &key.form };
        let remedy = match (form, value.get_ref().as_str()) {
            (Form::Integer { .. }, Some(text)) if text.parse::<u32>().is_ok() => format!("write {text} without quotes"),
            (Form::Boolean, Some(text)) if text.parse::<bool>().is_ok() => format!("write {text} without quotes"),
            _ => format!("write it as in `{} = {}`", key.name, key.example),
        };
        let path = self.path_of(key);
        self.report.refuse(&value.span(), path, form, remedy);
    }

    fn value(&self, key: &Key) -> Option<&'v Spanned<DeValue<'v>>> {
        self.table.and_then(|table| table.get(key.name))
    }

    fn path_of(&self, key: &Key) -> String {
        format!("{}.{}", self.path, key.name)
    }
}

/// Notes the key; what it gives back is the key that was most likely meant.
fn refuse_unknown_key(
    report: &mut Report<'_>,
    schema: &Schema,
    path: &str,
    name: &Spanned<toml::de::DeString<'_>>,
) -> Option<&'static str> {
    let mut meant = None;
    let own = || schema.keys.iter().map(|key| key.name);
    let remedy = if let Some(home) = SECTIONS.iter().find(|other| other.keys.iter().any(|key| key.name == name.get_ref())) {
        format!("`{}` is a key of {}: move it there", name.get_ref(), home.header())
    } else if let Some(key) = closest(name.get_ref(), own()) {
        meant = Some(key);
        format!("did you mean `{key}`?")
    } else {
        "remove it".to_owned()
    };
    let expected = format!("one of {}'s keys: {}", schema.header(), own().collect::<Vec<_>>().join(", "));
    report.refuse(&name.span(), format!("{path}.{}", name.get_ref()), expected, remedy);
    meant
}
