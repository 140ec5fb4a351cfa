//! Rates by hand-made pairs of snapshots.
use super::*;
use crate::observe::{sample, snapshot::ReasonCount};

/// [`sample::small`] and the same so many seconds later, changed by `change`.
fn pair(seconds: f64, change: impl FnOnce(&mut Snapshot)) -> Option<Rates> {
    let before = sample::small();
    let mut after = before.clone();
    after.dataplane.uptime += seconds;
    change(&mut after);
    Rates::between(&before, &after)
}

fn packets(reason: Reason, packets: u64) -> ReasonCount {
    ReasonCount { reason: reason.label().to_owned(), packets, bytes: 60 * packets }
}

#[test]
fn nothing_happened() {
    let rates = pair(2.0, |_| {}).unwrap();
    assert_eq!(rates.services.len(), 3);
    let web = &rates.services["web"];
    assert_eq!((web.seen, web.opening, web.connections, web.kernel_dropped()), (Flow::default(), 0.0, 0.0, 0.0));
    assert_eq!((web.overflows, web.drops().len()), (Some(0.0), 0));
    assert_eq!(web.accept_latency.as_ref().map(Histogram::count), Some(0));
    assert!(rates.passed.is_empty() && web.reasons.is_empty());
}

#[test]
fn without_time_or_over_another_data_plane_there_are_no_rates() {
    assert_eq!(pair(0.0, |_| {}), None);
    assert_eq!(pair(-3.0, |_| {}), None);
    assert_eq!(pair(f64::NAN, |_| {}), None);
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let rates = pair(2.0, |after| {
        after.taken_at -= 86_400.0;
        after.services[0].packets[0].packets += 10;
    });
    assert!((rates.unwrap().services["web"].seen.packets - 5.0).abs() < 1e-9);
}

#[test]
fn packets_are_sorted_by_what_became_of_them() {
    let rates = pair(2.0, |after| {
        let web = &mut after.services[0];
        web.packets[0].packets += 20;
        web.packets[0].bytes += 1_200;
        web.packets.extend([
            packets(Reason::CookieSent, 1_000),
            packets(Reason::CookieRefused, 400),
            packets(Reason::NullFlags, 600),
            ReasonCount { reason: "of_another_version".to_owned(), packets: 2, bytes: 2 },
        ]);
        web.kernel_drops[0].packets += 8;
        after.passed[0].packets += 4;
    })
    .unwrap();
    let web = &rates.services["web"];
    assert_eq!((web.seen.packets, web.opening, web.dropped.packets), (1_011.0, 510.0, 500.0));
    assert_eq!(web.answered, Flow { packets: 500.0, bytes: 30_000.0 });
    assert_eq!(web.reasons["tcp_opened"], Flow { packets: 10.0, bytes: 600.0 });
    assert_eq!(web.drops(), [("null_flags", 300.0), ("cookie_refused", 200.0), ("tcp_listen_overflow", 4.0)]);
    assert_eq!(rates.passed.get(Reason::NotAPort.label()), Some(&Flow { packets: 2.0, bytes: 0.0 }));
}

#[test]
fn backends_are_told_apart_by_their_socket() {
    let rates = pair(4.0, |after| {
        let backends = &mut after.services[0].backends;
        backends[0].established += 40;
        *backends[0].selected.get_mut("syn").unwrap() += 44;
        backends[0].kernel_drops[0].packets += 4;
        let overflows = backends[0].queues.overflows.as_mut().unwrap();
        (overflows.accept_queue, overflows.unknown) = (overflows.accept_queue + 6, overflows.unknown + 2);
        backends[0].queues.waited = Some(2.0);
        // Another worker's socket has taken the place of the second: its connections are its own, what its socket dropped before is unknown.
        (backends[1].cookie, backends[1].established) = (9_999, 8);
        backends[2].queues.overflows = None;
    })
    .unwrap();
    let web = &rates.services["web"];
    let first = &web.backends[&1000];
    assert_eq!((first.connections, first.selected, first.kernel_drops, first.overflows), (10.0, 11.0, 1.0, Some(2.0)));
    assert_eq!((web.backends[&9_999].connections, web.backends[&9_999].overflows), (2.0, None));
    assert_eq!((web.backends[&1002].connections, web.backends[&1002].overflows), (0.0, None));
    assert_eq!((web.connections, web.overflows), (12.0, Some(2.0)));
    assert_eq!((first.waiting, first.mean_wait()), (Some(0.5), Some(0.05)), "half a connection waits, ten come each second");
    assert_eq!((web.backends[&9_999].mean_wait(), web.backends[&1002].mean_wait()), (None, None));
    assert_eq!((first.lost(Protocol::Tcp), first.lost(Protocol::Udp)), (3.0, 2.0));
}

#[test]
fn a_counter_that_fell_began_anew() {
    let rates = pair(2.0, |after| {
        after.services[0].packets[0].packets = 6;
        after.services[0].backends[0].established = 4;
        let times = after.services[0].backends[1].accept_latency.as_mut().unwrap();
        (times.counts[5], times.counts[3]) = (0, 3);
    })
    .unwrap();
    let web = &rates.services["web"];
    assert_eq!((web.reasons["tcp_opened"].packets, web.backends[&1000].connections), (3.0, 2.0));
    assert_eq!(web.backends[&1001].accept_latency.as_ref().unwrap().count(), 3);
}

#[test]
fn a_service_that_is_new_gained_all_that_it_shows_and_one_that_left_is_gone() {
    let rates = pair(10.0, |after| {
        after.services[0].name = "new".to_owned();
        after.services.truncate(1);
    })
    .unwrap();
    assert_eq!(rates.services.keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!((rates.services["new"].reasons["tcp_opened"].packets, rates.services["new"].overflows), (12.0, None));
}

#[test]
fn a_udp_service_counts_flows_given_to_workers() {
    let rates = pair(1.0, |after| {
        let web = &mut after.services[0];
        web.protocol = Protocol::Udp;
        *web.backends[0].selected.get_mut("udp").unwrap() += 5;
        // Datagrams of flows that have their worker open none.
        *web.backends[0].selected.get_mut("udp_flow").unwrap() += 100;
        web.packets = vec![packets(Reason::UdpOpened, 7), packets(Reason::UdpEstablished, 100)];
    })
    .unwrap();
    assert_eq!((rates.services["web"].connections, rates.services["web"].opening), (5.0, 7.0));
}

#[test]
fn what_found_no_room_is_said_once() {
    let overflowing = |protocol, kernel| {
        let rates = pair(1.0, |after| {
            let web = &mut after.services[0];
            web.protocol = protocol;
            web.backends[0].queues.overflows.as_mut().unwrap().unknown += 8;
            web.kernel_drops[0].packets += kernel;
        });
        let web = rates.unwrap().services.remove("web").unwrap();
        (web.no_room(protocol), web.known_lost(&Watch::default(), protocol))
    };
    assert_eq!(overflowing(Protocol::Tcp, 8), (Some(8.0), Some(16.0)));
    assert_eq!(overflowing(Protocol::Udp, 8), (Some(0.0), Some(8.0)), "the kernel has named them");
    assert_eq!(overflowing(Protocol::Udp, 0), (Some(8.0), Some(8.0)), "its drops are not counted");
    let unknown = ServiceRates::default();
    assert_eq!((unknown.no_room(Protocol::Tcp), unknown.known_lost(&Watch::default(), Protocol::Tcp)), (None, None));
}

#[test]
fn times_are_those_of_the_while() {
    let rates = pair(1.0, |after| {
        for backend in &mut after.services[0].backends {
            let times = backend.accept_latency.as_mut().unwrap();
            times.counts[7] += 2;
            times.sum += 0.012;
        }
        after.services[0].handshake_time = None;
    })
    .unwrap();
    let web = &rates.services["web"];
    let times = web.accept_latency.as_ref().unwrap();
    assert_eq!((times.count(), times.counts[7]), (6, 6));
    assert!((times.sum - 0.036).abs() < 1e-9);
    assert_eq!(web.handshake_time, None);
    assert_eq!(web.backends[&1000].accept_latency.as_ref().unwrap().count(), 2);
}

#[test]
fn quantiles_are_those_of_prometheus() {
    let bounds = time_bounds();
    let mut times = Histogram { counts: vec![0; bounds.len() + 1], sum: 0.0 };
    assert_eq!(quantile(&times, 0.5), None);
    times.counts[4] = 10;
    assert_eq!(quantile(&times, 0.5), Some(f64::midpoint(bounds[3], bounds[4])));
    assert_eq!(quantile(&times, 1.0), Some(bounds[4]));
    assert_eq!(quantile(&times, 0.0), Some(bounds[3]));
    // Two thirds lie above the last bound: it is all that is known of them.
    times.counts[bounds.len()] = 20;
    assert_eq!(quantile(&times, 0.99), Some(bounds[bounds.len() - 1]));
    assert_eq!(quantile(&Histogram::default(), 0.5), None);
}
