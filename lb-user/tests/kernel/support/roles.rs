//! What this same binary plays as a process of its own, `kernel --role NAME ARGUMENT`: the helpers of the tests, and the demonstration.

use std::process::ExitCode;

use super::{
    confined_role, demo_role, flood, screen_role,
    servers::{source_role, worker_role},
};

/// Plays the role named by the first word until it is told to end.
pub fn play(mut words: impl Iterator<Item = String>) -> ExitCode {
    match (words.next().as_deref(), words.next()) {
        (Some(worker_role::NAME), Some(plan)) => worker_role::play(&plan),
        (Some(source_role::NAME), Some(plan)) => source_role::play(&plan),
        (Some(flood::role::NAME), Some(order)) => flood::role::play(&order),
        (Some(confined_role::NAME), Some(_)) => confined_role::play(),
        (Some(demo_role::NAME), Some(order)) => demo_role::play(&order),
        (Some(screen_role::NAME), Some(thread)) => screen_role::play(&thread),
        (role, _) => {
            eprintln!("no such role, or its argument is missing: {role:?}");
            ExitCode::FAILURE
        }
    }
}
