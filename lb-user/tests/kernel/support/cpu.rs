//! Where the processors' time goes: of each of them, and of one process.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// The time of one processor, or of the time between two readings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Processor {
    /// User time, niced time included.
    pub user: Duration,
    /// In the kernel on a process' account.
    pub system: Duration,
    /// Interrupts and what they have put off: receiving packets, XDP included.
    pub interrupts: Duration,
    /// Nothing to do, or waiting for a disk.
    pub idle: Duration,
}

impl Processor {
    /// The share of the time that something was done in, 0 to 1.
    pub fn busy(&self) -> f64 {
        let busy = (self.user + self.system + self.interrupts).as_secs_f64();
        busy / (busy + self.idle.as_secs_f64()).max(f64::MIN_POSITIVE)
    }
}

/// All processors at one moment (of the machine: a namespace has no own).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Processors(pub Vec<Processor>);

impl Processors {
    /// Reads /proc/stat.
    pub fn read() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("read /proc/stat");
        Self(text.lines().filter_map(processor).collect())
    }

    /// What each has done since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(now, then): (&Processor, &Processor)| Processor {
            user: now.user.saturating_sub(then.user),
            system: now.system.saturating_sub(then.system),
            interrupts: now.interrupts.saturating_sub(then.interrupts),
            idle: now.idle.saturating_sub(then.idle),
        };
        Self(self.0.iter().zip(&earlier.0).map(difference).collect())
    }
}

/// `cpu0 USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ ..`, in ticks; not the sum, whose line begins with `cpu` alone.
fn processor(line: &str) -> Option<Processor> {
    let (number, values) = line.strip_prefix("cpu")?.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let values: Vec<u64> = values.split_whitespace().map_while(|value| value.parse().ok()).collect();
    let [user, nice, system, idle, waiting, interrupts, deferred, ..] = values[..] else { return None };
    Some(Processor {
        user: ticks(user + nice),
        system: ticks(system),
        interrupts: ticks(interrupts + deferred),
        idle: ticks(idle + waiting),
    })
}

/// The processor time that a process has had, in user mode and in the kernel, its threads' included.
pub fn of_process(pid: u32) -> Duration {
    times(&format!("/proc/{pid}/stat")).unwrap_or_else(|error| panic!("read the times of process {pid}: {error}"))
}

/// The same of one thread of this process; none when it has ended.
pub fn of_thread(thread: i32) -> Option<Duration> {
    times(&format!("/proc/self/task/{thread}/stat")).ok()
}

/// How long the threads that a process has now have run, by the scheduler's clock and not in ticks. What packets do on arrival is in the
/// time of whoever sent them on this machine.
pub fn run_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|error| panic!("list the threads of process {pid}: {error}"));
    // One that has ended since is gone with its time.
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    let nanoseconds = |text: String| text.split_whitespace().next()?.parse().ok();
    texts.filter_map(nanoseconds).map(Duration::from_nanos).sum()
}

/// The processes, and threads of the kernel, whose names begin so.
pub fn processes_named(prefix: &str) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("read /proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(prefix))).collect()
}

fn times(file: &str) -> std::io::Result<Duration> {
    let text = fs::read_to_string(file)?;
    // The name may hold spaces and parentheses; the state follows its end, and user and system time are the fields 14 and 15.
    let (_, after) = text.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<_> = after.split_whitespace().collect();
    Ok(ticks(fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()))
}

fn ticks(count: u64) -> Duration {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|value| u64::try_from(value).ok()).expect("ticks in a second");
    Duration::from_millis(count * 1000 / per_second)
}
