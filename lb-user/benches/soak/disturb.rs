//! What is done to a running Weir and its workers, one thing at a time, each as an operator or a fault does it.

use std::time::Duration;

use lb_user::observe::snapshot::Snapshot;
use nix::sys::signal::Signal;

use crate::{
    judge::{Excuses, Killed},
    load::Load,
    netns::live::{PATIENCE, backend_of, status},
    support::{
        random::Random,
        servers::{Nginx, children, signal},
        wait::eventually,
    },
    world::{FEWEST, GROUPS, Group, MOST, SERVICES, World, named},
};

/// One thing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Disturbance {
    Nothing,
    WorkerJoins,
    WorkerLeaves,
    WorkerKilled,
    Drain,
    Undrain,
    NginxReload,
    NginxResize,
    NginxWorkerKilled,
    Reload,
    RefusedReload,
    Orders,
    HelperKilled,
    DaemonKilled,
    DaemonEnded,
    ChangesWhileDead,
    StopAndStart,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was done in the end: a worker cannot leave where there are few, say.
    pub done: Disturbance,
    pub excuses: Excuses,
    /// The data plane is another one, whose counts begin at 0.
    pub data_plane_began: bool,
    /// A group whose connections of this worker are lost.
    pub lost_worker: Option<(usize, u32)>,
}

impl Disturbance {
    pub const ALL: [Self; 17] = [
        Self::Nothing,
        Self::WorkerJoins,
        Self::WorkerLeaves,
        Self::WorkerKilled,
        Self::Drain,
        Self::Undrain,
        Self::NginxReload,
        Self::NginxResize,
        Self::NginxWorkerKilled,
        Self::Reload,
        Self::RefusedReload,
        Self::Orders,
        Self::HelperKilled,
        Self::DaemonKilled,
        Self::DaemonEnded,
        Self::ChangesWhileDead,
        Self::StopAndStart,
    ];

    /// In words, for the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::WorkerJoins => "a worker joins",
            Self::WorkerLeaves => "a worker closes its listener and keeps its connections",
            Self::WorkerKilled => "a worker is killed (SIGKILL)",
            Self::Drain => "a worker is drained",
            Self::Undrain => "a worker is given its share back",
            Self::NginxReload => "nginx is reloaded",
            Self::NginxResize => "nginx is reloaded with another number of workers",
            Self::NginxWorkerKilled => "a worker of nginx is killed (SIGKILL)",
            Self::Reload => "the configuration is reloaded, with other weights and settings",
            Self::RefusedReload => "a faulty configuration is reloaded, and refused",
            Self::Orders => "the defence is ordered on, and back to auto",
            Self::HelperKilled => "the daemon's helper is killed (SIGKILL), then the daemon restarted",
            Self::DaemonKilled => "the daemon is killed (SIGKILL) and started again",
            Self::DaemonEnded => "the daemon is ended (SIGTERM) and started again",
            Self::ChangesWhileDead => "the daemon is killed, a worker leaves and one joins, and it is started again",
            Self::StopAndStart => "`weir stop`, and a new start",
        }
    }

    /// Whether the daemon does not outlive it.
    pub fn ends_the_daemon(self) -> bool {
        matches!(self, Self::HelperKilled | Self::DaemonKilled | Self::DaemonEnded | Self::ChangesWhileDead | Self::StopAndStart)
    }

    /// Whether a flood may go on meanwhile: not while nothing holds it back.
    pub fn bears_a_flood(self) -> bool {
        self != Self::StopAndStart
    }

    /// This, or what can be done to the group in its place: no group is to lose its last workers, nor those that take new connections.
    fn possible(self, group: &Group) -> Self {
        let (serving, undrained) = (group.serving.len(), group.undrained());
        match self {
            Self::WorkerJoins if serving >= MOST => Self::WorkerLeaves,
            Self::WorkerLeaves | Self::WorkerKilled if serving <= FEWEST => Self::WorkerJoins,
            Self::Undrain if undrained == serving => Self::Drain,
            Self::Drain if undrained < FEWEST => Self::Undrain,
            other => other,
        }
    }

    /// Does it while connections come in.
    pub fn disturb(self, world: &mut World, load: &Load, random: &mut Random) -> Outcome {
        let group = usize::from(random.percent(50));
        let mut outcome =
            Outcome { done: self.possible(&world.groups[group]), excuses: Excuses::default(), data_plane_began: false, lost_worker: None };
        match outcome.done {
            Self::Nothing => {}
            Self::WorkerJoins => world.groups[group].join(),
            Self::WorkerLeaves => outcome.excuses.closed_listeners = leave(world, group, random),
            Self::WorkerKilled => kill(world, load, group, random, &mut outcome),
            Self::Drain => drain(world, group, random, true),
            Self::Undrain => drain(world, group, random, false),
            Self::NginxReload => reload_nginx(world),
            Self::NginxResize => outcome.excuses.closed_listeners = resize_nginx(world),
            Self::NginxWorkerKilled => kill_nginx(world, load, random, &mut outcome),
            Self::Reload => {
                world.settings = world.settings.changed(random);
                reload(world, &world.settings.text(), true);
            }
            Self::RefusedReload => {
                reload(world, &world.settings.faulty(), false);
                world.weir.configure(&world.settings.text());
            }
            Self::Orders => order(world, random),
            Self::HelperKilled => {
                signal(children(world.weir.pid())[0], Signal::SIGKILL);
                std::thread::sleep(random.milliseconds(100, 1000));
                assert_eq!(world.weir.terminate(), Some(0), "the daemon's exit code");
                world.weir.restart();
            }
            Self::DaemonKilled => {
                world.weir.kill9();
                // Ten seconds later it would answer no SYN any more.
                std::thread::sleep(random.milliseconds(0, 4000));
                world.weir.restart();
            }
            Self::DaemonEnded => {
                assert_eq!(world.weir.terminate(), Some(0), "the daemon's exit code");
                std::thread::sleep(random.milliseconds(0, 2000));
                world.weir.restart();
            }
            Self::ChangesWhileDead => {
                world.weir.kill9();
                outcome.excuses.closed_listeners = leave(world, group, random);
                world.groups[group].join();
                std::thread::sleep(random.milliseconds(0, 1000));
                world.weir.restart();
            }
            Self::StopAndStart => {
                assert!(world.weir.cli_output(&["stop"]).status.success(), "`weir stop`");
                assert_eq!(world.weir.terminated(), Some(0), "the daemon's exit code");
                std::thread::sleep(random.milliseconds(0, 1000));
                // Nobody remembers who was drained.
                for group in &mut world.groups {
                    group.serving.values_mut().for_each(|(_, drained)| *drained = false);
                }
                world.weir.restart();
                outcome.data_plane_began = true;
            }
        }
        outcome
    }
}

/// A worker that is not the last one that takes new connections.
fn somebody(world: &World, group: usize, random: &mut Random) -> Option<u32> {
    let group = &world.groups[group];
    let others_serve = |drained: bool| drained || group.undrained() > 1;
    let leavers: Vec<u32> = group.serving.iter().filter(|(_, (_, drained))| others_serve(*drained)).map(|(index, _)| *index).collect();
    random.one_of(&leavers).copied()
}

/// How many listeners are closed by it.
fn leave(world: &mut World, group: usize, random: &mut Random) -> u64 {
    let Some(index) = somebody(world, group, random) else { return 0 };
    world.groups[group].close(index);
    1
}

fn kill(world: &mut World, load: &Load, group: usize, random: &mut Random, outcome: &mut Outcome) {
    let Some(index) = somebody(world, group, random) else { return };
    let at = load.clock(group);
    let socket = world.groups[group].kill(index);
    outcome.lost_worker = Some((group, index));
    outcome.excuses.closed_listeners = 1;
    outcome.excuses.killed.push(Killed { service: group, sockets: vec![socket], at, at_most: Load::under_way(group) });
}

fn drain(world: &mut World, group: usize, random: &mut Random, drain: bool) {
    let serving = &world.groups[group].serving;
    let candidates: Vec<u32> = serving.iter().filter(|(_, (_, drained))| *drained != drain).map(|(index, _)| *index).collect();
    let Some(index) = random.one_of(&candidates) else { return };
    let (cookie, _) = serving[index];
    let snapshot = status(&world.weir);
    let service = named(&snapshot, group).unwrap_or_else(|problem| panic!("{problem}"));
    let backend = backend_of(service, cookie).index.to_string();
    world.weir.cli(&[if drain { "drain" } else { "undrain" }, SERVICES[group], &backend, "--json"]);
    world.groups[group].serving.insert(*index, (cookie, drain));
}

fn reload_nginx(world: &World) {
    world.nginx.reload();
    world.nginx.wait_until_settled();
}

/// How many listeners are closed by it, of both addresses.
fn resize_nginx(world: &mut World) -> u64 {
    let (before, after) = if world.nginx_workers == 4 { (4_usize, 2) } else { (2, 4) };
    world.nginx.set_workers(after);
    world.nginx_workers = after;
    reload_nginx(world);
    (2 * before.saturating_sub(after)) as u64
}

/// The sockets that the killed one served are its successor's, with what waits there.
fn kill_nginx(world: &World, load: &Load, random: &mut Random, outcome: &mut Outcome) {
    let snapshot = status(&world.weir);
    let pids = world.nginx.worker_pids();
    let Some(pid) = random.one_of(&pids) else { return };
    for service in GROUPS..SERVICES.len() {
        let sockets = served_by(&snapshot, service, *pid);
        outcome.excuses.killed.push(Killed { service, sockets, at: load.clock(service), at_most: Load::under_way(service) });
    }
    Nginx::kill9(*pid);
    world.nginx.wait_until_settled();
}

fn served_by(snapshot: &Snapshot, service: usize, pid: u32) -> Vec<u64> {
    let backends = named(snapshot, service).map(|service| service.backends.as_slice()).unwrap_or_default();
    let of_it = backends.iter().filter(|backend| backend.servers.iter().any(|server| server.pid == pid));
    of_it.map(|backend| backend.cookie).collect()
}

fn reload(world: &World, text: &str, right: bool) {
    world.weir.configure(text);
    let output = world.weir.cli_output(&["reload"]);
    assert_eq!(output.status.success(), right, "`weir reload`: {}", String::from_utf8_lossy(&output.stderr));
}

fn order(world: &World, random: &mut Random) {
    /// How long an order may take to be carried out, beyond what the daemon takes anyway.
    const MOMENT: Duration = Duration::from_millis(200);
    let service = SERVICES[random.index(SERVICES.len())];
    for word in ["on", "auto"] {
        let output = world.weir.cli_output(&["defence", service, word]);
        assert!(output.status.success(), "`weir defence {word}`: {}", String::from_utf8_lossy(&output.stderr));
        let mode = || status(&world.weir).service(service).and_then(|service| service.defence.clone()).map(|defence| defence.mode);
        // Back at auto, it is on all the same where a flood goes on.
        eventually(PATIENCE, || match mode() {
            Some(mode) if mode == "flood" || word == "auto" => Ok(()),
            other => Err(format!("after `{word}` the defence of {service} is {other:?}")),
        });
        std::thread::sleep(MOMENT + random.milliseconds(0, 800));
    }
}
