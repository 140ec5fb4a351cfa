//! From configuration, plan and what is known of the host to what the programs are told.

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use lb_common::{
    Address,
    abi::{DefencePolicy, LiveState, Stance as Told, policy_flags, prefix_action},
    flood::{Thresholds, WINDOWS_PER_SECOND},
};

use super::Keys;
use crate::{
    api::protocol::Order,
    config::{Defence, Prefix, Stance},
    plan::{Plan, Service},
};

/// What is known of the host and of the moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// How many CPUs share a limit.
    pub cpus: u32,
    /// The room for a new connection that the kernel offers, and its window scale.
    pub window: (u32, u8),
    /// What an operator ordered for the service.
    pub order: Order,
    /// Whether a cookie or its connection would be lost on the way.
    pub is_unsafe: bool,
    /// Whether only the kernel's own cookies get through.
    pub kernels_only: bool,
    /// Until when the listener's SYN queue counts as full (nanoseconds of CLOCK_MONOTONIC), or the moment at which a defence that was on was
    /// ordered off: 0 for neither.
    pub full_until: u64,
    /// Whether the defence was ordered off so lately that its cookies are still honoured.
    pub is_leaving: bool,
}

/// How a service is defended.
#[must_use]
pub fn policy(service: &Service, config: &Defence, keys: &Keys, facts: &Facts) -> DefencePolicy {
    let stance = match (facts.order, service.stance) {
        (Order::On, _) | (Order::Auto, Stance::Always) => Told::Always,
        (Order::Off, _) | (_, Stance::Off) => Told::Off,
        (Order::Auto, Stance::Auto) => Told::Auto,
    };
    // Ordered off: no rate begins a flood, and what is on its way is let through to its end.
    let (stance, never) = if stance == Told::Off && facts.is_leaving { (Told::Auto, true) } else { (stance, false) };
    let per_window = |rate: u32| if never { u32::MAX } else { (rate / WINDOWS_PER_SECOND).max(1) };
    let defence = &service.defence;
    let flag = |is: bool, flag: u32| if is { flag } else { 0 };
    DefencePolicy {
        thresholds: Thresholds {
            syns: per_window(defence.flood_syns_per_second),
            strays: per_window(defence.flood_strays_per_second),
            quiet: nanoseconds(config.quiet_time),
            minimum: nanoseconds(config.minimum_time),
            linger: keys.linger(),
        },
        full_until: facts.full_until,
        stance: stance as u32,
        flags: flag(!service.backends.is_empty() || !service.listeners.is_empty(), policy_flags::HAS_LISTENER)
            | flag(!defence.allow.is_empty() || !defence.deny.is_empty(), policy_flags::HAS_PREFIXES)
            | flag(facts.is_unsafe, policy_flags::UNSAFE)
            | flag(facts.kernels_only, policy_flags::KERNEL_SCHEME),
        window_space: facts.window.0,
        window_scale: facts.window.1.into(),
        new_connections: share(defence.new_connections_per_prefix, facts.cpus),
        datagrams: share(defence.udp_packets_per_prefix, facts.cpus),
        datagram_bytes: share(defence.udp_bytes_per_prefix, facts.cpus),
        padding: 0,
    }
}

/// The receive buffer that a service's SYN-ACKs go by: the smallest of its listeners', `buffers` being those of all by cookie. Which of
/// them a client will get is not known before its cookie is back.
#[must_use]
pub fn receive_buffer<S: BuildHasher>(service: &Service, buffers: &HashMap<u64, u32, S>) -> Option<u32> {
    let backends = service.backends.iter().map(|backend| backend.cookie);
    backends.chain(service.listeners.iter().map(|listener| listener.cookie)).filter_map(|cookie| buffers.get(&cookie).copied()).min()
}

/// The indexes that the programs were told something about, now or by a daemon before, and that no service has any more.
#[must_use]
pub fn left_over(told: &BTreeMap<u32, DefencePolicy>, wanted: &BTreeMap<u32, DefencePolicy>) -> Vec<u32> {
    told.keys().filter(|index| !wanted.contains_key(index)).copied().collect()
}

/// The limits of all services, in the record that is renewed.
#[must_use]
pub fn live_limits(live: LiveState, config: &Defence, cpus: u32) -> LiveState {
    LiveState {
        cpus: cpus.max(1).next_power_of_two(),
        syn_acks: share(config.syn_acks_per_second, cpus),
        syn_acks_to_prefix: share(config.syn_acks_per_prefix, cpus),
        wrong_cookies: share(config.failed_cookies_per_prefix, cpus),
        kernel_only_syns: share(config.kernel_only_syns_per_second, cpus),
        ..live
    }
}

/// One CPU's share of a limit, rounded up; none of none.
fn share(limit: u32, cpus: u32) -> u32 {
    limit.div_ceil(cpus.max(1))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// The lists of prefixes of all services: service, address and bits of 128 -> what becomes of a packet.
///
/// IPv4 addresses stand as IPv4-mapped ones, so a short IPv6 prefix such as `::/0` would cover them as well: an entry for all of IPv4 that
/// means nothing stands against it.
#[must_use]
pub fn prefixes(plan: &Plan) -> BTreeMap<(u32, Address, u32), u32> {
    /// The bits before an IPv4 address.
    const MAPPED: u32 = 96;
    let mut entries = BTreeMap::new();
    for service in &plan.services {
        let lists = [(&service.defence.allow, prefix_action::ALLOW), (&service.defence.deny, prefix_action::DENY)];
        for (prefix, action) in lists.into_iter().flat_map(|(list, action)| list.iter().map(move |prefix| (prefix, action))) {
            let Prefix { address, length } = *prefix;
            let bits = u32::from(length) + if address.is_ipv4() { MAPPED } else { 0 };
            entries.insert((service.index, Address::from(address), bits), action);
            if address.is_ipv6() && bits < MAPPED {
                let all = Address::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                entries.entry((service.index, all, MAPPED)).or_insert(prefix_action::NONE);
            }
        }
    }
    entries
}

/// The addresses that a packet from outside cannot come from, since they are this host's.
#[must_use]
pub fn addresses_of(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Address> {
    let mut addresses: Vec<Address> = addresses.into_iter().map(Address::from).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(stance: &str, backends: bool) -> Service {
        let backend = json!({
            "index": 0, "slot": 0, "generation": 1, "cookie": 1, "inode": 1, "weight": 1, "state": "ready", "servers": [], "holders": []
        });
        let backends = if backends { vec![backend] } else { Vec::new() };
        serde_json::from_value(json!({
            "index": 7, "name": "web", "protocol": "tcp", "address": "0.0.0.0", "port": 80, "device": null, "configured": true,
            "takeover": false, "stance": stance, "flags": 0, "table_size": 0, "entries": [], "backends": backends, "notes": []
        }))
        .unwrap()
    }

    const FACTS: Facts =
        Facts { cpus: 4, window: (65_536, 7), order: Order::Auto, is_unsafe: false, kernels_only: false, full_until: 0, is_leaving: false };

    fn told(stance: &str, facts: Facts) -> DefencePolicy {
        let mut service = service(stance, true);
        service.defence.flood_syns_per_second = 10_000;
        service.defence.new_connections_per_prefix = 10;
        policy(&service, &Defence::default(), &Keys::new(Duration::from_secs(60)), &facts)
    }

    #[test]
    fn an_order_goes_before_the_configuration() {
        for (stance, order, expected) in [
            ("auto", Order::Auto, Told::Auto),
            ("always", Order::Auto, Told::Always),
            ("off", Order::Auto, Told::Off),
            ("off", Order::On, Told::Always),
            ("always", Order::Off, Told::Off),
        ] {
            assert_eq!(told(stance, Facts { order, ..FACTS }).stance, expected as u32, "{stance} {order:?}");
        }
        let leaving = told("auto", Facts { order: Order::Off, is_leaving: true, full_until: 5, ..FACTS });
        assert_eq!((leaving.stance, leaving.thresholds.syns, leaving.full_until), (Told::Auto as u32, u32::MAX, 5));
    }

    #[test]
    fn rates_are_per_window_and_limits_per_cpu() {
        let policy = told("auto", FACTS);
        assert_eq!((policy.thresholds.syns, policy.new_connections, policy.datagrams), (100, 3, 0));
        assert_eq!(policy.flags, policy_flags::HAS_LISTENER);
        assert_eq!(told("auto", Facts { is_unsafe: true, ..FACTS }).flags, policy_flags::HAS_LISTENER | policy_flags::UNSAFE);
        let waiting = super::policy(&service("auto", false), &Defence::default(), &Keys::new(Duration::from_secs(60)), &FACTS);
        assert_eq!(waiting.flags, 0, "nobody listens");
    }

    #[test]
    fn the_smallest_receive_buffer_of_a_services_own_listeners_counts() {
        let mut service = service("auto", true);
        service.listeners = vec![crate::plan::Listener { cookie: 2, inode: 2 }];
        let of = |buffers: &[(u64, u32)]| receive_buffer(&service, &buffers.iter().copied().collect::<HashMap<_, _>>());
        assert_eq!(of(&[(1, 131_072), (2, 16_384), (3, 4_096)]), Some(16_384), "the third is another service's");
        assert_eq!((of(&[(1, 131_072)]), of(&[(3, 4_096)])), (Some(131_072), None));
    }

    #[test]
    fn an_index_that_no_service_has_is_left_over() {
        let policy = told("auto", FACTS);
        let indexes = |indexes: &[u32]| indexes.iter().map(|index| (*index, policy)).collect();
        assert_eq!(left_over(&indexes(&[1, 3, 7]), &indexes(&[3, 8])), [1, 7]);
        assert!(left_over(&indexes(&[]), &indexes(&[3])).is_empty() && left_over(&indexes(&[3]), &indexes(&[3])).is_empty());
    }

    #[test]
    fn a_short_prefix_of_ipv6_covers_no_ipv4() {
        let mut plan = Plan { services: vec![service("auto", true)], ..Plan::default() };
        plan.services[0].defence.deny = vec!["::/0".parse().unwrap()];
        plan.services[0].defence.allow = vec!["192.0.2.0/24".parse().unwrap()];
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        let expected = [
            ((7, address("::"), 0), prefix_action::DENY),
            ((7, address("0.0.0.0"), 96), prefix_action::NONE),
            ((7, address("192.0.2.0"), 120), prefix_action::ALLOW),
        ];
        assert_eq!(prefixes(&plan), BTreeMap::from(expected));
        plan.services[0].defence.deny.push("0.0.0.0/0".parse().unwrap());
        assert_eq!(prefixes(&plan).get(&(7, address("0.0.0.0"), 96)), Some(&prefix_action::DENY), "what is said stands");
    }
}
