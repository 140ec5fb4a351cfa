//! `weir top` on a pseudo-terminal, driven by its keys beside a daemon that runs.

use std::net::SocketAddr;

use lb_user::plan::State;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::live::{status, target};
use crate::support::daemon::{Weir, binary};
use crate::support::load::Steady;
use crate::support::netns::Pair;
use crate::support::screen_role;
use crate::support::servers::{WorkerPlan, Workers, signal};
use crate::support::terminal::Terminal;
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("netns::top::keys_sort_drain_and_quit", keys_sort_drain_and_quit),
        trial("netns::top::outlives_the_daemon_and_ends_by_signal", outlives_the_daemon_and_ends_by_signal),
        trial("netns::top::a_panic_leaves_the_terminal_clean", a_panic_leaves_the_terminal_clean),
        trial("netns::top::needs_a_terminal", needs_a_terminal),
    ]
}

const WIDE: (u16, u16) = (40, 120);

/// The services `web` of three workers and `admin` of one, with Weir before them.
fn running() -> (Pair, [Workers; 2], Weir) {
    let pair = Pair::new();
    let at = |port| SocketAddr::new(pair.server_v4[0], port);
    let workers =
        [Workers::start(&pair.server, &WorkerPlan::tcp(at(8080)), 3), Workers::start(&pair.server, &WorkerPlan::tcp(at(8081)), 1)];
    let service =
        |name, port| format!("[[service]]\nname = \"{name}\"\nprotocol = \"tcp\"\nport = {port}\naddress = \"{}\"\n", at(port).ip());
    let configuration = service("web", 8080) + &service("admin", 8081);
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
    (pair, workers, weir)
}

fn top(weir: &Weir, environment: &[(&str, &str)], size: (u16, u16)) -> Terminal {
    let identity = weir.identity();
    let arguments: Vec<&str> = std::iter::once("top").chain(identity.iter().map(String::as_str)).collect();
    Terminal::start(binary(), &arguments, environment, size)
}

/// The words of the first row that begins with this one.
fn words<'a>(rows: &'a [String], first: &str) -> Vec<&'a str> {
    let row = rows.iter().find(|row| row.split_whitespace().next() == Some(first));
    row.map(|row| row.split_whitespace().collect()).unwrap_or_default()
}

/// The numbers of the workers that are shown, from above.
fn numbers(rows: &[String]) -> Vec<&str> {
    let states = State::ALL.map(State::label);
    let of_row = |row: &'_ String| row.split_whitespace().nth(1).is_some_and(|state| states.contains(&state));
    rows.iter().filter(|row| of_row(row)).filter_map(|row| row.split_whitespace().next()).collect()
}

/// The states of the workers of `web`, as `weir status --json` has them.
fn states(weir: &Weir) -> Vec<State> {
    status(weir).service("web").expect("the service").backends.iter().map(|backend| backend.state).collect()
}

fn keys_sort_drain_and_quit() {
    let (pair, workers, weir) = running();
    let mut terminal = top(&weir, &[], WIDE);
    // The last row too: what is read may be half a frame.
    terminal.see("both services with all workers, in peace", |rows| {
        let shown = words(rows, "web").get(1) == Some(&"3/3") && words(rows, "admin").get(1) == Some(&"1/1");
        shown && rows.iter().any(|row| row.contains("no flood")) && rows[39].contains("q quit")
    });
    assert!(terminal.is_taken() && terminal.is_coloured());

    // Connections show as a rate of the service that they go to, and of it alone.
    let (_, plan) = target(&pair, false, 8080);
    let load = Steady::at_rate(&pair.client, &plan, 200);
    let rate = |rows: &[String], service: &str| words(rows, service).get(3).and_then(|rate| rate.parse::<f64>().ok());
    terminal.see("a rate", |rows| rate(rows, "web").is_some_and(|rate| rate > 20.0) && rate(rows, "admin") == Some(0.0));
    load.stop().assert_no_failure();

    // By name; then the workers of `web`, from the last.
    terminal.press("s");
    terminal.see_text("2 services by name");
    let at = |rows: &[String], service: &str| rows.iter().position(|row| row.starts_with(service));
    terminal.see("admin before web", |rows| at(rows, "admin") < at(rows, "web"));
    // To the last one, whatever was chosen at the start.
    terminal.press("G\t");
    terminal.see_text("web (tcp/");
    terminal.see("the workers by number", |rows| numbers(rows) == ["0", "1", "2"]);
    terminal.press("r");
    terminal.see("the workers turned round", |rows| numbers(rows) == ["2", "1", "0"]);
    terminal.press("g\x1b[B");
    terminal.press("?");
    terminal.see_text("help: any key goes back");
    terminal.press("\r");

    // The second from above is worker 1: a drain that is denied changes nothing, one that is confirmed does.
    let sockets = workers[0].sockets();
    let worker = status(&weir).service("web").expect("the service").backends[1].clone();
    let pid = sockets.iter().find(|socket| socket.cookie == worker.cookie).map(|_| worker.servers[0].pid).expect("a worker of ours");
    terminal.press("d");
    terminal.see_text(&format!("Drain worker 1 (process {pid} "));
    terminal.press("n");
    terminal.see_text("nothing was done");
    assert_eq!(states(&weir), [State::Ready; 3]);
    terminal.press("d");
    terminal.see_text("Drain worker 1");
    terminal.press("y");
    terminal.see("a drained worker", |rows| words(rows, "1").get(1) == Some(&"draining") && words(rows, "web").get(1) == Some(&"2/3"));
    assert_eq!(states(&weir), [State::Ready, State::Draining, State::Ready]);

    // Smaller, too small, and back: all of it is drawn anew.
    terminal.resize(24, 80);
    terminal.see("all of it, down to the daemon's answer in the last row", |rows| {
        let panels = rows.iter().any(|row| row.contains("drops/s by reason"));
        panels && words(rows, "1").get(1) == Some(&"draining") && rows.len() == 24 && rows[23].contains("gets no new flows")
    });
    terminal.resize(10, 60);
    terminal.see_text("weir top needs 80 columns and 20 rows");
    terminal.resize(24, 80);
    terminal.see_text("drops/s by reason");
    terminal.press("u");
    terminal.see_text("Undrain worker 1");
    terminal.press("y");
    terminal.see("no drained worker", |rows| words(rows, "web").get(1) == Some(&"3/3"));
    assert_eq!(states(&weir), [State::Ready; 3]);

    terminal.press("q");
    assert_eq!(terminal.ended().code(), Some(0));
    terminal.assert_given_back();
}

fn outlives_the_daemon_and_ends_by_signal() {
    let (_pair, _workers, mut weir) = running();
    let mut terminal = top(&weir, &[("NO_COLOR", "1")], (24, 80));
    terminal.see_text(&format!("pid {}", weir.pid()));
    assert!(terminal.is_taken() && !terminal.is_coloured(), "NO_COLOR is set");
    // A daemon that hangs: what is shown is called old, and the keys still work.
    signal(weir.pid(), Signal::SIGSTOP);
    terminal.see_text("no answer, what is shown is old");
    terminal.press("?");
    terminal.see_text("help: any key goes back");
    terminal.press("?");
    signal(weir.pid(), Signal::SIGCONT);
    terminal.see_text(&format!("pid {}", weir.pid()));
    weir.kill9();
    terminal.see_text("no daemon runs; figures read from the pinned maps");
    terminal.press("\td");
    terminal.see_text("no daemon is running");
    weir.restart();
    terminal.see_text(&format!("pid {}", weir.pid()));
    assert!(terminal.is_taken());
    signal(terminal.pid(), Signal::SIGTERM);
    let status = terminal.ended();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32), "{status:?}");
    terminal.assert_given_back();
}

/// The message stands on the screen that the user sees then, below what was there before.
fn a_panic_leaves_the_terminal_clean() {
    let program = std::env::current_exe().expect("this program");
    for thread in ["main", "other"] {
        let mut terminal = Terminal::start(&program, &["--role", screen_role::NAME, thread], &[], (24, 80));
        assert_eq!(terminal.ended().code(), Some(101), "in the thread {thread}");
        terminal.assert_given_back();
        terminal.see_text(screen_role::WORDS);
        assert!(terminal.rows().iter().all(|row| !row.contains("here is the view")));
    }
}

fn needs_a_terminal() {
    let (_pair, _workers, weir) = running();
    let output = weir.cli_output(&["top"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
    assert!(error.contains("needs a terminal") && error.contains("remedy: `weir status`"), "{error}");
    // A daemon that is nowhere is said as every command says it, on a terminal that is left as it was.
    let mut terminal = Terminal::start(binary(), &["top", "--instance", "nonesuch"], &[], (24, 80));
    assert_eq!(terminal.ended().code(), Some(8));
    terminal.see_text("instance `nonesuch` has neither a daemon nor a data plane");
    terminal.assert_given_back();
}
