//! What the daemon says of itself: the snapshot, the state file, the log of changes.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::Path,
    time::Duration,
};

use super::{Daemon, order::Overrides};
use crate::{
    api::protocol::Response,
    dataplane::{Dataplane, Error},
    exit::{Exit, Failure},
    observe::{
        reader::{Facts, snapshot},
        snapshot::{self as picture, MapFill, Program, Snapshot},
    },
    plan::{Note, Plan, Registry, Service, State},
};

impl Daemon {
    /// The picture of this moment.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let seconds = |duration: Duration| duration.as_secs_f64();
        let daemon = picture::Daemon {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            uptime: seconds(self.started.elapsed()),
            last_reload: self.last_reload.clone(),
            helper_alive: self.survey.helper().is_alive(),
            events: self.events,
            last_scan: self.last_scan.map(seconds),
        };
        let programs = self.dataplane.programs.facts.iter();
        let facts = Facts {
            instance: self.instance.clone(),
            daemon: Some(daemon),
            interfaces: self.attached.clone(),
            programs: programs
                .map(|(name, id, instructions)| Program { name: name.clone(), id: *id, verified_instructions: *instructions })
                .collect(),
            maps: self.fills(),
            queues: self.queues(),
            watch: self.how_watched(),
            handshakes: self.dataplane.has_events() && self.dataplane.watching.handshakes,
            drop_reasons: self.dataplane.drop_reasons.clone(),
            tcp_counters: super::watch::tcp_counters(),
            shares: self.shares.clone(),
        };
        let mut snapshot = snapshot(&self.plan, &self.dataplane.maps, facts)?;
        snapshot.notes.extend(self.notes());
        Ok(snapshot)
    }

    /// What is to be said beyond the plan: of the kernel and of the interfaces.
    fn notes(&self) -> Vec<Note> {
        let gone = self.attached.iter().filter(|interface| interface.is_gone()).map(|interface| Note {
            text: format!("interface {} no longer exists: what comes by it is not balanced", interface.name),
            remedy: "weir attaches again as soon as an interface of that name appears; or name another one and reload".to_owned(),
        });
        let lacking = self.dataplane.lacking.iter().map(|sentence| Note {
            text: sentence.clone(),
            remedy: "the rest works; `weir doctor` says what this kernel lacks".to_owned(),
        });
        gone.chain(lacking).chain(self.guard.host.notes()).collect()
    }

    fn fills(&self) -> Vec<MapFill> {
        let limits = &self.config.limits;
        let services = self.plan.services.len() as u64;
        let entries: usize = self.plan.services.iter().map(|service| service.entries.len()).sum();
        let backends: usize = self.plan.services.iter().map(|service| service.backends.len()).sum();
        [
            ("services", services, u64::from(limits.services)),
            ("service_entries", entries as u64, self.dataplane.maps.service_capacity()),
            ("backends", backends as u64, u64::from(limits.backends)),
            ("udp_flows", self.udp_flows, u64::from(limits.udp_flows)),
        ]
        .into_iter()
        .map(|(name, entries, capacity)| MapFill { name: name.to_owned(), entries, capacity })
        .collect()
    }
}

/// What was planned when the state file was last written; nothing if there is none or it is not to be read.
#[must_use]
pub fn read(path: &Path) -> Plan {
    let Ok(bytes) = fs::read(path) else { return Plan::default() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!("{} is not to be read ({error}): names and numbers of backends start anew", path.display());
        Plan::default()
    })
}

/// Writes the plan, whole or not at all.
pub(super) fn write(path: &Path, plan: &Plan) {
    let written = serde_json::to_vec(plan).map_err(io::Error::other).and_then(|bytes| {
        let temporary = path.with_extension("json.new");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        tracing::warn!("cannot write {}: {error}; `weir status` without the daemon shows what was before", path.display());
    }
}

/// What a daemon before this one has left: which socket has which slot, and which number.
pub(super) fn adopt(state_file: &Path, dataplane: &Dataplane) -> Result<Registry, Failure> {
    let slots = dataplane.slots().map_err(failure)?;
    let generations = dataplane.generations().map_err(failure)?;
    Ok(Registry::adopt(&read(state_file), &slots, &generations))
}

/// The cookies of the sockets that were being drained.
pub(super) fn drains(state_file: &Path) -> BTreeSet<u64> {
    let plan = read(state_file);
    let backends = plan.services.iter().flat_map(|service| &service.backends);
    backends.filter(|backend| backend.state == State::Draining).map(|backend| backend.cookie).collect()
}

/// What was ordered of services' SYN defence.
pub(super) fn orders(state_file: &Path) -> Overrides {
    read(state_file).orders
}

/// Logs what is otherwise than before: services and backends that came, went, or changed their state, and services that are balanced
/// from now on, or no more.
pub(super) fn tell(previous: &Plan, next: &Plan) {
    let of = |plan: &Plan| -> HashMap<(String, u32, u64), (State, String)> {
        let services = plan.services.iter();
        let backends = services.flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
        backends
            .map(|(service, backend)| {
                let server = backend.servers.first().map(|server| format!("{} (pid {})", server.command, server.pid));
                (
                    (service.name.clone(), backend.index, backend.cookie),
                    (backend.state, server.unwrap_or_else(|| "nobody known".to_owned())),
                )
            })
            .collect()
    };
    let as_before = |service: &&Service| previous.services.iter().any(|old| (&old.name, old.balanced) == (&service.name, service.balanced));
    for service in next.services.iter().filter(|service| !as_before(service)) {
        tell_of_new(service);
    }
    for service in previous.services.iter().filter(|service| !next.services.iter().any(|after| after.name == service.name)) {
        tracing::info!("service {} is no more", service.name);
    }
    let (before, after) = (of(previous), of(next));
    for (key @ (service, index, _), (state, server)) in &after {
        match before.get(key) {
            None => tracing::info!("service {service}: backend {index} joins, served by {server}"),
            Some((was, _)) if was != state => {
                tracing::info!("service {service}: backend {index} is {}, was {}", state.label(), was.label());
            }
            Some(_) => {}
        }
    }
    for (service, index, cookie) in before.keys() {
        if !after.contains_key(&(service.clone(), *index, *cookie)) {
            tracing::info!("service {service}: backend {index} has left");
        }
    }
}

fn tell_of_new(service: &Service) {
    if service.balanced {
        tracing::info!("service {} with {} backends", service.name, service.backends.len());
    } else {
        tracing::info!("service {} is counted and defended, not balanced", service.name);
    }
}

/// A failure as the command line gets it.
pub(super) fn refused(failure: &Failure) -> Response {
    let Failure { exit, error, remedy } = failure;
    Response::Refused { code: exit.code(), message: format!("{error:#}"), remedy: remedy.clone().unwrap_or_default() }
}

/// The exit code and the remedy of what can go wrong with the kernel.
#[must_use]
pub fn failure(error: Error) -> Failure {
    let (exit, remedy) = match &error {
        Error::EmptyObject => (Exit::Unexpected, "build it with `cargo xtask build`".to_owned()),
        Error::NoBpfFs { .. } => (Exit::Kernel, "mount one with `mount -t bpf bpf /sys/fs/bpf`, or leave --pin-root out".to_owned()),
        Error::Occupied { interface, occupant: Some(occupant) } => (Exit::Interface, occupant.remedy(interface)),
        Error::Occupied { interface, occupant: None } => {
            (Exit::Interface, format!("`ip -d link show {interface}` names it; take it off with `ip link set {interface} xdp off`"))
        }
        Error::NotNative { .. } => (Exit::Interface, "use `--mode auto` or `--mode generic`: slower, for any device".to_owned()),
        Error::Load(_) | Error::Program { .. } => (Exit::Kernel, "`weir doctor` says what this kernel lacks".to_owned()),
        Error::Pins { .. } | Error::Map { .. } | Error::Call { .. } if permission(&error) => (Exit::Permission, "run as root".to_owned()),
        Error::Pins { .. } | Error::Map { .. } | Error::Call { .. } => {
            (Exit::Unexpected, "`weir doctor` says what this kernel allows; the log has more with -v".to_owned())
        }
    };
    Failure { exit, error: error.into(), remedy: Some(remedy) }
}

fn permission(error: &Error) -> bool {
    let (Error::Pins { source, .. } | Error::Call { source, .. }) = error else { return false };
    source.kind() == io::ErrorKind::PermissionDenied
}
