//! What the control socket asks for, and what it is told.

use super::{Daemon, failure, status};
use crate::{
    api::protocol::{Request, Response},
    exit::{self, Exit, Failure},
    plan::State,
};

impl Daemon {
    /// Does what is asked for, or says why not.
    pub(super) fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Status => match self.snapshot() {
                Ok(snapshot) => Response::Status(Box::new(snapshot)),
                Err(error) => status::refused(&failure(error)),
            },
            Request::Drain { service, backend, drain } => match self.drain(&service, backend, drain) {
                Ok(message) => Response::Done { message },
                Err(failure) => status::refused(&failure),
            },
            Request::Defence { service, order } => match self.defence_order(&service, order) {
                Ok(message) => Response::Done { message },
                Err(failure) => status::refused(&failure),
            },
            Request::Reload => match self.reload() {
                Ok(message) => Response::Done { message },
                Err(failure) => status::refused(&failure),
            },
            Request::Stop => self.stop(),
        }
    }

    fn drain(&mut self, name: &str, index: u32, drain: bool) -> Result<String, Failure> {
        let not_found = |what: String| exit::fail(Exit::NotFound, what, "`weir status` lists the services and their backends");
        let service = self.plan.services.iter().find(|service| service.name == name);
        let service = service.ok_or_else(|| not_found(format!("there is no service {name}")))?;
        let backend = service.backends.iter().find(|backend| backend.index == index);
        let backend = backend.ok_or_else(|| not_found(format!("service {name} has no backend {index}")))?;
        let others = service.backends.iter().filter(|other| other.index != index && other.state == State::Ready);
        if drain && others.count() == 0 {
            return Err(exit::fail(
                Exit::Usage,
                format!("backend {index} is the last of service {name} that takes new flows"),
                "undrain another one first, or stop the server itself",
            ));
        }
        let cookie = backend.cookie;
        let changed = if drain { self.drains.insert(cookie) } else { self.drains.remove(&cookie) };
        if changed {
            self.replan();
        }
        Ok(match (drain, changed) {
            (true, true) => format!("backend {index} of service {name} gets no new flows; those it has go on"),
            (true, false) => format!("backend {index} of service {name} is draining already"),
            (false, true) => format!("backend {index} of service {name} gets new flows again"),
            (false, false) => format!("backend {index} of service {name} was not draining"),
        })
    }
}
