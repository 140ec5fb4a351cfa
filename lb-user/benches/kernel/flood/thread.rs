//! The kernel thread that polls a device (threaded NAPI), and what it costs.

use std::{collections::BTreeSet, fs, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::support::{
    netns::{Namespace, tool},
    wait::eventually,
};

/// The thread that receives what comes by one device.
pub struct PollingThread(u32);

impl PollingThread {
    /// Gives a device that polls (with GRO or an XDP program) a thread of its own, on one CPU.
    pub fn of(namespace: &Namespace, device: &str, cpu: usize) -> Self {
        let before = polling(device);
        // /sys shows the devices of the namespace in which it was mounted, which `ip netns exec` does.
        let switch = format!("echo 1 >/sys/class/net/{device}/threaded");
        tool("ip", &["netns", "exec", namespace.name(), "sh", "-c", &switch]);
        let found = eventually(Duration::from_secs(5), || {
            polling(device).difference(&before).next().copied().ok_or_else(|| format!("no thread polls {device}"))
        });
        pin(found, cpu);
        Self(found)
    }

    /// The time of a CPU that the thread has had.
    pub fn time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.0)).expect("the thread lives as long as its device");
        let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
        Duration::from_nanos(nanoseconds.expect("the time that it ran"))
    }
}

/// Keeps a process, or a thread of the kernel, on one CPU.
pub fn pin(process: u32, cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(process.cast_signed()), &only).expect("run on one CPU");
}

/// The threads that poll devices of that name, in all namespaces.
fn polling(device: &str) -> BTreeSet<u32> {
    let name = format!("napi/{device}-");
    let processes = fs::read_dir("/proc").expect("read /proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(&name))).collect()
}
