//! Installing Debian packages without starting the services they bring, and without removing anything.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::exec;

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Runs its arguments while a policy forbids packages to start services. The shell's trap takes the policy away again, also when
/// the user interrupts. A policy that is there already (containers have one) is left as it is.
const WITHOUT_STARTING_SERVICES: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n# Written by cargo xtask setup while it installs packages; it may be deleted.\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
"$@"
"#;

pub fn exists() -> bool {
    exec::find_program("apt-get").is_some()
}

/// Installs `packages`, saying in one line that it installs `what`. Needs root: otherwise the error names the command.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    ensure!(exec::is_root()?, "installing {what} needs root");
    eprintln!("xtask: installing {what}: {}", packages.join(" "));
    let mut update = Command::new("apt-get");
    update.args(["update", "-qq"]);
    // One source of many that does not answer is no reason to give up: what is needed may come from the others.
    if let Err(error) = exec::exec(&mut update) {
        eprintln!("xtask: the package lists may be old: {error}");
    }
    let mut command = Command::new("sh");
    command.args(["-c", WITHOUT_STARTING_SERVICES, "sh", "apt-get", "-qq", "-o=Dpkg::Use-Pty=0"]).args(INSTALL).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.stdin(Stdio::null()).status().context("cannot run sh")?;
    ensure!(status.success(), "apt-get could not install {} ({status})", packages.join(" "));
    Ok(())
}

/// The command that installs `packages`, as a user types it.
pub fn command_for_user(packages: &[&str]) -> String {
    format!("sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}
