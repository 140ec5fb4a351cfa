//! How long a plan of 100 services with 16 workers each takes.

use std::time::{Duration, Instant};

use super::*;

/// What one change of everything may take in a release build; the rest of the 50 ms that a change has belongs to the kernel.
const MOST: Duration = Duration::from_millis(50);

#[test]
fn a_hundred_services_are_planned_in_milliseconds() {
    // The best of three: other tests run at the same time.
    let runs = [(); 3].map(|()| run());
    for (row, (what, _)) in runs[0].iter().enumerate() {
        let best = runs.iter().map(|run| run[row].1).min().unwrap_or_default();
        println!("{what}: {best:?}");
        assert!(best < MOST || cfg!(debug_assertions), "{what} took {best:?}");
    }
}

fn run() -> Vec<(&'static str, Duration)> {
    let mut took = Vec::new();
    let mut world = World::new("");
    for service in 0..100 {
        world.members.extend(group(&format!("tcp 0.0.0.0 {}", 8_000 + service), service * 16 + 1..=service * 16 + 16));
    }
    // Every worker of nginx holds every socket.
    for member in &mut world.members {
        member.holders = (1..=16)
            .map(|pid| Holder { pid, fd: i32::try_from(member.listener.inode).expect("small"), command: "nginx".to_owned() })
            .collect();
    }
    let mut measure = |what: &'static str, world: &mut World| {
        let start = Instant::now();
        let changes = world.step();
        took.push((what, start.elapsed()));
        changes
    };
    assert_eq!(measure("100 services of 16 workers from nothing", &mut world).tables.len(), 100);
    assert!(measure("no change", &mut world).is_empty());
    world.members.retain(|member| member.listener.cookie % 16 != 5);
    assert_eq!(measure("one worker of each leaves", &mut world).tables.len(), 100);
    for service in 0..100 {
        let weights = (0..16).map(|worker| u32::from((service + worker) % 7 + 1)).collect();
        let (name, protocol, port) = (format!("s{service}"), Protocol::Tcp, 8_000 + service);
        let address = "0.0.0.0".parse().expect("an address");
        let (interface, table_size, takeover, quic, defence) = (None, None, false, None, config::ServiceDefence::default());
        world.config.services.push(config::Service {
            name,
            protocol,
            port,
            address,
            interface,
            table_size,
            takeover,
            weights,
            defence,
            quic,
        });
    }
    assert_eq!(measure("each gets other weights", &mut world).tables.len(), 100);
    took
}
