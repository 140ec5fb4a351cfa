//! `weir`: the daemon and its command line.

use std::{
    io::{IsTerminal as _, stderr},
    process::ExitCode,
};

use clap::Parser as _;
use lb_user::{
    cli::{Cli, Command, DoctorArgs, GlobalArgs},
    command::{config, defence, doctor, drain, explain, manual, offline, reload, run, status, stop, top, trace},
    exit::{Exit, Failure, OrFail as _},
};
use tokio::runtime;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Top owns the terminal: a line of the log would tear its picture.
    if !matches!(cli.command, Command::Top(_)) {
        log(cli.global.verbose);
    }
    match execute(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(cli.global.json),
    }
}

fn execute(cli: &Cli) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(arguments) => run::run(global, arguments),
        Command::Stop => stop::run(global, || offline::stop(global)),
        Command::Status => status::run(global, || offline::snapshot(global)),
        Command::Top(arguments) => {
            let offline = global.clone();
            top::run(global, arguments, move || offline::snapshot(&offline))
        }
        Command::Drain(arguments) => drain::run(global, arguments, true),
        Command::Undrain(arguments) => drain::run(global, arguments, false),
        Command::Defence(arguments) => defence::run(global, arguments),
        Command::Reload => reload::run(global),
        Command::Doctor(arguments) => doctor(global, arguments),
        Command::Explain(arguments) => explain::run(global, arguments),
        Command::Trace(arguments) => trace::run(global, arguments),
        Command::Config(command) => config::run(global, command),
        Command::Manual { directory } => manual::run(directory),
    }
}

/// Doctor asks over netlink, and so inside a runtime.
fn doctor(global: &GlobalArgs, arguments: &DoctorArgs) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Unexpected, "see the cause")?;
    runtime.block_on(doctor::run(global, arguments)).map(|()| Exit::Success)
}

/// Logs to standard error: the daemon's story by default, more with -v, and exactly what RUST_LOG says where it is set.
fn log(verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(colour).with_target(false).init();
}
