//! `weir manual`: the man pages and the shells' completions, made from the definition of the command line. Packages run it; it is
//! hidden from the help.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    cli::Cli,
    exit::{Exit, Failure},
};

/// The shells that packages have a place for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `man/weir.1` with a page for each command, and `completions/` with a file for each shell.
pub fn run(directory: &Path) -> Result<Exit, Failure> {
    write(directory).map(|()| Exit::Success).map_err(|error| Failure {
        exit: Exit::Unexpected,
        error,
        remedy: Some("name a directory that can be written".to_owned()),
    })
}

fn write(directory: &Path) -> anyhow::Result<()> {
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&man, &completions] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    clap_mangen::generate_to(Cli::command(), &man).with_context(|| format!("cannot write the man pages to {}", man.display()))?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut Cli::command(), "weir", &completions)
            .with_context(|| format!("cannot write the completions of {shell} to {}", completions.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_and_every_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        run(directory.path()).unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut pages = 0;
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = read(&format!("man/weir-{}.1", command.get_name()));
            assert!(page.contains(".SH OPTIONS"), "{page}");
            assert!(read("man/weir.1").contains(&format!("weir\\-{}(1)", command.get_name())), "{} is not named", command.get_name());
            pages += 1;
        }
        assert!(pages >= 12, "{pages}");
        assert!(!directory.path().join("man/weir-manual.1").exists(), "it is hidden");
        for name in ["completions/weir.bash", "completions/_weir", "completions/weir.fish"] {
            let text = read(name);
            assert!(text.contains("undrain") && text.contains("detach-on-exit"), "{name}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let failure = run(Path::new("/proc/nothing")).unwrap_err();
        assert!(failure.render().contains("/proc/nothing/man"), "{}", failure.render());
    }
}
