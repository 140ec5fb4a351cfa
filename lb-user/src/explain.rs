//! Which way one flow goes, and why: the same steps as the programs take, on the maps as they are.

use std::net::SocketAddr;

use lb_common::{
    Address, FlowKey,
    abi::{MAX_STEPS, NO_SLOT, ServiceKey, TABLE_HEADER, entry_index, state_flags},
    wire::protocol,
};
use serde::Serialize;

use crate::{
    config::Protocol,
    dataplane::{Error, Maps},
    plan::{self, Plan, Service, State},
};

/// The way of one flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The service, if the flow goes to one.
    pub service: Option<String>,
    /// The backend's index in the service, if one is chosen.
    pub backend: Option<u32>,
    /// What decided, a sentence for each step.
    pub steps: Vec<String>,
    /// What would be without a backend, if that was asked.
    pub without: Option<Without>,
}

/// What would be if a backend left.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Without {
    /// The backend's index.
    pub left_out: u32,
    /// The backend of this flow then.
    pub backend: Option<u32>,
    /// Whether this flow would move.
    pub moves: bool,
    /// The share of all flows that would move, 0 to 1; those of the backend that leaves included.
    pub moved_share: f64,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// A map could not be read.
    #[error(transparent)]
    Dataplane(#[from] Error),
    /// The service has no such backend.
    #[error("service {service} has no backend {backend}")]
    NoBackend {
        /// The service's name.
        service: String,
        /// What was asked for.
        backend: u32,
    },
}

/// Explains the flow from `source` to `destination`, and what would be without a backend.
pub fn explain(
    plan: &Plan,
    maps: &Maps,
    interfaces: &[u32],
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
    without: Option<u32>,
) -> Result<Explanation, ExplainError> {
    let number = if protocol == Protocol::Tcp { protocol::TCP } else { protocol::UDP };
    let flow = FlowKey::new(Address::from(source.ip()), source.port(), Address::from(destination.ip()), destination.port(), number);
    let mut explanation = Explanation { service: None, backend: None, steps: Vec::new(), without: None };
    let Some(service) = service_of(plan, maps, interfaces, &flow)? else {
        explanation.steps.push(format!("no service has {protocol} {destination} on an interface of Weir: the packet passes untouched"));
        return Ok(explanation);
    };
    explanation.service = Some(service.name.clone());
    explanation.steps.push(format!("{protocol} {destination} is service {}", service.name));
    if !service.balanced {
        explanation
            .steps
            .push("the service is not balanced: the packet passes, and the kernel gives it to a listener by its own rules".to_owned());
        return Ok(explanation);
    }
    let hash = flow.hash(maps.settings()?.flow_hash_key);
    explanation.backend = match known_flow(service, maps, &flow)? {
        Some(backend) => {
            explanation.steps.push(format!("the flow table knows this flow: it stays with backend {}", backend.index));
            Some(backend.index)
        }
        None => by_table(service, maps, hash, &mut explanation.steps)?,
    };
    if let Some(index) = without {
        explanation.without = Some(leave_out(service, hash, index, explanation.backend)?);
    }
    Ok(explanation)
}

fn service_of<'a>(plan: &'a Plan, maps: &Maps, interfaces: &[u32], flow: &FlowKey) -> Result<Option<&'a Service>, Error> {
    for interface in interfaces {
        let key = ServiceKey::new(flow.destination, flow.destination_port, flow.protocol_number(), *interface);
        if let Some(record) = maps.service(&key)? {
            return Ok(plan.services.iter().find(|service| service.index == record.service));
        }
    }
    Ok(None)
}

fn known_flow<'a>(service: &'a Service, maps: &Maps, flow: &FlowKey) -> Result<Option<&'a plan::Backend>, Error> {
    if service.protocol != Protocol::Udp {
        return Ok(None);
    }
    let Some(entry) = maps.udp_flow(flow)? else { return Ok(None) };
    Ok(service.backends.iter().find(|backend| (backend.slot, backend.generation) == (entry.slot, entry.generation)))
}

/// The backend by the live table, as the selector finds it.
fn by_table(service: &Service, maps: &Maps, hash: u64, steps: &mut Vec<String>) -> Result<Option<u32>, Error> {
    let Some(table) = maps.table(service.index)? else {
        steps.push("the service has no table: the kernel's own hash decides".to_owned());
        return Ok(None);
    };
    let size = table.first().copied().unwrap_or(0);
    for step in 0..MAX_STEPS {
        let place = entry_index(hash, size, step);
        let Some(slot) = table.get(place as usize).copied().filter(|slot| *slot != NO_SLOT) else { break };
        let state = maps.backend(slot)?;
        let named = service.backends.iter().find(|backend| backend.slot == slot && backend.generation == state.generation);
        let shown = named.map_or_else(|| format!("slot {slot}"), |backend| format!("backend {}", backend.index));
        if state.flags & state_flags::CLOSED_TO_NEW == 0
            && let Some(backend) = named
        {
            steps.push(format!("its hash {hash:#018x} falls on entry {} of {size}, which is {shown}", place - TABLE_HEADER));
            return Ok(Some(backend.index));
        }
        steps.push(format!("entry {} of {size} is {shown}, which takes no new flows: on to the next entry", place - TABLE_HEADER));
    }
    steps.push("no entry near names a socket that takes new flows: the kernel's own hash decides".to_owned());
    Ok(None)
}

/// What would be if a backend left, by the table that would be built then.
fn leave_out(service: &Service, hash: u64, left_out: u32, now: Option<u32>) -> Result<Without, ExplainError> {
    if !service.backends.iter().any(|backend| backend.index == left_out) {
        return Err(ExplainError::NoBackend { service: service.name.clone(), backend: left_out });
    }
    let mut smaller = service.clone();
    for backend in smaller.backends.iter_mut().filter(|backend| backend.index == left_out) {
        backend.state = State::Draining;
    }
    let (before, after) = (plan::table(service), plan::table(&smaller));
    let entries = before.iter().zip(&after).skip(TABLE_HEADER as usize);
    let moved = entries.filter(|(before, after)| before != after).count();
    let slot = after.get(entry_index(hash, service.table_size, 0) as usize).copied();
    let backend = slot.and_then(|slot| service.backends.iter().find(|backend| backend.slot == slot)).map(|backend| backend.index);
    #[expect(clippy::cast_precision_loss, reason = "a table has at most a million entries")]
    let moved_share = moved as f64 / f64::from(service.table_size);
    Ok(Without { left_out, backend, moves: backend != now, moved_share })
}
