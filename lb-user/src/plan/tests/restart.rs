//! Members that come and go, and a daemon that finds what another one left.

use super::*;

#[test]
fn whoever_stays_keeps_index_and_slot_and_a_successor_gets_the_index_but_not_the_slot() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1, 2, 3]));
    world.step();
    let before = table(&world.plan.services[0]);
    world.retain(&[1, 3]);
    world.members.extend(group("tcp 0.0.0.0 80", [4]));
    world.step();
    assert_eq!(world.show(), "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/3.1=4 2/2.1=3\n");
    let after = table(&world.plan.services[0]);
    let moved = before.iter().zip(&after).skip(257).filter(|(before, after)| before != after && !(**before == 1 && **after == 3)).count();
    assert_eq!(moved, 0, "the successor has exactly its predecessor's flows");
    assert_eq!(&after[..5], [8_171, 0, 3, 2, u32::MAX]);

    assert_eq!(world.registry.quarantined().collect::<Vec<_>>(), [1]);
    world.members.extend(group("tcp 0.0.0.0 80", [5]));
    world.step();
    assert_eq!(world.plan.services[0].backends[3].slot, 4, "slot 1 is in quarantine");
    world.release();
    world.members.extend(group("tcp 0.0.0.0 80", [6]));
    world.step();
    let last = &world.plan.services[0].backends[4];
    assert_eq!((last.slot, last.generation), (1, 2), "the slot's second socket");
}

#[test]
fn a_service_that_goes_frees_its_index_but_not_at_once() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1]));
    world.step();
    world.retain(&[]);
    world.members.extend(group("tcp 0.0.0.0 81", [2]));
    world.step();
    assert_eq!(world.show(), "2 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | 0/1.1=2\n");
    world.members.extend(group("tcp 0.0.0.0 80", [3]));
    world.step();
    assert_eq!(world.plan.services[0].name, "tcp/0.0.0.0:80");
    assert_eq!(world.plan.services[0].index, 1);
}

#[test]
fn indexes_are_reused_at_once_only_when_the_limit_leaves_no_other() {
    let mut world = World::new("limits.services = 1").with(group("tcp 0.0.0.0 80", [1]));
    world.step();
    world.retain(&[]);
    world.members.extend(group("tcp 0.0.0.0 81", [2]));
    world.step();
    assert_eq!(world.show(), "1 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | 0/1.1=2\n");
}

#[test]
fn who_is_a_service_goes_before_who_wants_to_be_and_the_named_before_all() {
    let mut world = World::new("limits.services = 1").with(group("tcp 0.0.0.0 80", [1]));
    world.step();
    world.members.extend(group("tcp 0.0.0.0 79", [2]));
    world.step();
    assert_eq!(world.plan.services[0].port, 80, "it was there first");
    let text = "limits.services = 1\ndiscovery.tcp = true\nservice = [{ name = 'a', protocol = 'tcp', port = 79, address = '0.0.0.0' }]";
    world.config = Config::parse("test", text).expect("a configuration");
    world.step();
    assert_eq!(world.plan.services[0].name, "a");
}

#[test]
fn a_name_for_a_discovered_service_changes_nothing_in_the_kernel() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1, 2]));
    world.step();
    let text = "service = [{ name = 'web', protocol = 'tcp', port = 80, address = '0.0.0.0' }]";
    world.config = Config::parse("test", text).expect("a configuration");
    assert!(world.step().is_empty());
    assert_eq!(world.plan.services[0].name, "web");
}

#[test]
fn a_restart_finds_everything_in_its_place() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1, 2, 3]));
    world.step();
    let registry = Registry::adopt(&world.plan, &[(0, 1), (1, 2), (2, 3)], &[(0, 1), (1, 1), (2, 1)]);
    assert_eq!(registry, world.registry);
    world.registry = registry;
    assert!(world.step().is_empty());
}

#[test]
fn the_socket_array_is_right_where_the_state_file_is_not() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1, 2]));
    world.step();
    // Socket 2 has closed, 9 sits in slot 7 and nobody wrote it down, slot 5 was used and left.
    world.retain(&[1]);
    world.members.extend(group("tcp 0.0.0.0 80", [9, 10]));
    world.registry = Registry::adopt(&world.plan, &[(0, 1), (7, 9)], &[(0, 1), (1, 1), (5, 4), (7, 3)]);
    let changes = world.step();
    assert_eq!(world.show(), "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/7.3=9 2/2.1=10\n");
    assert_eq!(world.registry.quarantined().collect::<Vec<_>>(), [1], "a table may still name it");
    assert_eq!(changes.slots_left, [(1, 2)]);
    world.release();
    world.members.extend(group("tcp 0.0.0.0 80", 11..=14));
    world.step();
    let slots: Vec<(u32, u32)> = world.plan.services[0].backends.iter().map(|backend| (backend.slot, backend.generation)).collect();
    assert_eq!(slots, [(0, 1), (7, 3), (2, 1), (1, 2), (3, 1), (4, 1), (5, 5)]);
}

#[test]
fn a_state_file_that_makes_no_sense_does_no_harm() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1, 2]));
    world.step();
    for backend in &mut world.plan.services[0].backends {
        backend.index = u32::MAX;
    }
    world.plan.services[0].table_size = 12;
    world.plan.services[0].index = 5_000_000;
    world.registry = Registry::adopt(&world.plan, &[(0, 1), (1, 2), (9, 2)], &[]);
    world.step();
    assert_eq!(world.show(), "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/1.1=2\n");
    assert_eq!(world.plan.services[0].table_size, 8_171);
}
