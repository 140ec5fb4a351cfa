//! The programs that the tests run against, and the Debian packages that bring them.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::apt;
use crate::exec::{self, find_program};

struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 21] = [
    Tool { program: "nginx", package: "nginx-light" },
    Tool { program: "haproxy", package: "haproxy" },
    Tool { program: "wrk", package: "wrk" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "ss", package: "iproute2" },
    Tool { program: "tc", package: "iproute2" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "hping3", package: "hping3" },
    Tool { program: "trafgen", package: "netsniff-ng" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "tshark", package: "tshark" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "conntrack", package: "conntrack" },
    Tool { program: "promtool", package: "prometheus" },
    Tool { program: "chromium", package: "chromium" },
    Tool { program: "script", package: "bsdutils" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "setpriv", package: "util-linux" },
    Tool { program: "setsid", package: "util-linux" },
    Tool { program: "systemd-analyze", package: "systemd" },
];

/// The packages that would start with the machine from now on, which nobody asked for.
const SERVICES: [(&str, &str); 3] = [("nginx-light", "nginx"), ("haproxy", "haproxy"), ("prometheus", "prometheus")];

/// Which of the tools a command needs.
pub enum Needed {
    /// Every one: the tests.
    All,
    /// Those of these names.
    Named(&'static [&'static str]),
}

impl Needed {
    fn has(&self, tool: &Tool) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&tool.program),
        }
    }
}

/// Installs the packages of the tools that are missing, or names the command that does.
pub fn install_missing(needed: &Needed) -> Result<()> {
    let is_missing = |tool: &&Tool| needed.has(tool) && find_program(tool.program).is_none();
    let missing: Vec<&Tool> = TOOLS.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    let packages = packages(&missing);
    if !apt::exists() {
        bail!("these programs are needed and not installed: {}. Install them with your package manager", programs.join(" "));
    }
    if !exec::is_root()? {
        let command = apt::command_for_user(&packages);
        bail!("these programs are needed and not installed: {}. Install them with:\n  {command}", programs.join(" "));
    }
    let what = match needed {
        Needed::All => "the programs that the tests use (about 100 MB, a minute; no service is started)".to_owned(),
        Needed::Named(names) => format!("{} (no service is started)", names.join(", ")),
    };
    apt::install(&what, &packages)?;
    for (package, service) in SERVICES {
        if packages.contains(&package) && find_program("systemctl").is_some() {
            // Fails where systemd does not run, and there nothing starts the service either.
            let _ = Command::new("systemctl").args(["--quiet", "disable", service]).stderr(Stdio::null()).status();
        }
    }
    if let Some(tool) = TOOLS.iter().find(is_missing) {
        bail!("{} is still missing after the package {} was installed", tool.program, tool.package);
    }
    Ok(())
}

/// The packages of the tools, each once.
fn packages(tools: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_named_once() {
        let all: Vec<&Tool> = TOOLS.iter().collect();
        let packages = packages(&all);
        let different: std::collections::BTreeSet<&str> = TOOLS.iter().map(|tool| tool.package).collect();
        assert!(different.contains("iproute2") && different.len() < TOOLS.len(), "some bring several tools");
        assert_eq!(packages.len(), different.len(), "those of one package stand together");
    }
}
