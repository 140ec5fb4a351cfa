//! A virtual machine: QEMU, its console, and its end.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Kvm, kernel::Kernel, packages};
use crate::exec::find_program;

/// What begins a line of the console that is meant for us.
const MARK: &str = "@ ";
/// Memory of a machine, in MiB.
const MEMORY: &str = "2048";

/// QEMU, and how it is to run.
pub struct Qemu {
    program: PathBuf,
    /// Where it was unpacked, if it is not installed.
    unpacked: Option<PathBuf>,
    kvm: bool,
}

/// What a machine's card is plugged into.
pub enum Wire<'a> {
    Nothing,
    /// A socket that the other machine connects to.
    Waiting(&'a Path),
    /// The socket of the other machine.
    Connecting(&'a Path),
}

impl Qemu {
    /// The installed one, or one that is unpacked below `directory`.
    pub fn find(directory: &Path, kvm: Kvm) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the virtual machines are x86_64, like Debian's kernels that they boot: run this on such a machine"
        );
        let kvm = match kvm {
            Kvm::On => true,
            Kvm::Off => false,
            Kvm::Auto => has_kvm(),
        };
        if let Some(program) = find_program("qemu-system-x86_64") {
            return Ok(Self { program, unpacked: None, kvm });
        }
        let unpacked = directory.join("qemu");
        let program = unpacked.join("usr/bin/qemu-system-x86_64");
        if !program.is_file() {
            packages::fetch_with_dependencies("qemu-system-x86", &unpacked)?;
        }
        ensure!(program.is_file(), "the package qemu-system-x86 holds no {}", program.display());
        Ok(Self { program, unpacked: Some(unpacked), kvm })
    }

    /// Whether the machines' processors are emulated, so that no figure of time means anything.
    pub fn is_emulated(&self) -> bool {
        !self.kvm
    }

    /// Boots a machine, which runs `TASK.sh` of the shared directory and ends. Its console goes to the file `log`.
    pub fn boot(&self, kernel: &Kernel, task: &str, shared: &Path, wire: &Wire<'_>, processors: u32, log: &Path) -> Result<Machine> {
        // It ends also when nobody is left to end it.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", "900"]).arg(&self.program);
        if let Some(unpacked) = &self.unpacked {
            command.env("LD_LIBRARY_PATH", unpacked.join("usr/lib/x86_64-linux-gnu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(unpacked.join(firmware));
            }
        }
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-machine", "q35"]);
        command.args(if self.kvm { ["-accel", "kvm", "-cpu", "host"] } else { ["-accel", "tcg", "-cpu", "max"] });
        command.args(["-m", MEMORY, "-smp", &processors.to_string()]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 TASK={task} EMULATED={}", self.is_emulated())]);
        command.args(["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"]);
        command.arg("-virtfs").arg(format!("local,path={},mount_tag=shared,security_model=none,readonly=on", shared.display()));
        command.args(["-device", "virtio-rng-pci"]);
        match wire {
            Wire::Nothing => command.args(["-netdev", "user,id=wire,restrict=on"]),
            Wire::Waiting(socket) => command.arg("-netdev").arg(stream(socket, true)),
            Wire::Connecting(socket) => command.arg("-netdev").arg(stream(socket, false)),
        };
        // The driver runs XDP natively only with what joins packets off.
        let mac = if matches!(wire, Wire::Connecting(_)) { 2 } else { 1 };
        let card = "virtio-net-pci,netdev=wire,romfile=,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
        command.args(["-device", &format!("{card},mac=52:54:00:00:00:0{mac}")]);
        Machine::start(&mut command, log)
    }
}

fn stream(socket: &Path, waits: bool) -> String {
    let server = if waits { "on" } else { "off" };
    format!("stream,id=wire,server={server},addr.type=unix,addr.path={}", socket.display())
}

/// Whether this machine's processor can run others: a device alone does not say so where this is a virtual machine itself.
fn has_kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can_virtualise = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    can_virtualise && File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A machine that runs; dropping it ends it.
pub struct Machine {
    process: Child,
    keyboard: ChildStdin,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Machine {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut process = command.spawn().context("cannot run timeout (coreutils)")?;
        let keyboard = process.stdin.take().context("QEMU has no input")?;
        let console = process.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                // A log that cannot be written is no reason to stop: what counts goes to whoever waits.
                let _ = writeln!(file, "{line}");
                if let Some(message) = line.strip_prefix(MARK) {
                    // Nobody may be waiting any more.
                    let _ = sender.send(message.to_owned());
                }
            }
        });
        Ok(Self { process, keyboard, lines, log: log.to_owned() })
    }

    /// The rest of the next line that begins with `@ WORD`; lines of other words are passed over. An error if the machine says `failed`,
    /// ends or does not say it in time.
    pub fn wait_for(&self, word: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.split_once(' ').unwrap_or((&line, "")) {
                    ("failed", why) => bail!("{why} (console: {})", self.log.display()),
                    (first, rest) if first == word => return Ok(rest.to_owned()),
                    _ => {}
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the machine did not say `{word}` within {} s (console: {})", patience.as_secs(), self.log.display())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the machine ended without saying `{word}` (console: {})", self.log.display()),
            }
        }
    }

    /// Lets the machine go on that waits for a line.
    pub fn go_on(&mut self) -> Result<()> {
        self.keyboard.write_all(b"\n").and_then(|()| self.keyboard.flush()).context("the machine has ended")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `timeout` hands SIGTERM on to QEMU, which SIGKILL would leave behind.
        let _ = Command::new("kill").arg(self.process.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}
