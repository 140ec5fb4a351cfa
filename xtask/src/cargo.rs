//! Running cargo on this workspace, and asking it where it put what it built.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::exec;

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    // Cargo sets it when it runs xtask; a checkout may have been moved since xtask was compiled.
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_owned)
}

/// The cargo that runs xtask, in the workspace, with exactly the versions of Cargo.lock.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args([subcommand, "--locked"]);
    // What cargo tells xtask of xtask: build scripts that read it (ring's) would run again, and all that stands on them, whenever a build
    // of xtask follows one of the user.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// What a build made.
#[derive(Default)]
pub struct Artifacts {
    executables: Vec<(String, PathBuf)>,
    /// Package id and `OUT_DIR` of each build script.
    out_directories: Vec<(String, PathBuf)>,
}

impl Artifacts {
    /// Runs a build of cargo; its errors, warnings and progress go to the terminal.
    pub fn build(command: &mut Command) -> Result<Self> {
        let messages = exec::output(command.arg("--message-format=json-render-diagnostics"))?;
        Self::parse(&messages)
    }

    fn parse(messages: &str) -> Result<Self> {
        let mut artifacts = Self::default();
        for line in messages.lines().filter(|line| line.starts_with('{')) {
            let message: Value = serde_json::from_str(line).context("cargo wrote something that is no JSON")?;
            let text = |value: &Value| value.as_str().map(str::to_owned);
            match message["reason"].as_str() {
                Some("compiler-artifact") => {
                    let executable = text(&message["target"]["name"]).zip(text(&message["executable"]).map(PathBuf::from));
                    artifacts.executables.extend(executable);
                }
                Some("build-script-executed") => {
                    let directory = text(&message["package_id"]).zip(text(&message["out_dir"]).map(PathBuf::from));
                    artifacts.out_directories.extend(directory);
                }
                _ => {}
            }
        }
        Ok(artifacts)
    }

    /// The executable of the target `name`.
    pub fn executable(&self, name: &str) -> Result<&Path> {
        let found = self.executables.iter().find(|(target, _)| target == name);
        found.map(|(_, path)| path.as_path()).with_context(|| format!("cargo built no executable named {name}"))
    }

    /// The kernel's object that the build embedded, checked not to be the empty one of a build without a toolchain.
    pub fn object(&self) -> Result<PathBuf> {
        let found = self.out_directories.iter().find(|(package, _)| package.contains("/lb-user#"));
        let object = found.map(|(_, directory)| directory.join("weir.o")).context("cargo ran no build script of lb-user")?;
        if object.metadata().with_context(|| format!("cannot read {}", object.display()))?.len() == 0 {
            bail!("{} is empty: the build script of lb-user found no toolchain", object.display());
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lb-user","kind":["lib"]},"executable":null}
{"reason":"build-script-executed","package_id":"path+file:///src/lb-user#0.1.0","out_dir":"/t/build/lb-user-1/out"}
{"reason":"compiler-artifact","target":{"name":"weir","kind":["bin"]},"executable":"/t/release/weir"}
{"reason":"build-finished","success":true}
"#;
        let artifacts = Artifacts::parse(messages).unwrap();
        assert_eq!(artifacts.executable("weir").unwrap(), Path::new("/t/release/weir"));
        assert!(artifacts.executable("lb-user").is_err());
        assert_eq!(artifacts.out_directories[0].1, Path::new("/t/build/lb-user-1/out"));
        assert!(artifacts.object().is_err(), "there is no such object");
    }
}
