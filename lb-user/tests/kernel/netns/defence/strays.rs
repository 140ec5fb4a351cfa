//! Floods of segments that belong to nothing: each is dropped by its reason, and nobody hears of it.

use std::time::Duration;

use libtest_mimic::Trial;

use super::books::{Books, order, wait_for_mode};
use super::floods::{generated, plan};
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::only_service;
use crate::support::flood::{FloodKind, Prefix};
use crate::support::packet::{ACK, FIN, PSH, RST, SYN, URG};
use crate::support::raw::RawClient;
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::strays::a_million_acks_bring_out_no_reset_once_they_are_noticed", || a_million_acks(false, false)),
        trial("defence::strays::a_million_acks_bring_out_no_reset_at_all_where_it_is_ordered_on", || a_million_acks(true, true)),
        trial("defence::strays::each_kind_is_dropped_by_its_reason", || {
            each_kind_is_dropped_by_its_reason(false);
            each_kind_is_dropped_by_its_reason(true);
        }),
        trial("defence::strays::what_no_stack_sends_is_refused_in_calm", what_no_stack_sends_is_refused_in_calm),
    ]
}

const CLIENTS: usize = 500;

fn stage(v6: bool) -> Stage {
    // Guessing begins early, where a slow machine's flood gets as well.
    let configuration = "failed_cookies_per_prefix = 1000\n";
    Stage::set(&Scenario { server: Server::Workers, v6, configuration, options: &[] })
}

/// How many ACKs were told to be nobody's.
fn refused(books: &Books) -> u64 {
    ["cookie_refused", "cookie_expired", "cookie_guessing"].map(|reason| books.reason(reason)).iter().sum()
}

fn a_million_acks(v6: bool, ordered: bool) {
    const ACKS: u64 = 1_000_000;
    let mut stage = stage(v6);
    let name = only_service(&stage.weir).name;
    if ordered {
        order(&stage.weir, &name, "on");
    }
    let whole = Books::read(&stage.weir, &stage.pair.server);
    let aim = stage.aim();
    let flood = generated(&aim, &plan(&aim, FloodKind::Ack).packets(ACKS).rate(250_000));
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let report = stage.connections(CLIENTS);
    let was_running = flood.is_running();
    let sent = flood.finish();
    std::thread::sleep(Duration::from_millis(200));
    let noticed = books.until_now(&stage.weir, &stage.pair.server);
    let whole = whole.until_now(&stage.weir, &stage.pair.server);
    println!(
        "{sent:?}, {:.0} a second, {} lost before any program; {}; {:?}; {} resets, {} of them once it was noticed",
        sent.rate(),
        whole.device.dropped,
        report.first_response,
        whole.moved(),
        whole.resets(),
        noticed.resets()
    );
    report.assert_no_failure();
    assert_eq!(report.slow, 0, "the slowest took {:?}", report.slowest);
    assert!(was_running, "the clients came too late");
    assert_eq!(sent.sent, ACKS);
    assert!(refused(&whole) >= ACKS / 2, "{:?}", whole.moved());
    // Of a million guesses one is right in some sixty runs (26 bits), and the listener answers what it gets then.
    let guessed = i64::try_from(whole.reason("cookie_accepted").saturating_sub(whole.reason("cookie_sent"))).expect("a few");
    assert!(guessed <= 2 && noticed.resets() <= guessed, "{guessed} guessed: {:?}", noticed.kernel.moved());
    // One in 32 is looked at, and a flood's window is 10 ms.
    let before = if ordered { guessed } else { 3_000 };
    assert!(whole.resets() <= before, "{} resets", whole.resets());
}

fn each_kind_is_dropped_by_its_reason(v6: bool) {
    const PACKETS: u64 = 10_000;
    /// No client is to be served meanwhile.
    const RATE: u64 = 50_000;
    let stage = stage(v6);
    let name = only_service(&stage.weir).name;
    order(&stage.weir, &name, "on");
    let kinds: [(FloodKind, &[&str]); 8] = [
        (FloodKind::SynAck, &["stray_syn_ack"]),
        (FloodKind::Rst, &["stray_reset"]),
        (FloodKind::Fin, &["cookie_refused", "cookie_expired"]),
        (FloodKind::Flags(ACK | PSH | URG), &["cookie_refused", "cookie_expired"]),
        (FloodKind::Flags(0), &["null_flags"]),
        (FloodKind::Flags(FIN | PSH | URG), &["xmas_flags"]),
        (FloodKind::Flags(SYN | FIN), &["syn_fin_flags"]),
        (FloodKind::Flags(SYN | RST), &["syn_reset_flags"]),
    ];
    for (kind, reasons) in kinds {
        let books = Books::read(&stage.weir, &stage.pair.server);
        let aim = stage.aim();
        let flood = generated(&aim, &plan(&aim, kind).packets(PACKETS).rate(RATE));
        assert_eq!(flood.finish().sent, PACKETS);
        std::thread::sleep(Duration::from_millis(50));
        let books = books.until_now(&stage.weir, &stage.pair.server);
        let counted: u64 = reasons.iter().map(|reason| books.reason(reason)).sum();
        println!("{kind:?}: {:?}, {} lost before any program", books.moved(), books.device.dropped);
        assert!(counted + books.device.dropped >= PACKETS && counted > PACKETS / 2, "{kind:?}: {:?}", books.moved());
        assert_eq!((books.resets(), books.kernel.get("Tcp", "InSegs")), (0, 0), "{kind:?}: {:?}", books.kernel.moved());
    }
    // Guessing from one prefix is stopped before any cookie is looked at.
    let from = if v6 {
        Prefix::new("2a00:1::".parse().expect("an address"), 56)
    } else {
        Prefix::new("20.30.40.0".parse().expect("an address"), 24)
    };
    let books = Books::read(&stage.weir, &stage.pair.server);
    let aim = stage.aim();
    generated(&aim, &plan(&aim, FloodKind::Ack).packets(3 * PACKETS).rate(RATE).coming_from(&[from])).finish();
    std::thread::sleep(Duration::from_millis(50));
    let books = books.until_now(&stage.weir, &stage.pair.server);
    println!("from one prefix: {:?}", books.moved());
    assert!(books.reason("cookie_guessing") > 10_000, "{:?}", books.moved());
    assert_eq!(books.resets(), 0);
}

/// Without any flood, and without an answer; a stray ACK is answered by the kernel, as ever.
fn what_no_stack_sends_is_refused_in_calm() {
    const FROM: u16 = 40_000;
    for v6 in [false, true] {
        let stage = stage(v6);
        let client = RawClient::new(&stage.pair, v6, 0);
        let books = Books::read(&stage.weir, &stage.pair.server);
        let port = stage.target.port();
        let flags = [0, FIN | PSH | URG, FIN, SYN | FIN, SYN | RST, SYN | FIN | ACK];
        client.send(&flags.map(|flags| client.tcp(FROM, port).flags(flags)));
        assert_eq!(client.receive_all(Duration::from_millis(150)), []);
        let books = books.until_now(&stage.weir, &stage.pair.server);
        let counted = ["null_flags", "xmas_flags", "syn_fin_flags", "syn_reset_flags"].map(|reason| books.reason(reason));
        assert_eq!(counted, [1, 2, 2, 1], "{:?}", books.moved());
        assert_eq!(books.resets(), 0);
        client.send(&[client.tcp(FROM, port).flags(ACK).acknowledgement(7)]);
        let answer = client.receive(Duration::from_secs(1)).expect("the kernel's reset");
        assert_eq!((answer.flags & RST, answer.sequence), (RST, 7));
    }
}
