//! The web configuration: who may read the metrics and the page, and by which certificate they are served. The file is that of
//! Prometheus' exporters (https://github.com/prometheus/exporter-toolkit), in YAML, as far as [`KEYS`] and [`TLS_KEYS`] go.

mod tls;

use std::{collections::BTreeMap, fs, ops::Range, path::Path, path::PathBuf, sync::Arc};

use bcrypt::HashParts;
use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};

use super::{
    fault::{ConfigError, Faults},
    reader::Report,
    schema::closest,
};

const TLS: &str = "tls_server_config";
const USERS: &str = "basic_auth_users";
const KEYS: [&str; 2] = [TLS, USERS];
const TLS_KEYS: [&str; 5] = ["cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version"];

/// Cheaper hashes than this are guessed too soon.
const LEAST_COST: u32 = 8;
/// Dearer ones take longer than a scrape may.
const MOST_COST: u32 = 16;

/// A web configuration, checked, with its certificates.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// TLS; none: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Names and the bcrypt hashes of their passwords; empty: nobody is asked.
    pub users: BTreeMap<String, String>,
    /// All files that were read for it: when one changes, it has to be read again.
    pub files: Vec<PathBuf>,
}

impl WebConfig {
    /// Reads and checks a file, and the certificates it names. Their paths are relative to it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut config = Self::parse(&path.display().to_string(), &text, directory)?;
        config.files.push(path.to_owned());
        Ok(config)
    }

    /// Checks a file's text; `name` is what the faults call it.
    pub fn parse(name: &str, text: &str, directory: &Path) -> Result<Self, Faults> {
        let mut report = Report::new(text);
        let mut config = Self { tls: None, users: BTreeMap::new(), files: Vec::new() };
        match MarkedYaml::load_from_str(text) {
            Err(error) => {
                let at = report.offset(error.marker().line(), error.marker().col());
                let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default().trim();
                // A line with a hash is not for the log.
                let found = if line.contains("$2") { "a line with a hash".to_owned() } else { format!("`{line}`") };
                report.note(at, "", found, "YAML", format!("the reader says: {}", error.info()));
            }
            Ok(documents) => {
                if let Some(root) = documents.first() {
                    config.read(&mut report, root, directory);
                }
            }
        }
        report.finish(name)?;
        Ok(config)
    }

    fn read(&mut self, report: &mut Report<'_>, root: &MarkedYaml<'_>, directory: &Path) {
        let Some(root) = Mapping::open(report, "", root, Some(&KEYS)) else { return };
        if let Some(value) = root.get(TLS)
            && let Some(section) = Mapping::open(report, TLS, value, Some(&TLS_KEYS))
        {
            let mut files = tls::Files::new(directory);
            self.tls = tls::read(report, &section, &mut files).map(Arc::new);
            self.files = files.read;
        }
        if let Some(value) = root.get(USERS)
            && let Some(users) = Mapping::open(report, USERS, value, None)
        {
            for (name, value) in &users.entries {
                if let Some(hash) = hash(report, name, value) {
                    self.users.insert(name.text.clone(), hash);
                }
            }
            if users.entries.is_empty() {
                report.refuse(&users.span, USERS, "a name and a hash", "add one, or remove the key: without users nobody is asked");
            }
        }
    }
}

/// A user's hash. Faults do not quote it.
fn hash(report: &mut Report<'_>, user: &Key, value: &MarkedYaml<'_>) -> Option<String> {
    let span = span(report, value);
    let path = format!("{USERS}.{}", user.text);
    let mut refuse = |found: &str, remedy: &str| {
        report.note(span.start, path.clone(), found, format!("a bcrypt hash of cost {LEAST_COST} to {MOST_COST}"), remedy);
        None
    };
    if user.text.is_empty() || user.text.contains(':') {
        return refuse("a name that is empty or has a colon", "HTTP knows no such user: choose another name");
    }
    let Some(text) = string(value) else { return refuse("no string", "write the hash in quotes") };
    let Ok(parts) = text.parse::<HashParts>() else {
        return refuse("something else", "`htpasswd -nBC 10 \"\"` makes one of a password: write what follows its colon, in quotes");
    };
    match parts.get_cost() {
        cost if cost < LEAST_COST => {
            refuse(&format!("a hash of cost {cost}"), "it is guessed too soon: make one with `htpasswd -nBC 10 \"\"`")
        }
        cost if cost > MOST_COST => {
            refuse(&format!("a hash of cost {cost}"), "it takes seconds to check: make one with `htpasswd -nBC 10 \"\"`")
        }
        _ => Some(text.to_owned()),
    }
}

/// A key of a mapping.
struct Key {
    text: String,
    span: Range<usize>,
}

/// A mapping whose keys are strings.
struct Mapping<'n, 'y> {
    path: String,
    span: Range<usize>,
    entries: Vec<(Key, &'n MarkedYaml<'y>)>,
}

impl<'n, 'y> Mapping<'n, 'y> {
    /// Opens a mapping; a key that is not among `known` is noted. None if it is no mapping, which is noted unless it is empty.
    fn open(report: &mut Report<'_>, path: &str, node: &'n MarkedYaml<'y>, known: Option<&[&'static str]>) -> Option<Self> {
        let span = span(report, node);
        let YamlData::Mapping(mapping) = &node.data else {
            if !matches!(node.data, YamlData::Value(Scalar::Null)) {
                report.refuse(&span, path, "a mapping", "write its keys below it, indented, each with a colon");
            }
            return None;
        };
        let mut entries = Vec::new();
        for (key, value) in mapping {
            let at = self::span(report, key);
            let Some(text) = string(key) else {
                report.refuse(&at, path, "a key that is a string", "write it in quotes");
                continue;
            };
            match known {
                Some(known) if !known.contains(&text) => refuse_unknown(report, path, text, &at, known),
                _ => entries.push((Key { text: text.to_owned(), span: at }, value)),
            }
        }
        Some(Self { path: path.to_owned(), span, entries })
    }

    fn get(&self, name: &str) -> Option<&'n MarkedYaml<'y>> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| *value)
    }

    /// Where the key stands; the mapping if it has no such key.
    fn key_span(&self, name: &str) -> Range<usize> {
        self.entries.iter().find(|(key, _)| key.text == name).map_or(self.span.clone(), |(key, _)| key.span.clone())
    }

    /// A key's string and its place; an empty one counts as absent, as it does for the exporters.
    fn text(&self, report: &mut Report<'_>, name: &str) -> Option<(&'n str, Range<usize>)> {
        let value = self.get(name)?;
        let span = span(report, value);
        let Some(text) = string(value) else {
            if !matches!(value.data, YamlData::Value(Scalar::Null)) {
                report.refuse(&span, format!("{}.{name}", self.path), "a string", "write it in quotes");
            }
            return None;
        };
        (!text.is_empty()).then_some((text, span))
    }
}

fn refuse_unknown(report: &mut Report<'_>, path: &str, text: &str, at: &Range<usize>, known: &[&'static str]) {
    let remedy = match closest(text, known.iter().copied()) {
        Some(key) => format!("did you mean `{key}`?"),
        None => "remove it: of the exporters' keys Weir knows these".to_owned(),
    };
    let key = if path.is_empty() { text.to_owned() } else { format!("{path}.{text}") };
    report.refuse(at, key, format!("one of {}", known.join(", ")), remedy);
}

fn string<'n>(node: &'n MarkedYaml<'_>) -> Option<&'n str> {
    if let YamlData::Value(Scalar::String(text)) = &node.data { Some(text) } else { None }
}

fn span(report: &Report<'_>, node: &MarkedYaml<'_>) -> Range<usize> {
    let (start, end) = (node.span.start, node.span.end);
    report.offset(start.line(), start.col())..report.offset(end.line(), end.col())
}

#[cfg(test)]
mod tests;
