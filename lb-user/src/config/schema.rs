//! The description of a key: what the readers check, the faults say and the reference page prints, written once.
use std::fmt;

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub form: Form,
    pub fallback: Fallback,
    /// A TOML value that is right; it may differ from the default.
    pub example: &'static str,
    pub help: &'static str,
}

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Form {
    Boolean,
    /// A whole number, both ends included.
    Integer {
        min: u32,
        max: u32,
    },
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A string that the section's own parser reads; the words complete "expected ..".
    Text(&'static str),
    ListOf(&'static Form),
}

/// What holds when the key is absent.
#[derive(Debug)]
pub(super) enum Fallback {
    /// This TOML value.
    Value(&'static str),
    /// The key must be there.
    Required,
    /// Something that takes words to say.
    Words(&'static str),
}

/// One section of the file.
#[derive(Debug)]
pub(super) struct Schema {
    pub name: &'static str,
    /// Written `[[name]]`, any number of times.
    pub repeated: bool,
    pub help: &'static str,
    pub keys: &'static [&'static Key],
}

impl Schema {
    /// The section's header as the file has it.
    pub fn header(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// Completes "expected ..".
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::OneOf(words) => {
                for (i, word) in words.iter().enumerate() {
                    let separator = match i {
                        0 => "",
                        i if i + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{separator}\"{word}\"")?;
                }
                Ok(())
            }
            Self::Text(words) => f.write_str(words),
            Self::ListOf(element) => write!(f, "a list, each element {element}"),
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "default `{value}`"),
            Self::Required => f.write_str("required"),
            Self::Words(words) => write!(f, "default: {words}"),
        }
    }
}

/// The candidate that a misspelt word most likely meant.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    let rank = |candidate: &str| {
        let distance = strsim::damerau_levenshtein(&word, candidate);
        // `listen` for `metrics_listen`: a part of the name is as good as two wrong letters.
        let is_part = word.len() >= 3 && candidate.contains(word.as_str());
        if is_part { Some(distance.min(2)) } else { Some(distance).filter(|d| *d <= (candidate.len() / 3).max(1)) }
    };
    candidates.into_iter().filter_map(|candidate| Some((rank(candidate)?, candidate))).min_by_key(|(rank, _)| *rank).map(|(_, c)| c)
}
