//! The commands against a daemon that is only its control socket.
use std::{
    cell::Cell,
    path::Path,
    thread::{self, JoinHandle},
};

use clap::Parser as _;
use tokio::sync::oneshot;

use super::*;
use crate::{
    api::{DaemonHandle, control::ControlSocket, protocol::Order},
    cli::{BackendArgs, Cli, DefenceArgs},
    config::Config,
    observe::sample,
    plan::Process,
};

/// A daemon on a thread of its own, that shows [`sample::small`] and answers orders by `answer`.
struct Daemon {
    global: GlobalArgs,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Vec<Request>>>,
    _directory: tempfile::TempDir,
}

fn global(directory: &Path) -> GlobalArgs {
    let directory = directory.to_str().unwrap();
    Cli::try_parse_from(["weir", "--run-dir", directory, "--instance", "blue", "status"]).unwrap().global
}

impl Daemon {
    fn start(answer: fn(&Request) -> Response) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let global = global(directory.path());
        let path = control_socket(&global);
        let (end, mut ended) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (handle, mut questions) = DaemonHandle::new();
                let (over, is_over) = oneshot::channel::<()>();
                let server = tokio::spawn(ControlSocket::bind(&path).unwrap().serve(handle, async {
                    let _ = is_over.await;
                }));
                ready.send(()).unwrap();
                let mut orders = Vec::new();
                loop {
                    tokio::select! {
                        question = questions.recv() => {
                            let (request, reply) = question.unwrap();
                            let response = match &request {
                                Request::Status => Response::Status(Box::new(sample::small())),
                                order => answer(order),
                            };
                            orders.extend((request != Request::Status).then_some(request));
                            reply.send(response).unwrap();
                        }
                        _ = &mut ended => break,
                    }
                }
                over.send(()).unwrap();
                server.await.unwrap().unwrap();
                orders
            })
        });
        is_ready.recv().unwrap();
        Self { global, end: Some(end), thread: Some(thread), _directory: directory }
    }

    /// Ends it: the orders that it got.
    fn end(mut self) -> Vec<Request> {
        self.end.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

fn does_it(_: &Request) -> Response {
    Response::Done { message: "done so".to_owned() }
}

fn refuses(_: &Request) -> Response {
    Response::Refused { code: 3, message: "the file has a fault".to_owned(), remedy: "mend it".to_owned() }
}

fn backend(service: &str, backend: &str) -> BackendArgs {
    BackendArgs { service: service.to_owned(), backend: backend.to_owned() }
}

#[test]
fn status_asks_the_daemon_and_does_not_look_at_the_pins() {
    let daemon = Daemon::start(does_it);
    let snapshot = status::picture(&daemon.global, || panic!("the daemon was there")).unwrap();
    assert_eq!(snapshot, sample::small());
    assert_eq!(daemon.end(), []);
}

#[test]
fn status_without_a_daemon_reads_the_pins_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let snapshot = status::picture(&global(directory.path()), || Ok(sample::small())).unwrap();
    assert_eq!(snapshot.daemon, None);
    let nothing = || Err(fail(Exit::NotRunning, "nothing is pinned", "start it"));
    assert_eq!(status::picture(&global(directory.path()), nothing).unwrap_err().exit, Exit::NotRunning);
}

#[test]
fn drain_takes_a_number_or_a_pid_and_orders_by_number() {
    let daemon = Daemon::start(does_it);
    for (text, drain) in [("1", true), ("5001", false), ("pid:5001", true)] {
        assert_eq!(drain::carry_out(&daemon.global, &backend("web", text), drain).unwrap(), "done so");
    }
    let order = |drain| Request::Drain { service: "web".to_owned(), backend: 1, drain };
    assert_eq!(daemon.end(), [order(true), order(false), order(true)]);
}

#[test]
fn drain_of_what_is_not_there_names_what_is() {
    let daemon = Daemon::start(does_it);
    for (service, text, exit, says, remedy) in [
        ("wbe", "1", Exit::NotFound, "no service `wbe`", "the services are web, udp/[::1%v0]:53, tcp/0.0.0.0:22"),
        ("web", "3", Exit::NotFound, "no backend 3", "it has 3"),
        ("web", "pid:1", Exit::NotFound, "process 1 serves no backend", "it has 3"),
        ("web", "pid:0", Exit::NotFound, "process 0", "it has 3"),
        ("web", "first", Exit::Usage, "`first` is no backend", "its number"),
        ("web", "-1", Exit::Usage, "`-1`", "its number"),
        ("web", "pid:x", Exit::Usage, "`pid:x`", "its number"),
    ] {
        let failure = drain::carry_out(&daemon.global, &backend(service, text), true).unwrap_err();
        assert_eq!(failure.exit, exit, "{service} {text}");
        assert!(failure.render().contains(says) && failure.remedy.as_ref().unwrap().contains(remedy), "{}", failure.render());
    }
    assert_eq!(daemon.end(), []);
}

#[test]
fn defence_orders_by_name_and_only_of_tcp_services() {
    let daemon = Daemon::start(does_it);
    let arguments = |service: &str, order| DefenceArgs { service: service.to_owned(), order };
    for (service, order) in [("web", Order::On), ("tcp/0.0.0.0:22", Order::Off), ("web", Order::Auto)] {
        assert_eq!(defence::carry_out(&daemon.global, &arguments(service, order)).unwrap(), "done so");
    }
    for (service, exit, says) in
        [("wbe", Exit::NotFound, "the services are web"), ("udp/[::1%v0]:53", Exit::Usage, "is UDP: it has no SYNs")]
    {
        let failure = defence::carry_out(&daemon.global, &arguments(service, Order::On)).unwrap_err();
        assert_eq!(failure.exit, exit, "{service}");
        assert!(failure.render().contains(says), "{}", failure.render());
    }
    let ordered = |service: &str, order| Request::Defence { service: service.to_owned(), order };
    assert_eq!(daemon.end(), [ordered("web", Order::On), ordered("tcp/0.0.0.0:22", Order::Off), ordered("web", Order::Auto)]);
}

#[test]
fn a_number_is_a_backend_before_it_is_a_pid_and_a_shared_pid_is_refused() {
    let mut service = sample::small().services.swap_remove(0);
    for backend in &mut service.backends {
        backend.servers = vec![Process { pid: 2, command: "nginx".to_owned() }];
    }
    assert_eq!(drain::find_backend(&service, "2").unwrap(), 2);
    let failure = drain::find_backend(&service, "pid:2").unwrap_err();
    assert!(failure.render().contains("serves several backends of `web`: 0, 1, 2"), "{}", failure.render());
    service.backends.truncate(2);
    service.backends[0].servers.clear();
    assert_eq!(drain::find_backend(&service, "2").unwrap(), 1);
}

#[test]
fn a_refusal_keeps_the_daemons_code_message_and_remedy() {
    let daemon = Daemon::start(refuses);
    let failure = order(&daemon.global, &Request::Reload).unwrap_err();
    assert_eq!((failure.exit, failure.render().as_str()), (Exit::Configuration, "the file has a fault\n    remedy: mend it"));
    assert_eq!(daemon.end(), [Request::Reload]);
}

#[test]
fn a_refusal_with_a_code_of_another_version_is_unexpected() {
    let failure = accepted(Response::Refused { code: 200, message: "odd".to_owned(), remedy: "none".to_owned() }).unwrap_err();
    assert_eq!(failure.exit, Exit::Unexpected);
}

#[test]
fn stop_orders_the_daemon_and_without_one_clears_what_is_left() {
    let daemon = Daemon::start(does_it);
    assert_eq!(stop::carry_out(&daemon.global, || panic!("the daemon was there")).unwrap(), "done so");
    let global = daemon.global.clone();
    assert_eq!(daemon.end(), [Request::Stop]);
    let cleared = Cell::new(false);
    let clear = || {
        cleared.set(true);
        Ok("removed".to_owned())
    };
    assert_eq!(stop::carry_out(&global, clear).unwrap(), "removed");
    assert!(cleared.get());
}

#[test]
fn without_a_daemon_orders_say_so_with_code_8() {
    let directory = tempfile::tempdir().unwrap();
    let global = global(directory.path());
    let forced = DefenceArgs { service: "web".to_owned(), order: Order::On };
    for failure in [
        reload::run(&global).unwrap_err(),
        drain::run(&global, &backend("web", "1"), true).unwrap_err(),
        defence::run(&global, &forced).unwrap_err(),
    ] {
        assert_eq!(failure.exit, Exit::NotRunning);
        assert!(failure.render().contains("no daemon of instance `blue`"), "{}", failure.render());
    }
}

#[test]
fn a_checked_file_is_summed_up() {
    let summary = |text: &str| config::summary(Path::new("weir.toml"), &Config::parse("weir.toml", text).unwrap());
    assert_eq!(summary(""), "weir.toml: no faults; no service named, and TCP groups found become services");
    let service = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"::\"\n";
    assert_eq!(summary(service), "weir.toml: no faults; 1 service named, and discovery is off");
}

#[test]
fn a_file_with_faults_or_none_is_refused_with_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    let check = || config::run(&global(directory.path()), &crate::cli::ConfigCommand::Check { file: file.clone() });
    assert_eq!(check().unwrap_err().exit, Exit::Configuration);
    std::fs::write(&file, "[daemon]\nmode = 1\ninterface = 2\n").unwrap();
    assert_eq!(check().unwrap_err().to_json()["faults"].as_array().unwrap().len(), 2);
}
