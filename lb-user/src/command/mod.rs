//! The commands that talk to a daemon or need none, one a file. Each takes its arguments and returns the exit code, or the failure
//! with its remedy.

pub mod config;
pub mod defence;
pub mod doctor;
pub mod drain;
pub mod explain;
pub mod manual;
pub mod offline;
pub mod reload;
pub mod run;
pub mod status;
pub mod stop;
pub mod top;
pub mod trace;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use serde::Serialize;
use serde_json::json;

use crate::{
    api::{
        control::{self, ClientError},
        protocol::{Request, Response},
    },
    cli::GlobalArgs,
    exit::{Exit, Failure, OrFail as _, fail},
    observe::snapshot::{Service, Snapshot},
};

/// The instance's control socket.
#[must_use]
pub fn control_socket(global: &GlobalArgs) -> PathBuf {
    global.run_dir.join(format!("{}.sock", global.instance))
}

/// Asks the daemon; a refusal becomes the failure that it describes.
fn ask(global: &GlobalArgs, request: &Request) -> Result<Response, Failure> {
    control::ask(&control_socket(global), request).map_err(|error| unanswered(global, error)).and_then(accepted)
}

fn accepted(response: Response) -> Result<Response, Failure> {
    match response {
        Response::Refused { code, message, remedy } => {
            let exit = Exit::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Unexpected);
            Err(fail(exit, message, remedy))
        }
        other => Ok(other),
    }
}

/// The daemon's picture, or none if there is no daemon.
fn snapshot(global: &GlobalArgs) -> Result<Option<Snapshot>, Failure> {
    match ask(global, &Request::Status) {
        Ok(Response::Status(snapshot)) => Ok(Some(*snapshot)),
        Ok(_) => Err(another_answer()),
        Err(failure) if failure.exit == Exit::NotRunning => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The service of this name; if there is none, the remedy names those that there are.
fn find_service<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Service, Failure> {
    snapshot.service(name).ok_or_else(|| {
        let names: Vec<&str> = snapshot.services.iter().map(|service| service.name.as_str()).take(20).collect();
        let remedy = if names.is_empty() { "there are no services".to_owned() } else { format!("the services are {}", names.join(", ")) };
        fail(Exit::NotFound, format!("there is no service `{name}`"), remedy)
    })
}

/// An order to the daemon, and the sentence that it answers with.
fn order(global: &GlobalArgs, request: &Request) -> Result<String, Failure> {
    done(ask(global, request)?)
}

fn done(response: Response) -> Result<String, Failure> {
    match response {
        Response::Done { message } => Ok(message),
        Response::Status(_) | Response::Refused { .. } => Err(another_answer()),
    }
}

fn another_answer() -> Failure {
    fail(Exit::Unexpected, "the daemon answered another question than was asked", "use the weir of the daemon's version")
}

fn not_running(global: &GlobalArgs) -> Failure {
    let what = format!("no daemon of instance `{}` is running", global.instance);
    fail(Exit::NotRunning, what, "start one with `weir run`, or name another with --instance; `weir status` works without")
}

fn unanswered(global: &GlobalArgs, error: ClientError) -> Failure {
    let (exit, remedy) = match &error {
        ClientError::NotRunning(_) => return not_running(global),
        ClientError::Denied(_) => (Exit::Permission, "run the command as root"),
        ClientError::Broken { .. } => (Exit::Unexpected, "look at the daemon's log, and try again"),
        ClientError::Unknown { .. } => (Exit::Unexpected, "use the weir of the daemon's version"),
    };
    Failure { exit, error: error.into(), remedy: Some(remedy.to_owned()) }
}

/// Prints what was done.
fn print_message(global: &GlobalArgs, message: &str) -> Result<Exit, Failure> {
    if global.json { print_json(&json!({ "message": message })) } else { print(&format!("{message}\n")) }
}

fn print_json(value: &impl Serialize) -> Result<Exit, Failure> {
    let text = serde_json::to_string(value).or_fail(Exit::Unexpected, "please report this")?;
    print(&(text + "\n"))
}

/// A reader that has seen enough, as in `weir status | head`, is no failure.
fn print(text: &str) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).or_fail(Exit::Unexpected, "look at where standard output goes")
        }
        _ => Ok(Exit::Success),
    }
}

#[cfg(test)]
mod tests;
