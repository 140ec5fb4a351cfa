//! Installing Debian packages without starting the services they bring, and without removing anything.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::exec;

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Where Debian's scripts ask whether a package may start its services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Runs its arguments while the policy in its first one forbids packages to start services. The shell's trap takes the policy away
/// again, also when the user interrupts. A policy that is there already (containers have one) is left as it is.
const WITHOUT_STARTING_SERVICES: &str = r#"
policy=$1
shift
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n# Written by cargo xtask setup while it installs packages; it may be deleted.\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# The output of a command such as `cargo xtask bench` may go to a file.
"$@" >&2
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
    let mut command = without_starting_services(POLICY.as_ref());
    command.args(["apt-get", "-qq", "-o=Dpkg::Use-Pty=0"]).args(INSTALL).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.stdin(Stdio::null()).status().context("cannot run sh")?;
    ensure!(status.success(), "apt-get could not install {} ({status})", packages.join(" "));
    Ok(())
}

/// A command that runs the arguments it is given under the policy.
fn without_starting_services(policy: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", WITHOUT_STARTING_SERVICES, "sh"]).arg(policy);
    command
}

/// The command that installs `packages`, as a user types it.
pub fn command_for_user(packages: &[&str]) -> String {
    format!("sudo apt-get {} {}", INSTALL.join(" "), packages.join(" "))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf, process};

    use super::*;

    fn policy(test: &str) -> PathBuf {
        env::temp_dir().join(format!("weir-policy-{test}-{}", process::id()))
    }

    #[test]
    fn the_policy_forbids_services_while_packages_are_installed() {
        let policy = policy("forbids");
        let status = without_starting_services(&policy).arg(&policy).status().unwrap();
        assert_eq!(status.code(), Some(101), "Debian's code for: not allowed");
        assert!(!policy.exists(), "it is taken away again");
    }

    #[test]
    fn an_interrupt_leaves_no_policy_behind() {
        let policy = policy("interrupt");
        let status = without_starting_services(&policy).args(["sh", "-c", "kill -TERM $PPID"]).status().unwrap();
        assert_eq!(status.code(), Some(130));
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays() {
        let policy = policy("stays");
        fs::write(&policy, "of the machine").unwrap();
        assert!(without_starting_services(&policy).arg("true").status().unwrap().success());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "of the machine");
        fs::remove_file(&policy).unwrap();
    }
}
