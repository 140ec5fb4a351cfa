//! Which bpf-linker fits a compiler: it reads the compiler's bitcode, so it must be linked to the same major of LLVM.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::compiler::{Compiler, numbers};

/// The version that setup builds, and the oldest that is taken from `PATH`.
pub const VERSION: &str = "0.13.0";

/// The linker that setup built for this compiler, else one on `PATH` that fits it.
pub fn find(compiler: &Compiler, directory: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let ours = root(compiler, directory).join("bin");
    let mut found = std::iter::once(ours).chain(env::split_paths(&path)).map(|directory| directory.join("bpf-linker"));
    found.find(|linker| linker.is_file() && fits(linker, compiler))
}

/// Where setup installs the linker for this compiler. The name holds both versions: the linker loads that very compiler's LLVM.
pub fn root(compiler: &Compiler, directory: &Path) -> PathBuf {
    let version = &compiler.version;
    directory.join(format!("linker-{VERSION}-rustc-{}-llvm-{}", version.release, version.llvm))
}

/// The libLLVM that a program loads, or `None` if it loads none (or has it linked in, which cannot be told from outside).
pub fn loaded_llvm(program: &Path) -> Option<PathBuf> {
    let output = Command::new("ldd").arg(program).output().ok()?;
    llvm_in(&String::from_utf8_lossy(&output.stdout))
}

fn fits(linker: &Path, compiler: &Compiler) -> bool {
    let Ok(output) = Command::new(linker).arg("--version").output() else { return false };
    let llvm = loaded_llvm(linker).as_deref().and_then(llvm_major);
    output.status.success() && is_recent(&String::from_utf8_lossy(&output.stdout)) && llvm == Some(compiler.version.llvm_major)
}

/// Whether `bpf-linker --version` names [`VERSION`] or a later one.
fn is_recent(text: &str) -> bool {
    let version = text.trim().strip_prefix("bpf-linker ").and_then(numbers);
    version.is_some() && version >= numbers(VERSION)
}

/// The path of libLLVM in the output of ldd: `libLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007fae6b600000)`.
fn llvm_in(ldd: &str) -> Option<PathBuf> {
    ldd.lines().find_map(|line| {
        let (name, path) = line.trim().split_once(" => ")?;
        let path = path.split(" (").next()?;
        (name.starts_with("libLLVM") && path.starts_with('/')).then(|| PathBuf::from(path))
    })
}

/// The major in a name of libLLVM: Debian's `libLLVM.so.22.1`, rustup's `libLLVM.so.22.1-rust-1.95.0-stable`, `libLLVM-22.so`.
fn llvm_major(library: &Path) -> Option<u32> {
    let name = library.file_name()?.to_str()?.strip_prefix("libLLVM")?;
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_that_is_loaded_is_read_from_ldd() {
        let ldd =
            "\tlinux-vdso.so.1 (0x00007fbda3abc000)\n\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007fbd94e00000)\n";
        assert_eq!(llvm_in(ldd).as_deref(), Some(Path::new("/lib/x86_64-linux-gnu/libLLVM.so.22.1")));
        assert_eq!(llvm_in("\tlibLLVM.so.21.1 => not found\n"), None);
        assert_eq!(llvm_in("\tstatically linked\n"), None);
    }

    #[test]
    fn every_name_of_the_library_gives_its_major() {
        for name in ["libLLVM.so.22.1", "libLLVM.so.22.1-rust-1.95.0-stable", "libLLVM-22-rust-1.95.0-stable.so", "libLLVM-22.so.1"] {
            assert_eq!(llvm_major(&Path::new("/usr/lib").join(name)), Some(22), "{name}");
        }
        assert_eq!(llvm_major(Path::new("/usr/lib/libLLVM.so")), None);
    }

    #[test]
    fn an_old_linker_is_not_taken() {
        assert!(is_recent("bpf-linker 0.13.0\n"));
        assert!(is_recent("bpf-linker 1.0.0\n"));
        assert!(!is_recent("bpf-linker 0.9.15\n"));
        assert!(!is_recent("some-linker 0.13.0\n"));
    }
}
