//! The helper over processes that these tests make: real forks, real sockets.
//!
//! They run with and without root. Without it the kernel still lets a process look into one of the same user, unless Yama forbids it;
//! what is expected then is that the helper says so.

use super::*;
use crate::listeners::{no_forks, socket};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A helper of one test. While it lives no other test forks: a child would keep alive what this test closes.
struct Started {
    helper: Helper,
    _alone: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Started {
    type Target = Helper;

    fn deref(&self) -> &Helper {
        &self.helper
    }
}

fn start() -> Started {
    let alone = no_forks();
    Started { helper: start_helper(), _alone: alone }
}

fn start_helper() -> Helper {
    // SAFETY: glibc makes its allocator usable in the child, and the helper takes no other lock.
    unsafe { Helper::start_unchecked() }.expect("start")
}

/// Whether the helper may look into this process.
fn permitted() -> bool {
    let capable = rustix::thread::capabilities(None).expect("capabilities").effective.contains(CapabilitySet::SYS_PTRACE);
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").map_or(0, |scope| scope.trim().parse().expect("a number"));
    capable || yama == 0
}

fn inode(descriptor: impl AsFd) -> u32 {
    socket::inode(descriptor).expect("inode").try_into().expect("32 bits")
}

fn take(helper: &Helper, descriptor: &(impl AsFd + AsRawFd)) -> Result<OwnedFd, CallError> {
    helper.take(inode(descriptor), std::process::id(), descriptor.as_raw_fd())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CallError>) -> Refusal {
    match result.expect_err("refused") {
        CallError::Refused(refusal) => refusal,
        other => panic!("not a refusal: {other}"),
    }
}

/// A forked child of this test that waits until it is killed.
struct Child(Pid);

impl Child {
    fn fork() -> Self {
        // SAFETY: the child calls only pause and _exit, which are async-signal-safe.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => loop {
                nix::unistd::pause();
            },
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL).expect("kill");
        waitpid(self.0, None).expect("wait");
    }
}

#[test]
fn start_refuses_a_process_with_threads() {
    assert!(matches!(Helper::start(), Err(StartError::Threads(2..))));
}

#[test]
fn missing_capabilities_are_named() {
    assert_eq!(missing(CapabilitySet::all()), [""; 0]);
    assert_eq!(missing(CapabilitySet::DAC_READ_SEARCH), ["CAP_SYS_PTRACE"]);
    let error = StartError::MissingCapabilities(missing(CapabilitySet::empty()));
    assert_eq!(
        error.to_string(),
        "cannot look into other processes without CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run as root, or grant it"
    );
}

#[test]
fn a_listener_is_handed_over_and_nothing_is_kept() {
    let helper = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    if !permitted() {
        assert_eq!(refusal(take(&helper, &listener)), Refusal::Denied);
        return;
    }
    let taken = take(&helper, &listener).expect("taken");
    assert_eq!(socket::cookie(&taken).expect("cookie"), socket::cookie(&listener).expect("cookie"));
    assert_ne!(taken.as_raw_fd(), listener.as_raw_fd());
    assert!(rustix::io::fcntl_getfd(&taken).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
    drop(listener);
    TcpStream::connect(address).expect("the duplicate keeps the listener alive");
    drop(taken);
    assert_eq!(TcpStream::connect(address).expect_err("nobody holds it").kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn only_the_socket_asked_for_and_only_a_listener_is_handed_over() {
    let helper = start();
    if !permitted() {
        return;
    }
    let listener = TcpListener::bind("[::1]:0").expect("listen");
    let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let (unix, _other) = UnixStream::pair().expect("pair");
    let file = std::fs::File::open("/dev/null").expect("open");
    let pid = std::process::id();

    take(&helper, &udp).expect("a bound UDP socket");
    assert_eq!(refusal(take(&helper, &stream)), Refusal::NotAListener);
    assert_eq!(refusal(take(&helper, &unix)), Refusal::NotAListener);
    assert_eq!(refusal(helper.take(inode(&listener), pid, stream.as_raw_fd())), Refusal::AnotherSocket);
    let file_inode = u32::try_from(rustix::fs::fstat(&file).expect("stat").st_ino).expect("32 bits");
    assert_eq!(refusal(helper.take(file_inode, pid, file.as_raw_fd())), Refusal::AnotherSocket, "an inode of another file system");
    assert_eq!(refusal(helper.take(inode(&listener), pid, 1_000_000)), Refusal::NoSuchDescriptor);
    assert_eq!(refusal(helper.take(inode(&listener), pid, -1)), Refusal::NoSuchDescriptor);
    for nobody in [0, u32::MAX, i32::MAX.cast_unsigned()] {
        assert_eq!(refusal(helper.take(inode(&listener), nobody, listener.as_raw_fd())), Refusal::NoSuchProcess);
    }
}

#[test]
fn malformed_requests_are_refused_and_the_helper_goes_on() {
    let helper = start();
    for (kind, body) in [
        (Kind::Take, &[1, 2][..]),
        (Kind::Holders, &[]),
        (Kind::Holders, &[0]),
        (Kind::Pollers, &[9, 1]),
        (Kind::StillPolled, &[1]),
        (Kind::StillPolled, &[2, 1, 1, 1]),
        (Kind::Ready, &[]),
    ] {
        assert_eq!(refusal(helper.call(kind, body)), Refusal::Malformed, "{kind:?} {body:?}");
    }
    assert!(matches!(helper.call(Kind::Holders, &vec![0; REQUEST_WORDS + 1]), Err(CallError::RequestTooLarge(_))));
    assert_eq!(helper.holders(&[], &[]).expect("answer"), Answer::default());
    assert!(helper.is_alive());
}

#[test]
fn holders_of_every_process_and_of_given_ones_are_found() {
    let helper = start();
    if !permitted() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let second = listener.try_clone().expect("duplicate");
    let child = Child::fork();
    let (ours, childs) = (std::process::id(), child.0.as_raw().cast_unsigned());
    let inode = inode(&listener);

    let everywhere = helper.holders(&[inode], &[]).expect("answer").found.remove(&inode).expect("holders");
    let mut expected: Vec<(u32, i32)> =
        [ours, childs].into_iter().flat_map(|pid| [(pid, listener.as_raw_fd()), (pid, second.as_raw_fd())]).collect();
    expected.sort_unstable();
    let found: Vec<(u32, i32)> = everywhere.iter().map(|holder| (holder.pid, holder.fd)).collect();
    assert_eq!(found, expected);
    let command = std::fs::read_to_string(format!("/proc/{ours}/comm")).expect("comm");
    assert!(everywhere.iter().filter(|holder| holder.pid == ours).all(|holder| holder.command == command.trim_end()));

    let given = helper.holders(&[inode], &[childs]).expect("answer").found.remove(&inode).expect("holders");
    assert_eq!(given.iter().map(|holder| holder.pid).collect::<HashSet<_>>(), HashSet::from([childs]));
    let sockets = helper.sockets_of(&[childs]).expect("answer").found;
    assert_eq!(sockets[&inode], given);
    assert_eq!(helper.holders(&[inode], &[u32::MAX]).expect("answer"), Answer::default());
}

#[test]
fn ten_thousand_inodes_fit_one_question() {
    let helper = start();
    if !permitted() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let own = inode(&listener);
    let inodes: Vec<u32> = (own.saturating_sub(9_999)..=own).collect();
    let found = helper.holders(&inodes, &[]).expect("answer").found;
    assert!(found[&own].iter().any(|holder| holder.pid == std::process::id() && holder.fd == listener.as_raw_fd()));
}

#[test]
fn the_poller_of_a_socket_is_the_process_whose_epoll_lists_it() {
    use rustix::event::epoll;
    let helper = start();
    if !permitted() {
        return;
    }
    let polled = TcpListener::bind("127.0.0.1:0").expect("listen");
    let idle = TcpListener::bind("127.0.0.1:0").expect("listen");
    let (polled_inode, idle_inode, ours) = (inode(&polled), inode(&idle), std::process::id());
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    epoll::add(&instance, &polled, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("add");
    for pids in [&[][..], &[ours]] {
        let found = helper.pollers(&[polled_inode, idle_inode], pids).expect("answer").found;
        assert!(found[&polled_inode].contains(&ours), "{found:?}");
        assert_eq!(found.get(&idle_inode), None);
    }
    let pairs = [(idle_inode, ours), (polled_inode, ours), (polled_inode, u32::MAX)];
    assert_eq!(helper.still_polled(&pairs).expect("answer").found, HashMap::from([(polled_inode, vec![ours])]));

    // Registered under a number that is closed since: only fdinfo knows.
    let renumbered = polled.try_clone().expect("duplicate");
    drop(polled);
    assert_eq!(helper.pollers(&[polled_inode], &[ours]).expect("answer").found, HashMap::from([(polled_inode, vec![ours])]));
    drop(renumbered);
    assert_eq!(helper.still_polled(&pairs).expect("answer").found, HashMap::new());
}

#[test]
fn a_socket_that_left_its_epoll_instance_has_no_poller() {
    use rustix::event::epoll;
    let helper = start();
    if !permitted() {
        return;
    }
    let (stays, leaves) = (TcpListener::bind("127.0.0.1:0").expect("listen"), TcpListener::bind("127.0.0.1:0").expect("listen"));
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    for member in [&stays, &leaves] {
        epoll::add(&instance, member, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("add");
    }
    let ours = std::process::id();
    let inodes = [inode(&stays), inode(&leaves)];
    assert_eq!(helper.pollers(&inodes, &[ours]).expect("answer").found, HashMap::from(inodes.map(|inode| (inode, vec![ours]))));
    epoll::delete(&instance, &leaves).expect("delete");
    assert_eq!(helper.pollers(&inodes, &[ours]).expect("answer").found, HashMap::from([(inodes[0], vec![ours])]));
    epoll::delete(&instance, &stays).expect("delete");
    assert_eq!(helper.pollers(&inodes, &[ours]).expect("answer").found, HashMap::new());
}

#[test]
fn a_process_with_very_many_sockets_is_asked_through_fdinfo() {
    use rustix::event::epoll;
    let helper = start();
    if !permitted() {
        return;
    }
    let sockets: Vec<UdpSocket> = (0..200).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind")).collect();
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    for socket in sockets.iter().step_by(2) {
        epoll::add(&instance, socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("add");
    }
    let inodes: Vec<u32> = sockets.iter().map(inode).collect();
    let ours = std::process::id();
    let expected: HashMap<u32, Vec<u32>> = inodes.iter().step_by(2).map(|&inode| (inode, vec![ours])).collect();
    assert_eq!(helper.pollers(&inodes, &[ours]).expect("answer").found, expected);
    let pairs: Vec<(u32, u32)> = inodes.iter().map(|&inode| (inode, ours)).collect();
    assert_eq!(helper.still_polled(&pairs).expect("answer").found, expected);
}

#[test]
fn waits_of_a_process_are_seen() {
    let helper = start();
    if !permitted() {
        return;
    }
    let idle = Child::fork();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let accepting = std::thread::spawn(move || listener.accept());
    let (ours, idle_pid) = (std::process::id(), idle.0.as_raw().cast_unsigned());
    let started = Instant::now();
    loop {
        let found = helper.waits(&[ours, idle_pid, u32::MAX]).expect("answer").found;
        assert_eq!(found[&idle_pid], Waits::default());
        assert!(!found.contains_key(&u32::MAX));
        if found[&ours].in_call {
            assert!(found[&ours].may_serve());
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "a thread blocked in accept is not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    TcpStream::connect(address).expect("connect");
    accepting.join().expect("thread").expect("accept");
}

#[test]
fn the_helper_is_confined() {
    let helper = start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", helper.pid())).expect("status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
    assert_eq!(field("Name:"), "weir-helper");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a filter");
    assert_eq!(field("Threads:"), "1");
    let set = |name| CapabilitySet::from_bits_retain(u64::from_str_radix(field(name), 16).expect("hexadecimal"));
    let kept = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    let own = rustix::thread::capabilities(None).expect("capabilities").permitted;
    assert_eq!((set("CapPrm:"), set("CapEff:")), (own & kept, own & kept));
    assert_eq!((set("CapInh:"), set("CapAmb:")), (CapabilitySet::empty(), CapabilitySet::empty()));
    if own.contains(CapabilitySet::SETPCAP) {
        assert!(kept.contains(set("CapBnd:")));
    }
    if own.contains(kept) {
        let open = std::fs::read_dir(format!("/proc/{}/fd", helper.pid())).expect("fd").count();
        assert_eq!(open, 2, "its socket and /proc");
    }
}

#[test]
fn the_filter_denies_what_the_helper_must_not_do() {
    let _alone = no_forks();
    let filter = confine::filter().expect("filter");
    // SAFETY: the child makes only system calls and ends with _exit.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let code = if confine::install(&filter).is_ok() { first_allowed() } else { 99 };
            // SAFETY: ends the child without running what the tests registered.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).expect("wait"), WaitStatus::Exited(child, 0), "the number is the call that was not denied");
        }
    }
}

/// 0 if every call is denied with `EPERM`, else the position of the first that is not.
fn first_allowed() -> i32 {
    let path = c"/proc/self/comm".as_ptr() as libc::c_long;
    let (read_write, execute) = (libc::c_long::from(libc::O_RDWR), libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC));
    let calls: [[libc::c_long; 5]; 18] = [
        [libc::SYS_ptrace, 0, 0, 0, 0],
        [libc::SYS_process_vm_readv, 1, 0, 0, 0],
        [libc::SYS_process_vm_writev, 1, 0, 0, 0],
        [libc::SYS_execve, path, 0, 0, 0],
        [libc::SYS_execveat, -1, path, 0, 0],
        [libc::SYS_socket, 1, 1, 0, 0],
        [libc::SYS_connect, -1, 0, 0, 0],
        [libc::SYS_bind, -1, 0, 0, 0],
        [libc::SYS_openat, libc::c_long::from(libc::AT_FDCWD), path, read_write, 0],
        [libc::SYS_openat2, libc::c_long::from(libc::AT_FDCWD), path, 0, 0],
        [libc::SYS_mmap, 0, 4096, execute, libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)],
        [libc::SYS_mprotect, 0, 4096, execute, 0],
        [libc::SYS_lseek, 0, 0, 0, 0],
        [libc::SYS_pread64, 0, 0, 0, 0],
        [libc::SYS_write, 1, path, 0, 0],
        [libc::SYS_clone, 0, 0, 0, 0],
        [libc::SYS_kill, 0, 0, 0, 0],
        [libc::SYS_kcmp, 1, 1, 0, 0],
    ];
    for (position, [number, first, second, third, fourth]) in (1..).zip(calls) {
        // SAFETY: each call is denied by the filter; were it not, it would touch no memory of this process that anything uses.
        let result = unsafe { libc::syscall(number, first, second, third, fourth, -1_i64, 0_i64) };
        if result != -1 || Errno::from_io_error(&io::Error::last_os_error()) != Some(Errno::PERM) {
            return position;
        }
    }
    0
}

#[test]
fn a_dead_helper_is_told() {
    let helper = start();
    assert!(helper.is_alive());
    nix::sys::signal::kill(helper.pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(helper.holders(&[1], &[std::process::id()]).map(|_| ()).map_err(|error| error.to_string()), Ok(()), "SIGTERM is ignored");
    nix::sys::signal::kill(helper.pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    let started = Instant::now();
    while helper.is_alive() {
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    assert!(matches!(helper.holders(&[1], &[]), Err(CallError::Gone)));
    assert!(matches!(helper.take(1, 1, 1), Err(CallError::Gone)));
}

#[test]
fn a_late_answer_is_thrown_away_with_its_descriptor() {
    let mut helper = start();
    if !permitted() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    helper.helper.set_timeout(Duration::from_millis(50));
    nix::sys::signal::kill(helper.pid, nix::sys::signal::Signal::SIGSTOP).expect("stop");
    assert!(matches!(take(&helper, &listener), Err(CallError::Timeout(_))));
    nix::sys::signal::kill(helper.pid, nix::sys::signal::Signal::SIGCONT).expect("continue");
    helper.helper.set_timeout(Duration::from_secs(10));
    let found = helper.holders(&[inode(&listener)], &[std::process::id()]).expect("the answer to this call, not to the last");
    assert_eq!(found.found.len(), 1);
    drop(listener);
    assert_eq!(TcpStream::connect(address).expect_err("nobody holds it").kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_helper_dies_with_its_parent() {
    let _alone = no_forks();
    let (mut ours, mut theirs) = UnixStream::pair().expect("pair");
    // SAFETY: glibc makes its allocator usable in the child, which takes no other lock and ends with _exit.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let helper = start_helper();
            let sent = theirs.write_all(&helper.pid().to_ne_bytes()).is_ok();
            // The helper is not dropped: its parent is gone from one moment to the next.
            // SAFETY: ends the child without running what the tests registered.
            unsafe { libc::_exit(i32::from(!sent)) }
        }
        ForkResult::Parent { child } => {
            let mut pid = [0; 4];
            ours.read_exact(&mut pid).expect("the pid of the helper");
            assert_eq!(waitpid(child, None).expect("wait"), WaitStatus::Exited(child, 0));
            let helper = Pid::from_raw(i32::from_ne_bytes(pid));
            let started = Instant::now();
            // Nobody may have reaped it yet: a zombie is as good as gone.
            while std::fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(started.elapsed() < Duration::from_secs(5), "the helper outlives its parent");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
