//! The Debian package in a machine that systemd has booted: installed, upgraded under load and purged.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Kvm, directory,
    kernel::Kernel,
    machine::{Machine, Qemu, Wire},
    packages,
};

const SCRIPTS: [(&str, &str); 3] = [
    ("common.sh", include_str!("guest/common.sh")),
    ("package.sh", include_str!("guest/package.sh")),
    ("package.service", include_str!("guest/package.service")),
];

/// The kernel it is tried on: what Debian stable has.
const SERIES: &str = "6.12";
/// systemd on an emulated processor takes a minute or two.
const BOOT: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_secs(120);

/// Installs `old`, starts the service, upgrades to `new` while clients connect and purges it while they do: what came of it, in words.
pub fn try_package(old: &Path, new: &Path) -> Result<String> {
    let directory = directory();
    let shared = directory.join("package");
    fs::create_dir_all(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
    for (name, text) in SCRIPTS {
        fs::write(shared.join(name), text).with_context(|| format!("cannot write {name} to {}", shared.display()))?;
    }
    for (name, package) in [("old.deb", old), ("new.deb", new)] {
        fs::copy(package, shared.join(name)).with_context(|| format!("cannot copy {} to {}", package.display(), shared.display()))?;
    }
    let busybox = packages::busybox(&directory)?;
    let qemu = Qemu::find(&directory, Kvm::Auto)?;
    let kernel = Kernel::fetch(&directory, SERIES, &busybox)?;
    let log = directory.join("log/package.log");
    fs::create_dir_all(directory.join("log")).with_context(|| format!("cannot make a directory for {}", log.display()))?;

    eprintln!("xtask: Linux {}: the package in a machine with systemd", kernel.release);
    let machine = qemu.boot(&kernel, "package", &shared, &Wire::Nothing, 2, &log)?;
    let installed = machine.wait_for("installed", BOOT)?;
    machine.wait_for("started", STEP)?;
    let upgraded = all_served(&machine, "upgraded")?;
    let placed = machine.wait_for("placed", STEP)?;
    let (before, after) = placed.split_once(' ').context("the selections were not counted")?;
    let count = |text: &str| text.trim().parse::<u64>().with_context(|| format!("{text:?} is no number of selections"));
    ensure!(count(after)? > count(before)?, "Weir placed no connection during the upgrade ({placed})");
    let version = machine.wait_for("version", STEP)?;
    ensure!(version.ends_with(" active") && !version.starts_with(&format!("{installed},")), "after the upgrade: {version}");
    let removed = all_served(&machine, "removed")?;
    let left = machine.wait_for("left", STEP)?;
    ensure!(left == "nothing", "purging left {left} (console: {})", log.display());
    Ok(format!("{installed} upgraded to {version}: {upgraded} connections served; purged: {removed} served, nothing left"))
}

/// What the machine counted in a step: every connection was served.
fn all_served(machine: &Machine, step: &str) -> Result<String> {
    let counted = machine.wait_for(step, STEP)?;
    let (good, all) = counted.split_once(" of ").context("the connections were not counted")?;
    ensure!(good == all && all != "0", "{counted} connections were served ({step})");
    Ok(counted)
}
