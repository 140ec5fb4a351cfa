//! A fresh Debian below `target`, into which the package is installed, and from which it is purged.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{exec, setup};

/// The release that it is tried on.
const SUITE: &str = "stable";

/// What dpkg itself writes, and the package is not asked about.
const OF_DPKG: [&str; 4] = ["var/lib/dpkg", "var/log", "var/cache", "tmp"];

/// A line that an administrator adds to the configuration, which has to survive.
const CHANGE: &str = "# ours\n";

/// Installs, uses and purges `package` in the Debian at `root`, which is made if it is not there. It stays for the next time.
pub fn run(package: &Path, root: &Path) -> Result<()> {
    ensure!(exec::is_root()?, "the trial makes a Debian and enters it, which needs root: run `cargo xtask package --trial` as root");
    if !root.join("usr/bin/dpkg").is_file() {
        let debootstrap = setup::debootstrap()?;
        eprintln!("xtask: making a Debian in {} (a download of 60 MB; a minute)", root.display());
        exec::exec(Command::new(debootstrap).args(["--variant=minbase", "--merged-usr", SUITE]).arg(root))?;
    }
    let debian = Debian { root };
    debian.exec(&["dpkg", "--purge", "weir"])?;
    let before = debian.files()?;

    fs::copy(package, root.join("tmp/weir.deb")).context("cannot copy the package into the Debian")?;
    debian.exec(&["dpkg", "--install", "/tmp/weir.deb"])?;
    debian.exec(&["weir", "--version"])?;
    debian.exec(&["weir", "config", "check", "/etc/weir/weir.toml"])?;

    let configuration = root.join("etc/weir/weir.toml");
    let packaged = fs::read_to_string(&configuration).context("the package brought no configuration")?;
    let changed = packaged + CHANGE;
    fs::write(&configuration, &changed).context("cannot change the configuration")?;
    debian.exec(&["dpkg", "--install", "/tmp/weir.deb"])?;
    let kept = |step: &str| {
        let text = fs::read_to_string(&configuration).with_context(|| format!("{step} took the configuration away"))?;
        ensure!(text == changed, "{step} changed the configuration that an administrator had changed");
        Ok(())
    };
    kept("an upgrade")?;
    debian.exec(&["dpkg", "--remove", "weir"])?;
    kept("removal")?;
    debian.exec(&["dpkg", "--purge", "weir"])?;

    let after = debian.files()?;
    let left: Vec<_> = after.iter().filter(|(path, _)| !before.contains_key(*path)).map(|(path, _)| path).collect();
    let lost: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    let other: Vec<_> = after.iter().filter(|(path, facts)| before.get(*path).is_some_and(|then| then != *facts)).collect();
    ensure!(left.is_empty() && lost.is_empty() && other.is_empty(), "purging left {left:?}, took {lost:?} and changed {other:?}");
    Ok(())
}

/// A Debian in a directory.
struct Debian<'a> {
    root: &'a Path,
}

impl Debian<'_> {
    /// Runs a command inside.
    fn exec(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new("chroot");
        command.arg(self.root).args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        exec::exec(&mut command)
    }

    /// Every file with its mode, owner and size.
    fn files(&self) -> Result<BTreeMap<PathBuf, [u64; 3]>> {
        let mut files = BTreeMap::new();
        self.list(Path::new(""), &mut files)?;
        Ok(files)
    }

    fn list(&self, directory: &Path, files: &mut BTreeMap<PathBuf, [u64; 3]>) -> Result<()> {
        let whole = self.root.join(directory);
        for entry in fs::read_dir(&whole).with_context(|| format!("cannot list {}", whole.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", whole.display()))?;
            let path = directory.join(entry.file_name());
            if OF_DPKG.iter().any(|of_dpkg| path == Path::new(of_dpkg)) {
                continue;
            }
            let facts = entry.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
            let is_directory = facts.is_dir();
            let size = if is_directory { 0 } else { facts.size() };
            files.insert(path.clone(), [u64::from(facts.mode()), u64::from(facts.uid()), size]);
            if is_directory {
                self.list(&path, files)?;
            }
        }
        Ok(())
    }
}
