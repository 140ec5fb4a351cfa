//! Frames that the kernel sends itself: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (net/bpf/test_run.c).

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use nix::sched::{CloneFlags, unshare};

use super::{frame::Template, program};
use crate::{
    dataplane::bpf::{self, Context, PROG_TEST_RUN, TestRun},
    support::netns::Entrance,
};

const LINK_CREATE: libc::c_long = 28;
const ATTACH_TYPE_XDP: u32 = 37;
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
/// The first device of every namespace.
const LOOPBACK: u32 = 1;

const LIVE_FRAMES: u32 = 1 << 1;
/// How many frames stand ready at a time: below the 256 that a veth's ring holds.
const BATCH: u32 = 64;

/// A program that sends its frames by one device.
#[derive(Debug)]
pub(super) struct Generator {
    program: OwnedFd,
    frame: Vec<u8>,
    device: u32,
    _attached: Attached,
}

impl Generator {
    pub fn load(templates: &[Template], device: u32) -> Self {
        let program = bpf::load(bpf::XDP, "flood", &program::of(templates)).unwrap_or_else(|error| panic!("load the generator: {error}"));
        let frame = templates.iter().map(|template| &template.bytes).max_by_key(|bytes| bytes.len()).expect("a template").clone();
        let attached = Attached::somewhere(&program);
        Self { program, frame, device, _attached: attached }
    }

    /// Sends so many frames, or fewer when the thread is interrupted. The calling thread has to be in the device's namespace.
    pub fn send(&self, count: u32) {
        let context = Context {
            data: 0,
            data_end: bpf::number(self.frame.len()),
            data_meta: 0,
            // XDP_TX sends by the device that a frame came in by.
            ingress_ifindex: self.device,
            rx_queue_index: 0,
            egress_ifindex: 0,
        };
        let mut attributes = TestRun {
            program: bpf::descriptor(self.program.as_fd()),
            size_in: bpf::number(self.frame.len()),
            data_in: bpf::address(&self.frame),
            repeat: count,
            context_size_in: bpf::number(size_of::<Context>()),
            context_in: (&raw const context).expose_provenance() as u64,
            flags: LIVE_FRAMES,
            batch_size: BATCH,
            ..TestRun::default()
        };
        match bpf::call(PROG_TEST_RUN, &mut attributes) {
            Ok(_) => {}
            // Something wants the thread (a signal, work for it): how many have gone is not told, and more than asked for must not go.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("send {count} live frames: {error}"),
        }
    }
}

/// The program attached to the loopback device of a namespace that nobody uses.
///
/// The kernel has a list of the XDP programs in use, for fast calls, and waits for two RCU grace periods around the test run of a
/// program that is not on it (bpf_dispatcher_change_prog): 20 to 30 ms in which nothing is sent. An attached program is on the list.
#[derive(Debug)]
struct Attached {
    _link: OwnedFd,
    _namespace: File,
}

impl Attached {
    fn somewhere(program: &OwnedFd) -> Self {
        let attach = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            Self { _link: link(program, LOOPBACK, GENERIC), _namespace: File::open("/proc/thread-self/ns/net").expect("the namespace") }
        };
        std::thread::scope(|scope| scope.spawn(attach).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Takes in what a flood's victim answers, at the cost of a glance: what comes by the device for another IPv4 network than 10.0.0.0/8
/// is dropped there. The generator then shares its CPU with little else. Lasts until it is dropped.
#[derive(Debug)]
pub struct Sink {
    _link: OwnedFd,
}

impl Sink {
    /// Attaches it to a device of a client's.
    pub fn attach(entrance: &Entrance, device: &str) -> Self {
        Self::run(entrance, device, &program::sink())
    }

    /// A program that does the same with every packet that comes by the device, at once: the least that a program can cost there.
    pub fn of_all(entrance: &Entrance, device: &str, action: i32) -> Self {
        Self::run(entrance, device, &program::always(action))
    }

    /// One that looks for the socket of each packet and drops the packet: the least that whoever tells connections from strays can cost.
    pub fn looking(entrance: &Entrance, device: &str) -> Self {
        Self::run(entrance, device, &program::looking())
    }

    fn run(entrance: &Entrance, device: &str, instructions: &[u64]) -> Self {
        let program = bpf::load(bpf::XDP, "sink", instructions).unwrap_or_else(|error| panic!("load the sink: {error}"));
        let attach = || link(&program, nix::net::if_::if_nametoindex(device).expect("the device's index"), NATIVE);
        Self { _link: entrance.run(attach) }
    }
}

/// Attaches an XDP program to a device of the calling thread's namespace, until the link is dropped.
fn link(program: &OwnedFd, device: u32, flags: u32) -> OwnedFd {
    /// `union bpf_attr` of BPF_LINK_CREATE for XDP.
    #[repr(C)]
    struct Link {
        program: u32,
        device: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = Link { program: bpf::descriptor(program.as_fd()), device, attach_type: ATTACH_TYPE_XDP, flags };
    let link = bpf::call(LINK_CREATE, &mut attributes).unwrap_or_else(|error| panic!("attach an XDP program: {error}"));
    // SAFETY: the command has just made this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(link) }
}
