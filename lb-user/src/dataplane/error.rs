//! What can go wrong between the daemon and the kernel.

use std::{fmt, io, path::PathBuf};

use thiserror::Error as ThisError;

use crate::network::AttachedMode;

/// Why the data plane could not do what it was asked.
#[derive(Debug, ThisError)]
pub enum Error {
    /// This build has no programs in it.
    #[error("this weir was built without its kernel object")]
    EmptyObject,
    /// There is no BPF file system to pin in.
    #[error("{path} is not on a BPF file system, and none can be mounted there")]
    NoBpfFs {
        /// Where it was wanted.
        path: PathBuf,
        /// Why it could not be mounted.
        source: io::Error,
    },
    /// A pin could not be made, read or removed.
    #[error("cannot use the pin {path}")]
    Pins {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object could not be read, or its maps not made.
    #[error("cannot load the kernel object")]
    Load(#[from] Box<aya::EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the program `{name}`")]
    Program {
        /// Which.
        name: &'static str,
        /// Why, with the verifier's words.
        source: Box<aya::programs::ProgramError>,
    },
    /// A map could not be read or written.
    #[error("cannot use the map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    Call {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The interface has another XDP program.
    #[error("interface {interface} has another XDP program attached{}", occupant.as_ref().map(|one| format!(": {one}")).unwrap_or_default())]
    Occupied {
        /// The interface's name.
        interface: String,
        /// The program, as far as it can be told.
        occupant: Option<Occupant>,
    },
    /// The interface's driver does not run XDP programs, and native mode was asked for.
    #[error("interface {interface} cannot run XDP in its driver")]
    NotNative {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The XDP program that an interface has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// Its ID.
    pub id: u32,
    /// Its name; empty if it has none, or this process may not ask.
    pub name: String,
    /// How it is attached.
    pub mode: AttachedMode,
    /// The instance of Weir that it belongs to.
    pub instance: Option<String>,
}

/// `id 45, name xdp_pass, native mode`
impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)?;
        if !self.name.is_empty() {
            write!(f, ", name {}", self.name)?;
        }
        let mode = match self.mode {
            AttachedMode::Native => "native",
            AttachedMode::Generic => "generic",
            AttachedMode::Offload => "offload",
        };
        write!(f, ", {mode} mode")?;
        self.instance.as_ref().map_or(Ok(()), |instance| write!(f, ", of weir's instance `{instance}`"))
    }
}

impl Occupant {
    /// The command that takes it off the interface.
    #[must_use]
    pub fn remedy(&self, interface: &str) -> String {
        let word = match self.mode {
            AttachedMode::Native => "xdpdrv",
            AttachedMode::Generic => "xdpgeneric",
            AttachedMode::Offload => "xdpoffload",
        };
        match &self.instance {
            Some(instance) => format!("`weir stop --instance {instance}` takes it off; one interface has one instance"),
            None => format!("take it off with `ip link set {interface} {word} off`, or end the program that holds it (`bpftool link`)"),
        }
    }
}

impl Error {
    pub(super) fn map(name: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    pub(super) fn program(name: &'static str) -> impl FnOnce(aya::programs::ProgramError) -> Self {
        move |source| Self::Program { name, source: Box::new(source) }
    }

    pub(super) fn call(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Call { what: what.into(), source }
    }
}
