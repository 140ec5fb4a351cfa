//! The plan, by tables of situations and by random ones.

mod changes;
mod defence;
mod groups;
mod random;
mod restart;
mod speed;

use std::{collections::BTreeSet, fmt::Write as _};

use super::*;
use crate::{
    config::{self, Config},
    listeners::Listener,
};

/// A machine: eth0 (2) with Weir, eth1 (3) and lo (1) without.
struct World {
    config: Config,
    host: Host,
    members: Vec<Member>,
    drains: BTreeSet<u64>,
    registry: Registry,
    plan: Plan,
}

impl World {
    fn new(config: &str) -> Self {
        let device = |index, name: &str| Device { index, name: name.to_owned() };
        let mut world = Self {
            config: Config::parse("test", config).expect("a configuration"),
            host: Host { attached: Vec::new(), devices: vec![device(1, "lo"), device(2, "eth0"), device(3, "eth1")] },
            members: Vec::new(),
            drains: BTreeSet::new(),
            registry: Registry::default(),
            plan: Plan::default(),
        };
        world.attach(2, &["10.0.0.1", "10.0.1.1", "2001:db8::1", "fe80::1"]);
        world
    }

    fn attach(&mut self, index: u32, addresses: &[&str]) {
        self.host.attached.push(Attached {
            index,
            loopback: index == 1,
            mtu: 1_500,
            macs: [u64::from(index), 0xbb],
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            devices: BTreeSet::from([index]),
        });
    }

    fn with(mut self, members: impl IntoIterator<Item = Member>) -> Self {
        self.members.extend(members);
        self
    }

    /// Plans, keeps the registry and answers with the changes.
    fn step(&mut self) -> Changes {
        let inputs = Inputs { config: &self.config, host: &self.host, members: &self.members, drains: &self.drains };
        let (next, registry) = plan(&inputs, &self.registry);
        let changes = changes(&self.plan, &next);
        (self.plan, self.registry) = (next, registry);
        changes
    }

    /// As the daemon does once the changes are carried out.
    fn release(&mut self) {
        let slots: Vec<u32> = self.registry.quarantined().collect();
        self.registry.release(&slots);
    }

    fn retain(&mut self, cookies: &[u64]) {
        self.members.retain(|member| cookies.contains(&member.listener.cookie));
    }

    fn member(&mut self, cookie: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.listener.cookie == cookie).expect("a member")
    }

    /// The plan on a few lines: for each service its index, name, entries and backends as `index/slot.generation=cookie`, or, if it is not
    /// balanced, `unbalanced` and the cookies of its listeners.
    fn show(&self) -> String {
        let mut text = String::new();
        for service in &self.plan.services {
            write!(text, "{} {}:", service.index, service.name).expect("a string");
            for entry in &service.entries {
                write!(text, " {}@{}", entry.address, entry.interface).expect("a string");
            }
            text.push_str(" |");
            for backend in &service.backends {
                write!(text, " {}/{}.{}={}", backend.index, backend.slot, backend.generation, backend.cookie).expect("a string");
                if backend.state != State::Ready {
                    write!(text, ":{}", backend.state.label()).expect("a string");
                }
            }
            if !service.balanced {
                text.push_str(" unbalanced");
            }
            for listener in &service.listeners {
                write!(text, " {}", listener.cookie).expect("a string");
            }
            text.push('\n');
            for note in &service.notes {
                assert!(!note.remedy.is_empty(), "{note:?}");
                writeln!(text, "- {}", note.text).expect("a string");
            }
        }
        for OtherListener { protocol, address, port, commands, why } in &self.plan.others {
            writeln!(text, "other {protocol} {address} {port} {} {why:?}", commands.join("+")).expect("a string");
        }
        for note in &self.plan.notes {
            assert!(!note.remedy.is_empty(), "{note:?}");
            writeln!(text, "! {}", note.text).expect("a string");
        }
        text
    }
}

/// One listener, as `tcp 10.0.0.1 80`, with optional words after it: `%3` (bound to that device), `v6only`.
fn listener(place: &str, cookie: u64) -> Listener {
    let mut words = place.split(' ');
    let protocol = if words.next() == Some("udp") { Protocol::Udp } else { Protocol::Tcp };
    let address = words.next().and_then(|word| word.parse().ok()).expect("an address");
    let port = words.next().and_then(|word| word.parse().ok()).expect("a port");
    let rest: Vec<&str> = words.collect();
    let device = rest.iter().find_map(|word| word.strip_prefix('%')).map_or(0, |index| index.parse().expect("an index"));
    let inode = u32::try_from(cookie).expect("a small cookie") + 1_000;
    Listener { protocol, address, port, v6only: rest.contains(&"v6only"), device, inode, cookie, uid: 0, queue: None, receive_buffer: None }
}

/// SO_REUSEPORT listeners of one place with these cookies, each held by a process of its own whose pid is its cookie.
fn group(place: &str, cookies: impl IntoIterator<Item = u64>) -> Vec<Member> {
    cookies.into_iter().map(|cookie| member(place, cookie, true, "nginx")).collect()
}

fn member(place: &str, cookie: u64, reuseport: bool, command: &str) -> Member {
    let pid = u32::try_from(cookie).expect("a small cookie");
    Member {
        listener: listener(place, cookie),
        reuseport,
        holders: vec![Holder { pid, fd: 5, command: command.to_owned() }],
        servers: Vec::new(),
        unserved: false,
        foreign_program: false,
    }
}

fn alone(place: &str, cookie: u64, command: &str) -> Vec<Member> {
    vec![member(place, cookie, false, command)]
}

/// Plans once and compares with the lines of `expected`, whose indentation does not matter.
fn check(name: &str, mut world: World, expected: &str) {
    world.step();
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    assert_eq!(
        lines(&world.show()),
        lines(expected),
        "{name}:
{}",
        world.show()
    );
}
