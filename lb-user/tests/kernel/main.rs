//! The tests that need root: packets through the real programs, and real servers in network namespaces.
//!
//! `cargo test -p lb-user --features kernel-tests --test kernel [FILTER]` runs them. Nothing is skipped: a machine that lacks root or a
//! tool fails at once, with the one command that installs what is missing. Namespaces and processes of a test end with it.
//!
//! The same binary plays the helper processes of the tests: `kernel --role NAME ARGUMENT` (see [`support::roles`]).

mod dataplane;
mod netns;
mod network;
#[expect(dead_code, reason = "a library for tests that are being written: each uses its part")]
mod support;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("--role") {
        return support::roles::play(words);
    }

    let mut arguments = Arguments::from_args();
    // Tests share two cores, the process table and bpffs: side by side they would only disturb each other's timing.
    arguments.test_threads.get_or_insert(1);
    if !arguments.list
        && let Err(problem) = support::prerequisites::check()
    {
        eprintln!("{problem}");
        return ExitCode::FAILURE;
    }

    support::netns::sweep();

    let trials = [support::tests(), dataplane::tests(), network::tests(), netns::tests()].into_iter().flatten().collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
