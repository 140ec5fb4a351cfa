//! Services that are not balanced and are defended all the same, and what each service's defence is.

use lb_common::abi::service_flags;

use super::*;
use crate::config::Stance;

const OFF: &str = "defence.syn_defence = 'off'\n";

/// `web`, at 0.0.0.0:80 with TCP.
fn named(more: &str) -> String {
    format!("[[service]]\nname = 'web'\nprotocol = 'tcp'\nport = 80\naddress = '0.0.0.0'\n{more}")
}

fn steered(place: &str, cookies: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Member> {
    group(place, cookies).into_iter().map(|member| Member { foreign_program: true, ..member })
}

#[test]
fn nobody_is_defended_who_is_told_not_to_be() {
    let everybody = |config: &str| World::new(config).with(alone("tcp 0.0.0.0 80", 1, "solo")).with(steered("tcp 0.0.0.0 81", [2, 3]));
    let others = "other tcp 0.0.0.0 80 solo NotReuseport\nother tcp 0.0.0.0 81 nginx SteeredByAnother";
    let is_steered = "other tcp 0.0.0.0 80 nginx SteeredByAnother";
    check(
        "auto",
        everybody(""),
        &format!(
            "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1
             2 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | unbalanced 2 3
             {others}"
        ),
    );
    check("all off", everybody(OFF), others);
    check("no discovery", everybody("discovery.tcp = false"), others);
    let note = "- the listener bound to 0.0.0.0:80 is not a SO_REUSEPORT socket: it is not balanced";
    check("the named alone", everybody(&named("")), &format!("1 web: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1\n{note}\n{others}"));
    check("the named off", everybody(&named("syn_defence = 'off'")), &format!("1 web: |\n{note}\n{others}"));
    check(
        "all off but one",
        everybody(&format!("{OFF}discovery.tcp = true\n{}", named("syn_defence = 'always'"))),
        &format!("1 web: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1\n{note}\n{others}"),
    );
    check(
        "steered and off",
        World::new(&format!("{OFF}{}", named(""))).with(steered("tcp 0.0.0.0 80", [1])),
        &format!("1 web: |\n- another program steers the sockets of 0.0.0.0:80\n{is_steered}"),
    );
    check(
        "UDP",
        World::new("discovery.udp = true").with(alone("udp 0.0.0.0 80", 1, "solo")).with(steered("udp 0.0.0.0 81", [2])),
        "other udp 0.0.0.0 81 nginx SteeredByAnother",
    );
}

#[test]
fn packets_belong_to_whom_the_kernel_gives_them_balanced_or_not() {
    let all = "10.0.0.1@2 10.0.1.1@2";
    for (name, one, other, expected) in [
        ("exact before wildcard", alone("tcp 0.0.0.0 80", 1, "a"), alone("tcp 10.0.0.1 80", 2, "b"), ["10.0.1.1@2", "10.0.0.1@2"]),
        ("a group's rest", group("tcp 0.0.0.0 80", [1]), alone("tcp 10.0.0.1 80", 2, "b"), ["10.0.1.1@2", "10.0.0.1@2"]),
        ("what a group leaves", alone("tcp 0.0.0.0 80", 1, "a"), group("tcp 10.0.0.1 80", [2]), ["10.0.1.1@2", "10.0.0.1@2"]),
        ("device before none", alone("tcp 0.0.0.0 80", 1, "a"), alone("tcp 0.0.0.0 80 %2", 2, "b"), ["", all]),
        ("another device", alone("tcp 0.0.0.0 80", 1, "a"), alone("tcp 0.0.0.0 80 %3", 2, "b"), [all, ""]),
        ("IPv4 before dual stack", alone("tcp :: 80", 1, "a"), alone("tcp 0.0.0.0 80", 2, "b"), ["2001:db8::1@2 fe80::1@2", all]),
        ("IPV6_V6ONLY", alone("tcp :: 80 v6only", 1, "a"), alone("tcp 10.0.1.1 80", 2, "b"), ["2001:db8::1@2 fe80::1@2", "10.0.1.1@2"]),
        ("loopback without lo", alone("tcp 0.0.0.0 80", 1, "a"), alone("tcp 127.0.0.1 80", 2, "b"), [all, ""]),
        ("steered", steered("tcp 0.0.0.0 80", [1]).collect(), alone("tcp 10.0.1.1 80", 2, "b"), ["10.0.0.1@2", "10.0.1.1@2"]),
    ] {
        let mut world = World::new("").with(one).with(other);
        let changes = world.step();
        let entries = |cookie: u64| -> String {
            let has = |service: &&Service| {
                let backends = service.backends.iter().map(|backend| backend.cookie);
                service.listeners.iter().map(|listener| listener.cookie).chain(backends).any(|found| found == cookie)
            };
            let entries = world.plan.services.iter().find(has).map_or(&[][..], |service| &service.entries);
            entries.iter().map(|entry| format!("{}@{}", entry.address, entry.interface)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([entries(1), entries(2)], expected, "{name}\n{}", world.show());
        for (_, record) in changes.services {
            let balanced = world.plan.services.iter().any(|service| service.index == record.service && service.balanced);
            assert_eq!(record.flags, if balanced { 0 } else { service_flags::UNBALANCED }, "{name}");
        }
    }
}

#[test]
fn what_is_not_balanced_has_no_slot_no_table_and_no_group() {
    let mut world = World::new("").with(alone("tcp 0.0.0.0 22", 1, "sshd")).with(steered("tcp 0.0.0.0 80", [2, 3]));
    let changes = world.step();
    assert_eq!(world.registry, Registry { services: world.registry.services.clone(), ..Registry::default() });
    assert_eq!(changes, Changes { services: changes.services.clone(), ports: changes.ports.clone(), ..Changes::default() });
    assert_eq!(changes.services.len(), 4);
    assert_eq!(world.plan.services[0].listeners, [super::super::Listener { cookie: 1, inode: 1_001 }]);
    assert_eq!(Registry::adopt(&world.plan, &[], &[]), world.registry, "another daemon goes on with it");
}

#[test]
fn a_listener_keeps_its_index_when_it_becomes_a_group_and_back() {
    let mut world = World::new("").with(alone("tcp 0.0.0.0 79", 7, "a")).with(alone("tcp 0.0.0.0 80", 1, "b"));
    world.step();
    let at_first = world.show();
    assert!(at_first.contains("2 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1\n"), "{at_first}");

    world.member(1).reuseport = true;
    let changes = world.step();
    assert!(world.show().contains("2 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1\n"), "{}", world.show());
    assert_eq!((changes.fill.len(), changes.attach.len(), changes.services.len(), changes.services_removed.len()), (1, 1, 2, 0));
    assert!(changes.services.iter().all(|(_, record)| record.flags == 0), "the programs are told");

    world.member(1).reuseport = false;
    let changes = world.step();
    assert_eq!(world.show(), at_first);
    assert_eq!((changes.slots_left, changes.detach.len(), changes.groups_removed.len()), (vec![(0, 1)], 1, 1));

    world.member(1).reuseport = true;
    world.member(1).foreign_program = true;
    world.step();
    assert_eq!(world.show(), at_first.replace("80 b NotReuseport", "80 b SteeredByAnother"));
}

#[test]
fn a_group_beyond_a_limit_is_defended_until_it_has_a_place() {
    let mut world = World::new("limits.backends = 1").with(group("tcp 0.0.0.0 80", [1])).with(group("tcp 0.0.0.0 81", [2]));
    world.step();
    assert!(world.show().contains("2 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | unbalanced 2\nother tcp 0.0.0.0 81 nginx OverLimit\n"));
    world.retain(&[2]);
    world.step();
    world.release();
    world.step();
    assert_eq!(world.show(), "2 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | 0/0.2=2\n");

    let mut world = World::new(&format!("{OFF}limits.backends = 1")).with(group("tcp 0.0.0.0 80", [1])).with(group("tcp 0.0.0.0 81", [2]));
    world.step();
    assert_eq!(world.plan.services.len(), 1, "{}", world.show());
}

#[test]
fn what_is_balanced_goes_before_what_is_not() {
    let mut world = World::new("limits.services = 1").with(alone("tcp 0.0.0.0 22", 1, "sshd"));
    world.step();
    assert_eq!(world.plan.services[0].port, 22);
    world.members.extend(group("tcp 0.0.0.0 80", [2]));
    world.step();
    assert_eq!(
        world.show(),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=2\nother tcp 0.0.0.0 22 sshd NotReuseport\n\
         ! 1 service left out: limits.services = 1 is reached\n"
    );
}

#[test]
fn a_service_says_for_itself_what_all_are_told_otherwise() {
    let text = "
        defence = { syn_defence = 'always', flood_syns_per_second = 200, flood_strays_per_second = 300 }
        discovery = { tcp = true, udp = true }
        [[service]]
        name = 'web'
        protocol = 'tcp'
        port = 80
        address = '0.0.0.0'
        syn_defence = 'auto'
        flood_strays_per_second = 400
        allow = ['192.0.2.0/24']
        deny = ['::/0']
        new_connections_per_prefix = 5
        [[service]]
        name = 'dns'
        protocol = 'udp'
        port = 53
        address = '0.0.0.0'
        udp_packets_per_prefix = 6
        udp_bytes_per_prefix = 7";
    let mut world =
        World::new(text).with(group("tcp 0.0.0.0 80", [1])).with(group("tcp 0.0.0.0 81", [2])).with(group("udp 0.0.0.0 53", [3]));
    world.step();
    let of = |name: &str| {
        let service = world.plan.services.iter().find(|service| service.name == name).expect("a service");
        (service.stance, service.defence.clone())
    };
    let all = ServiceDefence { flood_syns_per_second: 200, flood_strays_per_second: 300, ..ServiceDefence::default() };
    let prefix = |text: &str| text.parse().expect("a prefix");
    let web = ServiceDefence {
        flood_strays_per_second: 400,
        allow: vec![prefix("192.0.2.0/24")],
        deny: vec![prefix("::/0")],
        new_connections_per_prefix: 5,
        ..all.clone()
    };
    assert_eq!(of("web"), (Stance::Auto, web));
    assert_eq!(of("dns"), (Stance::Off, ServiceDefence { udp_packets_per_prefix: 6, udp_bytes_per_prefix: 7, ..all.clone() }));
    assert_eq!(of("tcp/0.0.0.0:81"), (Stance::Always, all));
    let written = serde_json::to_string(&world.plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&written).expect("a plan"), world.plan);
}

#[test]
fn a_state_file_from_before_the_defence_is_read() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80", [1]));
    world.step();
    let mut written = serde_json::to_value(&world.plan).expect("JSON");
    let service = written["services"][0].as_object_mut().expect("a service");
    for field in ["balanced", "stance", "defence", "listeners"] {
        assert!(service.remove(field).is_some(), "{field}");
    }
    let read: Plan = serde_json::from_value(written).expect("a plan");
    assert!(read.services[0].balanced && read.services[0].listeners.is_empty());
    assert_eq!(Registry::adopt(&read, &[(0, 1)], &[(0, 1)]), world.registry);
}
