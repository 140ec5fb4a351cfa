//! What the running daemon, which parses what comes over HTTP, may still do.
//!
//! It starts with the rights of root: it makes the pins, mounts the BPF file system if need be, enters a network namespace, binds the
//! address for metrics, forks the helper. Then it keeps three capabilities. `CAP_BPF` loads programs and writes maps; `CAP_NET_ADMIN`
//! attaches to interfaces and sockets, and the programs are of types that ask for it; `CAP_PERFMON` is for programs that read the kernel's
//! structures and attach to its tracepoints. `CAP_SYS_ADMIN` would do one thing more: name the program that occupies an interface in the
//! error of a reload, which then has its number alone. Without `CAP_DAC_*` the daemon is to files what their owner root is to them.
//!
//! The seccomp filter is an allow list of what the daemon calls, in whole families, so that another libc or kernel finds its way of doing
//! the same. What is not on it fails with `ENOSYS`, as on a kernel that does not have it: libraries know another way then, and clone3(2),
//! whose flags no filter can see, becomes clone(2), whose flags are looked at. What is not there: starting a program, looking into
//! another process, signalling one (but killing the helper), namespaces, mounts, modules, keys, `io_uring`, executable memory, sockets but the four families below.

use rustix::thread::CapabilitySet;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use super::{install, keep, word};

/// The capabilities that the daemon keeps.
pub const KEPT: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::PERFMON);

/// Why the daemon could not give up what it does not need.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Threads that are there already would keep what this one gives up.
    #[error("there are {0} threads already, which would keep their rights")]
    Threads(usize),
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The seccomp filter cannot be made for this architecture.
    #[error("cannot make the daemon's seccomp filter: {0}")]
    Filter(#[from] BackendError),
}

/// Gives up everything but [`KEPT`] and the calls of [`filter`], for good. Call it when everything is open and no other thread runs.
/// `helper` is the one process that may be killed from here on.
pub fn confine(helper: u32) -> Result<(), ConfineError> {
    let system = |action| move |source| ConfineError::System { action, source };
    let threads = std::fs::read_dir("/proc/self/task").map_err(system("count the threads of this process in /proc"))?.count();
    if threads != 1 {
        return Err(ConfineError::Threads(threads));
    }
    let filter = filter(helper)?;
    keep(KEPT).map_err(|errno| system("drop capabilities")(errno.into()))?;
    install(&filter).map_err(|errno| system("install the seccomp filter")(errno.into()))
}

/// The socket families that the daemon uses.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The seccomp program.
fn filter(helper: u32) -> Result<BpfProgram, BackendError> {
    let if_all = |conditions| SeccompRule::new(conditions);
    let not_executable = |index| word(index, libc::PROT_EXEC, 0);
    let families = FAMILIES.map(|family| word(0, -1, family).and_then(|is_family| if_all(vec![is_family])));
    // A new thread shares everything that a thread shares, so it is neither a process nor in a namespace of its own.
    let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    let clone = word(0, thread | libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID, thread)?;
    let mut rules: Vec<(i64, Vec<SeccompRule>)> = vec![
        (libc::SYS_mmap, vec![if_all(vec![not_executable(2)?])?]),
        (libc::SYS_mprotect, vec![if_all(vec![not_executable(2)?])?]),
        (libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?),
        (libc::SYS_clone, vec![if_all(vec![clone])?]),
        (libc::SYS_kill, vec![if_all(vec![word(0, -1, helper.cast_signed())?, word(1, -1, libc::SIGKILL)?])?]),
        // abort(3), which signals the calling thread.
        (libc::SYS_tgkill, vec![if_all(vec![word(0, -1, rustix::process::getpid().as_raw_nonzero().get())?])?]),
    ];
    let lists: [&[i64]; 7] = [WORK, FILES, SOCKETS, WAITING, MEMORY, ITSELF, OLD];
    rules.extend(lists.concat().into_iter().map(|call| (call, Vec::new())));
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let denied = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules.into_iter().collect(), denied, SeccompAction::Allow, architecture)?.try_into()
}

/// What Weir is about.
const WORK: &[i64] = &[libc::SYS_bpf, libc::SYS_perf_event_open];

const FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ioctl,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
];

const SOCKETS: &[i64] = &[
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
];

const WAITING: &[i64] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // The helper's end.
    libc::SYS_wait4,
    libc::SYS_waitid,
];

const MEMORY: &[i64] = &[libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_membarrier];

/// What a process and a libc do about themselves.
const ITSELF: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    // Names of threads and of memory.
    libc::SYS_prctl,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_prlimit64,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// The older calls of x86-64, which musl still makes where newer architectures have only those above.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_can_be_made_and_names_each_call_once() {
        filter(1).unwrap();
        let lists: [&[i64]; 7] = [WORK, FILES, SOCKETS, WAITING, MEMORY, ITSELF, OLD];
        let mut calls = lists.concat();
        // Those of the rules; a second entry without a condition would take the place of the first.
        calls.extend([libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_socket, libc::SYS_clone, libc::SYS_kill, libc::SYS_tgkill]);
        let count = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), count);
    }
}
