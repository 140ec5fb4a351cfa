//! The defence: of all, and of each service.
use super::*;

#[test]
fn faults_of_defence() {
    check("[defense]\n", 1, "defense", &["did you mean [defence]?"]);
    check("syn_defence = \"off\"\n", 1, "syn_defence", &["is a key of [defence]"]);
    check("[defence]\nsyn_defence = \"on\"\n", 2, "defence.syn_defence", &["\"auto\", \"always\" or \"off\"", "choose one of these"]);
    check("[defence]\nsyn_defence = false\n", 2, "defence.syn_defence", &["found false", "syn_defence = \"auto\""]);
    check("[defence]\nsyn_defense = \"off\"\n", 2, "defence.syn_defense", &["did you mean `syn_defence`?"]);
    check("[defence]\nscheme = \"kernal\"\n", 2, "defence.scheme", &["\"auto\", \"own\" or \"kernel\"", "did you mean \"kernel\"?"]);
    check("[defence]\nflood_syns_per_second = 99\n", 2, "defence.flood_syns_per_second", &["from 100 to 10000000", "100 is the least"]);
    check("[defence]\nflood_strays_per_second = 10_000_001\n", 2, "defence.flood_strays_per_second", &["10000000 is the most"]);
    check("[defence]\nquiet_time = \"999ms\"\n", 2, "defence.quiet_time", &["from \"1s\" to \"10m\"", "\"1s\" is the least"]);
    check("[defence]\nquiet_time = \"601s\"\n", 2, "defence.quiet_time", &["\"10m\" is the most"]);
    check("[defence]\nminimum_time = \"61m\"\n", 2, "defence.minimum_time", &["\"1h\" is the most"]);
    check("[defence]\nkey_lifetime = \"9s\"\n", 2, "defence.key_lifetime", &["\"10s\" is the least"]);
    check("[defence]\nkey_lifetime = 60\n", 2, "defence.key_lifetime", &["found 60", "key_lifetime = \"60s\""]);
    check("[defence]\nmanage_sysctl = \"false\"\n", 2, "defence.manage_sysctl", &["write false without quotes"]);
    check("[defence]\nsyn_acks_per_second = 0\n", 2, "defence.syn_acks_per_second", &["1 is the least"]);
    check("[defence]\nsyn_acks_per_prefix = 1_000_000_001\n", 2, "defence.syn_acks_per_prefix", &["1000000000 is the most"]);
    check("[defence]\nfailed_cookies_per_prefix = -1\n", 2, "defence.failed_cookies_per_prefix", &["1 is the least"]);
    check("[defence]\nkernel_only_syns_per_second = 1.5\n", 2, "defence.kernel_only_syns_per_second", &["whole number"]);
    check("[defence]\nknown_flows = 1024\n", 2, "defence.known_flows", &["is a key of [limits]"]);
}

#[test]
fn the_tables_of_the_defence_have_sizes_that_are_powers_of_two() {
    for key in ["known_flows", "prefix_buckets"] {
        let path = format!("limits.{key}");
        check(&format!("[limits]\n{key} = 10000\n"), 2, &path, &["found 10000, expected a power of two", "8192 or 16384 is near"]);
        check(&format!("[limits]\n{key} = 1025\n"), 2, &path, &["1024 or 2048 is near"]);
        check(&format!("[limits]\n{key} = 1_048_575\n"), 2, &path, &["524288 or 1048576 is near"]);
        check(&format!("[limits]\n{key} = 1023\n"), 2, &path, &["1024 is the least"]);
        check(&format!("[limits]\n{key} = 2097152\n"), 2, &path, &["1048576 is the most"]);
    }
}

#[test]
fn faults_of_a_services_defence() {
    check_service("syn_defence = \"of\"\n", 6, "service[0].syn_defence", &["did you mean \"off\"?"]);
    check_service("flood_syns_per_second = 1\n", 6, "service[0].flood_syns_per_second", &["100 is the least"]);
    check_service("flood_strays_per_second = \"500\"\n", 6, "service[0].flood_strays_per_second", &["write 500 without quotes"]);
    check_service("new_connections_per_prefix = -1\n", 6, "service[0].new_connections_per_prefix", &["0 is the least"]);
    check_service(
        "udp_packets_per_prefix = 7\n",
        6,
        "service[0].udp_packets_per_prefix",
        &["on UDP services only", "`protocol = \"udp\"`"],
    );
    check_service("udp_bytes_per_prefix = 7\n", 6, "service[0].udp_bytes_per_prefix", &["on UDP services only"]);
    for line in ["syn_defence = \"off\"", "flood_syns_per_second = 100", "flood_strays_per_second = 100", "new_connections_per_prefix = 1"]
    {
        let key = format!("service[0].{}", line.split(' ').next().unwrap());
        check(&format!("{}{line}\n", WEB.replace("tcp", "udp")), 6, &key, &["on TCP services only", "write `protocol = \"tcp\"`"]);
    }
}

#[test]
fn faults_of_prefixes() {
    let allow = "service[0].allow";
    check_service("allow = \"192.0.2.0/24\"\n", 6, allow, &["write `allow = [\"192.0.2.0/24\"]`"]);
    check_service("allow = [\"192.0.2.0/24\", \"192.0.2.7/24\"]\n", 6, allow, &["weir.toml:6:26", "the network is \"192.0.2.0/24\""]);
    check_service("allow = [\"2001:db8::1/32\"]\n", 6, allow, &["the network is \"2001:db8::/32\""]);
    check_service("allow = [\"192.0.2.0/33\"]\n", 6, allow, &["expected a network or an address", "from 0 to 32"]);
    check_service("allow = [7]\n", 6, allow, &["found 7, "]);
    check_service("deny = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/8\",\n]\n", 8, "service[0].deny", &["in the list already: remove this one"]);
    check_service("deny = [\"10.0.0.1\"]\nallow = [\"10.0.0.1/32\"]\n", 6, "service[0].deny", &["`allow` has 10.0.0.1 as well"]);
}

#[test]
fn the_lists_of_all_services_together_have_a_bound() {
    use std::fmt::Write as _;
    let list = |count: u32| (0..count).map(|number| format!("\"10.{}.{}.0/24\"", number >> 8, number & 255)).collect::<Vec<_>>().join(", ");
    let file = |counts: [u32; 2]| {
        counts.iter().enumerate().fold(String::new(), |mut file, (number, count)| {
            writeln!(file, "[[service]]\nname = \"s{number}\"\nprotocol = \"tcp\"\nport = {}", 80 + number).unwrap();
            writeln!(file, "address = \"::\"\nallow = [\"2001:db8::/32\"]\ndeny = [{}]", list(*count)).unwrap();
            file
        })
    };
    assert!(Config::parse("weir.toml", &file([40_000, 24_998])).is_ok(), "65,000 with those that are allowed");
    check(&file([40_000, 24_999]), 14, "service[1].deny", &["at most 65000 prefixes", "of all services together", "the lists have 65001"]);
    check(&file([65_000, 65_000]), 7, "service[0].deny", &["the lists have 65001"]);
}

#[test]
fn a_sound_defence_is_read_as_it_says() {
    let text = r#"
        [defence]
        syn_defence = "off"
        scheme = "kernel"
        flood_syns_per_second = 20_000
        quiet_time = "1m"
        manage_sysctl = false
        [limits]
        known_flows = 0x400
        [[service]]
        name = "web"
        protocol = "tcp"
        port = 443
        address = "::"
        syn_defence = "always"
        flood_strays_per_second = 500
        allow = ["192.0.2.0/24", "2001:db8::7"]
        deny = ["192.0.2.128/25"]
        new_connections_per_prefix = 100
    "#;
    let config = Config::parse("weir.toml", text).unwrap();
    let defence = Defence {
        syn_defence: Stance::Off,
        scheme: SchemeChoice::Kernel,
        flood_syns_per_second: 20_000,
        quiet_time: Duration::from_secs(60),
        manage_sysctl: false,
        ..Defence::default()
    };
    assert_eq!((&config.defence, config.limits.known_flows, config.limits.prefix_buckets), (&defence, 1024, 16_384));
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let own = ServiceDefence {
        syn_defence: Some(Stance::Always),
        flood_strays_per_second: Some(500),
        allow: vec![prefix("192.0.2.0/24"), prefix("2001:db8::7")],
        deny: vec![prefix("192.0.2.128/25")],
        new_connections_per_prefix: 100,
        ..ServiceDefence::default()
    };
    assert_eq!(config.services[0].defence, own);
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!((&json["defence"]["quiet_time"], &json["service"][0]["allow"][1]), (&"1m".into(), &"2001:db8::7".into()));
    assert_eq!(Config::parse("again.toml", &config.to_toml().unwrap()).unwrap(), config);
}

/// Any `[defence]`.
pub(super) fn of_all() -> impl Strategy<Value = Defence> {
    let stance = proptest::sample::select(vec![Stance::Off, Stance::Auto, Stance::Always]);
    let scheme = proptest::sample::select(vec![SchemeChoice::Auto, SchemeChoice::Own, SchemeChoice::Kernel]);
    let times = (1000..=600_000u64, 1000..=3_600_000u64, 10_000..=600_000u64);
    let caps = proptest::array::uniform4(1..=1_000_000_000u32);
    (stance, scheme, [100..=10_000_000u32, 100..=10_000_000u32], times, any::<bool>(), caps).prop_map(
        |(syn_defence, scheme, [syns, strays], (quiet, minimum, key), manage_sysctl, [all, prefix, failed, kernel_only])| Defence {
            syn_defence,
            scheme,
            flood_syns_per_second: syns,
            flood_strays_per_second: strays,
            quiet_time: Duration::from_millis(quiet),
            minimum_time: Duration::from_millis(minimum),
            key_lifetime: Duration::from_millis(key),
            manage_sysctl,
            syn_acks_per_second: all,
            syn_acks_per_prefix: prefix,
            failed_cookies_per_prefix: failed,
            kernel_only_syns_per_second: kernel_only,
        },
    )
}

/// Anything that a service may say of its defence, TCP's keys and UDP's: see [`for_protocol`].
pub(super) fn of_service() -> impl Strategy<Value = ServiceDefence> {
    let stance = proptest::option::of(proptest::sample::select(vec![Stance::Off, Stance::Auto, Stance::Always]));
    let rate = || proptest::option::of(100..=10_000_000u32);
    let prefix = prop_oneof![
        (any::<u32>(), 0..=32u8)
            .prop_map(|(bits, length)| format!("{}/{length}", Ipv4Addr::from_bits(bits & u32::try_from(mask(length, 32)).unwrap()))),
        // Not in ::/96, where IPv4 addresses are written as IPv6 ones.
        (any::<u128>(), 3..=128u8)
            .prop_map(|(bits, length)| format!("{}/{length}", Ipv6Addr::from_bits((bits | 1 << 125) & mask(length, 128)))),
    ];
    let lists = proptest::collection::btree_set(prefix, 0..6);
    (stance, rate(), rate(), lists, any::<usize>(), [0..=1_000_000_000u32, 0..=1_000_000_000u32, 0..=1_000_000_000u32]).prop_map(
        |(syn_defence, flood_syns_per_second, flood_strays_per_second, prefixes, cut, [connections, packets, bytes])| {
            let mut allow: Vec<Prefix> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
            let deny = allow.split_off(cut % (allow.len() + 1));
            ServiceDefence {
                syn_defence,
                flood_syns_per_second,
                flood_strays_per_second,
                allow,
                deny,
                new_connections_per_prefix: connections,
                udp_packets_per_prefix: packets,
                udp_bytes_per_prefix: bytes,
            }
        },
    )
}

/// The first `length` of so many bits.
fn mask(length: u8, bits: u8) -> u128 {
    let all = u128::MAX >> (128 - bits);
    all & all.checked_shl(u32::from(bits - length)).unwrap_or(0)
}

/// What a service of this protocol may say of it.
pub(super) fn for_protocol(protocol: Protocol, defence: ServiceDefence) -> ServiceDefence {
    match protocol {
        Protocol::Tcp => ServiceDefence { udp_packets_per_prefix: 0, udp_bytes_per_prefix: 0, ..defence },
        Protocol::Udp => ServiceDefence {
            syn_defence: None,
            flood_syns_per_second: None,
            flood_strays_per_second: None,
            new_connections_per_prefix: 0,
            ..defence
        },
    }
}
