//! Several services, several interfaces, and listeners that are bound to a device.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_user::observe::snapshot::Snapshot;
use libtest_mimic::Trial;

use super::live::{MOMENT, PATIENCE, assert_no_miss, backend_of, selected, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Plan, open_close};
use crate::support::netns::{Pair, add_address, join};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::services::two_services_are_counted_apart", two_services_are_counted_apart),
        trial("netns::services::two_interfaces_and_a_bound_device", two_interfaces_and_a_bound_device),
    ]
}

/// TCP and UDP workers on one address and port, and TCP workers on another port: three services, each with its own counters.
fn two_services_are_counted_apart() {
    let pair = Pair::new();
    let (web, to_web) = target(&pair, false, 8080);
    let (admin, to_admin) = target(&pair, false, 8081);
    let mut groups = [Workers::start(&pair.server, &WorkerPlan::tcp(web), 3), Workers::start(&pair.server, &WorkerPlan::tcp(admin), 2)];
    let _datagrams = Workers::start(&pair.server, &WorkerPlan::udp(web), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--discover", "udp"]);
    wait_for_services(&weir, &[3, 2, 2]);
    for (plan, count) in [(&to_web, 300), (&to_admin, 200)] {
        open_close(&pair.client, plan, count).assert_no_failure();
    }
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    assert_counted(&snapshot, &mut groups);
    let opened = weir.metrics().counts_by("weir_packets_total", "service", &[("reason", "tcp_opened")]);
    let of = |service: &str| opened.get(service).copied().unwrap_or(0);
    assert_eq!([of(&format!("tcp/{web}")), of(&format!("tcp/{admin}")), of(&format!("udp/{web}"))], [300, 200, 0]);
    assert_no_miss(&snapshot);
}

/// Wildcard workers are one service on both interfaces, and workers of the same port bound to one of them get what comes in by it.
fn two_interfaces_and_a_bound_device() {
    const SECOND: &str = "toclient2";
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 90, 0, 1));
    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 90, 0, 101));
    let pair = Pair::new();
    join(&pair.client, "toserver2", &pair.server, SECOND);
    add_address(&pair.client, "toserver2", CLIENT);
    add_address(&pair.server, SECOND, SERVER);
    let wildcard = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8080);
    let by_first = target(&pair, false, 8080).1;
    let by_second = Plan::new(SocketAddr::new(SERVER, 8080), &[CLIENT]);
    let mut groups = vec![Workers::start(&pair.server, &WorkerPlan::tcp(wildcard), 3)];
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, &["--iface", SECOND]);
    wait_for_services(&weir, &[3]);
    for plan in [&by_first, &by_second] {
        open_close(&pair.client, plan, 200).assert_no_failure();
    }
    std::thread::sleep(MOMENT);
    assert_counted(&status(&weir), &mut groups);
    assert_eq!(weir.metrics().count("weir_packets_total", &[("reason", "tcp_opened")]), 400, "both interfaces are seen");

    groups.push(Workers::start(&pair.server, &WorkerPlan::tcp(wildcard).device(SECOND), 2));
    wait_for_services(&weir, &[3, 2]);
    for (plan, count) in [(&by_first, 150), (&by_second, 100)] {
        open_close(&pair.client, &plan.clone().starting_at_flow(1000), count).assert_no_failure();
    }
    let taken: Vec<u64> = groups.iter_mut().map(|group| group.counts().values().sum()).collect();
    assert_eq!(taken, [550, 100], "what comes in by the device is the bound workers'");
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    assert_counted(&snapshot, &mut groups);
    assert_no_miss(&snapshot);
}

/// Waits until there are services with so many backends, in any order.
#[track_caller]
fn wait_for_services(weir: &Weir, backends: &[usize]) {
    let mut wanted = backends.to_vec();
    wanted.sort_unstable();
    eventually(PATIENCE, || {
        let mut found: Vec<_> = status(weir).services.iter().map(|service| service.backends.len()).collect();
        found.sort_unstable();
        if found == wanted { Ok(()) } else { Err(format!("services with {found:?} backends")) }
    });
}

/// Panics unless XDP's choices, the selector's and the connections established are what each worker accepted.
#[track_caller]
fn assert_counted(snapshot: &Snapshot, groups: &mut [Workers]) {
    for group in groups {
        let counts = group.counts();
        let sockets = group.sockets();
        let service = snapshot.services.iter().find(|service| service.backends.iter().any(|backend| backend.cookie == sockets[0].cookie));
        let service = service.expect("a service for each group");
        for socket in sockets {
            let backend = backend_of(service, socket.cookie);
            assert_eq!([backend.chosen, selected(backend, "syn"), backend.established], [counts[&socket.index]; 3], "{backend:?}");
        }
    }
}
