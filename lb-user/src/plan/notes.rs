//! What the user is told, and what to do about it.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use lb_common::abi::QUIC_WORKERS;

use super::{Backend, Device, Note, Service, State, inputs::Inputs, registry::Key, seating::SeatedService};
use crate::{
    config::{self, Limits, Protocol},
    listeners::group::GroupKey,
};

fn note(text: impl Into<String>, remedy: impl Into<String>) -> Note {
    Note { text: text.into(), remedy: remedy.into() }
}

/// `1 socket`, `2 sockets`.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// An address and a port as `ss` shows them: `10.0.0.1%eth1:80`, `[::]:80`, `[fe80::1%eth1]:80`.
pub(super) fn endpoint(address: IpAddr, port: u16, device: Option<&Device>) -> String {
    let zone = device.map_or_else(String::new, |device| format!("%{}", device.name));
    match address {
        IpAddr::V4(v4) => format!("{v4}{zone}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}{zone}]:{port}"),
    }
}

/// The name of a service that was discovered: `tcp/10.0.0.1%eth1:80`. No configured name has a `/`, so the two never meet.
pub(super) fn place(protocol: Protocol, address: IpAddr, port: u16, device: Option<&Device>) -> String {
    format!("{protocol}/{}", endpoint(address, port, device))
}

fn place_of(service: &Service) -> String {
    place(service.protocol, service.address, service.port, service.device.as_ref())
}

pub(super) fn services_over_limit(left_out: usize, limit: usize) -> Note {
    note(
        format!("{} left out: limits.services = {limit} is reached", count(left_out, "service")),
        "raise limits.services, then `weir stop` and start again; or name the services that matter and switch discovery off",
    )
}

pub(super) fn backends_over_limit(left_out: usize, limit: u32) -> Note {
    note(
        format!("{} left out: limits.backends = {limit} is reached", count(left_out, "socket")),
        "raise limits.backends, then `weir stop` and start again",
    )
}

pub(super) fn steered(service: &config::Service) -> Note {
    note(
        format!("another program steers the sockets of {}", endpoint(service.address, service.port, None)),
        "say `takeover = true` in the service to replace it, or switch it off in the server",
    )
}

pub(super) fn twins(sockets: usize) -> Note {
    note(
        format!(
            "{} more at the same address in another group, which differs in IPV6_V6ONLY or in how the address is written, and is not balanced",
            count(sockets, "socket")
        ),
        "bind all workers in the same way",
    )
}

pub(super) fn no_device(service: &Service) -> Note {
    let name = service.device.as_ref().map_or("", |device| device.name.as_str());
    note(format!("there is no device {name}"), "create it, or correct `interface` in the service")
}

/// A named service whose listener is alone.
pub(super) fn not_reuseport(here: &str) -> Note {
    note(
        format!("the listener bound to {here} is not a SO_REUSEPORT socket: it is not balanced"),
        "let the server open one SO_REUSEPORT socket for each worker (nginx: `listen ... reuseport`)",
    )
}

/// A named service without a group; `rivals` are those that get the packets instead.
pub(super) fn no_listener(inputs: &Inputs<'_>, service: &Service, rivals: &BTreeSet<GroupKey>) -> Note {
    let here = endpoint(service.address, service.port, service.device.as_ref());
    if rivals.iter().any(|rival| Key::from(rival) == Key::from(service)) {
        return not_reuseport(&here);
    }
    if rivals.is_empty() {
        return note(
            format!("no listener is bound to {here}: packets to it pass to the kernel"),
            "start the server, or correct the service's address, port and interface; `ss -ltn` and `ss -lun` show what exists",
        );
    }
    let mut others = String::new();
    for (number, rival) in rivals.iter().enumerate() {
        let device = inputs.host.device(rival.device);
        let _ = write!(others, "{}{}", if number == 0 { "" } else { ", " }, endpoint(rival.address, rival.port, device.as_ref()));
    }
    note(
        format!("no listener is bound to {here}: packets to it pass to the kernel, which gives them to {others}"),
        "name in the service the address that the listeners are bound to, exactly as they are bound",
    )
}

/// A service that is not reachable at all.
pub(super) fn unreachable(service: &Service) -> Note {
    let text = match &service.device {
        _ if service.address.to_canonical().is_loopback() => {
            format!("{} is a loopback address, and Weir is not attached to lo: it sees no packet of it", service.address)
        }
        Some(device) => format!("packets that Weir sees do not come in by {}, to which the listeners are bound", device.name),
        None => format!("{} is not an address that packets Weir sees can be for", service.address),
    };
    note(text, "run weir with the interface (`--iface`) by which the packets come in; for loopback that is lo")
}

/// A service whose packets all go to other listeners, or which has no address.
pub(super) fn all_taken(service: &Service) -> Note {
    note(
        format!("{}: every address that it could have is taken by a listener bound more closely, or there is none", place_of(service)),
        "give the interface an address, or name the service of the listener that takes the packets",
    )
}

pub(super) fn table_size_changed(wanted: u32, size: u32) -> Note {
    note(
        format!("table_size = {wanted} cannot be: the table has {size} entries"),
        format!(
            "write table_size = {size}, or leave it out: a size is a prime one less than a multiple of three, and at least one for each worker"
        ),
    )
}

pub(super) fn table_is_small(size: u32, backends: usize) -> Note {
    note(
        format!("a table of {size} entries for {} spreads less evenly than 1 %", count(backends, "worker")),
        "leave table_size out, or take at least 100 entries for each worker",
    )
}

/// What there is to say of a service's backends.
pub(super) fn of_backends(
    backends: &[Backend],
    seated: &SeatedService<'_>,
    somebody_serves: bool,
    quic: bool,
    limits: &Limits,
) -> Vec<Note> {
    let mut notes = Vec::new();
    let unheard = "the kernel never selects those, so connections that wait in them stay, and no new ones come";
    if seated.over_own_limit > 0 {
        let (left_out, limit) = (count(seated.over_own_limit, "socket"), limits.backends_per_service);
        notes.push(note(
            format!("{left_out} not balanced: limits.backends_per_service = {limit} is reached; {unheard}"),
            "raise limits.backends_per_service, then `weir stop` and start again",
        ));
    }
    let over_all = seated.over_limit - seated.over_own_limit;
    if over_all > 0 {
        let (left_out, limit) = (count(over_all, "socket"), limits.backends);
        notes.push(note(
            format!("{left_out} not balanced: limits.backends = {limit} is reached; {unheard}"),
            "raise limits.backends, then `weir stop` and start again",
        ));
    }
    if seated.without_holder > 0 {
        notes.push(note(
            format!("{} not balanced: no process is known to hold them; {unheard}", count(seated.without_holder, "socket")),
            "run weir where it sees the processes: as root, in the PID namespace of the host",
        ));
    }
    if quic && backends.iter().any(|backend| backend.index >= QUIC_WORKERS) {
        notes.push(note(
            format!(
                "{} workers: a connection ID names only those with index 0 to 255; packets of the others follow the flow alone",
                backends.len()
            ),
            "run at most 256 workers in a QUIC service",
        ));
    }
    notes.extend(nobody_takes(backends));
    if !backends.is_empty() && !somebody_serves {
        notes.push(note(
            "no process accepts from any of its sockets: all are kept, because taking out everybody would help nobody",
            "look after the server: connections wait until it accepts them",
        ));
    }
    notes.extend(two_programs(seated));
    notes
}

/// The kernel's hash decides when no backend takes new connections.
fn nobody_takes(backends: &[Backend]) -> Option<Note> {
    let hash = "nobody takes new connections by the table, and the kernel's own hash decides";
    if backends.is_empty() || backends.iter().any(|backend| backend.state == State::Ready && backend.weight > 0) {
        return None;
    }
    if backends.iter().any(|backend| backend.state == State::Ready) {
        return Some(note(format!("every ready worker has weight 0: {hash}"), "give a worker a weight above 0 in `weights`"));
    }
    let why = if backends.iter().all(|backend| backend.state == State::Draining) {
        "every worker is draining"
    } else {
        "every worker is draining or unserved"
    };
    Some(note(format!("{why}: {hash}"), "`weir undrain` a worker, or start another"))
}

/// Two programs that share a port by accident take each other's connections.
fn two_programs(seated: &SeatedService<'_>) -> Option<Note> {
    // Workers of one program mostly have the same names, so there are few sets to compare.
    let sets: BTreeSet<BTreeSet<&str>> =
        seated.backends.iter().map(|seated| seated.member.commands()).filter(|set| !set.is_empty()).collect();
    let first = sets.first()?;
    let strangers = sets.iter().any(|set| set.is_disjoint(first));
    let names: BTreeSet<&str> = sets.iter().flatten().copied().collect();
    strangers.then(|| {
        let names: Vec<&str> = names.into_iter().collect();
        note(
            format!("sockets of different programs share it: {}", names.join(", ")),
            "if that is not meant, stop one of them: each gets a part of the connections",
        )
    })
}
