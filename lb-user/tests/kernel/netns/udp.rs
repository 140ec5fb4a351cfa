//! UDP: flows keep their worker, up to the cap; QUIC connections that move follow their connection ID.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use super::live::{MOMENT, Table, assert_no_miss, backend_of, selected, selected_in_all, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::load::{Answer, Failure, UdpFlows};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::udp::flows_keep_their_worker_while_it_lives_over_ipv4", || flows_keep_their_worker(false)),
        trial("netns::udp::flows_keep_their_worker_while_it_lives_over_ipv6", || flows_keep_their_worker(true)),
        trial("netns::udp::beyond_the_cap_the_hash_decides", beyond_the_cap_the_hash_decides),
        trial("netns::udp::weights_set_the_shares", weights_set_the_shares),
        trial("netns::udp::quic_follows_the_connection_id_over_ipv4", || quic_follows_the_connection_id(false)),
        trial("netns::udp::quic_follows_the_connection_id_over_ipv6", || quic_follows_the_connection_id(true)),
        trial("netns::udp::without_quic_the_payload_means_nothing", without_quic_the_payload_means_nothing),
    ]
}

const FLOWS: usize = 500;

/// Finds UDP groups, and finds them soon.
const DISCOVER: &str = "[daemon]\nrescan_interval = \"1s\"\n[discovery]\nudp = true\n";

/// Flows stay where they are when a worker joins and the table is another; when a worker dies only its own flows move.
fn flows_keep_their_worker(v6: bool) {
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 5353);
    let mut workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 3);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(DISCOVER), &[]);
    let table = Table::read(&weir, &service_with_ready(&weir, 3));
    let mut flows = UdpFlows::open(&pair.client, &plan, FLOWS);
    let first = good(flows.round());
    assert_follows(&table, &flows.sources(), target, &first);
    assert_eq!(good(flows.round()), first);
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    for socket in workers.sockets() {
        let backend = backend_of(&snapshot.services[0], socket.cookie);
        let own = first.iter().filter(|answer| answer.cookie == socket.cookie).count() as u64;
        let counted = [backend.chosen, selected(backend, "udp"), selected(backend, "udp_flow")];
        assert_eq!(counted, [own; 3], "chosen, selected by hash, selected as a known flow: {backend:?}");
    }
    let of_service = |reason: &str| weir.metrics().count("weir_packets_total", &[("reason", reason)]);
    assert_eq!((of_service("udp_opened"), of_service("udp_established")), (FLOWS as u64, FLOWS as u64));
    assert_no_miss(&snapshot);

    workers.add();
    let wider = Table::read(&weir, &service_with_ready(&weir, 4));
    let others = flows.sources().iter().zip(&first).filter(|(source, answer)| wider.cookie_for(**source, target) != answer.cookie).count();
    assert!(others > FLOWS / 6, "the hash alone would move {others} of {FLOWS}");
    assert_eq!(good(flows.round()), first, "a flow keeps its worker while the worker lives");

    workers.kill9(0);
    let moved = good(flows.round());
    for (before, after) in first.iter().zip(&moved) {
        assert!(after.worker != 0 && (before.worker == 0 || after == before), "{before:?} became {after:?}");
    }
    service_with_ready(&weir, 3);
    assert_eq!(good(flows.round()), moved, "and then stays there");
    assert_no_miss(&status(&weir));
}

/// With a cap of no new flow a second (and with one of one) datagrams go by the hash alone: nothing is lost, the counter tells, and a
/// joining worker takes over flows.
fn beyond_the_cap_the_hash_decides() {
    for cap in [0, 1] {
        let pair = Pair::new();
        let (target, plan) = target(&pair, false, 5353);
        let mut workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 3);
        let text = format!("{DISCOVER}[limits]\nudp_new_flows_per_second = {cap}\n");
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&text), &[]);
        let table = Table::read(&weir, &service_with_ready(&weir, 3));
        let mut flows = UdpFlows::open(&pair.client, &plan, FLOWS);
        let first = good(flows.round());
        assert_follows(&table, &flows.sources(), target, &first);
        std::thread::sleep(MOMENT);
        let snapshot = status(&weir);
        let not_kept = snapshot.selector_misses["flow_not_kept"];
        // Some CPUs may give one flow a second each, for the fraction of a second that this takes.
        let expected = if cap == 0 { FLOWS as u64..=FLOWS as u64 } else { FLOWS as u64 / 2..=FLOWS as u64 - 1 };
        assert!(expected.contains(&not_kept), "{not_kept} of {FLOWS} flows not kept at a cap of {cap}");
        assert_eq!(selected_in_all(&snapshot.services[0], "udp"), FLOWS as u64, "each was selected by Weir's hash");
        assert_eq!(weir.metrics().count("weir_selector_misses_total", &[("reason", "flow_not_kept")]), not_kept);

        workers.add();
        let wider = Table::read(&weir, &service_with_ready(&weir, 4));
        let second = good(flows.round());
        if cap == 0 {
            assert_follows(&wider, &flows.sources(), target, &second);
        }
        let moved = first.iter().zip(&second).filter(|(before, after)| before != after).count();
        assert!(moved > FLOWS / 6, "{moved} of {FLOWS} flows moved to the new worker");
    }
}

/// Weights of a configured service: of 3 and 1 the first gets three quarters of the flows.
fn weights_set_the_shares() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 5353);
    let workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configured(target, "weights = [3, 1]")), &[]);
    let service = service_with_ready(&weir, 2);
    let heavy = workers.sockets().into_iter().find(|socket| backend_of(&service, socket.cookie).index == 0).expect("an index 0").index;
    let answers = good(UdpFlows::open(&pair.client, &plan, 4 * FLOWS).round());
    let got = answers.iter().filter(|answer| answer.worker == heavy).count();
    // Five standard deviations of 2,000 flows are 97.
    assert!(got.abs_diff(3 * FLOWS) < 100, "{got} of {}", 4 * FLOWS);
    assert_no_miss(&status(&weir));
}

/// A packet of a known kind: QUIC's short header, or its long one (RFC 9000, section 17), with a worker's index at `position` of the
/// connection ID, and the flow's number, so that no two are the same.
fn quic_packet(first: u8, position: usize, worker: u8, flow: usize) -> Vec<u8> {
    let mut packet = vec![first];
    packet.extend([0xee; 20]);
    packet[1 + position] = worker;
    packet.extend(flow.to_be_bytes());
    packet
}

const SHORT: u8 = 0x40;
const LONG: u8 = 0xc0;

/// With `quic = true`: long headers go by the hash; a short header from an address that nobody knows goes to the worker whose index is
/// in its connection ID, and by the hash when there is no such worker.
fn quic_follows_the_connection_id(v6: bool) {
    const WORKERS: u8 = 4;
    const POSITION: usize = 3;
    let pair = Pair::new();
    let (target, plan) = target(&pair, v6, 4433);
    let _workers = Workers::start(&pair.server, &WorkerPlan::udp(target), u32::from(WORKERS));
    let weir = Weir::start(
        &pair.server,
        Pair::SERVER_DEVICE,
        Some(&configured(target, &format!("quic = true\nquic_worker_byte = {POSITION}"))),
        &[],
    );
    let service = service_with_ready(&weir, usize::from(WORKERS));
    let table = Table::read(&weir, &service);
    let index_of = |answer: &Answer| u8::try_from(backend_of(&service, answer.cookie).index).expect("small");

    let before = UdpFlows::open(&pair.client, &plan, FLOWS);
    let opened = good(before.round_with(|flow| quic_packet(LONG, POSITION, 1, flow)));
    assert_follows(&table, &before.sources(), target, &opened);
    // The server has put its index into the connection ID. Then the client's address changes.
    let after = UdpFlows::open(&pair.client, &plan.clone().starting_at_flow(FLOWS), FLOWS);
    let moved = good(after.round_with(|flow| quic_packet(SHORT, POSITION, index_of(&opened[flow]), flow)));
    assert_eq!(moved, opened, "each connection is still at its worker");
    let by_hash = after.sources().iter().zip(&moved).filter(|(source, answer)| table.cookie_for(**source, target) == answer.cookie).count();
    assert!(by_hash < FLOWS / 2, "the hash alone would have been right for {by_hash} of {FLOWS}");
    std::thread::sleep(MOMENT);
    let snapshot = status(&weir);
    assert_eq!(selected_in_all(&snapshot.services[0], "quic_connection_id"), FLOWS as u64);
    assert_eq!(selected_in_all(&snapshot.services[0], "udp"), FLOWS as u64);
    for backend in &snapshot.services[0].backends {
        assert_eq!(backend.chosen, selected(backend, "udp") + selected(backend, "quic_connection_id"), "XDP's choice is the same");
    }

    let unknown = UdpFlows::open(&pair.client, &plan.starting_at_flow(2 * FLOWS), FLOWS);
    let answers = good(unknown.round_with(|flow| quic_packet(SHORT, POSITION, 200, flow)));
    assert_follows(&table, &unknown.sources(), target, &answers);
    assert_no_miss(&status(&weir));
}

/// The same packets to a service that is no QUIC go by the hash.
fn without_quic_the_payload_means_nothing() {
    let pair = Pair::new();
    let (target, plan) = target(&pair, false, 4433);
    let _workers = Workers::start(&pair.server, &WorkerPlan::udp(target), 4);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configured(target, "")), &[]);
    let table = Table::read(&weir, &service_with_ready(&weir, 4));
    let flows = UdpFlows::open(&pair.client, &plan, FLOWS);
    let answers = good(flows.round_with(|flow| quic_packet(SHORT, 0, 1, flow)));
    assert_follows(&table, &flows.sources(), target, &answers);
    let snapshot = status(&weir);
    assert_eq!(selected_in_all(&snapshot.services[0], "quic_connection_id"), 0);
    assert_no_miss(&snapshot);
}

/// A configuration with one UDP service, with more lines of its own.
fn configured(target: SocketAddr, more: &str) -> String {
    format!("[[service]]\nname = \"dns\"\nprotocol = \"udp\"\nport = {}\naddress = \"{}\"\n{more}\n", target.port(), target.ip())
}

/// All answers; panics when a datagram went unanswered.
#[track_caller]
fn good(answers: Vec<Result<Answer, Failure>>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.unwrap_or_else(|failure| panic!("{failure:?}"))).collect()
}

/// Panics unless each flow went to the socket that the table names.
#[track_caller]
fn assert_follows(table: &Table, sources: &[SocketAddr], target: SocketAddr, answers: &[Answer]) {
    assert_eq!(sources.len(), answers.len());
    for (source, answer) in sources.iter().zip(answers) {
        assert_eq!(table.cookie_for(*source, target), answer.cookie, "{source}");
    }
}
