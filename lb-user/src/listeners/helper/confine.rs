//! How the helper gives up everything it does not need.
//!
//! It keeps two capabilities, both needed (tried on Linux 6.18 against a worker of another user): `CAP_SYS_PTRACE` for `pidfd_getfd`
//! and for reading links and fdinfo of processes of other users; `CAP_DAC_READ_SEARCH` because /proc/PID/fd is mode 0500 of the
//! process's user, so that even root without it cannot list it.
//!
//! The seccomp filter is an allow list. What is not on it fails with `EPERM` and does not kill: a libc or a kernel that wants a call
//! more then shows as an error in a reply and not as a helper that is gone. Files can be opened for reading only. `lseek` and
//! `pread64` are not on the list, so /proc/PID/mem, which the capability would open, can be read at offset 0 only, where no process
//! has memory. Memory is anonymous and never executable.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::signal::{SigHandler, Signal, signal};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid};
use rustix::thread::CapabilitySet;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use crate::privilege::{self, word};

/// The capabilities that the helper keeps, with their names.
pub(super) const KEPT: [(CapabilitySet, &str); 2] =
    [(CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"), (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")];

/// What the helper was doing when it could not confine itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum Step {
    /// The daemon ended while the helper was being made.
    #[error("tie the helper to its parent")]
    Parent = 1,
    /// Signals and process attributes.
    #[error("set signals and process attributes")]
    Attributes = 2,
    /// Closing inherited descriptors.
    #[error("close inherited descriptors")]
    Descriptors = 3,
    /// Dropping capabilities.
    #[error("drop capabilities")]
    Capabilities = 4,
    /// Installing the seccomp filter.
    #[error("install the seccomp filter")]
    Filter = 5,
    /// Opening /proc.
    #[error("open /proc")]
    Proc = 6,
}

impl Step {
    pub(super) fn from_word(word: u32) -> Option<Self> {
        [Self::Parent, Self::Attributes, Self::Descriptors, Self::Capabilities, Self::Filter, Self::Proc]
            .into_iter()
            .find(|&step| step as u32 == word)
    }
}

/// Confines the calling process, which must be the freshly forked helper. `kept` is the one descriptor that stays open.
pub(super) fn confine(parent: Option<Pid>, kept: BorrowedFd<'_>) -> Result<(), (Step, Errno)> {
    let at = |step| move |errno| (step, errno);
    attributes().map_err(at(Step::Attributes))?;
    close_others(kept).map_err(at(Step::Descriptors))?;
    drop_capabilities().map_err(at(Step::Capabilities))?;
    // After the capabilities: a change of credentials may clear the signal. Then look again: the parent may have died before.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(at(Step::Parent))?;
    if rustix::process::getppid() != parent {
        return Err((Step::Parent, Errno::SRCH));
    }
    Ok(())
}

fn attributes() -> Result<(), Errno> {
    rustix::thread::set_name(c"weir-helper")?;
    rustix::process::chdir("/")?;
    // No process of the same user may look into this one.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A terminal or systemd signals the whole group; the helper must live until the daemon has ended, and sees that at its socket.
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1, Signal::SIGUSR2] {
        // SAFETY: ignoring a signal installs no handler, so no code runs in signal context.
        unsafe { signal(ignored, SigHandler::SigIgn) }.map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    }
    Ok(())
}

fn close_others(kept: BorrowedFd<'_>) -> Result<(), Errno> {
    let kept = u32::try_from(kept.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let mut ranges = vec![(kept.saturating_add(1), u32::MAX)];
    if let Some(below) = kept.checked_sub(1) {
        ranges.push((0, below));
    }
    for (first, last) in ranges {
        // SAFETY: this process was forked only to be the helper and never returns to code that owns one of these descriptors.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error));
        }
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), Errno> {
    privilege::keep(KEPT.iter().fold(CapabilitySet::empty(), |all, &(one, _)| all | one))
}

/// Installs the filter. From here on only what [`filter`] lists is possible.
pub(super) fn install(filter: &BpfProgram) -> Result<(), (Step, Errno)> {
    privilege::install(filter).map_err(|errno| (Step::Filter, errno))
}

/// The seccomp program, made before the fork.
pub(super) fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let not_executable = |index| word(index, libc::PROT_EXEC, 0);
    let kcmp = word(2, -1, super::kcmp::EPOLL_TFD.cast_signed())?;
    let mut rules: Vec<(i64, Vec<SeccompRule>)> = vec![
        (libc::SYS_openat, vec![SeccompRule::new(vec![word(2, libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC, libc::O_RDONLY)?])?]),
        (libc::SYS_mmap, vec![SeccompRule::new(vec![not_executable(2)?, word(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS)?])?]),
        (libc::SYS_kcmp, vec![SeccompRule::new(vec![kcmp])?]),
        (libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable(2)?])?]),
    ];
    rules.extend(
        [
            // Its work.
            libc::SYS_read,
            libc::SYS_close,
            libc::SYS_getdents64,
            libc::SYS_readlinkat,
            libc::SYS_fstat,
            libc::SYS_newfstatat,
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_getsockopt,
            libc::SYS_getsockname,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            // Memory, and what a libc does by itself.
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_brk,
            libc::SYS_madvise,
            libc::SYS_futex,
            libc::SYS_getrandom,
            libc::SYS_rt_sigreturn,
            libc::SYS_rt_sigprocmask,
            libc::SYS_sigaltstack,
            libc::SYS_restart_syscall,
            libc::SYS_exit,
            libc::SYS_exit_group,
        ]
        .map(|call| (call, Vec::new())),
    );
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules.into_iter().collect(), denied, SeccompAction::Allow, architecture)?.try_into()
}
