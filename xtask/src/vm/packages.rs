//! Debian packages that are fetched and unpacked below `target`, and not installed: kernels, QEMU, busybox. No root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::exec::{self, find_program};

/// A newest first search of the package lists: the names that match `pattern`.
pub fn search(pattern: &str) -> Result<Vec<String>> {
    ensure!(
        find_program("apt-cache").is_some(),
        "the kernels of the virtual machines come from Debian's package lists, and there is no apt-cache: run this on Debian"
    );
    let found = exec::output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    Ok(found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// Downloads one package and unpacks it into `directory`, which is made anew.
pub fn fetch(package: &str, directory: &Path) -> Result<()> {
    let downloads = fresh(&directory.with_extension("download"))?;
    eprintln!("xtask: downloading {package}");
    let mut download = Command::new("apt-get");
    download.current_dir(&downloads).args(["download", "-qq", package]).stderr(Stdio::null());
    exec::exec(&mut download).with_context(|| remedy(package))?;
    unpack(&downloads, directory)
}

/// Downloads a package and those of its dependencies that are not installed, and unpacks them into `directory`, which is made anew.
pub fn fetch_with_dependencies(package: &str, directory: &Path) -> Result<()> {
    let downloads = fresh(&directory.with_extension("download"))?;
    fs::create_dir(downloads.join("partial")).with_context(|| format!("cannot write to {}", downloads.display()))?;
    eprintln!("xtask: downloading {package} and what it needs");
    let mut download = Command::new("apt-get");
    download.args(["install", "-qq", "--yes", "--download-only", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o"]);
    download.arg(format!("Dir::Cache::archives={}", downloads.display())).arg(package).stdout(Stdio::null());
    exec::exec(&mut download).with_context(|| remedy(package))?;
    unpack(&downloads, directory)
}

/// A busybox that needs no library: what the machines boot with.
pub fn busybox(directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join("busybox");
    let usual = ["bin/busybox", "usr/bin/busybox"].map(|place| unpacked.join(place));
    if !usual.iter().any(|program| program.is_file()) {
        fetch("busybox-static", &unpacked)?;
    }
    usual.into_iter().find(|program| program.is_file()).context("the package busybox-static holds no busybox")
}

fn unpack(downloads: &Path, directory: &Path) -> Result<()> {
    fresh(directory)?;
    for entry in fs::read_dir(downloads).with_context(|| format!("cannot read {}", downloads.display()))? {
        let package = entry.with_context(|| format!("cannot read {}", downloads.display()))?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            exec::exec(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(directory))?;
        }
    }
    fs::remove_dir_all(downloads).with_context(|| format!("cannot remove {}", downloads.display()))
}

/// Makes an empty directory.
fn fresh(directory: &Path) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory.to_owned())
}

fn remedy(package: &str) -> String {
    format!("{package} could not be downloaded. The package lists may be old: sudo apt-get update")
}
