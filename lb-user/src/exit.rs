//! How `weir` ends: the documented exit codes, and the error that carries one of them together with its remedy.
use std::{fmt, process::ExitCode};

use serde::Serialize;
use serde_json::json;

use crate::config::{ConfigError, Faults};

/// The exit codes. Their numbers are an interface: they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// A failure that no other code describes.
    Unexpected = 1,
    /// The command line cannot be understood, or its parts do not fit together.
    Usage = 2,
    /// The configuration was refused; the running state is as it was.
    Configuration = 3,
    /// Root or a capability is missing.
    Permission = 4,
    /// The interface does not exist, has no native XDP though it was asked for, or carries another XDP program.
    Interface = 5,
    /// The kernel lacks something that Weir cannot work without.
    Kernel = 6,
    /// The instance runs already, or another command holds its lock.
    AlreadyRunning = 7,
    /// There is no daemon, and no data plane, of this instance.
    NotRunning = 8,
    /// The address for metrics is in use.
    AddressInUse = 9,
    /// No such service or backend.
    NotFound = 10,
}

impl Exit {
    /// All codes, in order.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Unexpected,
        Self::Usage,
        Self::Configuration,
        Self::Permission,
        Self::Interface,
        Self::Kernel,
        Self::AlreadyRunning,
        Self::NotRunning,
        Self::AddressInUse,
        Self::NotFound,
    ];

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What the help says about it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Unexpected => "unexpected failure",
            Self::Usage => "the command line is wrong",
            Self::Configuration => "the configuration was refused; what runs is as it was",
            Self::Permission => "root or a capability is missing",
            Self::Interface => "the interface: it does not exist, has no native XDP though asked for, or carries another XDP program",
            Self::Kernel => "the kernel lacks something needed (a BPF file system, a kind of program or map, ..)",
            Self::AlreadyRunning => "the instance runs already, or another command holds its lock",
            Self::NotRunning => "no daemon and no data plane of this instance",
            Self::AddressInUse => "the address for metrics is in use",
            Self::NotFound => "no such service or backend",
        }
    }

    /// The table of all codes, for `--help`.
    #[must_use]
    pub fn table() -> String {
        let lines: Vec<String> = Self::ALL.iter().map(|exit| format!("  {:>2}  {}", exit.code(), exit.meaning())).collect();
        lines.join("\n")
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command failed, what to do about it, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What failed, with its causes.
    pub error: anyhow::Error,
    /// What the person can do, as one sentence or command.
    pub remedy: Option<String>,
}

/// A failure with its exit code, what happened and the remedy:
/// `Err(fail(Exit::Interface, "there is no interface eth9", "see `ip link`"))`.
pub fn fail(exit: Exit, what: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { exit, error: anyhow::Error::msg(what.into()), remedy: Some(remedy.into()) }
}

/// Gives an error its exit code and remedy: `bind(address).or_fail(Exit::AddressInUse, "choose another with --listen-metrics")?`.
pub trait OrFail<T> {
    /// The same result with a [`Failure`] for an error.
    fn or_fail(self, exit: Exit, remedy: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_fail(self, exit: Exit, remedy: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit, error: error.into(), remedy: Some(remedy.into()) })
    }
}

impl Failure {
    /// The failure as one JSON object: `error`, `causes`, `remedy`, `exit`, `kind` and, for a refused file, `file` and `faults`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let causes: Vec<String> = self.error.chain().skip(1).map(ToString::to_string).collect();
        let mut object = json!({
            "error": self.error.to_string(),
            "causes": causes,
            "remedy": self.remedy,
            "exit": self.exit.code(),
            "kind": self.exit,
        });
        if let Some(refused) = self.faults() {
            let Faults { file, faults } = refused;
            object["error"] = json!(refused.summary());
            object["causes"] = json!([]);
            object["file"] = json!(file);
            object["faults"] = json!(faults);
        }
        object
    }

    /// The error and its causes on one line, the remedy on the next. The faults of a file bring their own remedies.
    #[must_use]
    pub fn render(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!("\n    remedy: {remedy}")).unwrap_or_default();
        format!("{:#}{remedy}", self.error)
    }

    /// Writes the failure to standard error, for people or as JSON; what it returns is for `main` to return.
    #[must_use]
    pub fn report(&self, as_json: bool) -> ExitCode {
        if as_json {
            eprintln!("{}", self.to_json());
        } else {
            eprintln!("weir: {}", self.render());
        }
        self.exit.into()
    }

    fn faults(&self) -> Option<&Faults> {
        self.error.chain().find_map(|cause| {
            let wrapped = cause.downcast_ref::<ConfigError>().and_then(|error| match error {
                ConfigError::Refused(faults) => Some(faults),
                ConfigError::Read { .. } => None,
            });
            wrapped.or_else(|| cause.downcast_ref::<Self>()?.faults())
        })
    }
}

/// What failed, without its causes: those are the error's sources, and [`Failure::render`] has it all.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Keeps the exit code and remedy of a [`Failure`] that went through `anyhow`, with the context it gathered on the way.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let Some((exit, remedy)) = error.downcast_ref::<Self>().map(|inner| (inner.exit, inner.remedy.clone())) else {
            return Self { exit: Exit::Unexpected, error, remedy: None };
        };
        Self { exit, error, remedy }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let remedy = match &error {
            ConfigError::Read { .. } => Some("check the path and its permissions; the file has to be UTF-8".to_owned()),
            ConfigError::Refused(_) => None,
        };
        Self { exit: Exit::Configuration, error: error.into(), remedy }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        ConfigError::Refused(faults).into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::config::Config;

    #[test]
    fn codes_are_their_position_and_each_has_a_line_in_the_table() {
        for (position, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), position);
        }
        let table = Exit::table();
        assert_eq!(table.lines().count(), Exit::ALL.len());
        assert!(table.contains("\n   3  the configuration was refused"), "{table}");
    }

    /// `docs/exit-codes.md`, whole.
    fn page() -> String {
        let head = "# Exit codes\n\n<!-- Generated from lb-user/src/exit.rs; `WEIR_REGENERATE=1 cargo test -p lb-user --lib exit` writes it anew. -->\n\n\
            Every command of `weir` ends with one of these; they never change their meaning. What went wrong is one line on standard error,\n\
            `weir: ...`, and what to do about it the next, `remedy: ...`. With `--json` it is one object on standard error instead: `error`,\n\
            `causes`, `remedy`, `exit` (the code), `kind` (its name) and, for a refused file, `file` and `faults`.\n\n\
            A start that fails leaves nothing behind: no pin, no program on an interface or a group, no socket, no lock held. A data plane that\n\
            an earlier daemon of the instance left to go on balancing goes on.\n\n\
            | code | kind | meaning |\n|--:|---|---|\n";
        let rows = Exit::ALL.map(|exit| format!("| {} | `{}` | {} |\n", exit.code(), json!(exit).as_str().unwrap(), exit.meaning()));
        head.to_owned() + &rows.concat()
    }

    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exit-codes.md");
        if std::env::var_os("WEIR_REGENERATE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == page(), "docs/exit-codes.md is out of date: run `WEIR_REGENERATE=1 cargo test -p lb-user --lib exit`");
    }

    #[test]
    fn a_failure_keeps_its_code_and_remedy_through_anyhow_and_gathers_context() {
        fn attach() -> anyhow::Result<()> {
            Err(std::io::Error::other("no such device")).or_fail(Exit::Interface, "see `ip link`").context("cannot attach to eth9")
        }
        fn run() -> Result<(), Failure> {
            Ok(attach()?)
        }
        let failure = run().unwrap_err();
        assert_eq!(failure.exit, Exit::Interface);
        assert_eq!(failure.render(), "cannot attach to eth9: no such device\n    remedy: see `ip link`");
        assert_eq!(failure.to_json()["causes"], json!(["no such device"]));
    }

    #[test]
    fn any_other_error_is_unexpected() {
        let failure = Failure::from(anyhow::anyhow!("it broke"));
        assert_eq!((failure.exit, failure.render().as_str()), (Exit::Unexpected, "it broke"));
    }

    #[test]
    fn a_refused_file_shows_its_faults_as_text_and_as_json() {
        let faults = Config::parse("weir.toml", "[daemon]\nmode = 1\n").unwrap_err();
        let failure = Failure::from(anyhow::Error::from(Failure::from(faults)).context("reload"));
        assert_eq!(failure.exit.code(), 3);
        assert!(
            failure.render().starts_with("reload: weir.toml: refused as a whole for 1 fault\nweir.toml:2:8: daemon.mode: found 1, "),
            "{}",
            failure.render()
        );
        let object = failure.to_json();
        assert_eq!(object["error"], "weir.toml: refused as a whole for 1 fault");
        assert_eq!((&object["exit"], &object["kind"], &object["file"]), (&json!(3), &json!("configuration"), &json!("weir.toml")));
        assert_eq!((&object["faults"][0]["line"], &object["faults"][0]["key"]), (&json!(2), &json!("daemon.mode")));
    }
}
