//! `weir defence`.

use super::{find_service, not_running, order, print_message, snapshot};
use crate::{
    api::protocol::Request,
    cli::{DefenceArgs, GlobalArgs},
    config::Protocol,
    exit::{Exit, Failure, fail},
};

/// Forces a service's SYN defence on or off, or has the configuration decide again.
pub fn run(global: &GlobalArgs, arguments: &DefenceArgs) -> Result<Exit, Failure> {
    let message = carry_out(global, arguments)?;
    print_message(global, &message)
}

pub(super) fn carry_out(global: &GlobalArgs, arguments: &DefenceArgs) -> Result<String, Failure> {
    let snapshot = snapshot(global)?.ok_or_else(|| not_running(global))?;
    let service = find_service(&snapshot, &arguments.service)?;
    if service.protocol != Protocol::Tcp {
        return Err(no_syns(&service.name));
    }
    order(global, &Request::Defence { service: service.name.clone(), order: arguments.order })
}

/// The failure for a service that is not TCP.
pub(crate) fn no_syns(service: &str) -> Failure {
    let remedy = "name a TCP service; UDP has the limits `udp_packets_per_prefix` and `udp_bytes_per_prefix` in its [[service]]";
    fail(Exit::Usage, format!("service `{service}` is UDP: it has no SYNs, and no SYN defence"), remedy)
}
