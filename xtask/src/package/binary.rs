//! What the packaged binary has to be: small, and in need of no library of the system that it comes to.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

/// The most bytes that it may have: 10 MB.
const MOST_BYTES: u64 = 10_000_000;

/// Checks it, and returns its size in bytes.
pub fn check(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    check_static(&bytes).with_context(|| format!("{} is not what a package may hold", path.display()))?;
    let size = bytes.len() as u64;
    ensure!(size <= MOST_BYTES, "{} has {size} bytes, and {MOST_BYTES} are the most; look for new dependencies", path.display());
    Ok(size)
}

/// A program that needs libraries names the loader that finds them, and has debug information only if nobody took it away.
fn check_static(bytes: &[u8]) -> Result<()> {
    let file = object::File::parse(bytes).context("it is no ELF file")?;
    let has = |name: &str| file.section_by_name(name).is_some_and(|section| section.size() > 0);
    ensure!(!has(".interp"), "it is linked to shared libraries: build it for a musl target");
    ensure!(!has(".debug_info"), "it has debug information: the profile `dist` strips it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_libraries_and_debug_information_is_refused() {
        let this_test = fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check_static(&this_test).unwrap_err();
        assert!(error.to_string().contains("shared libraries"), "{error}");
        assert!(check_static(b"#!/bin/sh\n").is_err());
    }
}
