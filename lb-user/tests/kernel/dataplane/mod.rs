//! Packets through the program `ingress` as the kernel runs it (BPF_PROG_TEST_RUN): a table of rows, each of them cut at every length,
//! and random frames against a model on the host.

pub mod bpf;
mod defence;
pub mod defended;
mod differential;
pub mod ground;
pub mod harness;
pub mod model;
mod random;
pub mod rows;
mod seeds;
pub mod world;

use std::sync::{Arc, OnceLock};

use lb_common::{Action, Reason, packet::Window, wire};
use libtest_mimic::Trial;

use self::{
    bpf::{Outcome, Run},
    defended::State,
    ground::Ground,
    harness::{Counts, DataPlane},
    model::{Effect, Fate, Model},
    rows::{Choice, Row},
    world::{ELSEWHERE, LOOPBACK, World},
};
use crate::support::{netns::Namespace, packet::PSH, trial};

/// What the kernel calls the ends of a packet's way.
pub const XDP_PASS: u32 = 2;
const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;

type Test = Box<dyn FnOnce(&Plane) + Send>;

/// The tests of the data plane's packet path.
pub fn tests() -> Vec<Trial> {
    // Loaded by the first test that runs, so that listing the tests loads nothing.
    let plane: Arc<OnceLock<Plane>> = Arc::default();
    let with_plane = |name: &str, test: Test| {
        let plane = Arc::clone(&plane);
        trial(&format!("dataplane::{name}"), move || test(plane.get_or_init(Plane::load)))
    };
    let rows = rows::all().into_iter().map(|row| with_plane(&format!("row::{}", row.name), Box::new(move |plane| check(plane, &row))));
    let others: [(&str, Test); 4] = [
        ("every_row_cut_at_every_length", Box::new(cut)),
        ("every_row_in_two_buffers", Box::new(split)),
        ("a_service_of_one_interface", Box::new(interface)),
        ("random_frames_as_the_host_says", Box::new(random::frames)),
    ];
    let others = others.into_iter().map(|(name, test)| with_plane(name, test));
    let seeds = trial("dataplane::the_seeds_of_the_fuzzer_are_rows", seeds::are_rows);
    let defence = defence::tests().into_iter().map(|(name, test)| with_plane(&name, test));
    rows.chain(others).chain([seeds]).chain(defence).collect()
}

/// The loaded program, and the world its maps hold.
pub struct Plane {
    pub world: World,
    pub kernel: DataPlane,
    can_split: bool,
    ground: OnceLock<Ground>,
}

/// A run, and what must come of it.
pub struct Experiment<'a> {
    pub run: Run<'a>,
    /// What is said of the defence; if not given, it is left as it is.
    pub state: Option<State>,
    pub fate: Fate,
    pub effect: Effect,
}

impl<'a> Experiment<'a> {
    /// A frame of a service without a defence.
    pub fn undefended(run: Run<'a>, fate: Fate) -> Self {
        Self { run, state: None, fate, effect: Effect::Unchanged }
    }

    /// The same, as it must end on this kernel: where there is no room for metadata, no cookie of Weir's own is accepted, and that is counted.
    fn on_this_kernel(&self) -> Self {
        let Self { run, state, fate, effect } = self;
        if matches!(effect, Effect::Metadata(_)) && !has_room_for_metadata() {
            let fate = Fate { reason: Reason::NoMetadata, ..*fate };
            return Self { run: *run, state: *state, fate, effect: Effect::Unforeseen };
        }
        Self { run: *run, state: *state, fate: *fate, effect: effect.clone() }
    }

    /// Whether this came of it.
    fn check(&self, outcome: &Outcome) {
        let Self { run, fate, effect, .. } = self;
        let expected = match fate.reason.action() {
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
            Action::Transmit => XDP_TX,
        };
        assert_eq!(outcome.verdict, expected, "the verdict of {fate:?} for {:02x?}", run.frame);
        if expected == XDP_DROP {
            return;
        }
        let pushed = pushed(run.frame);
        let (frame, metadata) = match effect {
            Effect::Unchanged => (run.frame, &[][..]),
            Effect::Becomes(frame) => (&frame[..], &[][..]),
            Effect::Metadata(metadata) => (&pushed[..], &metadata[..]),
            Effect::Unforeseen => return,
        };
        assert!(outcome.frame == frame, "{:02x?} in, {:02x?} out, not {frame:02x?}", run.frame, outcome.frame);
        assert!(outcome.metadata == metadata, "the metadata is {:02x?}, not {metadata:02x?}", outcome.metadata);
    }
}

/// A segment with PSH, if it has data: so leaves the one that a connection is restored from.
fn pushed(frame: &[u8]) -> Vec<u8> {
    let mut pushed = frame.to_vec();
    let Ok(flow) = wire::flow(&Window::of(frame)) else { return pushed };
    let (flags, data) = (flow.transport + 13, flow.transport + flow.header_length);
    if flow.end > data && frame.len() >= flow.transport + 20 && frame[flags] & PSH == 0 {
        pushed[flags] |= PSH;
        // RFC 1624: the word with the flags has grown, so the checksum shrinks in one's complement.
        let checksum = flow.transport + 16;
        let sum = u32::from(!u16::from_be_bytes([frame[checksum], frame[checksum + 1]])) + u32::from(PSH);
        let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("16 bits and a carry");
        pushed[checksum..checksum + 2].copy_from_slice(&(!folded).to_be_bytes());
    }
    pushed
}

impl Plane {
    fn load() -> Self {
        let world = World::new();
        let kernel = DataPlane::load(&world);
        let can_split = kernel.can_split();
        assert!(can_split || release() < (6, 18), "Linux 6.18 and later take a frame in two buffers of any size");
        Self { world, kernel, can_split, ground: OnceLock::new() }
    }

    /// The namespace of the defended services.
    fn ground(&self) -> &Ground {
        self.ground.get_or_init(Ground::new)
    }

    /// Runs frames, and holds that each ends as is said and that exactly these counters move.
    fn expect(&self, experiments: &[Experiment<'_>]) {
        let before = self.kernel.counts();
        let mut expected = Counts::default();
        for experiment in experiments {
            let experiment = &experiment.on_this_kernel();
            let Experiment { run, state, fate, .. } = experiment;
            let is_short = run.first_buffer.is_none() && run.interface.is_none() && run.frame.len() < bpf::FITS_FIRST_BUFFER;
            for is_dirty in [false, true] {
                if is_dirty && !is_short {
                    continue;
                }
                if let Some(state) = state {
                    self.kernel.prepare(&self.world, *state);
                    let _ = wire::flow(&Window::of(run.frame)).map(|flow| self.kernel.forget(&flow.key));
                }
                experiment.check(&if is_dirty { self.kernel.run_dirty(run.frame) } else { self.kernel.run(run) });
                expected.add(fate, counted(run));
            }
        }
        let moved = self.kernel.counts().since(&before);
        assert_eq!(moved, expected, "the counters moved as on the left, and should have as on the right");
    }
}

/// The bytes that are counted: all of the frame, but for padding behind its packet that lies in another buffer than the first.
fn counted(run: &Run<'_>) -> usize {
    let first = run.first_buffer.map(|length| &run.frame[..length]);
    let whole = first.filter(|first| wire::flow(&Window::of(first)).is_ok_and(|flow| first.len() >= flow.end));
    whole.unwrap_or(run.frame).len()
}

fn run(frame: &[u8]) -> Run<'_> {
    Run { frame, first_buffer: None, interface: None, repeat: 1 }
}

/// One row: its counter moves by one packet and its bytes, the counter of its slot by one if it opens a flow, and nothing else moves.
fn check(plane: &Plane, row: &Row) {
    if row.first_buffer.is_some() && !plane.can_split {
        return println!("not run: it needs Linux 6.18");
    }
    let frame = row.frame();
    let fate = fate(plane, row, &frame);
    plane.expect(&[Experiment::undefended(Run { first_buffer: row.first_buffer, ..run(&frame) }, fate)]);
    assert_eq!(Model::new(&plane.world).fate(first_buffer(&frame, row), LOOPBACK), fate, "the host's model says otherwise");
    assert_eq!(plane.kernel.all_counts(), plane.kernel.counts(), "a counter of nobody has moved");
}

/// The fate that a row is to meet.
fn fate(plane: &Plane, row: &Row, frame: &[u8]) -> Fate {
    let slot = match row.choice {
        Choice::None => None,
        Choice::Slot(slot) => Some(slot),
        Choice::ByHash => {
            let flow = wire::flow(&Window::of(frame)).expect("a row that opens a flow has one");
            Some(plane.world.slot_by_hash(row.service, &flow.key).expect("a row that opens a flow has a table"))
        }
    };
    Fate { service: row.service, reason: row.reason, slot }
}

/// The bytes that the program sees: those of the first buffer. In a test run that is a page, less its head- and tailroom.
fn first_buffer<'a>(frame: &'a [u8], row: &Row) -> &'a [u8] {
    &frame[..row.first_buffer.unwrap_or(3_500).min(frame.len())]
}

/// Every row ends at every length, from the 14 bytes that a test run wants up: what the program says is what the host's parser says.
fn cut(plane: &Plane) {
    let mut model = Model::new(&plane.world);
    for row in rows::all().iter().filter(|row| row.first_buffer.is_none()) {
        let frame = row.frame();
        for length in (14..=frame.len()).filter(|length| is_near_headers(*length, frame.len())) {
            let short = &frame[..length];
            plane.expect(&[Experiment::undefended(run(short), model.fate(short, LOOPBACK))]);
        }
    }
}

/// Every row in two buffers, the first of which ends at every length, from 0 up: only what is in the first counts as there.
fn split(plane: &Plane) {
    if !plane.can_split {
        return println!("not run: it needs Linux 6.18");
    }
    let mut model = Model::new(&plane.world);
    for row in rows::all().iter().filter(|row| row.frame().len() < 3_000) {
        let frame = row.frame();
        for length in (0..frame.len()).filter(|length| is_near_headers(*length, frame.len())) {
            let fate = model.fate(&frame[..length], LOOPBACK);
            plane.expect(&[Experiment::undefended(Run { first_buffer: Some(length), ..run(&frame) }, fate)]);
        }
    }
}

/// Major and minor of the running kernel.
fn release() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a major"), numbers.next().expect("a minor"))
}

/// Whether the kernel takes the 40 bytes of metadata that a cookie of Weir's own needs. Linux 6.1 takes 32 at the most; 6.9, which is the
/// first that such cookies can be used with, takes more.
fn has_room_for_metadata() -> bool {
    release() >= (6, 9)
}

/// Headers end within the first 300 bytes in nearly all rows; behind them one length is like the next.
fn is_near_headers(length: usize, whole: usize) -> bool {
    length < 300 || length + 4 > whole || length.is_multiple_of(97)
}

/// A service that is on one interface gets what comes in by that one.
fn interface(plane: &Plane) {
    let namespace = Namespace::new("rows");
    namespace.ip(&format!("link add weir0 index {} type veth peer name weir1", world::OTHER_INTERFACE));
    let frame = rows::by_name("tcp: SYN to a service of another interface").frame();
    let here = Run { interface: Some(world::OTHER_INTERFACE), ..run(&frame) };
    let fate = Model::new(&plane.world).fate(&frame, world::OTHER_INTERFACE);
    assert_eq!((fate.service, fate.reason), (ELSEWHERE, Reason::TcpOpened));
    namespace.run(|| plane.expect(&[Experiment::undefended(here, fate)]));

    // And a service of the loopback interface gets none of it.
    let frame = rows::by_name("ipv4: SYN").frame();
    let there = Run { interface: Some(world::OTHER_INTERFACE), ..run(&frame) };
    namespace.run(|| plane.expect(&[Experiment::undefended(there, Fate::passed(Reason::NotAnAddress))]));
}
