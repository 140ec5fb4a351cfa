//! What each event changes, and that it changes nothing else.

use super::*;

/// What there is to do, by field: `states 2, fill 1`.
fn summary(changes: &Changes) -> String {
    let counts = [
        ("states", changes.states.len()),
        ("fill", changes.fill.len()),
        ("tables", changes.tables.len()),
        ("groups", changes.groups.len()),
        ("attach", changes.attach.len()),
        ("services", changes.services.len()),
        ("ports", usize::from(changes.ports.is_some())),
        ("services_removed", changes.services_removed.len()),
        ("detach", changes.detach.len()),
        ("groups_removed", changes.groups_removed.len()),
        ("tables_removed", changes.tables_removed.len()),
        ("slots_left", changes.slots_left.len()),
    ];
    assert_eq!(changes.is_empty(), counts.iter().all(|(_, count)| *count == 0));
    counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// An event of a row.
type Event = fn(&mut World);

#[test]
fn each_event_changes_what_it_must() {
    const NAMED: &str = "service = [{ name = 'web', protocol = 'tcp', port = 80, address = '0.0.0.0' }]";
    let place = "tcp 0.0.0.0 80";
    let rows: [(&str, &str, Event, &str); 13] = [
        ("nothing", "", |_| {}, ""),
        ("one joins", "", |world| world.members.extend(group("tcp 0.0.0.0 80", [9])), "states 1, fill 1, tables 1"),
        ("one leaves", "", |world| world.retain(&[1]), "tables 1, slots_left 1"),
        ("drained", "", |world| world.drains.extend([1]), "states 1, tables 1"),
        ("unserved", "", |world| world.member(2).unserved = true, "states 1, tables 1"),
        ("other processes serve and hold it", "", |world| world.member(2).holders[0].pid = 7, ""),
        (
            "the last leave",
            "",
            |world| world.retain(&[]),
            "ports 1, services_removed 2, detach 1, groups_removed 1, tables_removed 1, slots_left 2",
        ),
        ("the last leave a named service", NAMED, |world| world.retain(&[]), "detach 1, groups_removed 1, tables_removed 1, slots_left 2"),
        (
            "all are replaced: the group is a new one and has no program",
            "",
            |world| {
                world.retain(&[]);
                world.members.extend(group("tcp 0.0.0.0 80", [9]));
            },
            "states 1, fill 1, tables 1, attach 1, slots_left 2",
        ),
        (
            "an address comes",
            "",
            |world| world.host.attached[0].addresses.extend(["10.9.9.9".parse::<IpAddr>().expect("an address")]),
            "services 1",
        ),
        (
            "an address goes",
            "",
            |world| world.host.attached[0].addresses.retain(|address| address.to_string() != "10.0.0.1"),
            "services_removed 1",
        ),
        ("a MAC changes", "", |world| world.host.attached[0].macs = [7, 7], "services 2"),
        (
            "another service",
            "",
            |world| world.members.extend(group("tcp 10.0.0.1 80", [9])),
            "states 1, fill 1, tables 1, groups 1, attach 1, services 1",
        ),
    ];
    for (name, config, event, expected) in rows {
        let mut world = World::new(config).with(group(place, [1, 2]));
        assert_eq!(summary(&world.step()), "states 2, fill 2, tables 1, groups 1, attach 1, services 2, ports 1", "{name}");
        event(&mut world);
        assert_eq!(summary(&world.step()), expected, "{name}");
    }
}

#[test]
fn a_fill_says_whom_to_take_and_from_whom() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1]));
    let changes = world.step();
    let holders = vec![Holder { pid: 1, fd: 5, command: "nginx".to_owned() }];
    assert_eq!(changes.fill, [SlotFill { slot: 0, generation: 1, cookie: 1, inode: 1_001, holders: holders.clone(), service: 1 }]);
    assert_eq!(changes.attach[0].sockets, [(1, 1_001, holders)]);
    assert_eq!(changes.attach[0].group, group_key(&world.plan.services[0]));
    assert_eq!((changes.groups[0].1.service, changes.services[0].1.service), (1, 1));
    assert_eq!(changes.services[0].1.macs, [2, 0xbb]);
    assert_eq!(changes.tables, [(1, table(&world.plan.services[0]))]);
    assert!(changes.ports.is_some_and(|ports| ports.has(6, 80) && !ports.has(17, 80) && !ports.has(6, 81)));
}
