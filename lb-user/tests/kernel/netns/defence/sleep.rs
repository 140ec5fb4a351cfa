//! The defence without its daemon: ten seconds more, and then the kernel alone, until there is a daemon again.

use std::time::Duration;

use libtest_mimic::Trial;

use super::books::Books;
use super::floods::at_rate;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::status;
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![trial("defence::sleep::it_falls_asleep_without_its_daemon_and_wakes_with_the_next", it_falls_asleep_and_wakes)]
}

const CONNECTIONS: usize = 200;
/// SYNs a second: few enough for the kernel.
const RATE: u64 = 2_000;

/// Through a flood from beginning to end, in which no client is lost, whoever answers.
fn it_falls_asleep_and_wakes() {
    let configuration = "syn_defence = \"always\"\n";
    let mut stage = Stage::set(&Scenario { server: Server::Workers, v6: true, configuration, options: &[] });
    let connect = |stage: &mut Stage, what: &str| {
        let books = Books::read(&stage.weir, &stage.pair.server);
        let flood = at_rate(&stage.aim(), RATE);
        let report = stage.connections(CONNECTIONS);
        eventually(Duration::from_secs(5), || if flood.sent() >= RATE / 4 { Ok(()) } else { Err("it does not go on".to_owned()) });
        drop(flood);
        let books = books.until_now(&stage.weir, &stage.pair.server);
        println!("{what}: {:?}; the kernel {:?}", books.moved(), books.kernel.moved());
        report.assert_no_failure();
        books
    };
    let least = CONNECTIONS as u64;
    let is_live = |stage: &Stage| status(&stage.weir).defence.live;

    stage.weir.kill9();
    let books = connect(&mut stage, "just dead");
    assert!(is_live(&stage), "it took more than ten seconds");
    assert_eq!((books.reason("defence_asleep"), books.kernel.get("TcpExt", "SyncookiesSent")), (0, 0), "{:?}", books.moved());
    assert!(books.reason("cookie_sent") >= least && books.restored("restored") >= least, "{books:?}");

    eventually(Duration::from_secs(12), || if is_live(&stage) { Err("the record is good still".to_owned()) } else { Ok(()) });
    let books = connect(&mut stage, "asleep");
    assert_eq!((books.reason("cookie_sent"), books.restored("restored")), (0, 0), "{:?}", books.moved());
    assert!(books.reason("defence_asleep") >= least, "{:?}", books.moved());
    assert!(books.kernel.get("Tcp", "PassiveOpens") >= i64::try_from(least).expect("few"), "{:?}", books.kernel.moved());

    stage.weir.restart();
    eventually(Duration::from_secs(5), || if is_live(&stage) { Ok(()) } else { Err("no new record".to_owned()) });
    let books = connect(&mut stage, "with the next daemon");
    assert_eq!(books.reason("defence_asleep"), 0, "{:?}", books.moved());
    assert!(books.reason("cookie_sent") >= least && books.restored("restored") >= least, "{books:?}");
}
