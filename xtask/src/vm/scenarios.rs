//! What is done on each kernel: the machines are booted, their tasks watched, and what they say judged.

use std::{
    env, fs,
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    kernel::Kernel,
    machine::{Machine, Qemu, Wire},
    report::{Flood, Programs, Row},
};

/// The scripts of the machines, which find each other and the programs in the shared directory.
const SCRIPTS: [(&str, &str); 4] = [
    ("common.sh", include_str!("guest/common.sh")),
    ("programs.sh", include_str!("guest/programs.sh")),
    ("balancer.sh", include_str!("guest/balancer.sh")),
    ("attacker.sh", include_str!("guest/attacker.sh")),
];

/// An emulated processor is some twenty times slower than a real one.
const BOOT: Duration = Duration::from_secs(240);
const PACKETS: Duration = Duration::from_secs(480);
const CLIENTS: Duration = Duration::from_secs(240);
const SHORTLY: Duration = Duration::from_secs(60);

/// The reasons that tell a client's connection by a cookie from a SYN that the kernel answered.
const BY_COOKIE: &str = "cookie_accepted";
const ANSWERED: &str = "cookie_sent";

pub fn write_scripts(shared: &Path) -> Result<()> {
    for (name, text) in SCRIPTS {
        let script = shared.join(name);
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    }
    Ok(())
}

/// Runs every scenario on each kernel; one that fails keeps no other from being tried.
///
/// The programs are tried on all kernels at a time, because that keeps one processor busy for each, and a flood keeps two.
pub fn all(qemu: &Qemu, kernels: &[Kernel], shared: &Path, directory: &Path) -> Vec<Row> {
    let logs = directory.join("log");
    let mut rows: Vec<Row> = kernels.iter().map(|kernel| Row::new(&kernel.release)).collect();
    thread::scope(|scope| {
        for (kernel, row) in kernels.iter().zip(&mut rows) {
            let logs = &logs;
            scope.spawn(move || {
                let begun = Instant::now();
                row.results.programs = Some(programs(qemu, kernel, shared, logs, &mut row.results.packets));
                row.took += begun.elapsed();
            });
        }
    });
    for (kernel, row) in kernels.iter().zip(&mut rows) {
        let begun = Instant::now();
        row.results.flood = Some(flood(qemu, kernel, shared, &logs));
        row.took += begun.elapsed();
    }
    rows
}

/// Loads and pins the programs, then runs the packet tests in the same machine: the first result is that of the programs alone.
fn programs(qemu: &Qemu, kernel: &Kernel, shared: &Path, logs: &Path, packets: &mut Option<Result<String>>) -> Result<Programs> {
    eprintln!("xtask: Linux {}: loading the programs", kernel.release);
    let machine = qemu.boot(kernel, "programs", shared, &Wire::Nothing, 2, &log(logs, kernel, "programs")?)?;
    let status = status(&machine, "status", BOOT)?;
    let milliseconds = machine.wait_for("loaded", SHORTLY)?;
    let pinned = machine.wait_for("pinned", SHORTLY)?;
    machine.wait_for("stopped", SHORTLY)?;
    eprintln!("xtask: Linux {}: running the packet tests", kernel.release);
    *packets = Some(packet_tests(&machine));
    Programs::read(&status, milliseconds, pinned)
}

fn packet_tests(machine: &Machine) -> Result<String> {
    let result = machine.wait_for("packets", PACKETS)?;
    let (code, summary) = result.split_once(' ').context("the tests said nothing")?;
    ensure!(code == "0", "{summary}");
    let passed = summary.split("ok. ").nth(1).and_then(|rest| rest.split(';').next());
    passed.map(str::to_owned).with_context(|| format!("the tests ended with {summary:?}"))
}

/// Two machines on a wire: one floods, and its clients have to be served all the same.
fn flood(qemu: &Qemu, kernel: &Kernel, shared: &Path, logs: &Path) -> Result<Flood> {
    eprintln!("xtask: Linux {}: 200 clients in a flood", kernel.release);
    // Not below `target`: the path of a socket is short.
    let socket = env::temp_dir().join(format!("weir-vm-{}", process::id()));
    let mut balancer = qemu.boot(kernel, "balancer", shared, &Wire::Waiting(&socket), 1, &log(logs, kernel, "balancer")?)?;
    while !socket.exists() {
        thread::sleep(Duration::from_millis(50));
    }
    let mut attacker = qemu.boot(kernel, "attacker", shared, &Wire::Connecting(&socket), 1, &log(logs, kernel, "attacker")?)?;
    balancer.wait_for("ready", BOOT)?;
    attacker.go_on()?;
    let calm = attacker.wait_for("calm", BOOT)?;
    let flooded = attacker.wait_for("flood", SHORTLY)?;
    let served = attacker.wait_for("served", CLIENTS)?;
    let sent = attacker.wait_for("sent", SHORTLY)?;
    balancer.go_on()?;
    let status = status(&balancer, "after", SHORTLY)?;
    let _ = fs::remove_file(socket);

    let counted = |reason: &str| {
        let packets = status["services"].as_array().into_iter().flatten().filter_map(|service| service["packets"].as_array()).flatten();
        packets.filter(|count| count["reason"] == reason).filter_map(|count| count["packets"].as_u64()).sum()
    };
    Flood::judge(&status, [&calm, &flooded], served, sent, counted(ANSWERED), counted(BY_COOKIE))
}

fn status(machine: &Machine, word: &str, patience: Duration) -> Result<Value> {
    let text = machine.wait_for(word, patience)?;
    serde_json::from_str(&text).with_context(|| format!("the status is no JSON: {text}"))
}

/// The file of a machine's console.
fn log(directory: &Path, kernel: &Kernel, task: &str) -> Result<std::path::PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory.join(format!("{}-{task}.log", kernel.release)))
}
