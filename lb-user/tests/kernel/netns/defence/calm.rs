//! After a flood everything is as it was before; its last cookies are honoured for as long as they are good, and no longer.

use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, wait_for_line, wait_for_mode, wait_longer_for_mode};
use super::floods;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::only_service;
use crate::support::load::Report;
use crate::support::packet::{ACK, RST, SYN, SYN_OPTIONS};
use crate::support::raw::RawClient;
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial("defence::calm::a_flood_lingers_and_is_over", a_flood_lingers_and_is_over)]
}

const FROM: u16 = 40_000;
const CONNECTIONS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(5);

fn a_flood_lingers_and_is_over() {
    let configuration = "key_lifetime = \"10s\"\n";
    let mut stage = Stage::set(&Scenario { server: Server::Workers, v6: false, configuration, options: &[] });
    let client = RawClient::new(&stage.pair, false, 0);
    let agreed = stage.agreed();
    assert_untouched(&mut stage, "calm");

    let flood = floods::by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    wait_for_line(&stage.weir, "flood, more than 10000 SYNs");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let [first, second] = [FROM, FROM + 1].map(|from| {
        let reply = client.open(from, stage.target.port(), 7, &SYN_OPTIONS);
        assert_eq!((reply.flags, reply.intact), (SYN | ACK, true), "{reply:?}");
        reply
    });
    let books = books.until_now(&stage.weir, &stage.pair.server);
    assert!(books.reason("cookie_sent") >= 2 && books.kernel.get("Tcp", "PassiveOpens") == 0, "{:?}", books.moved());
    drop(flood);

    wait_for_mode(&stage.weir, "lingering");
    wait_for_line(&stage.weir, "the flood is over");
    let books = Books::read(&stage.weir, &stage.pair.server);
    client.send(&[client.reply_to(&first)]);
    let line = client.hear_until(first.sequence.wrapping_add(1), PATIENCE, |line| line.ends_with(b"\n"));
    assert!(line.ends_with(b"\n"), "no worker's line: {line:?}");
    let books = books.until_now(&stage.weir, &stage.pair.server);
    assert_eq!((books.reason("cookie_accepted"), books.restored("restored")), (1, 1), "{:?}", books.moved());
    assert_eq!(stage.agreed(), agreed);
    assert_untouched(&mut stage, "lingering");

    // Its keys and the second of grace in which the daemon looks.
    wait_longer_for_mode(&stage.weir, "calm", Duration::from_secs(20));
    wait_for_line(&stage.weir, ": calm; in ");
    assert_eq!(stage.agreed(), agreed);
    assert_untouched(&mut stage, "calm");
    // A cookie that comes now is an ACK of nothing, and the kernel's business.
    let books = Books::read(&stage.weir, &stage.pair.server);
    client.send(&[client.reply_to(&second)]);
    assert_eq!(client.receive(PATIENCE).expect("the kernel's reset").flags & RST, RST);
    assert_eq!(books.until_now(&stage.weir, &stage.pair.server).reason("cookie_accepted"), 0);
}

/// SYNs pass as they came: none is answered in XDP, none is counted as anything else, and the kernel makes each connection itself.
#[track_caller]
fn assert_untouched(stage: &mut Stage, mode: &str) {
    let shown = only_service(&stage.weir).defence.expect("a TCP service has one").mode;
    let books = Books::read(&stage.weir, &stage.pair.server);
    let report: Report = stage.connections(CONNECTIONS);
    let books = books.until_now(&stage.weir, &stage.pair.server);
    println!("{mode}: {:?}", books.moved());
    report.assert_no_failure();
    assert_eq!(shown, mode);
    let expected = CONNECTIONS as u64;
    // One that is sent again is one more; and neighbours are asked for.
    assert!((expected..expected + 10).contains(&books.reason("tcp_opened")), "{:?}", books.moved());
    assert!(books.moved().keys().all(|reason| ["tcp_opened", "tcp_established", "not_transport"].contains(reason)), "{:?}", books.moved());
    assert_eq!(books.kernel.get("TcpExt", "SyncookiesSent"), 0);
}
