//! A flood too slow to be told by its rate fills the listener's SYN queue; and listeners of their own, without SO_REUSEPORT.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use libtest_mimic::Trial;

use super::Aim;
use super::books::{Books, wait_for_line, wait_for_mode};
use super::floods::{at_rate, by_generator, defence};
use crate::netns::live::{PATIENCE, service_with_ready, status, target};
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::open_close;
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::queue::a_slow_flood_that_fills_the_queue_is_noticed", || {
            a_slow_flood_is_noticed(false);
            a_slow_flood_is_noticed(true);
        }),
        trial("defence::queue::a_listener_of_its_own_is_defended_unless_it_says_no", || {
            a_listener_of_its_own_is_defended(false);
            a_listener_of_its_own_is_defended(true);
        }),
    ]
}

const PORT: u16 = 80;
const CONNECTIONS: usize = 500;

/// Below the rate that begins a flood by far.
fn a_slow_flood_is_noticed(v6: bool) {
    const BACKLOG: i32 = 64;
    const SLOWLY: u64 = 500;
    let pair = Pair::new();
    ready(&pair);
    let (target, plan) = target(&pair, v6, PORT);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target).backlog(BACKLOG), 2);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&defence("")), &[]);
    let name = service_with_ready(&weir, 2).name;
    let flood = at_rate(&aim(&pair, target), SLOWLY);
    wait_for_mode(&weir, "flood");
    wait_for_line(&weir, &format!("service {name}: flood, its SYN queue is full"));
    let books = Books::read(&weir, &pair.server);
    let report = open_close(&pair.client, &plan.orderly_close(), CONNECTIONS);
    let books = books.until_now(&weir, &pair.server);
    drop(flood);
    println!("{:?}; the kernel {:?}", books.moved(), books.kernel.moved());
    report.assert_no_failure();
    let served = CONNECTIONS as u64;
    assert!(books.reason("cookie_sent") >= served && books.restored("restored") >= served, "{books:?}");
    assert_eq!(books.kernel.get("TcpExt", "TCPReqQFullDoCookies"), 0, "no SYN is left to the full queue");
}

fn a_listener_of_its_own_is_defended(v6: bool) {
    let pair = Pair::new();
    ready(&pair);
    let (target, plan) = target(&pair, v6, PORT);
    serve(&pair, target);
    let said = |word: &str| {
        let service = format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\naddress = \"{}\"\nport = {PORT}\n", target.ip());
        defence(&format!("{service}syn_defence = \"{word}\""))
    };
    for (word, is_defended, first) in [("auto", true, 0), ("off", false, CONNECTIONS)] {
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&said(word)), &[]);
        eventually(PATIENCE, || {
            let services = status(&weir).services;
            let found = services.iter().find(|service| service.name == "web").ok_or("no service")?;
            let is_found = if is_defended { found.listeners == 1 && !found.balanced } else { !found.notes.is_empty() };
            if is_found && found.backends.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
        });
        let books = Books::read(&weir, &pair.server);
        let flood = by_generator(&aim(&pair, target));
        if is_defended {
            wait_for_mode(&weir, "flood");
        } else {
            // Long enough for a flood to be noticed.
            std::thread::sleep(Duration::from_secs(1));
        }
        let report = open_close(&pair.client, &plan.clone().orderly_close().starting_at_flow(first), CONNECTIONS);
        let books = books.until_now(&weir, &pair.server);
        drop(flood);
        println!("{word}: {:?}; the kernel {:?}", books.moved(), books.kernel.moved());
        report.assert_no_failure();
        let served = CONNECTIONS as u64;
        if is_defended {
            assert!(books.reason("cookie_sent") >= served && books.restored("restored") >= served, "{books:?}");
        } else {
            assert_eq!((books.reason("cookie_sent"), books.restored("restored")), (0, 0), "{:?}", books.moved());
            assert!(books.kernel.get("TcpExt", "SyncookiesSent") > 1_000, "the kernel's own: {:?}", books.kernel.moved());
        }
    }
}

/// A plain listener that answers each connection as a worker does, for as long as the test lasts.
fn serve(pair: &Pair, address: SocketAddr) {
    let listener = pair.server.run(|| TcpListener::bind(address).expect("listen"));
    // It ends with the test program; its namespace is gone by then.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that is gone already says so itself.
            let _ = stream.and_then(|mut stream| stream.write_all(b"0 1 2\n"));
        }
    });
}

fn aim(pair: &Pair, target: SocketAddr) -> Aim<'_> {
    Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target }
}
