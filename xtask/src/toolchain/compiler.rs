//! Which compilers this machine has, and which of them can build `core` for `bpfel-unknown-none`.

use std::{
    cmp::Reverse,
    env,
    ffi::OsString,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

/// The LLVM majors that bpf-linker 0.13 can be built for (its cargo features `llvm-21` to `llvm-23`).
pub const SUPPORTED_LLVM: RangeInclusive<u32> = 21..=23;

/// A compiler that can build the object: its sysroot holds cargo, rustc and the sources of `core`, all of one version.
pub struct Compiler {
    pub sysroot: PathBuf,
    pub version: Version,
}

impl Compiler {
    /// The first of [`candidates`] that can build the object.
    pub fn find() -> Option<Self> {
        candidates().iter().find_map(|sysroot| Self::at(sysroot))
    }

    /// The compiler in `sysroot`, if it can build the object.
    pub fn at(sysroot: &Path) -> Option<Self> {
        let compiler = Self { sysroot: sysroot.to_owned(), version: Version::default() };
        let has_core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file();
        if !has_core || !compiler.cargo().is_file() {
            return None;
        }
        let output = Command::new(compiler.rustc()).arg("-vV").output().ok().filter(|output| output.status.success())?;
        let version = Version::parse(&String::from_utf8_lossy(&output.stdout))?;
        version.is_supported().then_some(Self { version, ..compiler })
    }

    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The cargo of the same release: `-Z build-std` fits only the sources it was released with.
    pub fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }
}

/// The sysroots to look at, best first: rustup's toolchain in use, its stable, its nightly, and then what the system installed.
///
/// No program is run for this list: rustup's proxies are slow, and may try to download.
pub fn candidates() -> Vec<PathBuf> {
    let mut sysroots = Vec::new();
    if let Some(rustup) = rustup_home() {
        let toolchains = rustup.join("toolchains");
        let installed = names(&toolchains);
        sysroots.extend(env::var_os("RUSTUP_TOOLCHAIN").map(|name| toolchains.join(name)));
        for channel in ["stable-", "nightly-"] {
            sysroots.extend(installed.iter().filter(|name| name.starts_with(channel)).map(|name| toolchains.join(name)));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let compilers = env::split_paths(&path).map(|directory| directory.join("rustc")).filter(|rustc| rustc.is_file());
    sysroots.extend(compilers.filter_map(|rustc| Some(rustc.parent()?.parent()?.to_owned())));
    sysroots.push(PathBuf::from("/usr"));
    sysroots.extend(versioned(names(Path::new("/usr/lib"))).iter().map(|name| Path::new("/usr/lib").join(name)));

    let mut seen = Vec::new();
    sysroots.retain(|sysroot| {
        let new = !seen.contains(sysroot);
        seen.push(sysroot.clone());
        new
    });
    sysroots
}

fn rustup_home() -> Option<PathBuf> {
    let given = env::var_os("RUSTUP_HOME").filter(|home: &OsString| !home.is_empty()).map(PathBuf::from);
    given.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Ubuntu installs `rustc-1.91` and `rust-1.91-src` below `/usr/lib/rust-1.91`: those directories, newest first.
fn versioned(names: Vec<String>) -> Vec<String> {
    let mut found: Vec<_> =
        names.into_iter().filter_map(|name| numbers(name.strip_prefix("rust-")?).map(|version| (version, name))).collect();
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, name)| name).collect()
}

/// What `rustc -vV` says.
#[derive(Default)]
pub struct Version {
    /// The whole text: the record of a toolchain holds while it stays the same.
    pub text: String,
    /// As in `1.96.0` or `1.97.0-nightly`.
    pub release: String,
    /// As in `22.1.8`.
    pub llvm: String,
    pub llvm_major: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let llvm = field("LLVM version:")?;
        let llvm_major = llvm.split('.').next()?.parse().ok()?;
        Some(Self { text: text.to_owned(), release: field("release:")?, llvm, llvm_major })
    }

    fn is_supported(&self) -> bool {
        let oldest = numbers(env!("CARGO_PKG_RUST_VERSION"));
        numbers(&self.release) >= oldest && SUPPORTED_LLVM.contains(&self.llvm_major)
    }
}

/// Major and minor number of `1.96`, `1.96.0` or `1.97.0-nightly`.
pub fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                          release: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_version_is_read_from_what_rustc_says() {
        let version = Version::parse(DEBIAN).unwrap();
        assert_eq!((version.release.as_str(), version.llvm.as_str(), version.llvm_major), ("1.96.0", "22.1.8", 22));
        assert!(version.is_supported());
        assert!(Version::parse("rustc 1.96.0\nrelease: 1.96.0\n").is_none(), "no LLVM named, as of a compiler with another backend");
    }

    #[test]
    fn a_compiler_too_old_or_with_an_unknown_llvm_is_not_taken() {
        for (release, llvm) in [("1.87.0", "21.1.0"), ("1.88.0", "20.1.5"), ("1.99.0", "24.0.0")] {
            let text = DEBIAN.replace("1.96.0", release).replace("22.1.8", llvm);
            assert!(!Version::parse(&text).unwrap().is_supported(), "{release} with LLVM {llvm}");
        }
        let nightly = DEBIAN.replace("1.96.0", "1.97.0-nightly");
        assert!(Version::parse(&nightly).unwrap().is_supported());
    }

    #[test]
    fn versioned_toolchains_come_newest_first() {
        let names = ["rust-1.89", "rust-gdb", "python3", "rust-1.100", "rust-1.91"].map(str::to_owned).to_vec();
        assert_eq!(versioned(names), ["rust-1.100", "rust-1.91", "rust-1.89"]);
    }

    #[test]
    fn a_directory_that_is_no_toolchain_is_not_taken() {
        assert!(Compiler::at(Path::new(env!("CARGO_MANIFEST_DIR"))).is_none());
    }
}
