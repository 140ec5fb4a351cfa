//! `vm`: Weir on the kernels that Debian ships, in virtual machines: does it load, do the packet tests pass, does it hold back a flood.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use self::{kernel::Kernel, machine::Qemu, report::Row};
use crate::{
    build,
    cargo::{Artifacts, cargo, workspace},
    setup,
};

mod kernel;
mod machine;
mod packages;
mod report;
mod scenarios;
mod upgrade;

pub use upgrade::try_package;

/// Boot Debian's kernels in QEMU, and on each: load and pin every program, run the packet tests, and serve clients in a SYN flood.
#[derive(clap::Args)]
pub struct Options {
    /// The kernels, by their series; `all` are those of the support matrix.
    #[arg(long, value_enum, default_value_t = Series::All)]
    kernel: Series,
    /// Whether the processor is real or emulated: `auto` uses KVM where the machine has it.
    #[arg(long, value_enum, default_value_t = Kvm::Auto)]
    kvm: Kvm,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Series {
    /// Linux 6.1, the oldest that Weir supports.
    #[value(name = "6.1")]
    Oldest,
    /// Linux 6.12.
    #[value(name = "6.12")]
    Later,
    All,
}

impl Series {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Oldest => &["6.1"],
            Self::Later => &["6.12"],
            Self::All => &["6.1", "6.12"],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kvm {
    Auto,
    On,
    Off,
}

pub fn run(options: &Options) -> Result<()> {
    setup::toolchain()?;
    // The machines run the programs of this one: its root file system is theirs, read-only.
    setup::test_tools()?;
    let directory = directory();
    let shared = directory.join("shared");
    fs::create_dir_all(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
    share_programs(&shared)?;
    scenarios::write_scripts(&shared)?;
    let busybox = packages::busybox(&directory)?;
    let qemu = Qemu::find(&directory, options.kvm)?;

    let kernels = options.kernel.names().iter().map(|series| Kernel::fetch(&directory, series, &busybox)).collect::<Result<Vec<_>>>()?;
    let rows = scenarios::all(&qemu, &kernels, &shared, &directory);
    println!("\n{}", report::table(&rows, qemu.is_emulated()));
    if rows.iter().any(Row::has_failed) {
        bail!("not every scenario passed; what the machines wrote is in {}", directory.join("log").display());
    }
    Ok(())
}

/// Where everything about the machines is kept.
fn directory() -> PathBuf {
    workspace().join("target/vm")
}

/// Builds the daemon and the kernel tests, and puts them where the machines look for them.
fn share_programs(shared: &std::path::Path) -> Result<()> {
    let daemon = build::weir(&["--release"])?;
    // As in `cargo xtask test`, so that neither builds again what the other has built.
    let mut build = cargo("test");
    let tests = Artifacts::build(build.args(["--workspace", "--features=lb-user/kernel-tests", "--test=kernel", "--no-run"]))?;
    for name in ["weir", "kernel"] {
        let program = if name == "weir" { daemon.executable(name) } else { tests.executable(name) }?;
        fs::copy(program, shared.join(name)).with_context(|| format!("cannot copy {} to {}", program.display(), shared.display()))?;
    }
    Ok(())
}
