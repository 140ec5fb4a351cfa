//! A kernel of Debian's, and the initramfs that it boots with.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::packages;
use crate::exec;

/// What of the package's modules goes into the initramfs: the machine's devices, its root file system, and all about networks, which the
/// kernel asks for by itself when somebody uses it.
const MODULES: [&str; 16] = [
    "arch",
    "crypto",
    "drivers/net/dummy.ko",
    "drivers/net/ifb.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/tun.ko",
    "drivers/net/veth.ko",
    "drivers/net/virtio_net.ko",
    "drivers/net/vxlan",
    "drivers/virtio",
    "fs/9p",
    "fs/fscache",
    "fs/netfs",
    "fs/overlayfs",
    "lib",
    "net",
];

/// The first program of the machine.
const INIT: &str = include_str!("guest/init.sh");

pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// What QEMU boots.
    pub image: PathBuf,
    pub initramfs: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series (such as `6.1`) that the package lists have.
    pub fn fetch(directory: &Path, series: &str, busybox: &Path) -> Result<Self> {
        let package = newest(packages::search(&pattern(series))?).with_context(|| {
            format!("the package lists have no kernel of {series}: Debian 12 with its security updates has all that this needs (/etc/apt/sources.list), after apt-get update")
        })?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        let root = directory.join("kernels").join(&release);
        let image = root.join("vmlinuz");
        if !image.is_file() {
            unpack(&package, &release, &root, busybox)?;
        }
        let initramfs = root.join("initramfs.cpio");
        pack(&root.join("root"), &initramfs, busybox)?;
        Ok(Self { release, image, initramfs })
    }
}

/// The packages of a series, without those for clouds and real time.
fn pattern(series: &str) -> String {
    format!(r"^linux-image-{}\.[0-9][0-9a-z+~]*(-[0-9]+)?-amd64$", series.replace('.', r"\."))
}

/// The one with the highest numbers in its name.
fn newest(packages: Vec<String>) -> Option<String> {
    let numbers =
        |name: &String| -> Vec<u32> { name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect() };
    packages.into_iter().max_by_key(numbers)
}

/// Fetches the package and makes `root`: the image, and below `root/root` all that the initramfs holds.
fn unpack(package: &str, release: &str, root: &Path, busybox: &Path) -> Result<()> {
    let unpacked = root.join("package");
    packages::fetch(package, &unpacked)?;
    let files = root.join("root");
    let from = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")].map(|place| unpacked.join(place));
    let from = from.into_iter().find(|place| place.is_dir()).with_context(|| format!("the package {package} holds no modules"))?;
    let modules = files.join("lib/modules").join(release);
    fs::create_dir_all(modules.join("kernel")).with_context(|| format!("cannot make {}", modules.display()))?;
    for name in MODULES {
        copy_module(&from.join("kernel").join(name), &modules.join("kernel").join(name))?;
    }
    for list in ["modules.builtin", "modules.order", "modules.builtin.modinfo"] {
        fs::copy(from.join(list), modules.join(list)).with_context(|| format!("the package {package} holds no {list}"))?;
    }
    // Later kernels have theirs compressed, which busybox does not read.
    exec::exec(Command::new("find").arg(&modules).args(["-name", "*.xz", "-exec", "xz", "--decompress", "{}", "+"]))?;
    exec::exec(Command::new(busybox).args(["depmod", "-b"]).arg(&files).arg(release).stderr(Stdio::null()))?;
    // The last step, because it is the image that tells whether this has been done.
    let image = unpacked.join(format!("boot/vmlinuz-{release}"));
    fs::copy(&image, root.join("vmlinuz")).with_context(|| format!("the package {package} holds no {}", image.display()))?;
    fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
}

/// Copies a directory, or a module, compressed or not. A kernel that has it built in has none.
fn copy_module(from: &Path, to: &Path) -> Result<()> {
    for suffix in ["", ".xz"] {
        let [source, target] = [from, to].map(|path| PathBuf::from(format!("{}{suffix}", path.display())));
        if source.exists() {
            let parent = target.parent().context("a module has a directory")?;
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            exec::exec(Command::new("cp").arg("--recursive").arg(&source).arg(&target))?;
        }
    }
    Ok(())
}

/// Packs the files into an initramfs, with today's first program.
fn pack(files: &Path, archive: &Path, busybox: &Path) -> Result<()> {
    for directory in ["bin", "dev", "host", "proc", "ro", "rw", "sbin", "sys"] {
        let directory = files.join(directory);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let program = files.join("bin/busybox");
    fs::copy(busybox, &program).with_context(|| format!("cannot copy {}", busybox.display()))?;
    for (link, target) in [("bin/sh", "busybox"), ("sbin/modprobe", "../bin/busybox")] {
        let link = files.join(link);
        if !link.is_symlink() {
            symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    let init = files.join("init");
    fs::write(&init, INIT).with_context(|| format!("cannot write {}", init.display()))?;
    exec::exec(Command::new("chmod").arg("755").arg(&init))?;
    let mut find = Command::new("find").arg(".").current_dir(files).stdout(Stdio::piped()).spawn().context("cannot run find")?;
    let names = find.stdout.take().context("find has no output")?;
    let archive_file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut cpio = Command::new(busybox);
    cpio.current_dir(files).args(["cpio", "-o", "-H", "newc"]).stdin(names).stdout(archive_file).stderr(Stdio::null());
    exec::exec(&mut cpio)?;
    ensure!(find.wait().context("cannot wait for find")?.success(), "find failed in {}", files.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_that_with_the_highest_numbers() {
        let names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-57-amd64", "linux-image-6.1.0-50-amd64"];
        assert_eq!(newest(names.map(str::to_owned).to_vec()).unwrap(), "linux-image-6.1.0-57-amd64");
        let names = ["linux-image-6.12.117+deb12-amd64", "linux-image-6.12.48+deb12-amd64"];
        assert_eq!(newest(names.map(str::to_owned).to_vec()).unwrap(), "linux-image-6.12.117+deb12-amd64");
        assert_eq!(newest(Vec::new()), None);
    }

    #[test]
    fn a_series_is_a_pattern_with_its_dot() {
        assert_eq!(pattern("6.1"), r"^linux-image-6\.1\.[0-9][0-9a-z+~]*(-[0-9]+)?-amd64$");
    }
}
