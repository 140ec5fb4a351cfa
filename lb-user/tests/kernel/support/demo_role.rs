//! The demonstration of `cargo xtask demo`: a client, nginx behind Weir, a flood now and then, and what to look at meanwhile.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_user::observe::snapshot::Snapshot;
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::daemon::{Weir, binary};
use super::flood::hping3;
use super::interrupt;
use super::load::{Plan, Report, Steady};
use super::netns::{Pair, sweep};
use super::servers::{self, Nginx};

/// The role's name.
pub const NAME: &str = "demo";

const WORKERS: usize = 4;
/// Connections a second: far from a flood, and enough to see a quarter of it.
const RATE: u32 = 300;
/// A worker that hangs is spared after this time: the default is 1 s, in which this client would run out of threads.
const CONFIGURATION: &str = "[discovery]\ntcp = true\n[steering]\nstalled_after = \"200ms\"\n[observe]\ninterval = \"100ms\"\n";

/// How the demonstration goes: the role's argument, as JSON.
#[derive(Deserialize)]
struct Order {
    /// How long each step is shown, in seconds.
    step: u64,
    /// Ends after the tour instead of going on with calm and flood until Ctrl-C.
    once: bool,
}

/// A step of the tour: what it is called, what to look at, and what happens in it.
type Step = (&'static str, &'static str, fn(&mut Scene));

const TOUR: [Step; 7] = [
    ("Calm", "four workers with about a quarter of the connections each; nothing is dropped", Scene::watch),
    ("A worker is drained: weir drain SERVICE 2", "its share goes to 0, the others take it, and nobody notices", Scene::drain),
    (
        "A flood: hping3 sends SYNs of random addresses as fast as it can",
        "the service turns to `flood`, SYNs are answered by cookie on the card, and the clients go on",
        Scene::flood,
    ),
    ("The flood is over", "`lingering` for as long as cookies are about, then `calm`", Scene::watch),
    (
        "A worker hangs: SIGSTOP",
        "what was in its queue waits; after 200 ms it gets nothing new (cause `relief`), until it accepts again",
        Scene::hang,
    ),
    (
        "nginx reloads from 4 workers to 2 and back",
        "no connection is lost, where the kernel alone resets the queue of a listener that closes",
        { Scene::reload },
    ),
    ("The daemon is killed (-9) and started again", "the programs in the kernel go on without it; flows stay where they were", Scene::kill),
];

struct Scene {
    pair: Pair,
    nginx: Nginx,
    weir: Weir,
    target: SocketAddr,
    step: Duration,
    /// Set by Ctrl-C.
    ended: Arc<AtomicBool>,
}

/// Shows the tour, and then calm and flood in turns, until Ctrl-C; what was made for it goes with it.
pub fn play(order: &str) -> ExitCode {
    let order: Order = match serde_json::from_str(order) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("the demonstration's order is not understood: {error}");
            return ExitCode::FAILURE;
        }
    };
    sweep();
    let ended = interrupt::watch();
    let mut scene = Scene::new(Duration::from_secs(order.step), ended);
    scene.say_where_to_look();
    let begin = Instant::now();
    let mut turn = 0;
    while !scene.is_ended() {
        let Some((title, look, act)) = TOUR.get(if turn < TOUR.len() { turn } else { 2 + turn % 2 }) else { break };
        let time = begin.elapsed().as_secs();
        println!("\n{}:{:02}  {title}\n      Look at: {look}.", time / 60, time % 60);
        act(&mut scene);
        turn += 1;
        if turn == TOUR.len() && order.once {
            break;
        }
    }
    println!("\nTidying up: the daemon, nginx, both namespaces.");
    ExitCode::SUCCESS
}

impl Scene {
    fn new(step: Duration, ended: Arc<AtomicBool>) -> Self {
        let pair = Pair::new();
        let target = SocketAddr::new(pair.server_v4[0], 80);
        let nginx = Nginx::start(&pair.server, &[target], WORKERS);
        let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(CONFIGURATION), &[]);
        Self { pair, nginx, weir, target, step, ended }
    }

    fn say_where_to_look(&self) {
        let (page, weir, instance) = (self.weir.http_address(), binary(), self.weir.instance());
        let (weir, port) = (weir.display(), page.port());
        println!(
            "Weir balances {WORKERS} nginx workers at {} in a network namespace of this machine; a client in another opens {RATE} connections a second.\n\n\
             page      http://{page}/   (from elsewhere: ssh -L {port}:{page} THIS-MACHINE, then the same address)\n\
             terminal  {weir} top --instance {instance}\n\
             status    {weir} status --instance {instance}\n\
             packets   {weir} trace --count 5 --instance {instance}\n\n\
             Ctrl-C ends it and leaves nothing behind.",
            self.target
        );
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Lets the time of a step pass, or until Ctrl-C.
    fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_ended() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The clients of a step.
    fn clients(&self) -> Steady {
        let plan = Plan::new(self.target, &self.pair.client_v4).http("/", None).concurrency(64).timeout(Duration::from_secs(60));
        Steady::at_rate(&self.pair.client, &plan, RATE)
    }

    /// What became of them, unless the demonstration was ended in their middle.
    fn tell(&self, clients: Steady) {
        let report = clients.stop();
        if !self.is_ended() {
            println!("      {}", in_words(&report));
        }
    }

    fn watch(&mut self) {
        let clients = self.clients();
        self.pass(self.step);
        self.tell(clients);
    }

    fn drain(&mut self) {
        let clients = self.clients();
        let Some(service) = self.status().and_then(|status| Some(status.services.first()?.name.clone())) else { return };
        self.weir_does(&["drain", &service, "2"]);
        self.pass(self.step);
        self.weir_does(&["undrain", &service, "2"]);
        self.tell(clients);
    }

    fn flood(&mut self) {
        const COUNTED: [&str; 2] = ["cookie_sent", "cookie_accepted"];
        let (clients, before) = (self.clients(), COUNTED.map(|reason| self.packets(reason)));
        let flood = hping3(&self.pair.client, self.target, None, self.step);
        self.pass(self.step);
        let sent = flood.stop();
        self.tell(clients);
        if !self.is_ended() {
            let now = COUNTED.map(|reason| self.packets(reason));
            let [answered, accepted] = [0, 1].map(|of| now[of].saturating_sub(before[of]));
            println!("      hping3 sent {sent} SYNs; {answered} were answered by cookie, and {accepted} connections came in by one.");
        }
    }

    fn hang(&mut self) {
        let clients = self.clients();
        let Some(worker) = self.nginx.worker_pids().first().copied() else { return };
        servers::signal(worker, Signal::SIGSTOP);
        self.pass(self.step);
        if !self.is_ended() {
            servers::signal(worker, Signal::SIGCONT);
        }
        self.tell(clients);
    }

    fn reload(&mut self) {
        let clients = self.clients();
        for workers in [WORKERS / 2, WORKERS] {
            if !self.is_ended() {
                self.nginx.set_workers(workers);
                self.nginx.reload();
                self.pass(self.step / 2);
            }
        }
        self.tell(clients);
    }

    fn kill(&mut self) {
        let clients = self.clients();
        self.weir.kill9();
        self.pass(self.step / 2);
        if !self.is_ended() {
            self.weir.restart();
        }
        self.pass(self.step / 2);
        self.tell(clients);
    }

    /// What Weir says of itself; nothing when Ctrl-C has ended it.
    fn status(&self) -> Option<Snapshot> {
        serde_json::from_slice(&self.weir.cli_output(&["status", "--json"]).stdout).ok()
    }

    fn packets(&self, reason: &str) -> u64 {
        let counts = self.status().into_iter().flat_map(|status| status.services).flat_map(|service| service.packets);
        counts.filter(|count| count.reason == reason).map(|count| count.packets).sum()
    }

    /// Runs a command of weir, and shows what it says when it is refused.
    fn weir_does(&self, arguments: &[&str]) {
        if self.is_ended() {
            return;
        }
        let output = self.weir.cli_output(arguments);
        if !output.status.success() {
            // A terminal that is gone is no reason to stop.
            let _ = std::io::stdout().write_all(&output.stderr);
        }
    }
}

fn in_words(report: &Report) -> String {
    let failed = report.failures.len();
    let times = if report.ok == 0 { String::new() } else { format!("; to the first byte of the answer: {}", report.first_response) };
    format!("{} connections, {failed} failed{times}.", report.attempted())
}
