//! Which groups are services, whose packets are whose, and what is said.

use super::*;

const NAMED: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"0.0.0.0\"\n";

fn named(address: &str, more: &str) -> String {
    format!("[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"{address}\"\n{more}")
}

#[test]
fn discovery_takes_what_packets_can_reach() {
    let everything = || {
        World::new("")
            .with(group("tcp 0.0.0.0 80", 1..=3))
            .with(group("tcp 10.0.0.1 81", [4]))
            .with(group("tcp 127.0.0.1 82", [5]))
            .with(group("tcp 192.0.2.9 83", [6]))
            .with(group("tcp 0.0.0.0 84 %3", [7]))
            .with(group("tcp 0.0.0.0 85 %2", [8]))
            .with(group("udp 0.0.0.0 53", [9]))
            .with(alone("tcp 0.0.0.0 22", 10, "sshd"))
            .with(alone("tcp 127.0.0.1 25", 11, "exim"))
            .with(alone("udp 0.0.0.0 40000", 12, "dig"))
    };
    check(
        "TCP only",
        everything(),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/1.1=2 2/2.1=3
         2 tcp/0.0.0.0%eth0:85: 10.0.0.1@2 10.0.1.1@2 | 0/3.1=8
         3 tcp/10.0.0.1:81: 10.0.0.1@2 | 0/4.1=4
         4 tcp/0.0.0.0:22: 10.0.0.1@2 10.0.1.1@2 | unbalanced 10
         other tcp 0.0.0.0 22 sshd NotReuseport
         other tcp 0.0.0.0 84 nginx Unreachable
         other tcp 127.0.0.1 25 exim Unreachable
         other tcp 127.0.0.1 82 nginx Unreachable
         other tcp 192.0.2.9 83 nginx Unreachable
         other udp 0.0.0.0 53 nginx NotNamed",
    );
    let mut world = everything();
    world.config.discovery.tcp = false;
    world.config.discovery.udp = true;
    world.host.attached.clear();
    world.attach(1, &["127.0.0.1", "10.0.0.1"]);
    check(
        "UDP only, on lo",
        world,
        "1 udp/0.0.0.0:53: 10.0.0.1@1 127.0.0.1@1 | 0/0.1=9
         other tcp 0.0.0.0 22 sshd NotReuseport
         other tcp 0.0.0.0 80 nginx NotNamed
         other tcp 0.0.0.0 84 nginx Unreachable
         other tcp 0.0.0.0 85 nginx Unreachable
         other tcp 10.0.0.1 81 nginx NotNamed
         other tcp 127.0.0.1 25 exim NotReuseport
         other tcp 127.0.0.1 82 nginx NotNamed
         other tcp 192.0.2.9 83 nginx Unreachable",
    );
}

#[test]
fn all_of_127_is_local_on_the_loopback_device() {
    let mut world = World::new("").with(group("tcp 127.0.0.2 80", [1])).with(group("tcp 0.0.0.0 80", [2]));
    world.host.attached.clear();
    world.attach(1, &["127.0.0.1", "::1"]);
    check("127.0.0.2", world, "1 tcp/0.0.0.0:80: 127.0.0.1@1 | 0/0.1=2\n2 tcp/127.0.0.2:80: 127.0.0.2@1 | 0/1.1=1");
}

#[test]
fn packets_belong_to_whom_the_kernel_gives_them() {
    let rows = [
        (
            "exact before wildcard, even if it is no group",
            group("tcp 0.0.0.0 80", [1]),
            alone("tcp 10.0.0.1 80", 2, "solo"),
            "10.0.1.1@2",
            "",
        ),
        (
            "another port or protocol takes nothing",
            group("tcp 0.0.0.0 80", [1]),
            alone("udp 10.0.0.1 80", 2, "solo"),
            "10.0.0.1@2 10.0.1.1@2",
            "",
        ),
        ("the first in the kernel's chain", group("tcp 0.0.0.0 80", [1]), group("tcp 0.0.0.0 80 %2", [2]), "10.0.0.1@2 10.0.1.1@2", ""),
        ("the same the other way round", group("tcp 0.0.0.0 80 %2", [1]), group("tcp 0.0.0.0 80", [2]), "10.0.0.1@2 10.0.1.1@2", ""),
        (
            "without SO_REUSEPORT the device counts",
            alone("udp 0.0.0.0 80", 2, "solo"),
            group("udp 0.0.0.0 80 %2", [1]),
            "10.0.0.1@2 10.0.1.1@2",
            "",
        ),
        ("and a group that scores less has no say", alone("udp 0.0.0.0 80 %2", 2, "solo"), group("udp 0.0.0.0 80", [1]), "", ""),
        ("but one that comes first has", group("udp 0.0.0.0 80", [1]), alone("udp 0.0.0.0 80 %2", 2, "solo"), "10.0.0.1@2 10.0.1.1@2", ""),
        ("UDP: a device is worth more than IPv4", alone("udp :: 80 %2", 2, "solo"), group("udp 0.0.0.0 80", [1]), "", ""),
        ("TCP: it is worth as much", alone("tcp :: 80 %2", 2, "solo"), group("tcp 0.0.0.0 80", [1]), "", ""),
        ("exact before device", group("tcp 10.0.0.1 80", [1]), group("tcp 0.0.0.0 80 %2", [2]), "10.0.0.1@2", "10.0.1.1@2"),
        (
            "IPv4 before dual stack",
            group("tcp 0.0.0.0 80", [1]),
            group("tcp :: 80", [2]),
            "10.0.0.1@2 10.0.1.1@2",
            "2001:db8::1@2 fe80::1@2",
        ),
        (
            "dual stack takes what no IPv4 socket does",
            group("tcp :: 80", [1]),
            group("tcp 10.0.0.1 80", [2]),
            "10.0.1.1@2 2001:db8::1@2 fe80::1@2",
            "10.0.0.1@2",
        ),
        ("IPV6_V6ONLY", group("tcp :: 80 v6only", [1]), group("tcp 10.0.0.1 80", [2]), "2001:db8::1@2 fe80::1@2", "10.0.0.1@2"),
        (
            "a mapped address is an IPv4 address",
            group("tcp ::ffff:10.0.0.1 80", [1]),
            group("tcp 0.0.0.0 80", [2]),
            "10.0.0.1@2",
            "10.0.1.1@2",
        ),
        (
            "groups: IPv4 stands before IPv6",
            group("udp :: 80 %2", [1]),
            group("udp 0.0.0.0 80", [2]),
            "2001:db8::1@2 fe80::1@2",
            "10.0.0.1@2 10.0.1.1@2",
        ),
        (
            "a device that packets do not come by takes none",
            group("tcp 0.0.0.0 80", [1]),
            group("tcp 0.0.0.0 80 %3", [2]),
            "10.0.0.1@2 10.0.1.1@2",
            "",
        ),
    ];
    for (name, one, other, expected_one, expected_other) in rows {
        let mut world = World::new("[discovery]\nudp = true").with(one).with(other);
        world.step();
        let entries = |cookie: u64| -> String {
            let service = world.plan.services.iter().find(|service| service.backends.iter().any(|backend| backend.cookie == cookie));
            let entries =
                service.map_or(&[][..], |service| &service.entries).iter().map(|entry| format!("{}@{}", entry.address, entry.interface));
            entries.collect::<Vec<_>>().join(" ")
        };
        assert_eq!((entries(1).as_str(), entries(2).as_str()), (expected_one, expected_other), "{name}\n{}", world.show());
    }
}

#[test]
fn the_devices_stacked_on_an_interface_are_reached_by_it() {
    let mut world = World::new("").with(group("tcp 0.0.0.0 80 %3", [1]));
    world.host.attached[0].devices.insert(3);
    check("a bridge over eth0", world, "1 tcp/0.0.0.0%eth1:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1");
}

#[test]
fn named_services_stay_and_say_what_is_missing() {
    let wildcard = || group("tcp 0.0.0.0 80", [1, 2]);
    check("found", World::new(NAMED).with(wildcard()), "1 web: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/1.1=2");
    check(
        "nothing",
        World::new(NAMED),
        "1 web: 10.0.0.1@2 10.0.1.1@2 |\n- no listener is bound to 0.0.0.0:80: packets to it pass to the kernel",
    );
    check(
        "bound to another address",
        World::new(&named("10.0.0.1", "")).with(wildcard()),
        "1 web: |
         - no listener is bound to 10.0.0.1:80: packets to it pass to the kernel, which gives them to 0.0.0.0:80
         other tcp 0.0.0.0 80 nginx NotNamed",
    );
    check(
        "no SO_REUSEPORT",
        World::new(NAMED).with(alone("tcp 0.0.0.0 80", 7, "solo")),
        "1 web: 10.0.0.1@2 10.0.1.1@2 | unbalanced 7
         - the listener bound to 0.0.0.0:80 is not a SO_REUSEPORT socket: it is not balanced
         other tcp 0.0.0.0 80 solo NotReuseport",
    );
    check(
        "a plain UDP socket counts if it is named",
        World::new(&NAMED.replace("tcp", "udp")).with(alone("udp 0.0.0.0 80", 7, "solo")).with(alone("udp 0.0.0.0 5555", 8, "dig")),
        "1 web: |
         - the listener bound to 0.0.0.0:80 is not a SO_REUSEPORT socket: it is not balanced
         other udp 0.0.0.0 80 solo NotReuseport",
    );
    check(
        "no such device",
        World::new(&named("0.0.0.0", "interface = \"eth9\"")).with(wildcard()),
        "1 web: |\n- there is no device eth9\nother tcp 0.0.0.0 80 nginx NotNamed",
    );
    check(
        "another device",
        World::new(&named("0.0.0.0", "interface = \"eth1\"")).with(group("tcp 0.0.0.0 80 %3", [1])),
        "1 web: | 0/0.1=1\n- packets that Weir sees do not come in by eth1, to which the listeners are bound",
    );
    check(
        "loopback",
        World::new(&named("127.0.0.1", "")).with(group("tcp 127.0.0.1 80", [1])),
        "1 web: | 0/0.1=1\n- 127.0.0.1 is a loopback address, and Weir is not attached to lo: it sees no packet of it",
    );
    check(
        "all taken by another",
        World::new(NAMED).with(wildcard()).with(alone("tcp 10.0.0.1 80", 8, "a")).with(alone("tcp 10.0.1.1 80", 9, "b")),
        "1 web: | 0/0.1=1 1/1.1=2
         - tcp/0.0.0.0:80: every address that it could have is taken by a listener bound more closely, or there is none
         other tcp 10.0.0.1 80 a NotReuseport
         other tcp 10.0.1.1 80 b NotReuseport",
    );
}

#[test]
fn a_group_that_another_program_steers_is_left_alone_unless_told_otherwise() {
    let steered = || group("tcp 0.0.0.0 80", [1]).into_iter().map(|member| Member { foreign_program: true, ..member });
    check(
        "discovered",
        World::new("").with(steered()),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1\nother tcp 0.0.0.0 80 nginx SteeredByAnother",
    );
    check(
        "named",
        World::new(NAMED).with(steered()),
        "1 web: 10.0.0.1@2 10.0.1.1@2 | unbalanced 1
         - another program steers the sockets of 0.0.0.0:80
         other tcp 0.0.0.0 80 nginx SteeredByAnother",
    );
    check("taken over", World::new(&named("0.0.0.0", "takeover = true")).with(steered()), "1 web: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1");
}

#[test]
fn groups_that_look_the_same_to_the_programs_are_not_mixed() {
    check(
        "with and without IPV6_V6ONLY",
        World::new("").with(group("tcp :: 80", [1, 2])).with(group("tcp :: 80 v6only", [3])),
        "1 tcp/[::]:80: 10.0.0.1@2 10.0.1.1@2 2001:db8::1@2 fe80::1@2 | 0/0.1=1 1/1.1=2
         - 1 socket more at the same address in another group, which differs in IPV6_V6ONLY or in how the address is written, and is not balanced",
    );
    let mut world = World::new("").with(group("tcp :: 80", [1])).with(group("tcp :: 80 v6only", [3]));
    world.step();
    world.member(1).foreign_program = true;
    world.step();
    assert_eq!(world.plan.services[0].backends[0].cookie, 3, "the one that may be steered:\n{}", world.show());
}

#[test]
fn states_weights_and_who_is_kept() {
    let notes_of = |unserved: &[u64], drained: &[u64], more: &str| {
        let mut world = World::new(&named("0.0.0.0", more)).with(group("tcp 0.0.0.0 80", [1, 2]));
        world.drains.extend(drained);
        for cookie in unserved {
            world.member(*cookie).unserved = true;
        }
        world.step();
        let states: Vec<&str> = world.plan.services[0].backends.iter().map(|backend| backend.state.label()).collect();
        let notes: Vec<&str> = world.plan.services[0].notes.iter().map(|note| note.text.split(':').next().unwrap_or_default()).collect();
        format!("{} {}", states.join(","), notes.join(","))
    };
    assert_eq!(notes_of(&[], &[], ""), "ready,ready ");
    assert_eq!(notes_of(&[2], &[], ""), "ready,unserved ");
    assert_eq!(notes_of(&[2], &[2], ""), "ready,draining ");
    assert_eq!(notes_of(&[1, 2], &[], ""), "ready,ready no process accepts from any of its sockets");
    assert_eq!(notes_of(&[], &[1, 2], ""), "draining,draining every worker is draining");
    assert_eq!(notes_of(&[2], &[1], ""), "draining,unserved every worker is draining or unserved");
    assert_eq!(notes_of(&[], &[], "weights = [0, 0]"), "ready,ready every ready worker has weight 0");
    assert_eq!(notes_of(&[], &[], "weights = [0, 3]"), "ready,ready ");
}

#[test]
fn weights_go_by_worker_index_and_shares_by_weight() {
    let mut world = World::new(&named("0.0.0.0", "weights = [3]")).with(group("tcp 0.0.0.0 80", [1, 2]));
    world.step();
    let service = &world.plan.services[0];
    assert_eq!(service.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [3, 1]);
    let table = table(service);
    assert!((share(&table, 0) - 0.75).abs() < 0.01 && (share(&table, 1) - 0.25).abs() < 0.01);
    assert!(share(&table, 2).abs() < f64::EPSILON && share(&[], 0).abs() < f64::EPSILON);
}

#[test]
fn different_programs_on_one_port_are_called_out() {
    let two = || group("tcp 0.0.0.0 80", [1]).into_iter().chain([member("tcp 0.0.0.0 80", 2, true, "caddy")]);
    let mut world = World::new("").with(two());
    world.step();
    assert_eq!(world.plan.services[0].notes[0].text, "sockets of different programs share it: caddy, nginx");
    let mut world = World::new("").with(two());
    for cookie in [1, 2] {
        world.member(cookie).servers.push(Process { pid: 1, command: "web".to_owned() });
    }
    world.step();
    assert_eq!(world.plan.services[0].notes, []);
}

#[test]
fn limits_leave_out_the_last_and_say_so() {
    check(
        "backends of a service",
        World::new("[limits]\nbackends_per_service = 2").with(group("tcp 0.0.0.0 80", 1..=4)),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/1.1=2
         - 2 sockets not balanced: limits.backends_per_service = 2 is reached; the kernel never selects those, so connections that wait in them stay, and no new ones come",
    );
    check(
        "backends of all",
        World::new("[limits]\nbackends = 3").with(group("tcp 0.0.0.0 80", [1, 2])).with(group("tcp 0.0.0.0 81", [3, 4])).with(group("tcp 0.0.0.0 82", [5])),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1 1/1.1=2
         2 tcp/0.0.0.0:81: 10.0.0.1@2 10.0.1.1@2 | 0/2.1=3
         - 1 socket not balanced: limits.backends = 3 is reached; the kernel never selects those, so connections that wait in them stay, and no new ones come
         3 tcp/0.0.0.0:82: 10.0.0.1@2 10.0.1.1@2 | unbalanced 5
         other tcp 0.0.0.0 82 nginx OverLimit
         ! 2 sockets left out: limits.backends = 3 is reached",
    );
    check(
        "services",
        World::new("[limits]\nservices = 1").with(group("tcp 0.0.0.0 80", [1])).with(group("tcp 0.0.0.0 81", [2])),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1
         other tcp 0.0.0.0 81 nginx OverLimit
         ! 1 service left out: limits.services = 1 is reached",
    );
    let mut unknown = group("tcp 0.0.0.0 80", [1, 2]);
    unknown[1].holders.clear();
    check(
        "nobody knows who holds it",
        World::new("").with(unknown),
        "1 tcp/0.0.0.0:80: 10.0.0.1@2 10.0.1.1@2 | 0/0.1=1
         - 1 socket not balanced: no process is known to hold them; the kernel never selects those, so connections that wait in them stay, and no new ones come",
    );
}

#[test]
fn tables_have_sizes_that_can_be_filled() {
    for (configured, workers, expected, noted) in [
        ("", 2, 8_171, 0),
        ("", 41, 65_537, 0),
        ("table_size = 1019", 2, 1_019, 0),
        ("table_size = 103", 2, 107, 1),
        ("table_size = 101", 2, 101, 1),
    ] {
        let mut world = World::new(&named("0.0.0.0", configured)).with(group("tcp 0.0.0.0 80", 1..=workers));
        world.step();
        let service = &world.plan.services[0];
        assert_eq!((service.table_size, service.notes.len()), (expected, noted), "{configured} {:?}", service.notes);
        assert_eq!(table(service).len(), 257 + expected as usize);
        world.retain(&[1]);
        world.step();
        assert_eq!(world.plan.services[0].table_size, expected, "it never shrinks");
    }
}

#[test]
fn quic_services_have_their_flags_and_know_their_bounds() {
    let text = NAMED.replace("tcp", "udp") + "quic = true\nquic_worker_byte = 3";
    let mut world = World::new(&text).with(group("udp 0.0.0.0 80", 1..=257));
    let changes = world.step();
    assert_eq!(lb_common::abi::service_flags::quic_position(changes.groups[0].1.flags), Some(3));
    assert_eq!(changes.groups[0].1.flags, changes.services[0].1.flags);
    assert!(world.plan.services[0].notes[0].text.starts_with("257 workers"), "{}", world.show());
}
