//! The whole reader: faults row by row, and what holds for any text.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

mod defence;

/// A service that is sound, and two lines shorter than the file it is put into.
const WEB: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"0.0.0.0\"\n";

/// Checks that `text` has exactly one fault: at `line`, of `key`, and that its message and remedy hold each of `says`.
fn check(text: &str, line: usize, key: &str, says: &[&str]) {
    let faults = Config::parse("weir.toml", text).expect_err(text);
    assert_eq!(faults.faults.len(), 1, "{text}\n{faults}");
    assert_eq!((faults.faults[0].line, faults.faults[0].key.as_str()), (line, key), "{text}\n{faults}");
    for words in says {
        assert!(faults.to_string().contains(words), "{text}\nsays nothing of {words:?}:\n{faults}");
    }
}

/// The same for lines added to [`WEB`], which has 5.
fn check_service(lines: &str, line: usize, key: &str, says: &[&str]) {
    check(&format!("{WEB}{lines}"), line, key, says);
}

#[test]
fn faults_of_the_file_as_a_whole() {
    check("[daemon]\nmode = auto\n", 2, "", &["weir.toml:2:8", "`mode = auto`", "quote"]);
    check("[daemon\n", 1, "", &["`[daemon`", "`]`"]);
    check("[daemon]\nmode = \"auto\n\n[limits]\nservices = 0\n", 2, "", &["what follows was not looked at"]);
    check("[deamon]\n", 1, "deamon", &["weir.toml:1:2: ", "did you mean [daemon]?"]);
    check("[[services]]\n", 1, "services", &["did you mean [[service]]?"]);
    check(
        "[tls]\ncert = 1\n",
        1,
        "tls",
        &["one of the sections [daemon], [discovery], [steering], [defence], [observe], [limits], [[service]]", "remove it"],
    );
    check("interfaces = [\"eth0\"]\n", 1, "interfaces", &["is a key of [daemon]"]);
    check("daemon = 1\n", 1, "daemon", &["found 1, expected a table", "[daemon]"]);
    check("[[limits]]\nservices = 1\n", 1, "limits", &["expected a table", "[limits]"]);
    check("[daemon]\nmode = \"auto\"\nmode = \"native\"\n", 3, "mode", &["once", "remove one"]);
    check("[daemon]\n[limits]\n[daemon]\n", 3, "daemon", &["once"]);
    check(&WEB.replace("[[service]]", "[service]"), 1, "service", &["two brackets"]);
    check("service = 7\n", 1, "service", &["found 7", "[[service]]"]);
}

#[test]
fn faults_of_daemon() {
    check("[daemon]\ninterfaces = \"eth0\"\n", 2, "daemon.interfaces", &["write `interfaces = [\"eth0\"]`"]);
    check("[daemon]\ninterfaces = [\"eth0\",\n  \"a/b\"]\n", 3, "daemon.interfaces", &["weir.toml:3:3", "found \"a/b\"", "`/`"]);
    check("[daemon]\ninterfaces = [\"abcdefghijklmnop\"]\n", 2, "daemon.interfaces", &["at most 15 bytes"]);
    check("[daemon]\ninterfaces = [\"eth0\", 1]\n", 2, "daemon.interfaces", &["found 1, ", "interfaces = [\"eth0\"]"]);
    check("[daemon]\ninterfaces = [\"eth0\", \"eth0\"]\n", 2, "daemon.interfaces", &["weir.toml:2:23", "already"]);
    check("[daemon]\nmode = \"nativ\"\n", 2, "daemon.mode", &["\"auto\", \"native\" or \"generic\"", "did you mean \"native\"?"]);
    check("[daemon]\nmode = true\n", 2, "daemon.mode", &["found true", "mode = \"auto\""]);
    check("[daemon]\nlisten = \"off\"\n", 2, "daemon.listen", &["weir.toml:2:1", "did you mean `metrics_listen`?"]);
    check("[daemon]\nmetrics-listen = \"off\"\n", 2, "daemon.metrics-listen", &["did you mean `metrics_listen`?"]);
    check("[daemon]\nservices = 4\n", 2, "daemon.services", &["key of [limits]"]);
    check("[daemon]\nmetrics_listen = \"localhost:9464\"\n", 2, "daemon.metrics_listen", &["not a host name"]);
    check("[daemon]\nmetrics_listen = \"::1\"\n", 2, "daemon.metrics_listen", &["add a port", "\"[::1]:9464\""]);
    check("[daemon]\nrescan_interval = 10\n", 2, "daemon.rescan_interval", &["found 10", "rescan_interval = \"10s\""]);
    check("[daemon]\nrescan_interval = \"10\"\n", 2, "daemon.rescan_interval", &["add a unit", "\"10s\""]);
    check("[daemon]\nrescan_interval = \"999ms\"\n", 2, "daemon.rescan_interval", &["\"1s\" is the least"]);
    check("[daemon]\nrescan_interval = \"61m\"\n", 2, "daemon.rescan_interval", &["\"1h\" is the most"]);
    check("[daemon]\ndetach_on_exit = \"true\"\n", 2, "daemon.detach_on_exit", &["write true without quotes"]);
    check("[daemon]\ndetach_on_exit = 1\n", 2, "daemon.detach_on_exit", &["expected true or false", "detach_on_exit = true"]);
    check("[daemon]\nflow_hash_key = \"00ff\"\n", 2, "daemon.flow_hash_key", &["32 hexadecimal digits", "has 4 characters"]);
}

#[test]
fn faults_of_discovery_and_limits() {
    check("[discovery]\ntcp = \"yes\"\n", 2, "discovery.tcp", &["true or false"]);
    check("[discovery]\nsctp = true\n", 2, "discovery.sctp", &["tcp, udp", "remove it"]);
    check("[limits]\nservices = 0\n", 2, "limits.services", &["from 1 to 4096", "1 is the least"]);
    check("[limits]\nservices = 4_097\n", 2, "limits.services", &["found 4_097", "4096 is the most"]);
    check("[limits]\nservices = -1\n", 2, "limits.services", &["found -1", "1 is the least"]);
    check("[limits]\nbackends = 99999999999999999999999999999999999999999\n", 2, "limits.backends", &["65536 is the most"]);
    check("[limits]\nbackends = \"8192\"\n", 2, "limits.backends", &["write 8192 without quotes"]);
    check("[limits]\nbackends = 8192.0\n", 2, "limits.backends", &["whole number"]);
    check("[limits]\nbackends = 100\nbackends_per_service = 0x65\n", 3, "limits.backends_per_service", &["0x65", "at most", "100"]);
    check("[limits]\nudp_flows = 1023\n", 2, "limits.udp_flows", &["1024 is the least"]);
    check("[steering]\noverfull_percent = 101\n", 2, "steering.overfull_percent", &["100 is the most"]);
    check("[steering]\nstalled_after = \"never\"\n", 2, "steering.stalled_after", &["or \"off\""]);
    check("[steering]\nstalled_after = \"2m\"\n", 2, "steering.stalled_after", &["\"1m\" is the most"]);
    check("[limits]\nudp_new_flows_per_second = 10000001\n", 2, "limits.udp_new_flows_per_second", &["10000000 is the most"]);
}

#[test]
fn faults_of_a_service() {
    check(&WEB.replace("name = \"web\"\n", ""), 1, "service[0].name", &["found nothing", "name = \"web\""]);
    check(&WEB.replace("\"web\"", "\"Web Site\""), 2, "service[0].name", &["1 to 63", "\"web-site\" would do"]);
    check(&WEB.replace("\"web\"", "\"-ü\""), 2, "service[0].name", &["write a name such as"]);
    check(&WEB.replace("\"web\"", &format!("\"{}\"", "w".repeat(64))), 2, "service[0].name", &["1 to 63"]);
    check(&WEB.replace("\"tcp\"", "\"sctp\""), 3, "service[0].protocol", &["expected \"tcp\" or \"udp\"", "choose one of these"]);
    check(&WEB.replace("\"tcp\"", "\"TCP\""), 3, "service[0].protocol", &["did you mean \"tcp\"?"]);
    check(&WEB.replace("80", "0"), 4, "service[0].port", &["from 1 to 65535", "1 is the least"]);
    check(&WEB.replace("80", "65536"), 4, "service[0].port", &["found 65536", "65535 is the most"]);
    check(&WEB.replace("80", "\"http\""), 4, "service[0].port", &["port = 80"]);
    check(&WEB.replace("address = \"0.0.0.0\"\n", ""), 1, "service[0].address", &["`address`, `interface` or both", "0.0.0.0"]);
    for (address, remedy) in [
        ("*", "\"0.0.0.0\" for every IPv4"),
        ("localhost", "not a host name"),
        ("10.0.0.1:80", "the port has its own key"),
        ("10.0.0.0/8", "not to a network"),
        ("fe80::1%eth0", "`interface = \"eth0\"`"),
        ("fe80::1", "link-local"),
        ("::ffff:10.0.0.1", "write \"10.0.0.1\""),
        ("224.0.0.1", "unicast"),
        ("ff02::1", "unicast"),
        ("255.255.255.255", "unicast"),
    ] {
        check(&WEB.replace("0.0.0.0", address), 5, "service[0].address", &[address, remedy]);
    }
    check_service("interface = \"\"\n", 6, "service[0].interface", &["ip link"]);
    check_service("table_size = 65536\n", 6, "service[0].table_size", &["a prime number", "65521 or 65537 is near"]);
    check_service("table_size = 100\n", 6, "service[0].table_size", &["101 is the least"]);
    check_service("table_size = 1048574\n", 6, "service[0].table_size", &["1048573 is the most"]);
    check_service("weights = [1, 1]\ntable_size = 199\n", 7, "service[0].table_size", &["100 entries", "a prime above 200"]);
    check_service("takeover = 1\n", 6, "service[0].takeover", &["true or false"]);
    check_service("weights = [1, 101]\n", 6, "service[0].weights", &["weir.toml:6:15", "found 101, ", "100 is the most"]);
    check_service("weights = 3\n", 6, "service[0].weights", &["write `weights = [3]`"]);
    check_service("weights = [1, \"2\"]\n", 6, "service[0].weights", &["write 2 without quotes"]);
    check_service("weights = [1, true]\n", 6, "service[0].weights", &["write it as in `weights = [2, 1, 1]`"]);
    check_service("weights = [1, 1]\n[limits]\nbackends_per_service = 1\n", 6, "service[0].weights", &["at most 1 weights", "has 2"]);
    check_service("quic = true\n", 6, "service[0].quic", &["UDP services only", "protocol = \"udp\""]);
    check_service("quic_worker_byte = 1\n", 6, "service[0].quic_worker_byte", &["only together with `quic = true`"]);
    check_service("[service.quic]\nworker_byte = 1\n", 6, "service[0].quic", &["found [service.quic]", "true or false"]);
}

#[test]
fn faults_between_services() {
    let other = WEB.replace("web", "api");
    check_service(&other, 9, "service[1].port", &["no other service has", "the service of line 4 has it"]);
    check_service(&WEB.replace("80", "81"), 7, "service[1].name", &["a name of its own", "line 2"]);
    check_service(&format!("{}[limits]\nservices = 1\n", other.replace("80", "81")), 6, "service", &["at most 1", "names 2"]);
    for apart in
        [other.replace("80", "81"), other.replace("0.0.0.0", "::"), other.replace("tcp", "udp"), format!("{other}interface = \"v0\"\n")]
    {
        assert_eq!(Config::parse("weir.toml", &format!("{WEB}{apart}")).unwrap().services.len(), 2, "{apart}");
    }
}

#[test]
fn all_faults_of_a_file_come_at_once_in_the_order_of_the_file() {
    let text = "[daemon]\nmode = \"fast\"\nmode = 1\n[[service]]\nname = \"Web\"\nport = 0\nquic_worker_byte = 20\n[limits]\nservices = \"x\"\n[extra]\n";
    let faults = Config::parse("a.toml", text).unwrap_err();
    let found: Vec<_> = faults.faults.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    let expected = [
        (2, "daemon.mode"),
        (3, "mode"),
        (4, "service[0].protocol"),
        (4, "service[0].address"),
        (5, "service[0].name"),
        (6, "service[0].port"),
        (7, "service[0].quic_worker_byte"),
        (7, "service[0].quic_worker_byte"),
        (9, "limits.services"),
        (10, "extra"),
    ];
    assert_eq!(found, expected, "{faults}");
    assert!(
        faults.to_string().starts_with("a.toml: refused as a whole for 10 faults\na.toml:2:8: daemon.mode: found \"fast\", "),
        "{faults}"
    );
}

#[test]
fn a_misspelt_key_is_one_fault() {
    check(&WEB.replace("port", "prot"), 4, "service[0].prot", &["did you mean `port`?"]);
    check(&WEB.replace("address", "adress"), 5, "service[0].adress", &["did you mean `address`?"]);
    check(&WEB.replace("tcp", "udp").replace("address", "Quic = true\nquic_worker_byte = 3\naddress"), 5, "service[0].Quic", &["`quic`"]);
}

#[test]
fn a_list_of_no_services_names_none() {
    let config = Config::parse("weir.toml", "service = []\n").unwrap();
    assert_eq!(config, Config::default());
    let extended = format!("{}{WEB}", config.to_toml().unwrap());
    assert_eq!(Config::parse("weir.toml", &extended).unwrap().services.len(), 1, "a service can be added below what to_toml writes");
    assert!(!Config::parse("weir.toml", WEB).unwrap().discovery.tcp);
}

#[test]
fn places_are_counted_in_characters_and_lines_may_end_in_crlf() {
    let faults = Config::parse("weir.toml", "# ä\r\n[daemon]\r\n\"modé\" = 1\r\ninterfaces = [\"ää\", 7]\r\n").unwrap_err();
    let places: Vec<_> = faults.faults.iter().map(|fault| (fault.line, fault.column, fault.found.as_str())).collect();
    assert_eq!(places, [(3, 1, "\"modé\""), (4, 21, "7")]);
}

#[test]
fn a_sound_file_is_read_as_it_says() {
    let text = r#"
        [daemon]
        interfaces = ["eth0", "eth1.7"]
        mode = "native"
        metrics_listen = "off"
        rescan_interval = "1500ms"
        detach_on_exit = true
        flow_hash_key = "00112233445566778899AABBccddeeff"
        [discovery]
        udp = true
        [limits]
        services = 10
        backends = 100
        udp_flows = 0x1_0000
        [[service]]
        name = "web"
        protocol = "tcp"
        port = 443
        address = "2001:db8::1"
        takeover = true
        table_size = 1009
        weights = [2, 0, 100]
        [[service]]
        name = "h3.eu_1-a"
        protocol = "udp"
        port = 443
        interface = "eth1"
        quic = true
        quic_worker_byte = 19
    "#;
    let config = Config::parse("weir.toml", text).unwrap();
    assert_eq!(config.daemon.interfaces, ["eth0", "eth1.7"]);
    assert_eq!((config.daemon.mode, config.daemon.metrics_listen), (Mode::Native, MetricsListen(None)));
    assert_eq!((config.daemon.rescan_interval.as_millis(), config.daemon.detach_on_exit), (1500, true));
    let key = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    assert_eq!(config.daemon.flow_hash_key, Some(key));
    assert_eq!(config.discovery, Discovery { tcp: false, udp: true });
    let limits = Limits { services: 10, backends: 100, backends_per_service: 100, udp_flows: 65_536, ..Limits::default() };
    assert_eq!(config.limits, limits);
    let [web, h3] = &config.services[..] else { panic!("{:?}", config.services) };
    assert_eq!(
        (web.address, web.table_size, web.takeover, &web.weights[..]),
        ("2001:db8::1".parse().unwrap(), Some(1009), true, &[2, 0, 100][..])
    );
    assert_eq!((h3.name.as_str(), h3.address.to_string().as_str(), h3.interface.as_deref()), ("h3.eu_1-a", "0.0.0.0", Some("eth1")));
    assert_eq!((h3.protocol, h3.quic, web.quic), (Protocol::Udp, Some(Quic { worker_byte: 19 }), None));
    assert_eq!(Config::parse("again.toml", &config.to_toml().unwrap()).unwrap(), config);
}

#[test]
fn json_has_the_shape_of_the_file() {
    let config = Config::parse("weir.toml", &format!("{}quic = true\n", WEB.replace("tcp", "udp"))).unwrap();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["daemon"]["rescan_interval"], "10s");
    assert_eq!(json["service"][0]["quic_worker_byte"], 0);
    assert_eq!(json["service"][0]["address"], "0.0.0.0");
}

fn service(index: usize) -> impl Strategy<Value = Service> {
    let address = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
        .prop_filter("unicast", |a| !a.is_multicast() && a.to_canonical() == *a && a.to_string() != "255.255.255.255");
    let options = (any::<bool>(), proptest::collection::vec(0..=100u32, 0..9), proptest::option::of(0..=19u8));
    let table_size = proptest::option::of(proptest::sample::select(vec![1009u32, 65_537, 1_048_573]));
    let given = (address, "[a-z][a-z0-9.-]{0,14}", table_size, options, defence::of_service());
    given.prop_map(move |(address, interface, table_size, (takeover, weights, byte), defence)| {
        let protocol = if byte.is_some() { Protocol::Udp } else { Protocol::Tcp };
        Service {
            name: format!("{index}-{interface}"),
            protocol,
            port: u16::try_from(index + 1).unwrap(),
            address,
            interface: Some(interface),
            table_size,
            takeover,
            weights,
            defence: defence::for_protocol(protocol, defence),
            quic: byte.map(|worker_byte| Quic { worker_byte }),
        }
    })
}

fn config() -> impl Strategy<Value = Config> {
    let mode = proptest::sample::select(vec![Mode::Auto, Mode::Native, Mode::Generic]);
    let metrics = proptest::option::of(any::<std::net::SocketAddr>().prop_filter("no scope", |a| match a {
        std::net::SocketAddr::V6(v6) => v6.scope_id() == 0 && v6.flowinfo() == 0,
        std::net::SocketAddr::V4(_) => true,
    }));
    let daemon = (
        proptest::collection::btree_set("[a-zA-Z][a-zA-Z0-9.@-]{0,14}", 0..4),
        mode,
        metrics,
        1000..=3_600_000u64,
        any::<bool>(),
        any::<Option<[u8; 16]>>(),
    )
        .prop_map(|(interfaces, mode, metrics, interval, detach_on_exit, flow_hash_key)| Daemon {
            web_config: detach_on_exit.then(|| "web.yml".into()),
            interfaces: interfaces.into_iter().collect(),
            mode,
            metrics_listen: MetricsListen(metrics),
            rescan_interval: Duration::from_millis(interval),
            detach_on_exit,
            flow_hash_key,
        });
    let power = || (10..=20u32).prop_map(|power| 1 << power);
    let limits = (8..=4096u32, 5000..=65_536u32, 9..=5000u32, 1024..=16_777_216u32, 0..=10_000_000u32, [power(), power()]).prop_map(
        |(services, backends, backends_per_service, udp_flows, udp_new_flows_per_second, [known_flows, prefix_buckets])| Limits {
            services,
            backends,
            backends_per_service,
            udp_flows,
            udp_new_flows_per_second,
            known_flows,
            prefix_buckets,
        },
    );
    let services = (0..8usize).prop_flat_map(|n| (0..n).map(service).collect::<Vec<_>>());
    let discovery = (any::<bool>(), any::<bool>()).prop_map(|(tcp, udp)| Discovery { tcp, udp });
    let stalled_after = proptest::option::of((1..=60_000u64).prop_map(Duration::from_millis));
    let steering = (0..=100u32, stalled_after).prop_map(|(overfull_percent, stalled_after)| Steering { overfull_percent, stalled_after });
    let observe = (100..=60_000u64, any::<bool>(), 0..=65_536u32).prop_map(|(interval, kernel_drops, backend_series)| Observe {
        interval: Duration::from_millis(interval),
        kernel_drops,
        backend_series,
    });
    (daemon, discovery, steering, defence::of_all(), observe, limits, services).prop_map(
        |(daemon, discovery, steering, defence, observe, limits, services)| Config {
            daemon,
            discovery,
            steering,
            defence,
            observe,
            limits,
            services,
        },
    )
}

/// The example with every key switched on: the text that mutations start from.
fn everything() -> String {
    example()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every fault stands at a place that the file has, and says something.
fn assert_sound(text: &str, faults: &Faults) {
    assert!(!faults.faults.is_empty());
    let lines = text.split('\n').count();
    for Fault { line, column, key: _, found, expected, remedy } in &faults.faults {
        assert!((1..=lines).contains(line) && *column >= 1, "{line}:{column}");
        assert!(*column <= text.split('\n').nth(line - 1).unwrap_or_default().chars().count() + 1, "{line}:{column}");
        assert!(!found.is_empty() && !expected.is_empty() && !remedy.is_empty());
    }
}

proptest! {
    #[test]
    fn what_to_toml_writes_parses_back_as_the_same(config in config()) {
        let text = config.to_toml().unwrap();
        let again = Config::parse("again.toml", &text);
        prop_assert!(again.is_ok(), "{}\n{}", text, again.unwrap_err());
        prop_assert_eq!(again.unwrap(), config);
    }

    #[test]
    fn mutated_text_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..40usize, any::<char>()), 1..12)
    ) {
        let mut text: Vec<char> = everything().chars().filter(|c| *c != '#').collect();
        let tokens: Vec<char> = "[]{}\"'=.,#\n\r\\-_0x:% ".chars().collect();
        for (at, token, length, other) in edits {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + length % 7);
            let inserted = if length % 3 == 0 { other } else { tokens[token.index(tokens.len())] };
            let moved = if length > 30 { text[at..text.len().min(at + length)].to_vec() } else { Vec::new() };
            text.splice(at..end, std::iter::once(inserted).chain(moved));
        }
        let text: String = text.into_iter().collect();
        if let Err(faults) = Config::parse("m.toml", &text) {
            assert_sound(&text, &faults);
        }
    }

    #[test]
    fn shuffled_lines_never_panic(picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let everything = everything();
        let mut lines: Vec<&str> = everything.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        lines.extend(["[service.weights]", "[[service.weights]]", "daemon.mode = 1", "[daemon.mode]", "x = {a = 1, a = 2}", "service = [1, {}]", "[[daemon]]"]);
        let text = picks.iter().map(|pick| lines[pick.index(lines.len())]).collect::<Vec<_>>().join("\n");
        if let Err(faults) = Config::parse("s.toml", &text) {
            assert_sound(&text, &faults);
        }
    }
}
