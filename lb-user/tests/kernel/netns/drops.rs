//! What the kernel drops behind XDP, beside what was sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb_user::observe::snapshot::Snapshot;
use libtest_mimic::Trial;

use crate::support::daemon::Weir;
use crate::support::netns::Pair;
use crate::support::packet::SYN;
use crate::support::raw::RawClient;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("drops::by_reason_add_up_with_what_was_sent", by_reason_add_up_with_what_was_sent),
        trial("drops::are_off_when_they_are_switched_off", are_off_when_they_are_switched_off),
    ]
}

const PORT: u16 = 8080;
const CALM: &str = "defence.syn_defence = \"off\"\ndiscovery.tcp = true\n";

fn snapshot(weir: &Weir) -> Snapshot {
    serde_json::from_value(weir.cli(&["status", "--json"])).expect("a snapshot")
}

fn drops(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let service = snapshot.services.iter().find(|service| service.port == PORT).expect("the service");
    service.kernel_drops.iter().map(|dropped| (dropped.reason.clone(), dropped.packets)).collect()
}

/// Both families: SYNs with a false checksum, SYNs that the packet filter refuses, and SYNs that are taken.
fn by_reason_add_up_with_what_was_sent() {
    const FALSE: u16 = 30;
    const FILTERED: u16 = 50;
    const TAKEN: u16 = 20;
    for v6 in [false, true] {
        let pair = Pair::new();
        let address = if v6 { pair.server_v6[0] } else { pair.server_v4[0] };
        let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(address, PORT)), 2);
        pair.server.nft("table inet filter { chain input { type filter hook input priority 0; tcp sport 30000-30999 drop; }; }");
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CALM), &[]);
        let raw = RawClient::new(&pair, v6, 0);
        let syn = |port: u16| raw.tcp(port, PORT).flags(SYN).sequence(1);
        let frames = |from: u16, count: u16| (from..from + count).map(syn);
        raw.send(&frames(20_000, FALSE).map(|frame| frame.checksum(0x1234)).collect::<Vec<_>>());
        raw.send(&frames(30_000, FILTERED).collect::<Vec<_>>());
        raw.send(&frames(40_000, TAKEN).collect::<Vec<_>>());
        // A port without a service, refused in the same way: nobody's.
        raw.send(&(30_100..30_110).map(|port| raw.tcp(port, 9).flags(SYN).sequence(1)).collect::<Vec<_>>());

        let sent = u64::from(FALSE + FILTERED + TAKEN);
        let seen = eventually(Duration::from_secs(5), || {
            let seen = snapshot(&weir);
            let packets: u64 =
                seen.services[0].packets.iter().filter(|count| count.reason == "tcp_opened").map(|count| count.packets).sum();
            if packets == sent { Ok(seen) } else { Err(format!("XDP has seen {packets} of {sent}")) }
        });
        let expected = [("netfilter_drop", u64::from(FILTERED)), ("tcp_csum", u64::from(FALSE))];
        assert_eq!(drops(&seen), expected.map(|(reason, count)| (reason.to_owned(), count)).into(), "IPv6: {v6}");
        let taken: u64 = seen.services[0].backends.iter().map(|backend| backend.selected["syn"]).sum();
        assert_eq!(taken, u64::from(TAKEN), "sent = dropped + taken, with no remainder");

        let metrics = weir.metrics();
        for (reason, count) in expected {
            let labels = [("service", seen.services[0].name.as_str()), ("reason", reason)];
            assert_eq!(metrics.count("weir_kernel_dropped_packets_total", &labels), count);
        }
        assert_eq!(metrics.count("weir_kernel_drops_folded_total", &[]), 0);
    }
}

/// By configuration, at the start and at a reload; and the page has no zeros of what is not counted.
fn are_off_when_they_are_switched_off() {
    let pair = Pair::new();
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(SocketAddr::new(pair.server_v4[0], PORT)), 1);
    let off = format!("{CALM}observe.kernel_drops = false\n");
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&off), &[]);
    let raw = RawClient::new(&pair, false, 0);
    let send_false = |from: u16| {
        raw.send(&(from..from + 10).map(|port| raw.tcp(port, PORT).flags(SYN).checksum(0x1234)).collect::<Vec<_>>());
    };
    let link = weir.pins().join("links/kernel_drop");
    send_false(20_000);
    let seen = snapshot(&weir);
    assert!(drops(&seen).is_empty() && !seen.watch.kernel_drops && !link.exists());
    assert_eq!(weir.metrics().get("weir_kernel_drops_folded_total", &[]), None);

    weir.configure(CALM);
    weir.reload();
    eventually(Duration::from_secs(5), || if link.exists() { Ok(()) } else { Err("not attached".to_owned()) });
    send_false(21_000);
    eventually(Duration::from_secs(5), || {
        let seen = drops(&snapshot(&weir));
        if seen.get("tcp_csum") == Some(&10) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    weir.configure(&off);
    weir.reload();
    eventually(Duration::from_secs(5), || if link.exists() { Err("still attached".to_owned()) } else { Ok(()) });
}
