//! The Debian package: cargo-deb makes it, by `[package.metadata.deb]` of lb-user.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::PROFILE;
use crate::{cargo::workspace, exec, setup};

/// Every file of the package. One more or less is a decision: it is written down here.
const FILES: [&str; 24] = [
    "/etc/weir/weir.toml",
    "/usr/bin/weir",
    "/usr/lib/systemd/system/weir.service",
    "/usr/share/bash-completion/completions/weir",
    "/usr/share/doc/weir/CHANGELOG.md",
    "/usr/share/doc/weir/copyright",
    "/usr/share/fish/vendor_completions.d/weir.fish",
    "/usr/share/man/man1/weir-config-check.1.gz",
    "/usr/share/man/man1/weir-config-example.1.gz",
    "/usr/share/man/man1/weir-config-show.1.gz",
    "/usr/share/man/man1/weir-config.1.gz",
    "/usr/share/man/man1/weir-defence.1.gz",
    "/usr/share/man/man1/weir-doctor.1.gz",
    "/usr/share/man/man1/weir-drain.1.gz",
    "/usr/share/man/man1/weir-explain.1.gz",
    "/usr/share/man/man1/weir-reload.1.gz",
    "/usr/share/man/man1/weir-run.1.gz",
    "/usr/share/man/man1/weir-status.1.gz",
    "/usr/share/man/man1/weir-stop.1.gz",
    "/usr/share/man/man1/weir-top.1.gz",
    "/usr/share/man/man1/weir-trace.1.gz",
    "/usr/share/man/man1/weir-undrain.1.gz",
    "/usr/share/man/man1/weir.1.gz",
    "/usr/share/zsh/vendor-completions/_weir",
];

/// What dpkg keeps when the package is upgraded and somebody has changed it.
const CONFIGURATION: &str = "/etc/weir/weir.toml";

/// Makes the package of what was built for `target`, in `directory`, of that version or the workspace's.
pub fn build(target: &str, directory: &Path, version: Option<&str>) -> Result<PathBuf> {
    let cargo_deb = setup::cargo_deb()?;
    for old in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?.flatten() {
        if old.path().extension().is_some_and(|extension| extension == "deb") {
            fs::remove_file(old.path()).with_context(|| format!("cannot remove {}", old.path().display()))?;
        }
    }
    let mut command = Command::new(cargo_deb);
    command.current_dir(workspace()).args(["--package=lb-user", "--no-build", "--no-strip", "--quiet", "--locked"]);
    command.args(["--profile", PROFILE, "--target", target, "--output"]).arg(directory);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    // It asks the cargo that runs xtask about the workspace.
    command.env("CARGO", env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    exec::exec(&mut command)?;
    let made = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?.flatten();
    let mut packages = made.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.next().with_context(|| format!("cargo-deb left no package in {}", directory.display()))
}

/// Compares what is in the package with what should be, and returns how many files there are.
pub fn check(package: &Path) -> Result<usize> {
    let list = exec::output(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let found = contents(&list);
    let expected = FILES.map(str::to_owned).into();
    let more: Vec<_> = found.difference(&expected).collect();
    let less: Vec<_> = expected.difference(&found).collect();
    ensure!(more.is_empty() && less.is_empty(), "{}: not expected: {more:?}; missing: {less:?}", package.display());
    // By name or by number, as the archive has it.
    let is_roots = |line: &str| line.contains(" root/root ") || line.contains(" 0/0 ");
    ensure!(list.lines().all(is_roots), "{}: not all files are root's:\n{list}", package.display());
    let kept = exec::output(Command::new("dpkg-deb").arg("--info").arg(package).arg("conffiles"))?;
    ensure!(kept.trim() == CONFIGURATION, "{}: dpkg keeps {kept:?} and not {CONFIGURATION}", package.display());
    Ok(found.len())
}

/// The files of a listing as tar makes it; directories end with a slash.
fn contents(list: &str) -> BTreeSet<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().nth(5));
    names.filter(|name| !name.ends_with('/')).map(|name| name.trim_start_matches('.').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_from_the_listing() {
        let list = "drwxr-xr-x root/root         0 2026-11-29 10:00 ./usr/bin/\n\
                    -rwxr-xr-x root/root   7654321 2026-11-29 10:00 ./usr/bin/weir\n";
        assert_eq!(contents(list), BTreeSet::from(["/usr/bin/weir".to_owned()]));
    }

    #[test]
    fn the_list_of_files_is_in_order_and_has_a_page_for_each_command_once() {
        assert!(FILES.is_sorted_by(|left, right| left < right));
    }
}
