//! The rules of the soak (`cargo xtask soak`), each shown to break: a check that cannot fail would find nothing in an hour either.

#[path = "../benches/soak/judge.rs"]
mod judge;

use std::time::Duration;

use judge::{Books, Delays, Excuses, Failed, Holdings, Killed, MAY_GROW, Tally, equations, flat, lateness, leaks, losses};

const AT: Duration = Duration::from_secs(5);

fn killed(at_most: u64) -> Excuses {
    let killed = Killed { service: 1, sockets: vec![7, 8], at: AT, at_most };
    Excuses { killed: vec![killed], closed_listeners: 1, flood: false }
}

fn failed() -> Failed {
    Failed { service: 1, at: AT + Duration::from_millis(20), was_connected: true, socket: Some(8), what: "lost".to_owned() }
}

#[test]
fn a_killed_worker_excuses_its_own_connections_alone() {
    let found = losses(&[failed()], &killed(1));
    assert_eq!((found.of_killed_workers, found.unexplained.len()), (1, 0));
    let others = [
        Failed { service: 0, ..failed() },
        Failed { socket: Some(9), ..failed() },
        Failed { socket: None, ..failed() },
        Failed { was_connected: false, ..failed() },
        Failed { at: Duration::from_millis(4_999), ..failed() },
        Failed { at: AT + Duration::from_secs(1), ..failed() },
    ];
    for other in others {
        let found = losses(std::slice::from_ref(&other), &killed(1));
        assert_eq!((found.of_killed_workers, found.unexplained.len()), (0, 1), "{other:?}");
    }
    assert_eq!(losses(&[failed()], &Excuses::default()).unexplained, ["lost"], "nobody was killed");
}

#[test]
fn a_killed_worker_excuses_no_more_than_it_can_have_held() {
    let found = losses(&[failed(), failed(), failed()], &killed(2));
    assert_eq!((found.of_killed_workers, found.unexplained.len()), (2, 1));
}

#[test]
fn in_calm_no_syn_is_lost() {
    let lost = Delays { connections: 1000, slow: 1, syns_again: 1, timeouts: 1 };
    assert_eq!(lateness(lost, &Excuses::default()).unexplained.len(), 1);
    let closed = Excuses { closed_listeners: 1, ..Excuses::default() };
    let found = lateness(lost, &closed);
    assert_eq!((found.by_closing, found.unexplained.len()), (1, 0));
    let two = Delays { slow: 2, syns_again: 2, ..lost };
    assert_eq!(lateness(two, &closed).unexplained.len(), 1, "one listener excuses one SYN");
}

#[test]
fn in_a_flood_one_syn_of_a_hundred_may_be_lost() {
    let flood = Excuses { flood: true, ..Excuses::default() };
    let lost = |syns_again| Delays { connections: 1000, slow: syns_again, syns_again, timeouts: syns_again };
    assert_eq!(lateness(lost(11), &flood).unexplained.len(), 0);
    assert_eq!(lateness(lost(11), &flood).by_flood, 11);
    assert_eq!(lateness(lost(12), &flood).unexplained.len(), 1);
}

#[test]
fn a_slow_connection_is_the_machines_only_where_nothing_was_sent_again() {
    let late = Delays { connections: 1000, slow: 1, syns_again: 0, timeouts: 0 };
    let found = lateness(late, &Excuses::default());
    assert_eq!((found.by_machine, found.unexplained.len()), (1, 0));
    let lost = Delays { timeouts: 1, ..late };
    assert_eq!(lateness(lost, &Excuses::default()).unexplained.len(), 1);
}

/// A round of 10 connections in which everything adds up.
fn sound() -> Books {
    let tally = Tally {
        service: "one".to_owned(),
        attempted: 10,
        ok: 10,
        opened: 10,
        cookies: 0,
        kernels: 0,
        chosen: 10,
        selected: 10,
        established: 10,
        accepted: Some(10),
    };
    Books { verdicts: 100, received: 100, passive_opens: 10, services: vec![tally], calm: true, ..Books::default() }
}

/// The numbers of the equations that do not hold.
fn wrong(books: &Books) -> Vec<usize> {
    equations(books).into_iter().filter(|(_, result)| result.is_err()).map(|(number, _)| number).collect()
}

#[test]
fn every_equation_can_break() {
    assert_eq!(equations(&sound()).len(), judge::EQUATIONS.len());
    assert_eq!(wrong(&sound()), [0; 0]);
    let with = |change: fn(&mut Books)| {
        let mut books = sound();
        change(&mut books);
        wrong(&books)
    };
    assert_eq!(with(|books| books.verdicts = 99), [0]);
    assert_eq!(with(|books| books.misses = 1), [1]);
    assert_eq!(with(|books| books.no_record = 1), [1]);
    assert_eq!(with(|books| books.services[0].chosen = 11), [2, 3]);
    assert_eq!(with(|books| books.services[0].selected = 9), [3]);
    assert_eq!(with(|books| books.syns_again = 1), [4]);
    assert_eq!(with(|books| books.passive_opens = 9), [5]);
    assert_eq!(with(|books| books.passive_opens = 19), [5]);
    assert_eq!(with(|books| books.services[0].established = 9), [6, 5]);
    assert_eq!(with(|books| books.services[0].established = 11), [6, 5]);
    assert_eq!(with(|books| books.services[0].accepted = Some(9)), [7]);
}

#[test]
fn what_a_disturbance_makes_uncertain_is_not_held_against_weir() {
    for (own, broken) in [(33, &[][..]), (99, &[]), (1, &[5]), (34, &[5]), (132, &[5])] {
        assert_eq!(wrong(&Books { passive_opens: 10 + own, ..sound() }), broken, "{own} connections may be the daemon's own");
    }
    let mut strays = Books { strays: true, ..sound() };
    strays.services[0].selected = 500;
    assert_eq!(wrong(&strays), [0; 0]);
    strays.services[0].selected = 9;
    assert_eq!(wrong(&strays), [3]);
}

#[test]
fn what_is_held_is_what_was_held() {
    let at_start = Holdings { descriptors: [50, 3], pins: vec!["sockets".to_owned()], programs: 6, tables: 4, maps: 40 };
    assert!(leaks(&at_start, &at_start).is_ok());
    let leaking = [
        Holdings { descriptors: [51, 3], ..at_start.clone() },
        Holdings { descriptors: [50, 4], ..at_start.clone() },
        Holdings { pins: Vec::new(), ..at_start.clone() },
        Holdings { pins: vec!["sockets".to_owned(), "links/other".to_owned()], ..at_start.clone() },
        Holdings { programs: 7, ..at_start.clone() },
        Holdings { tables: 5, ..at_start.clone() },
        Holdings { maps: 41, ..at_start.clone() },
    ];
    for now in leaking {
        assert!(leaks(&now, &at_start).is_err(), "{now:?}");
    }
}

#[test]
fn memory_is_flat_or_not() {
    assert!(flat(&[]).is_ok() && flat(&[5000, 4000, 5000 + MAY_GROW]).is_ok());
    assert!(flat(&[5000, 5001 + MAY_GROW, 5000]).is_err());
}
