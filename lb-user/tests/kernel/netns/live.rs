//! What Weir says of itself and what its maps hold, beside what the workers and the clients saw.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::abi::{ABI_VERSION, NO_SLOT, TABLE_HEADER, entry_index};
use lb_common::{Address, FlowKey, wire::protocol};
use lb_user::config::Protocol;
use lb_user::daemon::read_state;
use lb_user::dataplane::{Maps, Pins};
use lb_user::observe::snapshot::{Backend, Service, Snapshot};
use lb_user::plan::{self, State};

use crate::support::daemon::Weir;
use crate::support::load::Plan;
use crate::support::netns::Pair;
use crate::support::wait::eventually;

/// How long the daemon may take for what has no time of its own to keep.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A configuration without a SYN defence, for tests that count what the selector did: a fast machine opens connections at the rate of a
/// flood, and those that cookies let in are counted as such.
pub const UNDEFENDED: &str = "[defence]\nsyn_defence = \"off\"\n[discovery]\ntcp = true\n";
/// How long a packet on its way, or a connection half made, needs to come to rest.
pub const MOMENT: Duration = Duration::from_millis(100);

/// The pair's first server address of a family at `port`, and a plan to reach it from all client addresses.
pub fn target(pair: &Pair, v6: bool, port: u16) -> (SocketAddr, Plan) {
    let (servers, clients): (&[IpAddr], &[IpAddr]) =
        if v6 { (&pair.server_v6, &pair.client_v6) } else { (&pair.server_v4, &pair.client_v4) };
    let target = SocketAddr::new(servers[0], port);
    (target, Plan::new(target, clients))
}

/// What `weir status --json` says.
pub fn status(weir: &Weir) -> Snapshot {
    serde_json::from_value(weir.cli(&["status", "--json"])).expect("the status is a snapshot")
}

/// The only service; panics when there are none or several.
#[track_caller]
pub fn only_service(weir: &Weir) -> Service {
    let mut services = status(weir).services;
    assert_eq!(services.len(), 1, "{services:?}");
    services.remove(0)
}

/// The only service once so many of its backends take new flows, and no others are there.
#[track_caller]
pub fn service_with_ready(weir: &Weir, ready: usize) -> Service {
    eventually(PATIENCE, || {
        let services = status(weir).services;
        let [service] = &services[..] else { return Err(format!("{} services", services.len())) };
        let states: Vec<_> = service.backends.iter().map(|backend| backend.state).collect();
        if states == vec![State::Ready; ready] {
            Ok(service.clone())
        } else {
            Err(format!("the backends are {states:?}; {:?}", service.notes))
        }
    })
}

/// The backend that is the listening socket with this cookie.
#[track_caller]
pub fn backend_of(service: &Service, cookie: u64) -> &Backend {
    let found = service.backends.iter().find(|backend| backend.cookie == cookie);
    found.unwrap_or_else(|| panic!("no backend of {} has cookie {cookie}: {:?}", service.name, service.backends))
}

/// How often a backend was selected for one cause.
pub fn selected(backend: &Backend, cause: &str) -> u64 {
    *backend.selected.get(cause).unwrap_or_else(|| panic!("no cause {cause:?} in {:?}", backend.selected))
}

/// The sum of a cause over all backends.
pub fn selected_in_all(service: &Service, cause: &str) -> u64 {
    service.backends.iter().map(|backend| selected(backend, cause)).sum()
}

/// Panics when the selector has left a choice to the kernel.
#[track_caller]
pub fn assert_no_miss(snapshot: &Snapshot) {
    assert!(snapshot.selector_misses.values().all(|count| *count == 0), "{:?}", snapshot.selector_misses);
}

/// A service as the daemon wrote it to its state file.
pub fn planned(weir: &Weir, name: &str) -> plan::Service {
    let state_file = weir.configuration_path().with_file_name(format!("{}.state.json", weir.instance()));
    read_state(&state_file).services.into_iter().find(|planned| planned.name == name).expect("the state file names the service")
}

/// The pinned maps of a running instance.
pub fn maps(weir: &Weir) -> Maps {
    Maps::pinned(&Pins::at(weir.pins()), ABI_VERSION).expect("open the pinned maps")
}

/// A service's table as it stands in the kernel, with what is needed to find a flow's place in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    elements: Vec<u32>,
    key: [u64; 2],
    protocol: u8,
    cookies: BTreeMap<u32, u64>,
}

impl Table {
    /// Reads the live table of a service.
    pub fn read(weir: &Weir, service: &Service) -> Self {
        let (index, maps) = (planned(weir, &service.name).index, maps(weir));
        Self {
            elements: maps.table(index).expect("read the table").expect("the service has a table"),
            key: maps.settings().expect("read the settings").flow_hash_key,
            protocol: if service.protocol == Protocol::Tcp { protocol::TCP } else { protocol::UDP },
            cookies: service.backends.iter().map(|backend| (backend.slot, backend.cookie)).collect(),
        }
    }

    /// The slots of the table's entries.
    pub fn entries(&self) -> &[u32] {
        &self.elements[TABLE_HEADER as usize..]
    }

    /// The socket that a new flow from `source` goes to, by its cookie, computed here.
    #[track_caller]
    pub fn cookie_for(&self, source: SocketAddr, destination: SocketAddr) -> u64 {
        let (from, to) = (Address::from(source.ip()), Address::from(destination.ip()));
        let hash = FlowKey::new(from, source.port(), to, destination.port(), self.protocol).hash(self.key);
        let slot = self.elements[entry_index(hash, self.elements[0], 0) as usize];
        assert_ne!(slot, NO_SLOT, "an entry of the table is empty");
        self.cookies[&slot]
    }
}
