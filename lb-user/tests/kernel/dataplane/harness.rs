//! The program `ingress` as the kernel runs it, with the maps of the [`World`], and the counters it moves.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData},
    programs::{ProgramFd, Xdp},
    util::nr_cpus,
};
use lb_common::{
    FlowKey, Reason,
    abi::{
        ABI_VERSION, AddressFilter, BackendCounters, BackendState, DefencePolicy, KnownFlow, PortBitmap, PrefixBucket, PrefixKey,
        ServiceCounters, ServiceKey, ServiceRecord, Settings, UdpFlow, prefix_action,
    },
    limiter::Bucket,
    relief::{FULL, Relief},
    tag::Place,
};
use lb_user::dataplane::OBJECT;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    bpf::{self, DIRT, Outcome, Run, instruction},
    defended::{self, State, TAG_KEY},
    model::Fate,
    world::{BRIDGE_MAC, GENERATION, HASH_KEY, SERVICES, SLOTS, World},
};
use crate::support::packet::SERVER_MAC;

/// `BPF_F_INNER_MAP`: an array of another size than the template's may stand in a map of maps. And `BPF_F_MMAPABLE`, as the template has.
const INNER_MAP: u32 = 1 << 12 | 1 << 10;
/// How many buckets of prefixes the programs use, so few that they are cleared for each packet.
const PREFIX_BUCKETS: u32 = 64;
/// How many known flows they remember.
const KNOWN_FLOWS: u32 = 16_384;
/// How many bytes before and behind the frame [`DataPlane::run_dirty`] fills. 256 bytes of headroom are there, less the `xdp_frame`.
const DIRTY: i32 = 128;

/// The loaded program and its maps.
pub struct DataPlane {
    ebpf: Ebpf,
    program: ProgramFd,
    dirty: OwnedFd,
    cpus: usize,
    /// The array that `dirty` jumps through; the kernel empties it when its last descriptor closes.
    _jump: OwnedFd,
}

/// How often each service's packets and bytes were counted by reason, and how often each slot was chosen. What is 0 is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// (service, reason's label) -> packets and bytes.
    pub packets: BTreeMap<(u32, &'static str), (u64, u64)>,
    /// Slot -> how often it was chosen.
    pub chosen: BTreeMap<u32, u64>,
}

impl Counts {
    /// Adds a frame of so many bytes that meets this fate.
    pub fn add(&mut self, fate: &Fate, bytes: usize) {
        let counter = self.packets.entry((fate.service, fate.reason.label())).or_default();
        *counter = (counter.0 + 1, counter.1 + bytes as u64);
        if let Some(slot) = fate.slot {
            *self.chosen.entry(slot).or_default() += 1;
        }
    }

    /// What has been counted since `earlier`. The differences wrap, so that a counter which went down shows.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (key, before) in &earlier.packets {
            let counter = difference.packets.entry(*key).or_default();
            *counter = (counter.0.wrapping_sub(before.0), counter.1.wrapping_sub(before.1));
        }
        for (slot, before) in &earlier.chosen {
            let counter = difference.chosen.entry(*slot).or_default();
            *counter = counter.wrapping_sub(*before);
        }
        difference.packets.retain(|_, counter| *counter != (0, 0));
        difference.chosen.retain(|_, counter| *counter != 0);
        difference
    }
}

impl DataPlane {
    /// Loads the object, without pins, and fills the maps.
    pub fn load(world: &World) -> Self {
        assert!(!OBJECT.is_empty(), "the kernel's object has not been built: `cargo xtask setup` installs what builds it");
        let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object's maps");
        fill(&mut ebpf, world);
        fill_defence(&mut ebpf, world);
        let ingress: &mut Xdp = ebpf.program_mut("ingress").expect("ingress").try_into().expect("an XDP program");
        ingress.load().unwrap_or_else(|error| panic!("the verifier takes ingress: {}", format!("{error:?}").replace("\\n", "\n")));
        let program = ingress.fd().expect("loaded").try_clone().expect("a descriptor");
        let jump = bpf::program_array(program.as_fd()).expect("an array of programs");
        let dirty = bpf::load(bpf::XDP, "dirtying", &dirtying(&jump)).expect("the verifier takes the program that dirties the buffer");
        Self { ebpf, program, dirty, cpus: nr_cpus().expect("the number of CPUs"), _jump: jump }
    }

    /// The program's descriptor.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Whether a test run may say how many bytes the first buffer holds: Linux 6.18 and later.
    pub fn can_split(&self) -> bool {
        let run = Run { frame: &[0; 100], first_buffer: Some(50), interface: None, repeat: 1 };
        match bpf::test_run(self.program(), &run) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => panic!("a test run in two buffers: {error}"),
        }
    }

    /// Runs the program on a frame.
    pub fn run(&self, run: &Run<'_>) -> Outcome {
        bpf::test_run(self.program(), run).unwrap_or_else(|error| panic!("a test run of {run:?}: {error}"))
    }

    /// Runs the program on a frame in one buffer whose bytes before and behind the frame are dirt.
    ///
    /// The kernel makes a new buffer full of zeros for each test run, unlike a card's. So a program of ours runs before, which moves
    /// both ends of the frame outwards, fills what it gains, moves them back and jumps to `ingress`.
    pub fn run_dirty(&self, frame: &[u8]) -> Outcome {
        let run = Run { frame, first_buffer: None, interface: None, repeat: 1 };
        bpf::test_run(self.dirty.as_fd(), &run).unwrap_or_else(|error| panic!("a dirty test run of {frame:x?}: {error}"))
    }

    /// Makes the state of the defence: what the daemon says now, full buckets, and no flood but the one that the world has.
    pub fn prepare(&self, world: &World, state: State) {
        let now = monotonic();
        self.put("LIVE", 0, &state.live(now));
        for service in world.policies.keys() {
            self.put("FLOODS", *service, &defended::flood(*service, now));
        }
        let clear = |name, count, words| bpf::maps::clear(self.map(name), count, words).unwrap_or_else(|error| panic!("{name}: {error}"));
        // All zero is full: nothing has been taken since the machine came up.
        clear("BUDGETS", 2, self.cpus * size_of::<Bucket>() / 8);
        clear("PREFIX_BUCKETS", PREFIX_BUCKETS, self.cpus * size_of::<PrefixBucket>() / 8);
    }

    /// Makes the programs forget that they know this flow, on every CPU.
    pub fn forget(&self, flow: &FlowKey) {
        let zeros = vec![0; self.cpus * size_of::<KnownFlow>()];
        let slot = Self::place(flow).slot;
        bpf::maps::update(self.map("KNOWN_FLOWS"), &slot.to_ne_bytes(), &zeros).expect("a known flow");
        bpf::maps::update(self.map("ENDED_FLOWS"), &slot.to_ne_bytes(), &[0; 4]).expect("an ended flow");
    }

    /// Where the programs remember this flow.
    pub fn place(flow: &FlowKey) -> Place {
        let place = TAG_KEY.of_flow(flow);
        Place { slot: place.slot & (KNOWN_FLOWS - 1), ..place }
    }

    /// Writes how a service is defended.
    pub fn defend(&self, service: u32, policy: &DefencePolicy) {
        self.put("DEFENCE", service, policy);
    }

    /// One service's counters, summed over the CPUs.
    pub fn counters(&self, service: u32) -> ServiceCounters {
        let words = size_of::<ServiceCounters>() / 8;
        let mut values = vec![0; self.cpus * words];
        bpf::maps::lookup(self.map("SERVICE_COUNTERS"), service, &mut values).expect("a service's counters");
        let sum: Vec<u64> = (0..words).map(|at| values.iter().skip(at).step_by(words).sum()).collect();
        ServiceCounters::read_from_bytes(sum.as_bytes()).expect("whole words")
    }

    /// How many packets of a service have met this end.
    pub fn counter(&self, service: u32, reason: Reason) -> u64 {
        let words = size_of::<ServiceCounters>() / 8;
        let mut values = vec![0; self.cpus * words];
        bpf::maps::lookup(self.map("SERVICE_COUNTERS"), service, &mut values).expect("a service's counters");
        // Packets and bytes take turns.
        values.iter().skip(2 * reason.index()).step_by(words).sum()
    }

    /// The flood on a service, as the programs have written it down.
    pub fn flood(&self, service: u32) -> lb_common::flood::FloodState {
        let mut words = [0; 3];
        bpf::maps::lookup(self.map("FLOODS"), service, &mut words).expect("a service's flood");
        lb_common::flood::FloodState { entered: words[0], hot: words[1], syns: words[2] }
    }

    /// Writes an element of an array.
    pub fn put<T: IntoBytes + Immutable>(&self, name: &str, index: u32, value: &T) {
        bpf::maps::update(self.map(name), &index.to_ne_bytes(), value.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    fn map(&self, name: &str) -> BorrowedFd<'_> {
        match self.ebpf.map(name) {
            Some(Map::Array(map) | Map::PerCpuArray(map) | Map::HashMap(map) | Map::LpmTrie(map)) => map.fd().as_fd(),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// The counters of all services and slots of the [`World`], summed over the CPUs.
    pub fn counts(&self) -> Counts {
        self.read_counts(SERVICES, SLOTS as usize)
    }

    /// The counters of every service and slot that the maps have room for.
    pub fn all_counts(&self) -> Counts {
        let entries = |name| {
            let Some(Map::PerCpuArray(map)) = self.ebpf.map(name) else { panic!("{name} is not there or no per-CPU array") };
            map.info().expect("the map's facts").max_entries() as usize
        };
        self.read_counts(entries("SERVICE_COUNTERS"), entries("BACKEND_COUNTERS"))
    }

    fn read_counts(&self, services: usize, slots: usize) -> Counts {
        let mut counts = Counts::default();
        for (service, counters) in self.per_cpu::<ServiceCounters>("SERVICE_COUNTERS", services) {
            for (reason, counter) in Reason::ALL.into_iter().zip(counters.by_reason) {
                if counter.packets != 0 || counter.bytes != 0 {
                    let sum = counts.packets.entry((service, reason.label())).or_default();
                    *sum = (sum.0 + counter.packets, sum.1 + counter.bytes);
                }
            }
        }
        for (slot, counters) in self.per_cpu::<BackendCounters>("BACKEND_COUNTERS", slots) {
            let idle = BackendCounters { chosen: 0, ..counters } == BackendCounters::default();
            assert!(idle, "ingress moved a counter of slot {slot} that is not its own: {counters:?}");
            if counters.chosen != 0 {
                *counts.chosen.entry(slot).or_default() += counters.chosen;
            }
        }
        counts
    }

    /// The first `count` elements of a per-CPU array, each with its index.
    fn per_cpu<T: FromBytes>(&self, name: &str, count: usize) -> impl Iterator<Item = (u32, T)> {
        let Some(Map::PerCpuArray(map)) = self.ebpf.map(name) else { panic!("{name} is not there or no per-CPU array") };
        let words = size_of::<T>() / 8;
        let values = bpf::lookup_batch(map.fd().as_fd(), count, self.cpus * words).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cpus = self.cpus;
        let of_one_cpu = move |at: usize| T::read_from_bytes(values[at * words..(at + 1) * words].as_bytes()).expect("whole words");
        (0..count * cpus).map(move |at| (u32::try_from(at / cpus).expect("an index"), of_one_cpu(at)))
    }
}

fn fill(ebpf: &mut Ebpf, world: &World) {
    let settings = Settings {
        flow_hash_key: HASH_KEY,
        abi_version: ABI_VERSION,
        udp_new_flows_per_second: 1_000,
        attached_at: 0,
        known_flow_mask: KNOWN_FLOWS - 1,
        prefix_bucket_mask: PREFIX_BUCKETS - 1,
        tag_key: *TAG_KEY,
        // On, as a daemon has it: nothing waits anywhere.
        relief: Relief { overfull: FULL / 2, stalled_after: 1_000_000_000, reserved: 0 },
    };
    array::<{ size_of::<Settings>() }>(ebpf, "SETTINGS").set(0, bytes(&settings), 0).expect("the settings");

    let mut ports = PortBitmap { words: [0; 2048] };
    for service in &world.services {
        let (at, bit) = PortBitmap::position(service.protocol, service.port);
        ports.words[at] |= bit;
    }
    array::<{ size_of::<PortBitmap>() }>(ebpf, "PORTS").set(0, bytes(&ports), 0).expect("the ports");

    let macs = [SERVER_MAC, BRIDGE_MAC].map(|mac| mac.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    let mut services = hash_map::<{ size_of::<ServiceKey>() }, { size_of::<ServiceRecord>() }>(ebpf, "SERVICES");
    for service in &world.services {
        let record = ServiceRecord { macs, service: service.index, flags: service.flags, maximum_segment_size: 1_460, padding: [0; 6] };
        for address in &service.addresses {
            let key = ServiceKey::new(*address, service.port, service.protocol, service.interface);
            services.insert(bytes(&key), bytes(&record), 0).expect("a service");
        }
    }

    let mut tables: ArrayOfMaps<_, Array<MapData, u32>> = map(ebpf, "TABLES").try_into().expect("an array of arrays");
    for (service, elements) in &world.tables {
        let mut table = Array::create(u32::try_from(elements.len()).expect("a table's size"), INNER_MAP).expect("a table");
        for (index, element) in (0..).zip(elements) {
            table.set(index, element, 0).expect("an element");
        }
        tables.set(*service, &table, 0).expect("a service's table");
    }

    let mut backends = array::<{ size_of::<BackendState>() }>(ebpf, "BACKENDS");
    for slot in 0..SLOTS {
        backends.set(slot, bytes(&BackendState { generation: GENERATION, flags: 0 }), 0).expect("a backend");
    }
    let mut flows = hash_map::<{ size_of::<FlowKey>() }, { size_of::<UdpFlow>() }>(ebpf, "UDP_FLOWS");
    for (key, flow) in &world.udp_flows {
        flows.insert(bytes(key), bytes(flow), 0).expect("a flow");
    }
}

/// What the daemon writes of the defence but once; the rest is of [`DataPlane::prepare`].
fn fill_defence(ebpf: &mut Ebpf, world: &World) {
    let mut policies = array::<{ size_of::<DefencePolicy>() }>(ebpf, "DEFENCE");
    for (service, policy) in &world.policies {
        policies.set(*service, bytes(policy), 0).expect("a policy");
    }
    let mut addresses = hash_map::<16, 4>(ebpf, "ADDRESSES");
    for address in &world.addresses {
        addresses.insert(address.bytes(), [1, 0, 0, 0], 0).expect("an address");
    }
    let filter = AddressFilter::of(&world.addresses);
    array::<{ size_of::<AddressFilter>() }>(ebpf, "ADDRESS_FILTER").set(0, bytes(&filter), 0).expect("the filter of addresses");
    let Some(Map::LpmTrie(prefixes)) = ebpf.map("PREFIXES") else { panic!("PREFIXES is not there or no trie") };
    for (prefix, length, is_allowed) in defended::LISTS {
        let family = if prefix.is_ipv4() { 96 } else { 0 };
        let key = PrefixKey::new(defended::LIMITED, prefix.into());
        let key = [(PrefixKey::SERVICE_BITS + family + length).to_ne_bytes().as_slice(), key.as_bytes()].concat();
        let action = if is_allowed { prefix_action::ALLOW } else { prefix_action::DENY };
        bpf::maps::update(prefixes.fd().as_fd(), &key, &action.to_ne_bytes()).expect("a prefix");
    }
}

/// Now, in nanoseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("after boot") * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("below a second")
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Map {
    ebpf.map_mut(name).unwrap_or_else(|| panic!("the object has no map {name}"))
}

fn array<'a, const VALUE: usize>(ebpf: &'a mut Ebpf, name: &str) -> Array<&'a mut MapData, [u8; VALUE]> {
    map(ebpf, name).try_into().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn hash_map<'a, const KEY: usize, const VALUE: usize>(ebpf: &'a mut Ebpf, name: &str) -> HashMap<&'a mut MapData, [u8; KEY], [u8; VALUE]> {
    map(ebpf, name).try_into().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn bytes<T: IntoBytes + Immutable, const LENGTH: usize>(value: &T) -> [u8; LENGTH] {
    value.as_bytes().try_into().expect("the size of the type")
}

/// The program of [`DataPlane::run_dirty`]. It returns XDP_ABORTED (0) if a step fails.
fn dirtying(jump: &OwnedFd) -> Vec<u64> {
    const ADJUST_HEAD: i32 = 44;
    const ADJUST_TAIL: i32 = 65;
    const STORE_BYTES: i32 = 190;
    const GET_BUFF_LEN: i32 = 188;
    const TAIL_CALL: i32 = 12;
    let dirt = i32::from_ne_bytes([DIRT; 4]);
    let mut program = vec![instruction::copy(6, 1)];
    // The last line of each step: out, unless the helper gave 0. How far out is known at the end.
    let mut steps = Vec::new();
    let mut step = |program: &mut Vec<u64>, helper: i32, arguments: &[u64]| {
        program.push(instruction::copy(1, 6));
        program.extend_from_slice(arguments);
        program.push(instruction::call(helper));
        steps.push(program.len());
        program.push(0);
    };
    // 128 bytes of dirt on the stack.
    program.extend((1..=DIRTY / 8).map(|word| instruction::store(10, i16::try_from(-8 * word).expect("a stack of 512 bytes"), dirt)));
    let stack = [instruction::copy(3, 10), instruction::add(3, -DIRTY), instruction::set(4, DIRTY)];

    step(&mut program, ADJUST_HEAD, &[instruction::set(2, -DIRTY)]);
    step(&mut program, STORE_BYTES, &[&[instruction::set(2, 0)], stack.as_slice()].concat());
    step(&mut program, ADJUST_HEAD, &[instruction::set(2, DIRTY)]);

    program.extend([instruction::copy(1, 6), instruction::call(GET_BUFF_LEN), instruction::copy(7, 0)]);
    step(&mut program, ADJUST_TAIL, &[instruction::set(2, DIRTY)]);
    step(&mut program, STORE_BYTES, &[&[instruction::copy(2, 7)], stack.as_slice()].concat());
    step(&mut program, ADJUST_TAIL, &[instruction::set(2, -DIRTY)]);

    program.push(instruction::copy(1, 6));
    program.extend(instruction::map(2, jump.as_raw_fd()));
    program.extend([instruction::set(3, 0), instruction::call(TAIL_CALL)]);
    let out = program.len();
    program.extend([instruction::set(0, 0), instruction::exit()]);
    for at in steps {
        program[at] = instruction::jump_if_not_zero(0, i16::try_from(out - at - 1).expect("a short program"));
    }
    program
}
