//! Running programs: a failure names the command, so that it can be repeated by hand.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs `command` to its end.
pub fn exec(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if status.success() { Ok(()) } else { bail!("failed ({status}): {}", shown(command)) }
}

/// Runs `command` to its end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("failed ({}): {}", output.status, shown(command));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Whether this process has the rights of root.
pub fn is_root() -> Result<bool> {
    let process = fs::metadata("/proc/self").context("cannot read /proc/self, which tells whose process this is")?;
    Ok(process.uid() == 0)
}

/// A command that runs `program` as root with `environment`: as it is when we are root, else by sudo or doas, which is said.
pub fn as_root(program: &Path, environment: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root()? {
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        return Ok(command);
    }
    let Some(elevate) = ["sudo", "doas"].into_iter().find_map(find_program) else {
        bail!("{} needs root, and there is neither sudo nor doas: run this command as root", program.display());
    };
    eprintln!("xtask: {} needs root: running it through {}", program.display(), elevate.display());
    Ok(elevated(&elevate, program, environment))
}

/// sudo and doas clear the environment, so `env` sets it again behind them.
fn elevated(elevate: &Path, program: &Path, environment: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(elevate);
    command.arg("env");
    for (name, value) in environment {
        let mut assignment = OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    command
}

/// Where a program is: on `PATH`, or where administrators' programs are, which the `PATH` of other users often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(administration).map(|directory| directory.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "two words", "it's", ""]);
        assert_eq!(shown(&command), r"apt-get install --yes 'two words' 'it'\''s' ''");
    }

    #[test]
    fn the_environment_reaches_a_program_behind_sudo() {
        let environment = [("WEIR_BIN", OsStr::new("/t/my weir")), ("RUST_LOG", OsStr::new("debug"))];
        let command = elevated(Path::new("/usr/bin/sudo"), Path::new("/t/kernel"), &environment);
        assert_eq!(shown(&command), "/usr/bin/sudo env 'WEIR_BIN=/t/my weir' RUST_LOG=debug /t/kernel");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = exec(Command::new("false").arg("with reason")).unwrap_err();
        assert!(error.to_string().ends_with("false 'with reason'"), "{error}");
        assert!(exec(&mut Command::new("/no/such/program")).unwrap_err().to_string().contains("cannot run /no/such/program"));
        assert!(exec(&mut Command::new("true")).is_ok());
    }
}
