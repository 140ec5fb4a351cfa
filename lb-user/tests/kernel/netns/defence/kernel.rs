//! The kernel's own cookies, made in XDP: what older kernels have, forced here. They are honoured only while net.ipv4.tcp_syncookies is 2 or
//! a SYN queue is full, so the daemon sets it for the time of a flood, and somebody has to put it back whatever becomes of the daemon.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::books::{Books, wait_for_line, wait_for_mode, wait_longer_for_mode};
use super::floods::{at_rate, by_generator, defence};
use super::rounds::until_clean;
use super::scenarios::{Scenario, Server, Stage};
use crate::netns::live::status;
use crate::support::daemon::Weir;
use crate::support::flood::ready;
use crate::support::load::{Plan, Report, Steady};
use crate::support::netns::{Namespace, Pair};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::snmp::Counters;
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("defence::kernel::the_kernel_s_cookies_serve_every_client", || {
            the_kernel_s_cookies_serve_every_client(false);
            the_kernel_s_cookies_serve_every_client(true);
        }),
        trial("defence::kernel::stop_puts_the_setting_back_with_and_without_a_daemon", || {
            stop_puts_the_setting_back(false);
            stop_puts_the_setting_back(true);
        }),
        trial("defence::kernel::a_setting_that_is_not_managed_is_left_alone", a_setting_that_is_not_managed_is_left_alone),
    ]
}

/// Tests of minutes, for `cargo xtask test --long`.
pub fn long_tests() -> Vec<Trial> {
    vec![trial("defence::kernel::five_minutes_of_flood_reset_no_client_and_the_setting_is_put_back", five_minutes_of_flood)]
}

const COOKIES: &str = "net.ipv4.tcp_syncookies";
const FORCED: &str = "scheme = \"kernel\"\n";
const CONNECTIONS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(5);

fn the_kernel_s_cookies_serve_every_client(v6: bool) {
    let mut stage = Stage::set(&Scenario { server: Server::Workers, v6, configuration: FORCED, options: &[] });
    assert_eq!(status(&stage.weir).defence.scheme, "kernel");
    assert_eq!(stage.pair.server.sysctl(COOKIES), "1");
    let flood = by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    wait_for_sysctl(&stage.pair.server, "2");
    assert!(status(&stage.weir).defence.sysctl_changed);
    wait_for_line(&stage.weir, "net.ipv4.tcp_syncookies is 2 instead of 1 for the time of the flood");
    until_clean(|| {
        let books = Books::read(&stage.weir, &stage.pair.server);
        let report = stage.connections(CONNECTIONS);
        let books = books.until_now(&stage.weir, &stage.pair.server);
        println!("{}; {:?}; the kernel {:?}", report.first_response, books.moved(), books.kernel.moved());
        assert_kernel_cookies(&books, &report);
        if report.slow == 0 { Ok(()) } else { Err(format!("{} lost a packet", report.slow)) }
    });
    // MSS and nothing else.
    let [client, server] = stage.agreed();
    drop(flood);
    assert!(!client.sack && !client.timestamps && client.send_window_scale.is_none() && client.send_mss >= 1_300, "{client:?}");
    assert_eq!((server.send_window_scale, server.receive_window_scale), (None, None), "{server:?}");
    // It stays for those who still have a cookie.
    wait_longer_for_mode(&stage.weir, "lingering", PATIENCE);
    assert_eq!(stage.pair.server.sysctl(COOKIES), "2");
    let output = stage.weir.cli_output(&["stop"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.pair.server.sysctl(COOKIES), "1");
}

/// Every client was served by a cookie that XDP made and the kernel took, and none was reset.
#[track_caller]
fn assert_kernel_cookies(books: &Books, report: &Report) {
    report.assert_no_failure();
    let kernel = |group, name| u64::try_from(books.kernel.get(group, name)).expect("it only grows");
    assert!(books.reason("cookie_sent") >= report.ok, "{books:?}");
    // The SYN of a client whose port's last connection is in TIME_WAIT is answered by the kernel, without a cookie.
    assert!(kernel("TcpExt", "SyncookiesRecv") + books.reason("flood_syn") >= report.ok, "{books:?}");
    assert_eq!((books.reason("cookie_refused"), kernel("TcpExt", "SyncookiesFailed")), (0, 0), "{books:?}");
    // Each minute the daemon opens a connection to itself, to see what window this host announces, and resets it; the clients and the
    // flood have nothing else from the kernel's hand.
    let own = kernel("Tcp", "ActiveOpens");
    assert!(kernel("Tcp", "OutRsts") <= own && kernel("TcpExt", "SyncookiesSent") <= own, "{:?}", books.kernel.moved());
}

fn stop_puts_the_setting_back(with_next_daemon: bool) {
    let mut stage = Stage::set(&Scenario { server: Server::Workers, v6: false, configuration: FORCED, options: &[] });
    let flood = by_generator(&stage.aim());
    wait_for_sysctl(&stage.pair.server, "2");
    stage.weir.kill9();
    drop(flood);
    assert_eq!(stage.pair.server.sysctl(COOKIES), "2", "who was killed puts nothing back");
    assert!(status(&stage.weir).defence.sysctl_changed, "but has left word");
    if with_next_daemon {
        stage.weir.restart();
        assert!(status(&stage.weir).defence.sysctl_changed, "and the next one knows");
        // Neither it nor anybody else takes 2 for what was there before.
        let flood = by_generator(&stage.aim());
        wait_for_mode(&stage.weir, "flood");
        drop(flood);
    }
    // Without a daemon it is the command that does it, in the namespace that it runs in.
    let output = stage.weir.cli_inside(&stage.pair.server, &["stop"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.pair.server.sysctl(COOKIES), "1");
}

/// XDP answers while the SYN queue is full, the kernel otherwise: between them no client is lost.
fn a_setting_that_is_not_managed_is_left_alone() {
    let configuration = "scheme = \"kernel\"\nmanage_sysctl = false\n";
    let mut stage = Stage::set(&Scenario { server: Server::Workers, v6: false, configuration, options: &[] });
    let flood = by_generator(&stage.aim());
    wait_for_mode(&stage.weir, "flood");
    let books = Books::read(&stage.weir, &stage.pair.server);
    let report = stage.connections(CONNECTIONS);
    let books = books.until_now(&stage.weir, &stage.pair.server);
    drop(flood);
    println!("{:?}; the kernel {:?}", books.moved(), books.kernel.moved());
    report.assert_no_failure();
    assert_eq!(stage.pair.server.sysctl(COOKIES), "1");
    assert!(!status(&stage.weir).defence.sysctl_changed);
    assert!(books.reason("defence_asleep") + books.reason("cookie_sent") >= report.ok, "{:?}", books.moved());
    assert_eq!((books.kernel.get("TcpExt", "SyncookiesFailed"), books.resets()), (0, 0), "{:?}", books.kernel.moved());
}

/// The mark that a listener needs to take a cookie ages out after two minutes without help; and what was changed is put back two minutes
/// after the flood.
fn five_minutes_of_flood() {
    const LASTS: Duration = Duration::from_secs(300);
    /// SYNs a second: hardly any work, and many times what begins the flood.
    const RATE: u64 = 5_000;
    let pair = Pair::new();
    ready(&pair);
    let (target, plan) = crate::netns::live::target(&pair, false, 80);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(target), 2);
    let configuration = defence(&format!("{FORCED}quiet_time = \"5s\"")).replace("syns_per_second = 10000", "syns_per_second = 1000");
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
    crate::netns::live::service_with_ready(&weir, 2);
    let aim = super::Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target };
    let mut flood = at_rate(&aim, RATE);
    wait_for_mode(&weir, "flood");
    wait_for_sysctl(&pair.server, "2");
    let begun = Instant::now();
    let books = Books::read(&weir, &pair.server);
    let plan: Plan = plan.concurrency(4).orderly_close().timeout(Duration::from_secs(8));
    let load = Steady::at_rate(&pair.client, &plan, 50);
    while begun.elapsed() < LASTS {
        std::thread::sleep(Duration::from_secs(1));
        if !flood.is_running() {
            // None lasts longer than a minute.
            flood = at_rate(&aim, RATE);
        }
    }
    let report = load.stop();
    let told = books.until_now(&weir, &pair.server);
    println!("{} connections, {} slow; {:?}; the kernel {:?}", report.ok, report.slow, told.moved(), told.kernel.moved());
    assert!(report.ok > 5_000, "{}", report.ok);
    assert_kernel_cookies(&told, &report);
    assert!(told.reason("cookie_sent") > 500_000, "{:?}", told.moved());

    drop(flood);
    let over = Instant::now();
    let before = Counters::read(&pair.server);
    wait_longer_for_mode(&weir, "lingering", Duration::from_secs(20));
    eventually(Duration::from_secs(150), || match pair.server.sysctl(COOKIES).as_str() {
        "1" => Ok(()),
        other => Err(format!("it is {other}")),
    });
    println!("put back after {:?}", over.elapsed());
    assert!(over.elapsed() > Duration::from_secs(115), "{:?}", over.elapsed());
    wait_for_line(&weir, "net.ipv4.tcp_syncookies is 1 again");
    let after = Counters::read(&pair.server).since(&before);
    assert!(after.get("Tcp", "OutRsts") <= after.get("Tcp", "ActiveOpens"), "{:?}", after.moved());
}

#[track_caller]
fn wait_for_sysctl(server: &Namespace, wanted: &str) {
    eventually(PATIENCE, || {
        let value = server.sysctl(COOKIES);
        if value == wanted { Ok(()) } else { Err(format!("{COOKIES} is {value}")) }
    });
}
