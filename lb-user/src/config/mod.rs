//! The configuration file: TOML, one file of this module for each section.
//!
//! A file is parsed into a tree that remembers where each value stands; each section reads its table key by key and notes every
//! fault it meets. A file with a fault is refused as a whole, with all its faults ([`Faults`]). What comes out is checked and complete: defaults are filled in.
//!
//! Each section describes its keys once. The readers check by that description, the faults quote it, and `docs/configuration.md`
//! and `deploy/weir.toml` are written from it (see [`reference()`]).
mod daemon;
mod defence;
mod discovery;
mod duration;
mod fault;
mod limits;
mod observe;
mod prefix;
mod prime;
mod reader;
mod reference;
mod schema;
mod service;
mod service_defence;
mod steering;
mod web;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;
use toml::{Spanned, de::DeTable, de::DeValue};

pub use daemon::{Daemon, MetricsListen, Mode, interface_name};
pub use defence::{Defence, SchemeChoice, Stance};
pub use discovery::Discovery;
pub use fault::{ConfigError, Fault, Faults};
pub use limits::Limits;
pub use observe::Observe;
pub use prefix::Prefix;
pub use reference::{example, reference};
pub use service::{Protocol, Quic, Service};
pub use service_defence::ServiceDefence;
pub use steering::Steering;
pub use web::WebConfig;

use reader::Report;
use schema::{Schema, closest};

/// All sections, in the order of the reference.
const SECTIONS: [&Schema; 7] =
    [&daemon::SCHEMA, &discovery::SCHEMA, &steering::SCHEMA, &defence::SCHEMA, &observe::SCHEMA, &limits::SCHEMA, &service::SCHEMA];

/// A checked configuration with all defaults filled in. Serializes to the file's own shape.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Where and how the daemon runs.
    pub daemon: Daemon,
    /// Which groups become services without being named.
    pub discovery: Discovery,
    /// When new connections go elsewhere than the table says.
    pub steering: Steering,
    /// What counts as a flood, and what is done while there is one.
    pub defence: Defence,
    /// What is watched beside packets, and how often.
    pub observe: Observe,
    /// The sizes of the kernel's maps.
    pub limits: Limits,
    /// The services named, in the order of the file.
    #[serde(rename = "service")]
    pub services: Vec<Service>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse(&path.display().to_string(), &text)?)
    }

    /// Checks a file's text; `name` is what the faults call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Faults> {
        let mut report = Report::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        let (duplicates, syntax): (Vec<_>, Vec<_>) = errors.iter().partition(|error| error.message() == "duplicate key");
        let config = if let Some(error) = syntax.first() {
            // What follows the first syntax fault is the parser's guess: its faults would be about things the file does not say.
            note_syntax(&mut report, text, error);
            Self::default()
        } else {
            for error in duplicates {
                let span = error.span().unwrap_or_default();
                let key = report.quote(&span);
                report.refuse(&span, key, "each key and each [section] once", "remove one of the two");
            }
            Self::read(&mut report, root.get_ref())
        };
        report.finish(name)?;
        Ok(config)
    }

    /// The effective configuration, every default written out, as a file that [`Self::parse`] reads back as the same.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        // Without services there is no `service = []`: it would forbid a [[service]] further down.
        #[derive(Serialize)]
        struct File<'a> {
            daemon: &'a Daemon,
            discovery: &'a Discovery,
            steering: &'a Steering,
            defence: &'a Defence,
            observe: &'a Observe,
            limits: &'a Limits,
            #[serde(skip_serializing_if = "<[Service]>::is_empty")]
            service: &'a [Service],
        }
        let Self { daemon, discovery, steering, defence, observe, limits, services } = self;
        toml::to_string(&File { daemon, discovery, steering, defence, observe, limits, service: services })
    }

    fn read(report: &mut Report<'_>, root: &DeTable<'_>) -> Self {
        for (name, value) in root {
            if !SECTIONS.iter().any(|section| section.name == name.get_ref()) {
                refuse_unknown_section(report, name, value);
            }
        }
        let limits = Limits::read(report, root.get(limits::SCHEMA.name));
        let named = root.get(service::SCHEMA.name).map(Spanned::get_ref);
        let names_services = named.is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()));
        let services = read_services(report, root.get(service::SCHEMA.name), &limits);
        Self {
            daemon: Daemon::read(report, root.get(daemon::SCHEMA.name)),
            discovery: Discovery::read(report, root.get(discovery::SCHEMA.name), names_services),
            steering: Steering::read(report, root.get(steering::SCHEMA.name)),
            defence: Defence::read(report, root.get(defence::SCHEMA.name)),
            observe: Observe::read(report, root.get(observe::SCHEMA.name)),
            limits,
            services,
        }
    }
}

fn read_services(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>, limits: &Limits) -> Vec<Service> {
    let Some(value) = value else { return Vec::new() };
    let mut claimed = service::Claimed::default();
    let Some(services) = value.get_ref().as_array() else {
        report.refuse(&value.span(), "service", "a list of services", "write [[service]], with two brackets, above each service's keys");
        let single = value.get_ref().is_table().then(|| Service::read(report, value, 0, limits, &mut claimed));
        return single.flatten().into_iter().collect();
    };
    let most = usize::try_from(limits.services).unwrap_or(usize::MAX);
    if let Some(first_beyond) = services.get(most) {
        let expected = format!("at most {most} services, as `limits.services` says");
        report.refuse(&first_beyond.span(), "service", expected, format!("the file names {}: raise the limit", services.len()));
    }
    services.iter().enumerate().filter_map(|(index, value)| Service::read(report, value, index, limits, &mut claimed)).collect()
}

fn refuse_unknown_section(report: &mut Report<'_>, name: &Spanned<toml::de::DeString<'_>>, value: &Spanned<DeValue<'_>>) {
    let word = name.get_ref();
    // `[services]` and `[[services]]` mean a section, `services = 4` means a key.
    let is_header =
        value.get_ref().is_table() || value.get_ref().as_array().is_some_and(|list| list.iter().all(|one| one.get_ref().is_table()));
    let home = SECTIONS.iter().find(|section| section.keys.iter().any(|key| key.name == word));
    let remedy = if let (Some(home), false) = (home, is_header) {
        format!("`{word}` is a key of {}: write it below that header", home.header())
    } else if let Some(close) = closest(word, SECTIONS.iter().map(|section| section.name)) {
        let header = SECTIONS.iter().find(|section| section.name == close).map(|section| section.header()).unwrap_or_default();
        format!("did you mean {header}?")
    } else {
        "remove it".to_owned()
    };
    let known = SECTIONS.map(Schema::header).join(", ");
    report.refuse(&name.span(), &**word, format!("one of the sections {known}"), remedy);
}

fn note_syntax(report: &mut Report<'_>, text: &str, error: &toml::de::Error) {
    let at = error.span().map_or(text.len(), |span| span.start);
    let line_start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let found = report.quote(&(line_start..text.len().min(text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| at + n))));
    let expected = format!("TOML ({})", error.message());
    report.note(at, "", format!("`{found}`"), expected, "mend the line's syntax, then check again: what follows was not looked at");
}
