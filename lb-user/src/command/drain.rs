//! `weir drain` and `weir undrain`.

use super::{find_service, not_running, order, print_message, snapshot};
use crate::{
    api::protocol::Request,
    cli::{BackendArgs, GlobalArgs},
    exit::{Exit, Failure, fail},
    observe::snapshot::Service,
};

/// Drains the backend, or gives it its share again.
///
/// The backend is named by its number in the service or, if no backend has that number, by the pid of the worker that serves it;
/// `pid:N` is always a pid.
pub fn run(global: &GlobalArgs, arguments: &BackendArgs, drain: bool) -> Result<Exit, Failure> {
    let message = carry_out(global, arguments, drain)?;
    print_message(global, &message)
}

pub(super) fn carry_out(global: &GlobalArgs, arguments: &BackendArgs, drain: bool) -> Result<String, Failure> {
    let snapshot = snapshot(global)?.ok_or_else(|| not_running(global))?;
    let service = find_service(&snapshot, &arguments.service)?;
    let backend = find_backend(service, &arguments.backend)?;
    order(global, &Request::Drain { service: service.name.clone(), backend, drain })
}

/// The number of the backend that `text` names.
pub(super) fn find_backend(service: &Service, text: &str) -> Result<u32, Failure> {
    let backends = &service.backends;
    let (digits, pid_only) = text.strip_prefix("pid:").map_or((text, false), |digits| (digits, true));
    let Ok(number) = digits.parse::<u32>() else {
        let remedy = "give its number, as `weir status` shows it, or `pid:` and its worker's process ID";
        return Err(fail(Exit::Usage, format!("`{text}` is no backend"), remedy));
    };
    if !pid_only && backends.iter().any(|backend| backend.index == number) {
        return Ok(number);
    }
    let served: Vec<u32> =
        backends.iter().filter(|backend| backend.servers.iter().any(|server| server.pid == number)).map(|backend| backend.index).collect();
    match served[..] {
        [index] => Ok(index),
        [] => {
            let what = if pid_only { format!("process {number} serves no backend") } else { format!("there is no backend {number}") };
            let remedy = format!("`weir status` shows the backends of `{}`; it has {}", service.name, backends.len());
            Err(fail(Exit::NotFound, format!("{what} of service `{}`", service.name), remedy))
        }
        [..] => {
            let numbers = served.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let what = format!("process {number} serves several backends of `{}`: {numbers}", service.name);
            Err(fail(Exit::Usage, what, "name each by its number"))
        }
    }
}
