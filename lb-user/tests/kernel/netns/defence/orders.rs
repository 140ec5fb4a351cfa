//! An operator's word: on, off, and back to what is configured, while clients come and go.

use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, order, wait_for_line};
use super::rounds::until_clean;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::only_service;
use crate::support::load::{Plan, Steady};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![trial("defence::orders::no_switch_loses_a_connection", no_switch_loses_a_connection)]
}

/// Connections a second, and how many between two switches.
const RATE: u32 = 400;
const BETWEEN: u64 = 150;

/// Each order, the modes that the service may be in afterwards (a defence that was on lingers), and whether SYNs are answered in XDP.
const SWITCHES: [(&str, &[&str], bool); 6] = [
    ("on", &["flood"], true),
    ("off", &["lingering"], false),
    ("on", &["flood"], true),
    ("auto", &["lingering"], false),
    ("off", &["lingering", "calm"], false),
    ("auto", &["lingering", "calm"], false),
];

fn no_switch_loses_a_connection() {
    for v6 in [false, true] {
        let stage = Stage::set(&Scenario { server: Server::Workers, v6, configuration: "", options: &[] });
        let name = only_service(&stage.weir).name;
        let sources = if v6 { &stage.pair.client_v6 } else { &stage.pair.client_v4 };
        let plan = Plan::new(stage.target, sources).concurrency(8).timeout(Duration::from_secs(8)).orderly_close();
        until_clean(|| {
            let load = Steady::at_rate(&stage.pair.client, &plan, RATE);
            load.wait_for(BETWEEN);
            for (word, modes, answers) in SWITCHES {
                order(&stage.weir, &name, word);
                let defence = eventually(Duration::from_secs(5), || {
                    let defence = only_service(&stage.weir).defence.expect("a TCP service has one");
                    if modes.contains(&defence.mode.as_str()) { Ok(defence) } else { Err(format!("after `{word}` it is {}", defence.mode)) }
                });
                assert_eq!(format!("{:?}", defence.order).to_lowercase(), word);
                let books = Books::read(&stage.weir, &stage.pair.server);
                load.wait_for(BETWEEN);
                let books = books.until_now(&stage.weir, &stage.pair.server);
                println!("{word}: {}; {:?}", defence.mode, books.moved());
                // Those that were under way at the switch, and between looking and counting, are of either kind.
                let (sent, opened) = (books.reason("cookie_sent"), books.reason("tcp_opened"));
                let (most, least) = if answers { (sent, opened) } else { (opened, sent) };
                assert!(most > BETWEEN / 2 && least < BETWEEN / 10, "{word}: {:?}", books.moved());
            }
            let report = load.stop();
            report.assert_no_failure();
            for line in ["flood, as ordered or configured", "the flood is over"] {
                wait_for_line(&stage.weir, &format!("service {name}: {line}"));
            }
            println!("{} connections, the slowest took {:?}", report.ok, report.slowest);
            if report.slow == 0 { Ok(()) } else { Err(format!("{} lost a packet", report.slow)) }
        });
    }
}
