//! Floods, into namespaces that the tests made: frames that the kernel itself repeats (XDP live frames), and two known tools.
//!
//! ```ignore
//! let mac = flood::ready(&pair);
//! let flood = Flood::start(&pair.client, Pair::CLIENT_DEVICE, &FloodPlan::new(FloodKind::Syn, target, mac).packets(500_000));
//! let report = flood.finish();
//! ```
//!
//! A flood is bounded in packets and in time whatever its plan says, and goes out by a veth device only.

mod frame;
mod live;
mod path;
mod plan;
mod program;
pub mod role;
pub mod selftest;
mod tools;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use live::Sink;
pub use path::{mac_of, ready, refuse_all_but_veth};
pub use plan::{FloodKind, FloodPlan, Prefix};
pub use tools::{hping3, trafgen};

use super::netns::Entrance;
use live::Generator;

/// A flood under way, on a thread of its own; dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    sender: Option<JoinHandle<FloodReport>>,
}

/// What the thread and its owner tell each other.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
}

/// What a flood was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FloodReport {
    /// Frames handed to the device. What its peer had no room for is among them.
    pub sent: u64,
    pub elapsed: Duration,
}

impl FloodReport {
    /// Frames per second.
    #[expect(clippy::cast_precision_loss, reason = "a rate is not exact")]
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Flood {
    /// Starts the flood out of `device`, a veth inside the namespace; panics when that is none.
    pub fn start(entrance: &Entrance, device: &str, plan: &FloodPlan) -> Self {
        Self::start_on(entrance, device, plan, None)
    }

    /// The same from one CPU alone.
    pub fn start_on(entrance: &Entrance, device: &str, plan: &FloodPlan, cpu: Option<usize>) -> Self {
        refuse_all_but_veth(entrance, device).unwrap_or_else(|problem| panic!("{problem}"));
        let plan = plan.bounded();
        let index = entrance.run(|| nix::net::if_::if_nametoindex(device)).expect("the device's index");
        let source_mac = mac_of(entrance, device);
        let generator = Generator::load(&frame::templates(&plan, source_mac), index);
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let sender = entrance.spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            // A signal to the process is for another thread: here it would cut a run short.
            nix::sys::signal::SigSet::all().thread_block().expect("block signals");
            send(&plan, &generator, &of_thread)
        });
        Self { shared, sender: Some(sender) }
    }

    /// How many frames have been sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Whether it still goes on.
    pub fn is_running(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_finished())
    }

    /// Ends it now.
    pub fn stop(self) -> FloodReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until the plan is carried out.
    pub fn finish(mut self) -> FloodReport {
        self.sender.take().expect("it ends once").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
    }
}

/// Lets the calling thread run on one CPU alone.
pub fn pin(cpu: usize) {
    let mut only = nix::sched::CpuSet::new();
    only.set(cpu).expect("a CPU's number");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &only).expect("run on one CPU");
}

/// Sends the frames in runs, each one system call, short enough to heed the rate, the time and the owner.
fn send(plan: &FloodPlan, generator: &Generator, shared: &Shared) -> FloodReport {
    /// Longer runs gain nothing, and nobody can stop one.
    const LONGEST: u64 = 16_384;
    /// How many runs a second's worth of frames is spread over, where there is a rate.
    const RUNS_A_SECOND: u64 = 500;

    let longest = plan.rate.map_or(LONGEST, |rate| (rate / RUNS_A_SECOND).clamp(1, LONGEST));
    let (start, mut sent) = (Instant::now(), 0);
    while sent < plan.packets && start.elapsed() < plan.duration && !shared.stop.load(Ordering::Relaxed) {
        let count = longest.min(plan.packets - sent);
        generator.send(u32::try_from(count).expect("no longer than the longest"));
        sent += count;
        shared.sent.store(sent, Ordering::Relaxed);
        if let Some(rate) = plan.rate {
            let due = Duration::from_nanos(sent.saturating_mul(1_000_000_000) / rate.max(1)).min(plan.duration);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    FloodReport { sent, elapsed: start.elapsed() }
}
