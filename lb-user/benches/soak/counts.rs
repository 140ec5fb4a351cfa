//! What Weir, the kernel and the workers have counted, between two moments of rest.

use std::collections::{BTreeMap, BTreeSet};

use lb_user::observe::snapshot::{Backend, Snapshot};

use crate::{
    judge::{Books, Tally},
    netns::live::status,
    support::{
        counters::{Counters, Traffic},
        load::Report,
        netns::Pair,
    },
    world::{GROUPS, SERVICES, World, named},
};

/// All of it at one moment of rest.
#[derive(Debug)]
pub struct Counts {
    snapshot: Snapshot,
    device: Traffic,
    server: Counters,
    client: Counters,
    accepted: [u64; GROUPS],
}

/// What a backend has counted, by its cookie.
type Backends = BTreeMap<u64, (u64, u64, u64)>;

impl Counts {
    /// Reads it. The device's packets are read on both sides of the verdicts, until none came between.
    pub fn read(world: &mut World) -> Self {
        let accepted = [0, 1].map(|group: usize| world.groups[group].accepted());
        let device = || Traffic::of(&world.pair.server, Pair::SERVER_DEVICE);
        let mut before = device();
        loop {
            let snapshot = status(&world.weir);
            let after = device();
            if before.received == after.received {
                let (server, client) = (Counters::of(&world.pair.server), Counters::of(&world.pair.client));
                return Self { snapshot, device: after, server, client, accepted };
            }
            before = after;
        }
    }

    /// SYNs that the clients sent again since, and whatever was sent again because a timer ran out.
    pub fn sent_again(&self, before: &Self) -> (u64, u64) {
        let timeouts = |now: &Counters, then: &Counters| now.since(then, "TcpExt.TCPTimeouts");
        let syns = self.client.since(&before.client, "TcpExt.TCPSynRetrans");
        (syns, timeouts(&self.client, &before.client) + timeouts(&self.server, &before.server))
    }

    /// The seconds since the key was made that makes cookies.
    pub fn key_age(&self) -> Option<f64> {
        self.snapshot.defence.key_age
    }

    /// What was counted since, with what the clients say. What a disturbance was is left to the caller.
    pub fn since(&self, before: &Self, reports: &[Report; SERVICES.len()]) -> Books {
        let tallies = reports.iter().enumerate().map(|(service, report)| self.tally(before, service, report));
        let sum = |snapshot: &Snapshot| -> u64 {
            let counts = snapshot.services.iter().flat_map(|service| &service.packets).chain(&snapshot.passed);
            counts.map(|count| count.packets).sum()
        };
        let of_reason = |snapshot: &Snapshot, reason: &str| -> u64 {
            let counts = snapshot.services.iter().flat_map(|service| &service.packets).chain(&snapshot.passed);
            counts.filter(|count| count.reason == reason).map(|count| count.packets).sum()
        };
        let moved = |reason: &str| of_reason(&self.snapshot, reason).saturating_sub(of_reason(&before.snapshot, reason));
        let misses = |snapshot: &Snapshot| snapshot.selector_misses.values().sum::<u64>();
        let cookies = |snapshot: &Snapshot| -> BTreeSet<u64> {
            snapshot.services.iter().flat_map(|service| &service.backends).map(|backend| backend.cookie).collect()
        };
        Books {
            verdicts: sum(&self.snapshot).saturating_sub(sum(&before.snapshot)),
            received: self.device.received - before.device.received,
            passive_opens: self.server.since(&before.server, "Tcp.PassiveOpens"),
            syns_again: self.sent_again(before).0,
            misses: misses(&self.snapshot).saturating_sub(misses(&before.snapshot)),
            no_record: moved("map_miss") + moved("no_backend"),
            services: tallies.collect(),
            calm: moved("cookie_sent") == 0,
            backends_left: !cookies(&before.snapshot).is_subset(&cookies(&self.snapshot)),
            ..Books::default()
        }
    }

    fn tally(&self, before: &Self, service: usize, report: &Report) -> Tally {
        let (then, now) = (backends(&before.snapshot, service), backends(&self.snapshot, service));
        let moved = |reason: &str| packets(&self.snapshot, service, reason).saturating_sub(packets(&before.snapshot, service, reason));
        let more = |count: fn(&(u64, u64, u64)) -> u64| -> u64 {
            now.iter().map(|(cookie, counts)| count(counts).saturating_sub(then.get(cookie).map_or(0, count))).sum()
        };
        Tally {
            service: SERVICES[service].to_owned(),
            attempted: report.attempted(),
            ok: report.ok,
            opened: moved("tcp_opened"),
            cookies: moved("cookie_accepted"),
            kernels: moved("flood_syn"),
            chosen: more(|counts| counts.0),
            selected: more(|counts| counts.1),
            established: more(|counts| counts.2),
            accepted: (service < GROUPS).then(|| self.accepted[service].saturating_sub(before.accepted[service])),
        }
    }
}

/// Choices, selections but for migrations, and connections established, of each backend.
fn backends(snapshot: &Snapshot, service: usize) -> Backends {
    let selected = |backend: &Backend| backend.selections() - backend.selected.get("migration").copied().unwrap_or(0);
    let counts = |backend: &Backend| (backend.cookie, (backend.chosen, selected(backend), backend.established));
    named(snapshot, service).map(|service| service.backends.iter().map(counts).collect()).unwrap_or_default()
}

fn packets(snapshot: &Snapshot, service: usize, reason: &str) -> u64 {
    let counts = named(snapshot, service).map(|service| service.packets.as_slice()).unwrap_or_default();
    counts.iter().filter(|count| count.reason == reason).map(|count| count.packets).sum()
}
