//! Puts the kernel's object into `OUT_DIR/weir.o`, where the daemon embeds it.
//!
//! The object is built from the package lb-ebpf by the toolchain that `cargo xtask setup` found or made. This script installs
//! nothing. Without a toolchain a debug build, `cargo clippy` and rust-analyzer go on with an empty object and a warning, and the
//! daemon says at its start what it lacks; a release build fails, so that nobody ships a daemon that cannot work.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

#[path = "../xtask/src/toolchain/mod.rs"]
mod toolchain;

use toolchain::Toolchain;

/// Kernels since 5.1 know this instruction set (32-bit arithmetic and jumps, and with them atomics that return a value).
const TARGET_CPU: &str = "v3";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Not by the `Result` of main: where RUST_BACKTRACE is set, it buries the message under a backtrace of this script.
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("lb-user is not in a workspace")?;
    let out_directory = PathBuf::from(variable("OUT_DIR")?);
    let object = out_directory.join("weir.o");
    let directory = toolchain::directory(workspace);
    let toolchain = Toolchain::find(&directory)?;

    for path in ["Cargo.toml", "Cargo.lock", "lb-common/Cargo.toml", "lb-common/src", "lb-ebpf/Cargo.toml", "lb-ebpf/src"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    // While there is no record, cargo runs this script each time, and so notices a toolchain as soon as there is one.
    println!("cargo::rerun-if-changed={}", toolchain::record(&directory).display());

    if let Some(toolchain) = toolchain {
        let built = build(&toolchain, workspace, &directory.join("object"), &out_directory.join("object"))?;
        // Copied, because cargo made a hard link: the next build would change it in place.
        fs::copy(&built, &object).with_context(|| format!("cannot copy {} to {}", built.display(), object.display()))?;
    } else if variable("PROFILE")? == "release" {
        // Cargo shows this line alone, and fails.
        println!("cargo::error=no toolchain for the kernel's object on this machine yet: `cargo xtask build` installs one and builds weir");
    } else {
        println!(
            "cargo::warning=no toolchain for the kernel's object: this build of weir cannot run; `cargo xtask build` makes one that can"
        );
        fs::write(&object, []).with_context(|| format!("cannot write {}", object.display()))?;
    }
    Ok(())
}

/// Builds lb-ebpf with a cargo of its own, which leaves the object in `artifact_directory`, and returns the object's path.
///
/// Debug builds, release builds and both ABI versions share `target_directory`, where cargo gives all their objects the same path:
/// so cargo must put the object where it belongs while it still holds the lock of that directory.
fn build(toolchain: &Toolchain, workspace: &Path, target_directory: &Path, artifact_directory: &Path) -> Result<PathBuf> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        // Which host's registers and types the programs meet: aya-ebpf asks for it.
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        format!("-Ctarget-cpu={TARGET_CPU}"),
        // The kernel's type information (BTF) is made from the debug information of every crate, so cargo's profile is not enough.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];

    let Toolchain { compiler, linker } = toolchain;
    let mut cargo = Command::new(compiler.cargo());
    cargo.current_dir(workspace).args(["build", "--quiet", "--locked", "--color=never", "--package=lb-ebpf", "--profile=bpf"]);
    cargo.args(["--target=bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"]).arg(target_directory);
    cargo.args(["-Zunstable-options", "--artifact-dir"]).arg(artifact_directory);
    if env::var_os("CARGO_FEATURE_NEXT_ABI").is_some() {
        cargo.arg("--features=next-abi");
    }
    // This script runs inside another cargo, of another toolchain, perhaps under clippy: none of its settings are meant for this build.
    for name in ["CARGO", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTC", compiler.rustc()).env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);

    let output = cargo.output().with_context(|| format!("cannot run {}", compiler.cargo().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("the kernel's object could not be built ({}):\n{said}\nby: {cargo:?}", output.status);
    }
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    Ok(artifact_directory.join("weir-ebpf"))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
