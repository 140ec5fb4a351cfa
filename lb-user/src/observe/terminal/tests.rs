//! What people see, as a whole and at its edges.
use super::*;
use crate::{
    api::protocol::Order,
    observe::{sample, snapshot::MapFill},
};

/// Everything at its widest.
fn wide() -> Snapshot {
    let mut snapshot = sample::large(1, 3);
    let service = &mut snapshot.services[0];
    for (backend, index) in service.backends.iter_mut().zip([7, 88, 4095]) {
        (backend.index, backend.chosen, backend.established, backend.open) = (index, u64::MAX, 99_999, 12_345_678);
        backend.state = State::Unserved;
        backend.queues.accept_queue = Some(super::super::snapshot::Queue { length: 65_536, limit: 65_535 });
        backend.servers = vec![crate::plan::Process { pid: 4_194_304, command: "fifteen-bytes-x".to_owned() }; 12];
    }
    service.notes.push(sample::note(&"many words ".repeat(40), &"and more ".repeat(30)));
    for count in &mut service.packets {
        (count.packets, count.bytes) = (u64::MAX, u64::MAX);
    }
    snapshot.daemon.as_mut().unwrap().helper_alive = false;
    snapshot.daemon.as_mut().unwrap().events = false;
    snapshot.dataplane.maps = vec![MapFill { name: "services".to_owned(), entries: 4000, capacity: 4096 }];
    snapshot
}

#[test]
fn a_small_snapshot_gives_this_text() {
    sample::golden("small.txt", &status(&sample::small(), Style::PLAIN));
}

#[test]
fn a_flooded_service_gives_this_text() {
    let text = status(&sample::flooded(), Style::PLAIN);
    sample::golden("flooded.txt", &text);
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn what_the_defence_does_is_said_in_each_mode() {
    let line = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = sample::flooded();
        change(&mut snapshot);
        let of_service = snapshot.services[0].defence.clone().unwrap();
        defence::line(&of_service, &snapshot.defence).map(|line| (line.text, line.is_warning))
    };
    let of_service = |snapshot: &mut Snapshot, mode: &str, order: Order| {
        let defence = snapshot.services[0].defence.as_mut().unwrap();
        (defence.mode, defence.order) = (mode.to_owned(), order);
    };
    let said = |text: &str, is_warning| Some((text.to_owned(), is_warning));
    let kernel = "flood for 1 min 23 s: SYNs are answered with the kernel's cookies, which keep the MSS and no other TCP option";
    assert_eq!(line(&|snapshot| snapshot.defence.scheme = "kernel".to_owned()), said(kernel, true));
    for (change, why) in [
        ((|snapshot| snapshot.defence.scheme = "none".to_owned()) as fn(&mut Snapshot), "it would refuse cookies"),
        (|snapshot| snapshot.defence.live = false, "no daemon renews the defence's record"),
        (
            |snapshot| snapshot.services[0].defence.as_mut().unwrap().is_unsafe = true,
            "a connection that begins with a cookie would be lost on this host",
        ),
    ] {
        assert_eq!(line(&change), said(&format!("flood for 1 min 23 s: SYNs pass to the kernel, because {why}"), true));
    }
    let strays = "flood for 1 min 23 s: segments of no connection are refused; SYNs pass, since it is not they that come in a flood";
    assert_eq!(line(&|snapshot| snapshot.services[0].defence.as_mut().unwrap().answers_syns = false), said(strays, true));
    let kernels = |snapshot: &mut Snapshot| snapshot.services[0].defence.as_mut().unwrap().kernels_only = true;
    assert_eq!(line(&kernels), said(kernel, true));
    let over = "the flood is over after 1 min 23 s (ordered off): SYNs pass to the kernel, cookies sent before are still honoured";
    assert_eq!(line(&|snapshot| of_service(snapshot, "lingering", Order::Off)), said(over, false));
    assert_eq!(line(&|snapshot| of_service(snapshot, "calm", Order::Off)), said("calm (ordered off)", false));
    assert_eq!(line(&|snapshot| of_service(snapshot, "calm", Order::Auto)), None, "nothing to say");
}

#[test]
fn a_wide_one_gives_this_text_and_keeps_its_width() {
    let text = status(&wide(), Style::PLAIN);
    sample::golden("wide.txt", &text);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{}: {line}", line.chars().count());
    }
}

#[test]
fn without_the_daemon_it_says_where_the_figures_come_from() {
    let snapshot = Snapshot { daemon: None, services: Vec::new(), ..sample::small() };
    let text = status(&snapshot, Style::PLAIN);
    assert!(text.starts_with("weir default: the daemon is not running; figures read from the pinned maps\n"), "{text}");
    assert!(text.contains("\nno services: "), "{text}");
}

#[test]
fn what_is_not_balanced_says_why_and_not_that_backends_are_missing() {
    let mut snapshot = sample::small();
    for (why, count, expected) in [
        (Unbalanced::NotReuseport, 1, "1 listener, not balanced: not SO_REUSEPORT"),
        (Unbalanced::SteeredByAnother, 3, "3 listeners, not balanced: another program steers it"),
        (Unbalanced::OverLimit, 2, "2 listeners, not balanced: a limit is reached"),
    ] {
        (snapshot.others[0].why, snapshot.services[2].listeners) = (why, count);
        let text = status(&snapshot, Style::PLAIN);
        assert!(text.contains(&format!("\ntcp/0.0.0.0:22  {expected}\n")), "{text}");
        assert_eq!(text.matches("no backends").count(), 1, "of the UDP service:\n{text}");
    }
    snapshot.others.clear();
    assert!(status(&snapshot, Style::PLAIN).contains("2 listeners, not balanced\n"));
}

#[test]
fn colour_changes_nothing_but_the_colour() {
    let snapshot = wide();
    let painted = status(&snapshot, Style { colour: true });
    assert!(painted.contains("\x1b[31munserved\x1b[0m"), "{painted}");
    let mut plain = painted;
    for code in ["0", "1", "31", "32", "33"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(trimmed(&plain), trimmed(&status(&snapshot, Style::PLAIN)));
}

#[test]
fn no_name_can_write_to_the_terminal() {
    let evil = "\x1b]0;owned\x07\r\n\u{9b}31m";
    let mut snapshot = sample::small();
    snapshot.services[0].name = evil.to_owned();
    snapshot.services[0].backends[0].servers[0].command = evil.to_owned();
    snapshot.services[0].notes.push(sample::note(evil, evil));
    snapshot.services[1].device = Some(evil.to_owned());
    snapshot.others[0].commands = vec![evil.to_owned()];
    snapshot.passed[0].reason = evil.to_owned();
    snapshot.dataplane.interfaces[0].name = evil.to_owned();
    snapshot.instance = evil.to_owned();
    let text = status(&snapshot, Style::PLAIN);
    assert!(text.contains("owned"), "{text}");
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("31m")), "{text:?}");
}

#[test]
fn numbers_are_short_and_never_too_large() {
    for (value, counted, measured) in [
        (0, "0", "0 "),
        (999, "999", "999 "),
        (1_000, "1000", "1.00 k"),
        (45_678, "45678", "45.6 k"),
        (99_999, "99999", "99.9 k"),
        (100_000, "100k", "100 k"),
        (999_999, "999k", "999 k"),
        (1_239_999, "1.23M", "1.23 M"),
        (1_005_000_000, "1.00G", "1.00 G"),
        (u64::MAX, "18.4E", "18.4 E"),
    ] {
        assert_eq!((short(value).as_str(), scaled(value).as_str()), (counted, measured), "{value}");
    }
    assert!(short(0).is_ascii());
}

#[test]
fn durations_show_two_units() {
    for (seconds, text) in [
        (-1.0, "0 s"),
        (f64::NAN, "0 s"),
        (59.9, "59 s"),
        (60.0, "1 min 0 s"),
        (3_599.0, "59 min 59 s"),
        (3_600.0, "1 h 0 min"),
        (86_399.0, "23 h 59 min"),
        (187_200.0, "2 d 4 h"),
    ] {
        assert_eq!(duration(seconds), text);
    }
}

#[test]
fn an_endpoint_is_written_as_discovered_services_are_named() {
    for (address, device, expected) in
        [("0.0.0.0", None, "tcp/0.0.0.0:80"), ("::", None, "tcp/[::]:80"), ("0.0.0.0", Some("eth1"), "tcp/0.0.0.0%eth1:80")]
    {
        assert_eq!(endpoint(Protocol::Tcp, address.parse().unwrap(), device, 80), expected);
    }
}
