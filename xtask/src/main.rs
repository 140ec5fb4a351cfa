//! The project's commands: `cargo xtask setup`, `build`, `run`, `demo`, `test`, `bench`, `flood`, `soak`, `fuzz`, `vm`, `package`, `audit`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod audit;
mod bench;
mod build;
mod cargo;
mod demo;
mod exec;
mod flood;
mod fuzz;
mod package;
mod run;
mod setup;
mod soak;
mod test;
mod toolchain;
mod vm;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Builds, runs and tests Weir. Every command first installs what it misses.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Options),
    Build(build::Options),
    Run(run::Options),
    Demo(demo::Options),
    Test(test::Options),
    Bench(bench::Options),
    Flood(flood::Options),
    Soak(soak::Options),
    Fuzz(fuzz::Options),
    Vm(vm::Options),
    Package(package::Options),
    Audit(audit::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by the `Result` of main: where RUST_BACKTRACE is set, it buries the message under a backtrace of xtask.
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup(options) => setup::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Flood(options) => flood::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Package(options) => package::run(&options),
        Command::Audit(options) => audit::run(&options),
    }
}
