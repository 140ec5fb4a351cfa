//! The command line: what it takes, what it refuses, and how it lies over the file.
use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn run(arguments: &[&str]) -> RunArgs {
    let cli = Cli::try_parse_from([&["weir", "run"], arguments].concat()).unwrap();
    match cli.command {
        Command::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_shows_examples_and_every_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains("weir run --iface eth0"), "{help}");
    for exit in Exit::ALL {
        assert!(help.contains(exit.meaning()), "{exit:?} is missing in:\n{help}");
    }
}

#[test]
fn every_example_of_the_help_parses() {
    let all = [EXAMPLES, RUN_EXAMPLES, EXPLAIN_EXAMPLES, DEFENCE_EXAMPLES, TOP_EXAMPLES];
    let lines: Vec<&str> = all.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("  weir ")).collect();
    assert_eq!(lines.len(), 20);
    for line in lines {
        let arguments = line.split("  ").next().unwrap().split(' ');
        let parsed = Cli::try_parse_from(std::iter::once("weir").chain(arguments));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn global_arguments_stand_before_and_after_the_command() {
    for arguments in [["weir", "--instance", "blue", "--json", "-vv", "status"], ["weir", "status", "-vv", "--json", "--instance", "blue"]]
    {
        let global = Cli::try_parse_from(arguments).unwrap().global;
        assert_eq!((global.instance.as_str(), global.json, global.verbose), ("blue", true, 2));
        assert_eq!(global.pin_dir(), PathBuf::from("/sys/fs/bpf/weir/blue"));
    }
}

#[test]
fn wrong_arguments_are_refused_with_what_would_be_right() {
    for (arguments, says) in [
        (&["weir", "--instance", "Blue", "status"][..], "a-z, 0-9"),
        (&["weir", "--instance", "../etc", "status"], "a-z, 0-9"),
        (&["weir", "--instance", "", "status"], "a-z, 0-9"),
        (&["weir", "--instance", "012345678901234567890123456789012", "status"], "1 to 32"),
        (&["weir", "run", "--iface", "a/b"], "`/`"),
        (&["weir", "run", "--iface", "abcdefghijklmnop"], "at most 15"),
        (&["weir", "run", "--mode", "fast"], "native"),
        (&["weir", "run", "--listen-metrics", "localhost:9464"], "not a host name"),
        (&["weir", "run", "--discover", "tcp,sctp"], "udp"),
        (&["weir", "run", "--netns", ".."], "ip netns"),
        (&["weir", "defence", "web", "always"], "auto, on, off"),
        (&["weir", "top", "--interval", "0"], "1..=60"),
        (&["weir", "explain", "tcp", "192.0.2.7", "198.51.100.1:443"], "and a port"),
    ] {
        let error = Cli::try_parse_from(arguments).unwrap_err();
        assert!(error.to_string().contains(says), "{arguments:?}: {error}");
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{arguments:?}");
    }
    assert_eq!(Cli::try_parse_from(["weir", "defence", "web"]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(Cli::try_parse_from(["weir", "drain", "web"]).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = r#"
        [daemon]
        interfaces = ["eth0", "eth1"]
        mode = "native"
        metrics_listen = "off"
        [[service]]
        name = "dns"
        protocol = "udp"
        port = 53
        address = "::"
    "#;
    let file = Config::parse("weir.toml", text).unwrap();
    assert_eq!(run(&[]).apply(file.clone()).unwrap(), file);

    let arguments = ["--iface", "v0", "--iface", "v0", "--mode", "generic", "--listen-metrics", "[::1]:1", "--discover", "udp,tcp"];
    let merged = run(&arguments).apply(file.clone()).unwrap();
    assert_eq!((merged.daemon.interfaces, merged.daemon.mode), (vec!["v0".to_owned()], Mode::Generic));
    assert_eq!(merged.daemon.metrics_listen.to_string(), "[::1]:1");
    assert!(merged.discovery.tcp && merged.discovery.udp && !merged.daemon.detach_on_exit);
    assert_eq!(merged.services, file.services);
    assert!(run(&["--detach-on-exit"]).apply(file).unwrap().daemon.detach_on_exit);
}

#[test]
fn a_run_with_nothing_to_do_is_refused() {
    let failure = run(&[]).apply(Config::default()).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    let idle = Config::parse("weir.toml", "[discovery]\ntcp = false\n").unwrap();
    let failure = run(&["--iface", "eth0"]).apply(idle.clone()).unwrap_err();
    assert_eq!(failure.exit, Exit::Configuration);
    assert!(run(&["--iface", "eth0", "--discover", "udp"]).apply(idle).is_ok());
}

#[test]
fn a_file_that_is_missing_or_wrong_is_refused_with_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.toml");
    let run = RunArgs { config: Some(path.clone()), ..RunArgs::default() };
    let failure = run.configuration().unwrap_err();
    assert_eq!(failure.exit, Exit::Configuration);
    assert!(failure.render().contains(path.to_str().unwrap()), "{}", failure.render());

    std::fs::write(&path, "[daemon]\ninterfaces = [\"eth0\"]\nmode = \"nativ\"\n").unwrap();
    let failure = run.configuration().unwrap_err();
    assert!(failure.render().contains("weir.toml:3:8: daemon.mode: found \"nativ\""), "{}", failure.render());
    std::fs::write(&path, "[daemon]\ninterfaces = [\"eth0\"]\nmode = \"native\"\n").unwrap();
    assert_eq!(run.configuration().unwrap().daemon.mode, Mode::Native);
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(run.configuration().unwrap_err().exit, Exit::Configuration);
}

#[test]
fn a_namespace_is_a_path_or_a_name() {
    assert_eq!(run(&["--netns", "blue"]).netns, Some(NetworkNamespace("/run/netns/blue".into())));
    assert_eq!(run(&["--netns", "/proc/1/ns/net"]).netns, Some(NetworkNamespace("/proc/1/ns/net".into())));
}

#[test]
fn explain_wants_one_address_family() {
    for (source, destination, sound) in
        [("192.0.2.7:1", "192.0.2.8:2", true), ("[::1]:1", "[::2]:2", true), ("192.0.2.7:1", "[::2]:2", false)]
    {
        let cli = Cli::try_parse_from(["weir", "explain", "udp", source, destination]).unwrap();
        let Command::Explain(explain) = cli.command else { panic!("not explain") };
        assert_eq!(explain.check().is_ok(), sound, "{source} {destination}");
    }
}

#[test]
fn the_defence_takes_an_order_by_its_name() {
    for order in [Order::Auto, Order::On, Order::Off] {
        let cli = Cli::try_parse_from(["weir", "defence", "web", order.label(), "--json"]).unwrap();
        let Command::Defence(arguments) = cli.command else { panic!("not defence") };
        assert_eq!((arguments.service.as_str(), arguments.order, cli.global.json), ("web", order, true));
        assert_eq!(serde_json::to_value(order).unwrap(), order.label());
    }
}
