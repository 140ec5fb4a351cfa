//! The view over hand-made snapshots: keys in, text out.
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{model::*, update::*, view::*, *};
use crate::{
    observe::{
        sample,
        snapshot::{Histogram, KernelDrop, Queue, Queues, Watch},
    },
    plan::State,
};

/// [`sample::flooded`] and, a second later, what a flood and a slow worker make of it.
fn trouble() -> Model {
    let before = sample::flooded();
    let mut after = before.clone();
    after.dataplane.uptime += 1.0;
    let web = &mut after.services[0];
    for count in &mut web.packets {
        (count.packets, count.bytes) = (count.packets + count.packets / 10, count.bytes + count.bytes / 10);
    }
    web.kernel_drops[0].packets += 4;
    for (backend, more) in web.backends.iter_mut().zip([120_u64, 35, 1]) {
        backend.established += more;
        *backend.selected.get_mut("syn").unwrap() += more;
        backend.accept_latency.as_mut().unwrap().counts[7] += more;
    }
    web.handshake_time.as_mut().unwrap().counts[4] += 100;
    let slow = &mut web.backends[1];
    slow.queues.accept_queue = Some(Queue { length: 400, limit: 511 });
    slow.queues.oldest_wait = Some(2.5);
    slow.queues.overflows.as_mut().unwrap().accept_queue += 7;
    let mut model = Model::of(before);
    model.look(after);
    model
}

/// Everything that may be absent is.
fn bare() -> Model {
    let strip = |uptime: f64| {
        let mut snapshot = sample::small();
        (snapshot.daemon, snapshot.dataplane.uptime, snapshot.watch) = (None, uptime, Watch::default());
        for service in &mut snapshot.services {
            (service.handshake_time, service.kernel_drops) = (None, Vec::<KernelDrop>::new());
            service.listening.iter_mut().for_each(|socket| socket.queues = Queues::default());
            for backend in &mut service.backends {
                (backend.queues, backend.accept_latency) = (Queues::default(), None::<Histogram>);
                backend.kernel_drops.clear();
            }
        }
        snapshot
    };
    let mut model = Model::of(strip(10.0));
    model.look(strip(11.0));
    model
}

fn terminal(model: &Model, (width, height): (u16, u16), colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Theme { colour })).unwrap();
    terminal
}

/// The screen as text, without the blanks at the ends of its rows.
fn screen(model: &Model, size: (u16, u16)) -> String {
    let terminal = terminal(model, size, true);
    let buffer = terminal.backend().buffer();
    let row = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..size.1).map(row).collect()
}

fn press(model: &mut Model, keys: &str) -> Vec<Action> {
    let code = |key| match key {
        '\t' => KeyCode::Tab,
        '\n' => KeyCode::Enter,
        '\x1b' => KeyCode::Esc,
        '↓' => KeyCode::Down,
        '↑' => KeyCode::Up,
        other => KeyCode::Char(other),
    };
    keys.chars().map(|key| update(model, Event::Key(KeyEvent::new(code(key), KeyModifiers::NONE)))).collect()
}

fn numbers(model: &Model) -> Vec<u32> {
    model.workers().iter().map(|worker| worker.index).collect()
}

fn names(model: &Model) -> Vec<&str> {
    model.services().iter().map(|service| service.name.as_str()).collect()
}

#[test]
fn trouble_at_80_by_24() {
    let text = screen(&trouble(), (80, 24));
    sample::golden("top-80x24.txt", &text);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/top.md")).unwrap();
    assert!(page.contains(&format!("```text\n{text}```")), "the picture of docs/top.md is out of date");
}

#[test]
fn trouble_at_120_by_40() {
    sample::golden("top-120x40.txt", &screen(&trouble(), (120, 40)));
}

#[test]
fn what_is_absent_is_a_dash() {
    sample::golden("top-bare.txt", &screen(&bare(), (80, 24)));
}

#[test]
fn the_help_fits_the_smallest_terminal() {
    let mut model = trouble();
    press(&mut model, "?");
    sample::golden("top-help.txt", &screen(&model, (WIDTH, HEIGHT)));
    press(&mut model, "q");
    assert_eq!(model.over, Over::Nothing, "any key ends the help, and does nothing else");
}

#[test]
fn a_terminal_that_is_too_small_is_told_what_it_needs() {
    for size in [(WIDTH - 1, HEIGHT), (WIDTH, HEIGHT - 1), (30, 4)] {
        let text = screen(&trouble(), size).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.starts_with("weir top needs 80 columns and 20 rows; this terminal has"), "{text}");
    }
    screen(&trouble(), (1, 1));
}

#[test]
fn every_size_is_drawn() {
    let mut model = trouble();
    model.look(sample::large(40, 64));
    for (over, width) in [("", 80), ("?", 100), ("x\td", 109), ("n", 110), ("", 400)] {
        press(&mut model, over);
        for height in [20, 21, 24, 60, 200] {
            screen(&model, (width, height));
        }
    }
    screen(&Model::of(Snapshot::default()), (80, 24));
}

#[test]
fn without_colours_nothing_is_coloured_and_the_alarm_is_still_seen() {
    let plain = terminal(&trouble(), (80, 24), false);
    let cells = plain.backend().buffer().content();
    assert!(cells.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    assert!(cells.iter().any(|cell| cell.symbol() == "F" && cell.modifier.contains(Modifier::REVERSED | Modifier::BOLD)));
    let coloured = terminal(&trouble(), (80, 24), true);
    assert!(coloured.backend().buffer().content().iter().any(|cell| cell.fg == Color::Red));
}

#[test]
fn a_command_name_cannot_write_to_the_terminal() {
    let mut snapshot = sample::small();
    snapshot.services[0].backends[0].servers[0].command = "\x1b[2Jx".to_owned();
    snapshot.services[0].name = "a\x1b]0;b".to_owned();
    let text = screen(&Model::of(snapshot), (120, 40));
    assert!(!text.contains('\x1b') && text.contains("5000 ?[2Jx"), "{text}");
}

#[test]
fn services_are_sorted_and_the_chosen_one_stays_chosen() {
    let mut model = trouble();
    assert_eq!(names(&model), ["web", "tcp/0.0.0.0:22", "udp/[::1%v0]:53"], "the flood first, then the queue that is not empty");
    press(&mut model, "↓");
    assert_eq!(model.chosen_service().unwrap().name, "tcp/0.0.0.0:22");
    press(&mut model, "s");
    assert_eq!(names(&model), ["tcp/0.0.0.0:22", "udp/[::1%v0]:53", "web"], "by name");
    press(&mut model, "r");
    assert_eq!(names(&model)[0], "web");
    assert_eq!(model.chosen_service().unwrap().name, "tcp/0.0.0.0:22");
    press(&mut model, "↓↓↓↓");
    assert_eq!(model.chosen_service().unwrap().name, "tcp/0.0.0.0:22", "it is the last");
    press(&mut model, "rss");
    assert_eq!((model.service_order, names(&model)[0]), (sorting::ServiceOrder::Drops, "web"));
    let mut without = model.snapshot.clone();
    without.services.retain(|service| service.name != "tcp/0.0.0.0:22");
    model.look(without);
    assert_eq!(model.chosen_service().unwrap().name, names(&model)[0], "the first, when the chosen one has gone");
}

#[test]
fn workers_are_sorted() {
    let mut model = trouble();
    press(&mut model, "\t");
    assert_eq!(numbers(&model), [0, 1, 2]);
    for (order, expected) in [("new", [0, 1, 2]), ("queue", [1, 2, 0]), ("wait", [1, 2, 0]), ("lost", [1, 0, 2])] {
        press(&mut model, "s");
        assert_eq!(numbers(&model), expected, "by {order}");
    }
    press(&mut model, "sr");
    assert_eq!(numbers(&model), [2, 1, 0]);
}

#[test]
fn a_drain_is_asked_for_and_then_told() {
    let mut model = trouble();
    press(&mut model, "d");
    assert!(model.message.as_ref().unwrap().text.contains("choose a worker first"));
    press(&mut model, "\td");
    assert_eq!(model.message, None);
    sample::golden("top-question.txt", &screen(&model, (80, 24)));
    assert_eq!(press(&mut model, "\n"), [Action::Show], "no answer");
    let order = Order { service: "web".to_owned(), backend: 0, cookie: 1000, drain: true };
    assert_eq!(press(&mut model, "y"), [Action::Tell(order)]);
    assert_eq!(press(&mut model, "y"), [Action::Show], "once");
    update(&mut model, Event::Answered(Ok("backend 0 of web drains".to_owned())));
    assert!(screen(&model, (80, 24)).ends_with("backend 0 of web drains\n"));

    // The second one drains already, and can be given its share again.
    press(&mut model, "↓d");
    assert_eq!(model.message.as_ref().unwrap().text, "worker 1 drains already");
    assert_eq!(press(&mut model, "un"), [Action::Show, Action::Show]);
    let undrain = Order { service: "web".to_owned(), backend: 1, cookie: 1001, drain: false };
    assert_eq!(press(&mut model, "uy"), [Action::Show, Action::Tell(undrain)]);
}

#[test]
fn a_worker_that_left_while_the_question_stood_is_not_mistaken_for_the_next() {
    let mut model = trouble();
    press(&mut model, "\td");
    let mut later = model.snapshot.clone();
    later.services[0].backends[0].cookie = 7;
    update(&mut model, Event::Looked(Box::new(later)));
    assert_eq!(press(&mut model, "y"), [Action::Show]);
    assert!(model.message.unwrap().text.contains("has gone"));
}

#[test]
fn nobody_is_told_where_no_daemon_runs_or_no_worker_is() {
    let mut model = bare();
    press(&mut model, "\td");
    assert!(model.message.as_ref().unwrap().text.contains("no daemon is running"));
    let mut model = trouble();
    press(&mut model, "↓\tu");
    assert!(model.message.as_ref().unwrap().text.contains("no worker"), "{:?}", model.message);
}

#[test]
fn a_failed_look_is_said_until_the_next_one() {
    let mut model = trouble();
    update(&mut model, Event::Blind("the daemon is too busy to answer".to_owned()));
    assert!(screen(&model, (120, 24)).contains("what is shown is old: the daemon is too busy"));
    let next = model.snapshot.clone();
    update(&mut model, Event::Looked(Box::new(next)));
    assert_eq!(model.failure, None);
}

#[test]
fn q_control_c_and_signals_end_it() {
    let mut model = trouble();
    assert_eq!(press(&mut model, "q"), [Action::End(None)]);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut model, "\td");
    assert_eq!(update(&mut model, Event::Key(control_c)), Action::End(None));
    assert_eq!(update(&mut model, Event::End(Some(15))), Action::End(Some(15)));
}

#[test]
fn the_sparklines_go_back_a_bounded_while() {
    let mut model = trouble();
    for _ in 0..2 * MOMENTS {
        let mut next = model.snapshot.clone();
        next.dataplane.uptime += 1.0;
        model.look(next);
    }
    assert_eq!(model.history["web"].len(), MOMENTS);
    model.look(Snapshot::default());
    assert!(model.history.is_empty() && model.chosen_service().is_none());
}

#[test]
fn the_wait_of_a_worker_that_accepts_nothing_is_how_long_the_first_waits() {
    let model = trouble();
    let rates = &model.rates.as_ref().unwrap().services["web"].backends;
    let of = |index: usize| wait(&model.snapshot.services[0].backends[index], rates.get(&(1000 + index as u64)));
    assert!(of(0).is_some_and(|seconds| seconds < 0.01));
    assert_eq!(of(1), Some(2.5));
    assert_eq!(model.snapshot.services[0].backends[2].state, State::Unserved);
}
