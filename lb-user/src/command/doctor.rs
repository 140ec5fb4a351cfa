//! `weir doctor`: what this kernel, card and settings allow, each with its effect and remedy. It attaches nothing and changes nothing.
//!
//! The same checks run when the daemon starts, which logs those that are not [`State::Ok`].

mod defence;
mod host;
mod interface;
mod kernel;
mod render;
mod settings;

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    cli::{DoctorArgs, GlobalArgs},
    dataplane::probe::Types,
    exit::{Exit, Failure, OrFail as _, fail},
    network::{self, Network},
};

/// What was found of one thing that Weir needs or uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at; of an interface, with its name in front: `eth0: xdp`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was found, in a few words.
    pub found: String,
    /// What that means for Weir, as a sentence.
    pub effect: String,
    /// What can be done about it, as a sentence or command; none where nothing has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// How `weir run` would end because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It could not be found out beforehand, or not by this process.
    Unknown,
    /// Weir works, with less.
    Limited,
    /// This kernel does not have it, and Weir works without it.
    Missing,
    /// It stops `weir run`.
    Problem,
}

impl State {
    /// The word in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Limited => "limited",
            Self::Missing => "missing",
            Self::Problem => "problem",
        }
    }
}

impl Check {
    /// Something that is as it should be.
    fn ok(name: impl Into<String>, found: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, found: found.into(), effect: effect.into(), remedy: None, exit: None }
    }

    /// Something to know about, with what can be done.
    fn with_remedy(mut self, state: State, remedy: impl Into<String>) -> Self {
        self.state = state;
        self.remedy = Some(remedy.into());
        self
    }

    /// Something that stops `weir run`.
    fn stops(self, exit: Exit, remedy: impl Into<String>) -> Self {
        Self { exit: Some(exit), ..self.with_remedy(State::Problem, remedy) }
    }
}

/// One line, for a log: what was found, its effect and the remedy.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, effect, remedy, state: _, exit: _ } = self;
        write!(f, "{name}: {found}. {effect}")?;
        remedy.as_ref().map_or(Ok(()), |remedy| write!(f, " Remedy: {remedy}"))
    }
}

/// Looks at everything: this process, the kernel, its settings, and the interfaces named. `pin_root` is the directory above all
/// instances' pins, by which Weir's own programs are known. Settings and interfaces are those of the calling thread's network namespace.
pub async fn examine(interfaces: &[String], pin_root: &Path) -> Vec<Check> {
    let types = Types::of_kernel();
    let mut checks = host::checks();
    checks.extend(kernel::checks(&types, pin_root));
    checks.extend(settings::checks(network::sysctl));
    checks.push(defence::loose_tracking(network::sysctl("net.netfilter.nf_conntrack_tcp_loose").as_deref()));
    if interfaces.is_empty() {
        return checks;
    }
    match read_network().await {
        Ok(network) => checks.extend(interfaces.iter().flat_map(|name| interface::checks(name, &network, pin_root))),
        Err(error) => checks.push(
            Check::ok("interfaces", error.to_string(), "The interfaces cannot be looked at.")
                .stops(Exit::Interface, "allow AF_NETLINK sockets to this process (a container's or service's seccomp filter)"),
        ),
    }
    checks
}

async fn read_network() -> Result<Network, network::Error> {
    Network::read(&network::connect()?).await
}

/// `weir doctor`: prints the checks; the result is a failure if any would stop `weir run`.
pub async fn run(global: &GlobalArgs, arguments: &DoctorArgs) -> Result<(), Failure> {
    let checks = examine(&arguments.interfaces, &global.pin_root).await;
    let text = if global.json {
        let json = serde_json::to_string_pretty(&checks).context("the checks as JSON")?;
        format!("{json}\n")
    } else {
        render::table(&checks, &render::Style::of_stdout(io::stdout().is_terminal()))
    };
    io::stdout().write_all(text.as_bytes()).or_fail(Exit::Unexpected, "give it an output that can be written")?;
    verdict(&checks)
}

/// The failure for what stops `weir run`. Of several, the lowest code wins: a missing right hides what comes after it.
fn verdict(checks: &[Check]) -> Result<(), Failure> {
    let problems: Vec<&Check> = checks.iter().filter(|check| check.state == State::Problem).collect();
    let Some(exit) = problems.iter().filter_map(|check| check.exit).min_by_key(|exit| exit.code()) else { return Ok(()) };
    let names: Vec<&str> = problems.iter().map(|check| check.name.as_str()).collect();
    Err(fail(exit, format!("`weir run` cannot start here: {}", names.join(", ")), "see the lines marked `problem`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_problem_is_a_failure() {
        let fine = Check::ok("a", "b", "C.");
        let less = fine.clone().with_remedy(State::Limited, "d");
        assert!(verdict(&[fine, less]).is_ok());
    }

    #[test]
    fn the_first_obstacle_gives_the_exit_code_and_all_are_named() {
        let check = |name: &str| Check::ok(name, "x", "Y.");
        let checks = [
            check("btf").stops(Exit::Kernel, "z"),
            check("jit").with_remedy(State::Limited, "z"),
            check("root").stops(Exit::Permission, "z"),
        ];
        let failure = verdict(&checks).unwrap_err();
        assert_eq!(failure.exit, Exit::Permission);
        assert_eq!(failure.error.to_string(), "`weir run` cannot start here: btf, root");
    }

    #[test]
    fn a_check_is_one_line_of_a_log_and_one_object_of_json() {
        let check = Check::ok("jit", "off", "Programs are interpreted.").with_remedy(State::Limited, "turn it on");
        assert_eq!(check.to_string(), "jit: off. Programs are interpreted. Remedy: turn it on");
        let json = serde_json::to_value(&check).unwrap();
        let expected = serde_json::json!(
            {"name": "jit", "state": "limited", "found": "off", "effect": "Programs are interpreted.", "remedy": "turn it on"}
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::to_value(check.stops(Exit::Kernel, "no")).unwrap()["exit"], "kernel");
    }

    #[test]
    fn an_interface_that_does_not_exist_is_a_problem_of_its_own_code() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checks = runtime.block_on(examine(&["no-such-if".to_owned()], Path::new("/nonexistent")));
        let last = checks.last().unwrap();
        assert_eq!((last.name.as_str(), last.state, last.exit), ("no-such-if", State::Problem, Some(Exit::Interface)));
        for check in &checks {
            assert!(check.effect.ends_with('.'), "{check:?}");
            assert_eq!(check.state == State::Problem, check.exit.is_some(), "{check:?}");
            assert!(check.state == State::Ok || check.remedy.is_some(), "{check:?}");
        }
    }
}
