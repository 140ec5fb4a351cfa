//! The kernel thread that polls a device (threaded NAPI), and what it costs.

use std::time::Duration;

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::support::{
    cpu,
    netns::{Namespace, tool},
    wait::eventually,
};

/// The thread that receives what comes by one device.
pub struct PollingThread(u32);

impl PollingThread {
    /// Gives a device that polls (with GRO or an XDP program) a thread of its own, on one CPU.
    pub fn of(namespace: &Namespace, device: &str, cpu: usize) -> Self {
        let name = format!("napi/{device}-");
        let before = cpu::processes_named(&name);
        // /sys shows the devices of the namespace in which it was mounted, which `ip netns exec` does.
        let switch = format!("echo 1 >/sys/class/net/{device}/threaded");
        tool("ip", &["netns", "exec", namespace.name(), "sh", "-c", &switch]);
        let found = eventually(Duration::from_secs(5), || {
            cpu::processes_named(&name).difference(&before).next().copied().ok_or_else(|| format!("no thread polls {device}"))
        });
        pin(found, cpu);
        Self(found)
    }

    /// The time of a CPU that the thread has had.
    pub fn time(&self) -> Duration {
        cpu::run_time(self.0)
    }
}

/// Keeps a process, or a thread of the kernel, on one CPU.
pub fn pin(process: u32, cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(process.cast_signed()), &only).expect("run on one CPU");
}
