//! `weir run`: everything in its order, from the arguments to the last word.
//!
//! The order is a matter of rights and of threads: the privileged helper is forked before any thread starts; the address for metrics is
//! bound before the network namespace is entered; and the namespace is entered before any thread starts, since a thread keeps its own.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::mpsc,
    thread,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sched::{CloneFlags, setns},
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::control_socket;
use crate::{
    api::{
        DaemonHandle,
        control::{BindError, ControlSocket},
        http,
    },
    cli::{GlobalArgs, RunArgs},
    config::Config,
    daemon::{self, Daemon, Ended, Event, Start, Survey, notify},
    dataplane::{Dataplane, Events, Options, Pins},
    exit::{Exit, Failure, OrFail as _, fail},
    listeners::helper::{Helper, StartError},
    network::{self, Network, watch},
    privilege,
};

/// Runs the daemon until it is told to end.
pub fn run(global: &GlobalArgs, arguments: &RunArgs) -> Result<Exit, Failure> {
    let config = arguments.configuration()?;
    if !rustix::process::geteuid().is_root() {
        return Err(fail(
            Exit::Permission,
            "weir loads programs into the kernel, which takes root",
            "run it with sudo, or as a system service",
        ));
    }
    let _lock = lock(global)?;
    share_one_heap();
    let helper = Helper::start().map_err(no_helper)?;
    let access = config.daemon.web_config.clone().map(http::Access::load).transpose()?;
    let metrics = config.daemon.metrics_listen.0.map(bind).transpose()?.map(|listener| (listener, access));
    let control = ControlSocket::bind(&control_socket(global)).map_err(no_control)?;
    if let Some(namespace) = &arguments.netns {
        enter(&namespace.0)?;
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Unexpected, "see the cause")?;
    runtime.block_on(serve(global, arguments, config, helper, metrics, control))
}

/// Lets all threads take memory from one heap: glibc would give each one of its own, and the daemon has a few for a moment at its start.
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the C library, before there is a thread that could read it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// From here on there are threads: the daemon's loop on one, everything that waits on this one.
async fn serve(
    global: &GlobalArgs,
    arguments: &RunArgs,
    config: Config,
    helper: Helper,
    metrics: Option<(TcpListener, Option<http::Access>)>,
    control: ControlSocket,
) -> Result<Exit, Failure> {
    const NETLINK: &str = "see the cause; rtnetlink needs no rights";
    let netlink = network::connect().or_fail(Exit::Unexpected, NETLINK)?;
    let changes = watch::watch().or_fail(Exit::Unexpected, NETLINK)?;
    let network = Network::read(&netlink).await.or_fail(Exit::Unexpected, NETLINK)?;
    for name in &config.daemon.interfaces {
        if network.interface_by_name(name).is_none() {
            return Err(daemon::no_interface(name));
        }
    }
    let options = Options { limits: config.limits.clone(), flow_hash_key: config.daemon.flow_hash_key };
    let mut dataplane = Dataplane::open(Pins::at(global.pin_dir()), &options).map_err(daemon::failure)?;
    for sentence in &dataplane.lacking {
        tracing::warn!("{sentence}");
    }
    let events = dataplane.take_events();
    if let Some(log) = dataplane.take_log() {
        tokio::spawn(log.forward());
    }
    let helper_process = helper.pid();
    let survey = Survey::new(helper).or_fail(Exit::Unexpected, "see the cause; sock_diag needs no rights")?;
    let instance = global.instance.clone();
    let start = Start { args: arguments.clone(), config, instance, state_file: state_file(global), network, dataplane, survey };
    let daemon = Daemon::start(start)?;
    // Before anybody is answered, and before the first thread, which would keep what this one gives up.
    privilege::daemon::confine(helper_process).or_fail(Exit::Permission, "see the cause; the data plane goes on as it is")?;
    if let Err(failure) = read_again(arguments) {
        tracing::warn!("a reload will fail: without CAP_DAC_*, which the daemon has given up, {}", failure.render());
    }
    give_back_memory();
    tracing::info!("ready");
    notify::ready();

    let (sender, receiver) = mpsc::channel();
    let (ended, has_ended) = oneshot::channel();
    let name = "weir-loop".to_owned();
    let work = move || {
        // The other end waits as long as this process lives.
        let _ = ended.send(daemon.run(&receiver));
    };
    let spawned = thread::Builder::new().name(name).spawn(work);
    spawned.or_fail(Exit::Unexpected, "see the cause")?;
    let (handle, questions) = DaemonHandle::new();
    if let Some((listener, access)) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).or_fail(Exit::Unexpected, "see the cause")?;
        tokio::spawn(http::serve(listener, access, handle.clone(), std::future::pending()));
    }
    let (last_answer, is_last) = oneshot::channel::<()>();
    let answering = tokio::spawn(async move {
        // Who waits for an answer when the loop has ended gets it first.
        let shutdown = async { drop(is_last.await) };
        if let Err(error) = control.serve(handle, shutdown).await {
            tracing::error!("the control socket has failed: {error}");
        }
    });
    tokio::spawn(forward_questions(questions, sender.clone()));
    tokio::spawn(forward_changes(netlink, changes, sender.clone()));
    if let Some(events) = events {
        tokio::spawn(forward_listeners(events, sender.clone()));
    }
    forward_signals(sender)?;
    let ended = has_ended.await.or_fail(Exit::Unexpected, "the log says what happened; the data plane goes on balancing")?;
    notify::stopping();
    drop(last_answer);
    answering.await.or_fail(Exit::Unexpected, "see the cause")?;
    tracing::info!(
        "{}",
        match ended {
            Ended::Left => "ended; the data plane stays and goes on balancing: `weir run` takes it up again, `weir stop` takes it away",
            Ended::Detached => "ended; nothing is left in the kernel",
        }
    );
    Ok(Exit::Success)
}

/// Reads the files again as a reload will, with the rights that are left: one that root may read only by capability is told of now.
fn read_again(arguments: &RunArgs) -> Result<(), Failure> {
    let config = arguments.configuration()?;
    config.daemon.web_config.clone().map(http::Access::load).transpose()?;
    Ok(())
}

/// Gives back to the system what the start needed and the running daemon does not: aya makes a structure of each of the kernel's
/// 150,000 types, and glibc keeps what was freed as long as anything small lies above it.
fn give_back_memory() {
    // SAFETY: the function has no preconditions; it gives back pages that hold no allocation.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The daemon's loop has ended if nobody takes an event: then there is nothing left to forward.
async fn forward_questions(mut questions: tokio::sync::mpsc::Receiver<crate::api::Question>, sender: mpsc::Sender<Event>) {
    while let Some(question) = questions.recv().await {
        if sender.send(Event::Question(question)).is_err() {
            return;
        }
    }
}

async fn forward_changes(netlink: rtnetlink::Handle, mut changes: watch::Watch, sender: mpsc::Sender<Event>) {
    loop {
        if let Err(error) = changes.changed().await {
            tracing::error!("changes of interfaces and addresses go unnoticed from now on: {error}");
            return;
        }
        match Network::read(&netlink).await {
            Ok(network) => {
                if sender.send(Event::Network(Box::new(network))).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

async fn forward_listeners(mut events: Events, sender: mpsc::Sender<Event>) {
    loop {
        match events.next().await {
            Ok(event) => {
                if sender.send(Event::Listener(event)).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!("listeners are noticed by scan alone from now on: {error}");
                return;
            }
        }
    }
}

fn forward_signals(sender: mpsc::Sender<Event>) -> Result<(), Failure> {
    let mut kinds = [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()];
    for kind in &mut kinds {
        let kind = *kind;
        let mut signals = signal(kind).or_fail(Exit::Unexpected, "see the cause")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let event = if kind == SignalKind::hangup() { Event::Reload } else { Event::End };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Where the plan is kept for commands that run without the daemon.
#[must_use]
pub fn state_file(global: &GlobalArgs) -> PathBuf {
    global.run_dir.join(format!("{}.state.json", global.instance))
}

/// One daemon an instance.
fn lock(global: &GlobalArgs) -> Result<Flock<File>, Failure> {
    let remedy = "see the cause, or name another directory with --run-dir";
    fs::create_dir_all(&global.run_dir).or_fail(Exit::Unexpected, remedy)?;
    let file = File::create(global.run_dir.join(format!("{}.lock", global.instance))).or_fail(Exit::Unexpected, remedy)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => already_running(global),
        other => Failure { exit: Exit::Unexpected, error: io::Error::from(other).into(), remedy: Some(remedy.to_owned()) },
    })
}

fn already_running(global: &GlobalArgs) -> Failure {
    let what = format!("instance `{}` runs already", global.instance);
    fail(Exit::AlreadyRunning, what, "`weir status` shows it; a second one beside it takes another --instance")
}

pub(super) fn no_helper(error: StartError) -> Failure {
    let remedy = "run as root with all capabilities; `weir doctor` says which are missing";
    Failure { exit: Exit::Permission, error: error.into(), remedy: Some(remedy.to_owned()) }
}

fn no_control(error: BindError) -> Failure {
    let remedy = "see the cause, or name another directory with --run-dir";
    Failure { exit: Exit::Unexpected, error: error.into(), remedy: Some(remedy.to_owned()) }
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|source| {
        let exit = if source.kind() == io::ErrorKind::AddrInUse { Exit::AddressInUse } else { Exit::Usage };
        let error = anyhow::Error::from(source).context(format!("cannot serve metrics on {address}"));
        Failure { exit, error, remedy: Some("choose another address with --listen-metrics, or `off`".to_owned()) }
    })
}

fn enter(namespace: &std::path::Path) -> Result<(), Failure> {
    let entered = File::open(namespace).and_then(|file| setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
    entered.map_err(|source| {
        let error = anyhow::Error::from(source).context(format!("cannot enter the network namespace {}", namespace.display()));
        Failure {
            exit: Exit::Interface,
            error,
            remedy: Some("`ip netns` lists the named ones; a path such as /proc/PID/ns/net does as well".to_owned()),
        }
    })
}
