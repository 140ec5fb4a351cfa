//! What turns `lb-ebpf` into the kernel's object: a compiler with the sources of `core`, and a bpf-linker that speaks its LLVM.
//!
//! Two programs are built from this module, so that they cannot differ: xtask, which installs what is missing, and the build script
//! of lb-user, which takes what is there and installs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

pub mod compiler;
pub mod linker;

pub use self::compiler::Compiler;

/// A compiler and a linker that fit each other.
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

impl Toolchain {
    /// The toolchain recorded in `directory` while it still holds, else one found on this machine, which is then recorded.
    ///
    /// Nothing is installed: `None` means that `cargo xtask setup` has work to do.
    pub fn find(directory: &Path) -> Result<Option<Self>> {
        if let Some(recorded) = Self::recorded(directory) {
            return Ok(Some(recorded));
        }
        let Some(compiler) = Compiler::find() else { return Ok(None) };
        let Some(linker) = linker::find(&compiler, directory) else { return Ok(None) };
        let toolchain = Self { compiler, linker };
        toolchain.save(directory)?;
        Ok(Some(toolchain))
    }

    /// The record holds while the compiler gives the version it gave then and the linker is still there.
    fn recorded(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(record(directory)).ok()?;
        let (paths, version) = text.split_once("\n\n")?;
        let (sysroot, linker) = paths.split_once('\n')?;
        let compiler = Compiler::at(Path::new(sysroot))?;
        let linker = PathBuf::from(linker);
        (compiler.version.text == version && linker.is_file()).then_some(Self { compiler, linker })
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let Self { compiler, linker } = self;
        let text = format!("{}\n{}\n\n{}", compiler.sysroot.display(), linker.display(), compiler.version.text);
        let path = record(directory);
        fs::create_dir_all(directory).and_then(|()| fs::write(&path, text)).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Everything about the object lives here: the record, the linkers, and what cargo makes on the way to the object.
///
/// Not below `CARGO_TARGET_DIR` or `--target-dir`: every build of a checkout shares one linker.
pub fn directory(workspace: &Path) -> PathBuf {
    workspace.join("target/bpf")
}

/// The file that holds the sysroot and the linker, a line each, and behind an empty line what `rustc -vV` said.
pub fn record(directory: &Path) -> PathBuf {
    directory.join("toolchain")
}
