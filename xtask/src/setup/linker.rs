//! Building bpf-linker against the very libLLVM that the compiler loads.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    exec,
    toolchain::{
        Compiler,
        linker::{VERSION, loaded_llvm, root},
    },
};

/// Builds bpf-linker for `compiler` and installs it in `directory`.
pub fn build(compiler: &Compiler, directory: &Path) -> Result<()> {
    let root = root(compiler, directory);
    prepare_libraries(compiler, &root)?;

    let llvm = &compiler.version.llvm;
    eprintln!("xtask: building bpf-linker {VERSION} for LLVM {llvm} into {} (about a minute)", root.display());
    // Below our own directory: the default is /tmp, which may be too small for it.
    let target_directory = directory.join("linker-build");
    let mut cargo = Command::new(compiler.cargo());
    cargo.args(["install", "bpf-linker", "--quiet", "--version", VERSION, "--locked", "--force", "--no-default-features", "--features"]);
    cargo.arg(format!("llvm-{}", compiler.version.llvm_major));
    cargo.arg("--root").arg(&root).arg("--target-dir").arg(&target_directory);
    cargo.current_dir(directory).env("RUSTC", compiler.rustc()).env("LLVM_PREFIX", &root);
    for name in ["CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    exec::exec(&mut cargo).context(
        "bpf-linker could not be built. It needs crates.io (or a filled cargo cache), a C linker and libstdc++ \
         (Debian: apt-get install build-essential). Put a bpf-linker of the same LLVM on PATH to do without",
    )?;
    fs::remove_dir_all(&target_directory).with_context(|| format!("cannot remove {}", target_directory.display()))
}

/// Makes `root/lib`, where bpf-linker's build finds libLLVM.so, and where the linker itself finds the library when it runs:
/// its build sets that directory as the run path.
fn prepare_libraries(compiler: &Compiler, root: &Path) -> Result<()> {
    let rustc = compiler.rustc();
    let llvm = loaded_llvm(&rustc).with_context(|| {
        format!(
            "{} loads no libLLVM, so bpf-linker cannot share it: use a compiler with a shared LLVM (rustup's, Debian's)",
            rustc.display()
        )
    })?;
    ensure!(llvm.is_file(), "{} names {}, which is not there", rustc.display(), llvm.display());
    let lib = root.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
    let names = [Some("libLLVM.so".as_ref()), llvm.file_name()];
    for link in names.into_iter().flatten().map(|name| lib.join(name)) {
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
        }
        symlink(&llvm, &link).with_context(|| format!("cannot link {} to {}", link.display(), llvm.display()))?;
    }
    Ok(())
}
