//! A process that confines itself as the daemon does, and tries what a daemon that somebody has taken over would try.

use std::fs;
use std::process::ExitCode;

use lb_user::privilege::daemon::confine;

/// The name of the role.
pub const NAME: &str = "confined";

/// Tries it; what went wrong is told on standard error. Nothing here is done if it succeeds: the arguments make no sense.
pub fn play() -> ExitCode {
    // Nobody is its helper.
    if let Err(error) = confine(i32::MAX.cast_unsigned()) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let path = c"/proc/self/comm".as_ptr() as libc::c_long;
    let executable = libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let parent = libc::c_long::from(rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get()));
    let calls: [(&str, [libc::c_long; 5], i32); 24] = [
        ("execve", [libc::SYS_execve, path, 0, 0, 0], libc::ENOSYS),
        ("execveat", [libc::SYS_execveat, -1, path, 0, 0], libc::ENOSYS),
        ("fork", [libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0, 0, 0], libc::ENOSYS),
        ("clone3", [libc::SYS_clone3, 0, 0, 0, 0], libc::ENOSYS),
        ("unshare", [libc::SYS_unshare, libc::c_long::from(libc::CLONE_NEWUSER), 0, 0, 0], libc::ENOSYS),
        ("setns", [libc::SYS_setns, -1, 0, 0, 0], libc::ENOSYS),
        ("mount", [libc::SYS_mount, path, path, path, 0], libc::ENOSYS),
        ("chroot", [libc::SYS_chroot, path, 0, 0, 0], libc::ENOSYS),
        ("ptrace", [libc::SYS_ptrace, 16, 1, 0, 0], libc::ENOSYS),
        ("process_vm_readv", [libc::SYS_process_vm_readv, 1, 0, 0, 0], libc::ENOSYS),
        ("process_vm_writev", [libc::SYS_process_vm_writev, 1, 0, 0, 0], libc::ENOSYS),
        ("pidfd_getfd", [libc::SYS_pidfd_getfd, -1, 0, 0, 0], libc::ENOSYS),
        ("kill", [libc::SYS_kill, parent, 0, 0, 0], libc::ENOSYS),
        ("tgkill", [libc::SYS_tgkill, parent, parent, 0, 0], libc::ENOSYS),
        ("init_module", [libc::SYS_init_module, 0, 0, path, 0], libc::ENOSYS),
        ("kexec_load", [libc::SYS_kexec_load, 0, 0, 0, 0], libc::ENOSYS),
        ("add_key", [libc::SYS_add_key, path, path, 0, 0], libc::ENOSYS),
        ("io_uring_setup", [libc::SYS_io_uring_setup, 1, 0, 0, 0], libc::ENOSYS),
        ("userfaultfd", [libc::SYS_userfaultfd, 0, 0, 0, 0], libc::ENOSYS),
        ("setuid", [libc::SYS_setuid, 0, 0, 0, 0], libc::ENOSYS),
        ("executable memory", [libc::SYS_mmap, 0, 4096, executable, anonymous], libc::ENOSYS),
        ("memory made executable", [libc::SYS_mprotect, 0, 4096, executable, 0], libc::ENOSYS),
        ("packet socket", [libc::SYS_socket, libc::c_long::from(libc::AF_PACKET), libc::c_long::from(libc::SOCK_RAW), 0, 0], libc::ENOSYS),
        // The filter lets a raw socket through, and the capability for it is gone.
        ("raw socket", [libc::SYS_socket, libc::c_long::from(libc::AF_INET), libc::c_long::from(libc::SOCK_RAW), 1, 0], libc::EPERM),
    ];
    for (name, [number, first, second, third, fourth], expected) in calls {
        // SAFETY: each call is denied; were it not, it would fail for its arguments or touch no memory of this process that anything uses.
        let result = unsafe { libc::syscall(number, first, second, third, fourth, -1_i64, 0_i64) };
        let error = std::io::Error::last_os_error();
        if result != -1 || error.raw_os_error() != Some(expected) {
            eprintln!("{name}: gave {result}, {error}");
            return ExitCode::FAILURE;
        }
    }
    // What it needs goes on: files, sockets, threads.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let thread = std::thread::Builder::new().spawn(|| fs::read_to_string("/proc/self/comm").is_ok());
    if listener.is_ok() && thread.is_ok_and(|thread| thread.join().is_ok_and(|read| read)) {
        return ExitCode::SUCCESS;
    }
    eprintln!("what the daemon needs does not work");
    ExitCode::FAILURE
}
