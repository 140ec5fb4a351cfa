//! The data plane without its daemon: killed, ended, upgraded to another version of the maps, taken away. New connections come in all the
//! time, and none may fail.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{MapInfo, loaded_maps};
use aya::programs::{ProgramInfo, loaded_programs};
use lb_common::abi::ABI_VERSION;
use lb_user::config::Protocol;
use lb_user::observe::snapshot::{Backend, ReasonCount, Service, Snapshot};
use lb_user::plan::State;
use libtest_mimic::Trial;

use crate::support::daemon::Weir;
use crate::support::load::{Answer, Plan, Report, Steady, UdpFlows, open_close};
use crate::support::netns::Pair;
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![
        trial(
            "restart::a_killed_daemon_leaves_a_data_plane_that_the_next_one_adopts",
            a_killed_daemon_leaves_a_data_plane_that_the_next_one_adopts,
        ),
        trial("restart::connections_are_counted_once_while_daemons_take_over", connections_are_counted_once_while_daemons_take_over),
        trial(
            "restart::workers_that_changed_while_the_daemon_was_dead_are_put_right",
            workers_that_changed_while_the_daemon_was_dead_are_put_right,
        ),
        trial("restart::sigterm_leaves_the_data_plane_and_says_so", sigterm_leaves_the_data_plane_and_says_so),
        trial("restart::detach_on_exit_leaves_nothing", detach_on_exit_leaves_nothing),
        trial("restart::stop_with_a_daemon_leaves_nothing", stop_with_a_daemon_leaves_nothing),
        trial("restart::stop_without_a_daemon_leaves_nothing", stop_without_a_daemon_leaves_nothing),
        trial("restart::another_version_takes_over_after_a_kill", another_version_takes_over_after_a_kill),
        trial("restart::another_version_takes_over_after_a_sigterm", another_version_takes_over_after_a_sigterm),
    ]
}

const PORT: u16 = 80;
const WORKERS: u32 = 4;
/// Connections a second in the background.
const RATE: u32 = 200;
/// The flows whose workers are compared: the same 4-tuples each time.
const FLOWS: usize = 200;

fn a_killed_daemon_leaves_a_data_plane_that_the_next_one_adopts() {
    let mut world = World::new(&[]);
    let before = world.mapping();
    let slots = world.slots();
    let load = world.load();
    load.wait_for(100);
    world.weir.kill9();

    let dead = world.status();
    assert!(dead.daemon.is_none(), "{:?}", dead.daemon);
    let shown = world.weir.cli_output(&["status"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("not running"), "{text}");
    load.wait_for(200);
    let later = world.status();
    for (earlier, later) in backends(&dead).zip(backends(&later)) {
        assert!(later.selections() > earlier.selections() && later.chosen > earlier.chosen, "backend {} stands still", later.index);
        assert!(later.established > earlier.established, "its connections are counted");
    }
    assert_eq!(world.mapping(), before, "the same flows to the same workers without a daemon");

    world.weir.restart();
    assert_eq!(world.slots(), slots, "adopted");
    assert!(world.status().daemon.is_some());
    load.wait_for(100);
    assert_eq!(world.mapping(), before, "the same flows to the same workers after it");
    let report = load.stop();
    assert_unharmed(&report);
    let connections = report.attempted() + 3 * FLOWS as u64;
    world.assert_every_syn_counted(connections);
    let status = world.status();
    assert_eq!(backends(&status).map(|backend| backend.chosen).sum::<u64>(), connections, "XDP chose for each");
    assert_eq!(backends(&status).map(|backend| backend.selected["syn"]).sum::<u64>(), connections, "each was selected for");
    assert_eq!(backends(&status).map(|backend| backend.established).sum::<u64>(), connections, "each was counted once");
}

/// Each new daemon attaches its tracepoint before it takes the old one away. Connections that come and go between the two are seen by both:
/// they are counted once, and none is said to be open for ever.
fn connections_are_counted_once_while_daemons_take_over() {
    const TAKEOVERS: usize = 10;
    let mut world = World::new(&[]);
    // As many as go: some are established, and some end, in each moment between.
    let load = Steady::closed_loop(&world.pair.client, &world.plan().concurrency(8));
    for _ in 0..TAKEOVERS {
        load.wait_for(200);
        world.weir.kill9();
        world.weir.restart();
    }
    let report = load.stop();
    report.assert_no_failure();
    eventually(Duration::from_secs(5), || {
        let status = world.status();
        let sum = |count: fn(&Backend) -> u64| backends(&status).map(count).sum::<u64>();
        let (established, open) = (sum(|backend| backend.established), sum(|backend| backend.open));
        if (established, open) == (report.ok, 0) {
            Ok(())
        } else {
            Err(format!("{established} established and {open} open of {} connections that are over", report.ok))
        }
    });
}

fn workers_that_changed_while_the_daemon_was_dead_are_put_right() {
    let mut world = World::new(&[]);
    let before = world.mapping();
    let load = world.load();
    load.wait_for(50);
    world.weir.kill9();

    let gone = world.workers.sockets()[0];
    world.workers.close(0);
    load.wait_for(100);
    let without = world.mapping();
    for ((source, was), (_, is)) in before.iter().zip(&without) {
        assert!(
            is.worker != 0 && (is == was || was.worker == 0),
            "the flow from {source} was worker {}'s and is {}'s",
            was.worker,
            is.worker
        );
    }
    let new = world.workers.add();
    load.wait_for(100);
    assert!(world.mapping().iter().all(|(_, answer)| answer.worker < WORKERS), "nobody has put the new worker into the table");

    world.weir.restart();
    eventually(Duration::from_secs(2), || {
        let status = world.status();
        let cookies: BTreeSet<u64> = backends(&status).map(|backend| backend.cookie).collect();
        let right = cookies.contains(&new.cookie) && !cookies.contains(&gone.cookie) && cookies.len() == WORKERS as usize;
        let ready = backends(&status).all(|backend| backend.state == State::Ready);
        if right && ready { Ok(()) } else { Err(format!("{status:?}")) }
    });
    load.wait_for(50);
    let after = world.mapping();
    let to_new = after.iter().filter(|(_, answer)| answer.worker == WORKERS).count();
    assert!((FLOWS / 8..=FLOWS * 3 / 8).contains(&to_new), "the new worker has {to_new} flows of {FLOWS}");
    let report = load.stop();
    assert_unharmed(&report);
    world.assert_every_syn_counted(report.attempted() + 4 * FLOWS as u64);
}

fn sigterm_leaves_the_data_plane_and_says_so() {
    let mut world = World::new(&[]);
    let before = world.mapping();
    let load = world.load();
    load.wait_for(50);
    assert_eq!(world.weir.terminate(), Some(0));
    let log = world.weir.log();
    assert!(log.contains("the data plane stays and goes on balancing"), "{log}");
    let selections = |status: &Snapshot| backends(status).map(Backend::selections).sum::<u64>();
    let at_end = selections(&world.status());
    load.wait_for(100);
    assert!(selections(&world.status()) >= at_end + 100);
    assert_eq!(world.mapping(), before);
    world.weir.restart();
    load.wait_for(50);
    assert_eq!(world.mapping(), before);
    assert_unharmed(&load.stop());
}

fn detach_on_exit_leaves_nothing() {
    let mut world = World::new(&["--detach-on-exit"]);
    world.taken_away(|weir| assert_eq!(weir.terminate(), Some(0)));
    let log = world.weir.log();
    assert!(log.contains("nothing is left in the kernel"), "{log}");
}

fn stop_with_a_daemon_leaves_nothing() {
    World::new(&[]).taken_away(stop);
}

fn stop_without_a_daemon_leaves_nothing() {
    let mut world = World::new(&[]);
    world.taken_away(|weir| {
        weir.kill9();
        stop(weir);
    });
    let again = world.weir.cli_output(&["stop"]);
    assert_eq!(again.status.code(), Some(8), "there is nothing to stop: {}", String::from_utf8_lossy(&again.stderr));
}

fn another_version_takes_over_after_a_kill() {
    another_version_takes_over([Weir::kill9, end]);
}

fn another_version_takes_over_after_a_sigterm() {
    another_version_takes_over([end, Weir::kill9]);
}

/// From this version to the next one and back, each daemon ended in its own way.
fn another_version_takes_over(ends: [fn(&mut Weir); 2]) {
    let next = std::env::var_os("WEIR_NEXT_ABI_BIN").map(PathBuf::from).filter(|path| path.is_file()).expect(
        "WEIR_NEXT_ABI_BIN names the binary to upgrade to: `cargo build -p lb-user --features next-abi --target-dir target/next-abi` \
         makes target/next-abi/debug/weir",
    );
    let mut world = World::new(&["--discover", "tcp,udp"]);
    let address = SocketAddr::new(world.pair.server_v4[0], PORT);
    let mut datagrams = Workers::start(&world.pair.server, &WorkerPlan::udp(address), WORKERS);
    // A UDP socket is noticed by the next scan, which a reload brings about.
    world.weir.reload();
    world.wait_for_backends(&[WORKERS, WORKERS]);
    let mut flows = UdpFlows::open(&world.pair.client, &world.plan(), 100);
    let kept = heard(&mut flows);
    // By the hash, a fifth of the flows would now be the new worker's: those that stay do so by the flow table.
    datagrams.add();
    world.weir.reload();
    world.wait_for_backends(&[WORKERS, WORKERS + 1]);
    assert_eq!(heard(&mut flows), kept);

    let before = world.mapping();
    let (slots, array) = (world.slots(), world.map_id("sockets"));
    let load = world.load();
    load.wait_for(50);
    let versions = [ABI_VERSION, ABI_VERSION + 1, ABI_VERSION];
    assert_eq!(world.versions(), [versions[0]]);
    for (end, (binary, version)) in ends.into_iter().zip([(next, versions[1]), (crate::support::daemon::binary(), versions[2])]) {
        let old_maps: Vec<u32> = world.pinned_maps();
        end(&mut world.weir);
        load.wait_for(50);
        world.weir.set_binary(&binary);
        world.weir.restart();
        load.wait_for(50);
        assert_eq!(world.versions(), [version], "the maps of the other version are gone");
        eventually(Duration::from_secs(10), || none_of(&old_maps, &map_ids()));
        assert_eq!(world.map_id("sockets"), array, "the socket array is the same");
        assert_eq!(world.slots(), slots, "every socket kept its slot");
        assert_eq!(world.mapping(), before, "the key of the flow hash was taken along");
        assert_eq!(heard(&mut flows), kept, "the UDP flows were taken along");
        world.assert_nothing_untracked();
        let status = world.status();
        let tcp = status.services.iter().find(|service| service.protocol == Protocol::Tcp).expect("the TCP service");
        assert!(tcp.backends.iter().all(|backend| backend.selections() > 0), "selected by this version's programs: {tcp:?}");
    }
    assert_unharmed(&load.stop());
}

fn end(weir: &mut Weir) {
    assert_eq!(weir.terminate(), Some(0));
}

fn stop(weir: &mut Weir) {
    let output = weir.cli_output(&["stop"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Workers, a client, and Weir between them.
struct World {
    weir: Weir,
    workers: Workers,
    pair: Pair,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        let pair = Pair::new();
        let address = SocketAddr::new(pair.server_v4[0], PORT);
        let workers = Workers::start(&pair.server, &WorkerPlan::tcp(address), WORKERS);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, None, arguments);
        let world = Self { weir, workers, pair };
        world.wait_for_backends(&[WORKERS]);
        world
    }

    fn plan(&self) -> Plan {
        Plan::new(SocketAddr::new(self.pair.server_v4[0], PORT), &self.pair.client_v4)
    }

    fn load(&self) -> Steady {
        Steady::at_rate(&self.pair.client, &self.plan().concurrency(8), RATE)
    }

    fn status(&self) -> Snapshot {
        serde_json::from_value(self.weir.cli(&["status", "--json"])).expect("status prints a snapshot")
    }

    fn wait_for_backends(&self, wanted: &[u32]) {
        eventually(Duration::from_secs(5), || {
            let status = self.status();
            let found: Vec<usize> = status.services.iter().map(|service| service.backends.len()).collect();
            if wanted.iter().map(|count| *count as usize).eq(found.iter().copied()) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    /// Which worker gets each of the flows.
    fn mapping(&self) -> Vec<(SocketAddr, Answer)> {
        let report = open_close(&self.pair.client, &self.plan(), FLOWS);
        assert_unharmed(&report);
        report.flows
    }

    /// Each backend's slot, by its socket's cookie.
    fn slots(&self) -> Vec<(String, u64, u32, u32)> {
        let status = self.status();
        let of = |service: &Service| {
            let name = service.name.clone();
            service.backends.iter().map(|backend| (name.clone(), backend.cookie, backend.slot, backend.index)).collect::<Vec<_>>()
        };
        status.services.iter().flat_map(of).collect()
    }

    /// Every SYN of so many connections was counted as one that opens a flow, and none in any other way.
    fn assert_every_syn_counted(&self, connections: u64) {
        self.assert_nothing_untracked();
        assert_eq!(packets(&self.status(), "tcp_opened"), connections, "SYNs for the connections");
    }

    fn assert_nothing_untracked(&self) {
        let status = self.status();
        for reason in ["no_backend", "map_miss", "not_an_address", "other_host", "malformed", "truncated"] {
            assert_eq!(packets(&status, reason), 0, "{reason}");
        }
        assert!(status.selector_misses.values().all(|count| *count == 0), "{:?}", status.selector_misses);
    }

    /// Takes the data plane away in the given way: connections go on, by the kernel's own hash, and nothing is left.
    fn taken_away(&mut self, how: impl FnOnce(&mut Weir)) {
        let before = self.mapping();
        let (programs, maps) = self.kernel_objects();
        assert!(programs.len() >= 3 && maps.len() >= 8, "what is to vanish: programs {programs:?}, maps {maps:?}");
        assert_eq!(none_of(&programs, &program_ids()), Err(format!("{programs:?} are still there")), "they are there before");
        let load = self.load();
        load.wait_for(50);
        how(&mut self.weir);
        load.wait_for(100);
        assert_unharmed(&load.stop());
        assert!(!self.weir.pins().exists(), "no pin is left");
        let link = self.pair.server.ip(&format!("-d link show {}", Pair::SERVER_DEVICE));
        assert!(!link.contains("xdp"), "{link}");
        // The kernel frees programs and maps some time after their last user.
        eventually(Duration::from_secs(10), || none_of(&programs, &program_ids()).and_then(|()| none_of(&maps, &map_ids())));
        let same = self.mapping().iter().zip(&before).filter(|(now, then)| now == then).count();
        assert!(same < FLOWS * 6 / 10, "{same} flows of {FLOWS} go to the same worker as by Weir's hash: chance would be a quarter");
    }

    /// The IDs of the programs and maps that the daemon holds or has pinned.
    fn kernel_objects(&self) -> (Vec<u32>, Vec<u32>) {
        let directory = format!("/proc/{}/fdinfo", self.weir.pid());
        let (mut programs, mut maps) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(directory).expect("the daemon's descriptors").flatten() {
            // One may be closed at this very moment.
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<u32>().ok());
            programs.extend(id("prog_id:"));
            maps.extend(id("map_id:"));
        }
        for pin in files(&self.weir.pins().join("programs")) {
            programs.insert(ProgramInfo::from_pin(pin).expect("a pinned program").id());
        }
        maps.extend(self.pinned_maps());
        maps.insert(self.map_id("sockets"));
        (programs.into_iter().collect(), maps.into_iter().collect())
    }

    fn map_id(&self, name: &str) -> u32 {
        MapInfo::from_pin(self.weir.pins().join(name)).expect("a pinned map").id()
    }

    /// The versions whose maps are pinned.
    fn versions(&self) -> Vec<u32> {
        let names = files(&self.weir.pins()).into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        names.filter_map(|name| name.strip_prefix("abi-")?.parse().ok()).collect()
    }

    /// The IDs of the pinned maps of all versions, the socket array apart.
    fn pinned_maps(&self) -> Vec<u32> {
        let of = |version| files(&self.weir.pins().join(format!("abi-{version}")));
        self.versions().into_iter().flat_map(of).map(|pin| MapInfo::from_pin(pin).expect("a pinned map").id()).collect()
    }
}

fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory of pins").flatten().map(|entry| entry.path()).collect()
}

fn program_ids() -> BTreeSet<u32> {
    // One that ends meanwhile is not there.
    loaded_programs().flatten().map(|program| program.id()).collect()
}

fn map_ids() -> BTreeSet<u32> {
    loaded_maps().flatten().map(|map| map.id()).collect()
}

fn none_of(ids: &[u32], present: &BTreeSet<u32>) -> Result<(), String> {
    let left: Vec<u32> = ids.iter().filter(|id| present.contains(id)).copied().collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are still there")) }
}

fn backends(status: &Snapshot) -> impl Iterator<Item = &Backend> {
    status.services.iter().flat_map(|service| &service.backends)
}

fn packets(status: &Snapshot, reason: &str) -> u64 {
    let counts = status.services.iter().flat_map(|service| &service.packets).chain(&status.passed);
    counts.filter(|count: &&ReasonCount| count.reason == reason).map(|count| count.packets).sum()
}

/// Every connection was good, and none had to send its SYN again.
#[track_caller]
fn assert_unharmed(report: &Report) {
    report.assert_no_failure();
    assert_eq!(report.slow, 0, "the slowest took {:?}", report.slowest);
}

fn heard(flows: &mut UdpFlows) -> Vec<Answer> {
    flows.round().into_iter().map(|answer| answer.expect("every datagram is answered")).collect()
}
