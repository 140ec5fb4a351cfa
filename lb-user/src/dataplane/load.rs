//! Loading the object, and what goes with it once for all interfaces.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
    programs::{Program, ProgramInfo},
};
use aya_log::EbpfLogger;
use lb_common::{
    abi::{ABI_VERSION, Settings},
    tag::TagKey,
};
use log::Log;
use zerocopy::{FromBytes, FromZeros as _, IntoBytes};

use super::{
    Error, Events, KernelLog, OBJECT,
    btf::Types,
    kfunc::Image,
    maps::{Maps, NAMES},
    pins::Pins,
    sys,
    watch::{ACCEPTS_UNSEEN, DROPS_UNSEEN, Needs, QUEUES_UNSEEN, ReasonNames, Watching, reason_names},
};
use crate::config::Limits;

/// What the data plane is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The sizes of the maps; they hold when the maps are made, not when they are adopted.
    pub limits: Limits,
    /// The key of the flow hash, if it is to be a certain one.
    pub flow_hash_key: Option<[u8; 16]>,
}

/// The programs of the object, loaded.
pub struct Programs {
    /// The XDP program.
    pub(super) ingress: OwnedFd,
    /// The selector.
    pub(super) selector: OwnedFd,
    /// The tc program, if the kernel takes it.
    pub(super) restore: Option<OwnedFd>,
    /// The tracepoint program, if the kernel takes it.
    pub(super) socket_state: Option<OwnedFd>,
    /// The iterator, if the kernel takes it.
    pub(super) socket_facts: Option<OwnedFd>,
    /// The iterator over queues, if the kernel takes it.
    pub(super) socket_queues: Option<OwnedFd>,
    /// The tracepoint program at the kernel's drops, if the kernel takes it.
    pub(super) kernel_drop: Option<OwnedFd>,
    /// The program at the exit of accept, if the kernel takes it.
    pub(super) accepted: Option<OwnedFd>,
    /// Their names, IDs and the number of instructions that the verifier looked at.
    pub facts: Vec<(String, u32, u32)>,
    /// The IDs of selectors that are Weir's: this one and the one that it replaces.
    pub(super) own_selectors: Vec<u32>,
}

/// The data plane of one instance.
pub struct Dataplane {
    /// Where it is pinned.
    pub pins: Pins,
    /// Its maps.
    pub maps: Maps,
    /// Its programs.
    pub programs: Programs,
    /// What the kernel lacks, a sentence each with its effect.
    pub lacking: Vec<String>,
    /// Which of the programs that watch are attached.
    pub watching: Watching,
    /// The kernel's names for the reasons of drops, by number.
    pub drop_reasons: ReasonNames,
    /// Interfaces that the tc program could not be attached to.
    pub(super) without_restore: BTreeSet<u32>,
    /// Whether nothing was pinned before: then a start that fails leaves nothing.
    pub is_new: bool,
    /// Whether maps of another version are still to be removed.
    old_versions: Vec<u32>,
    events: Option<RingBuf<MapData>>,
    log: Option<EbpfLogger<&'static dyn Log>>,
}

impl Dataplane {
    /// Makes the maps or adopts the pinned ones, and loads the programs. Nothing is attached yet.
    pub fn open(pins: Pins, options: &Options) -> Result<Self, Error> {
        if OBJECT.is_empty() {
            return Err(Error::EmptyObject);
        }
        let is_new = !pins.exist();
        let opened = Self::open_pins(pins.clone(), options, is_new);
        if is_new && opened.is_err() {
            // The first error is the one to tell.
            let _ = pins.remove_all();
        }
        opened
    }

    fn open_pins(pins: Pins, options: &Options, is_new: bool) -> Result<Self, Error> {
        pins.create()?;
        let old_versions: Vec<u32> = pins.versions().into_iter().filter(|version| *version != ABI_VERSION).collect();
        let mut lacking = Vec::new();
        let types = Types::of_kernel().map_err(|error| format!("cannot read the kernel's type information ({error})"));
        let types = types.as_ref().map_err(String::as_str);
        let offsets = offsets(types).map_err(|error| lack(&mut lacking, &error, OTHERS_UNNOTICED)).unwrap_or_default();
        let image = Image::with_kernel_functions(OBJECT, types).map_err(|error| lack(&mut lacking, &error, KERNEL_COOKIES)).ok();
        let needs = types.map(Needs::of).unwrap_or_default();
        let drop_reasons = types.map(reason_names).unwrap_or_default();
        let globals: Vec<(&str, u32)> = offsets.iter().copied().chain(needs.globals()).collect();
        let mut ebpf = load_object(image.as_ref().map_or(OBJECT, Image::bytes), &pins, options, &globals)?;
        let mut maps = Maps::pinned(&pins, ABI_VERSION)?;
        settle(&mut maps, &pins, options, &old_versions)?;
        maps.watch.set_reasons(&drop_reasons)?;
        let handshakes = needs.common.is_some();
        let watching = Watching { handshakes, drops_by_backend: needs.drops_have_socket(), ..Watching::default() };
        let able = Able { offsets: !offsets.is_empty(), kernel_functions: image.is_some(), needs };
        let programs = load_programs(&mut ebpf, &pins, &able, &mut lacking)?;
        let events = MapData::from_pin(pins.map("EVENTS")).and_then(Map::from_map_data).and_then(RingBuf::try_from);
        let events = events.map_err(Error::map("EVENTS"))?;
        let log =
            log_level().and_then(|_| EbpfLogger::init(&mut ebpf).map_err(|error| tracing::debug!("no log of the programs: {error}")).ok());
        let without_restore = BTreeSet::new();
        Ok(Self { pins, maps, programs, lacking, watching, drop_reasons, without_restore, is_new, old_versions, events: Some(events), log })
    }

    /// The listener events; the first caller gets them, inside a tokio runtime.
    pub fn take_events(&mut self) -> Option<Events> {
        let ring = self.events.take()?;
        Events::new(ring).map_err(|error| tracing::warn!("listeners are noticed by scan alone: {error}")).ok()
    }

    /// What the programs log, if anybody wants to know; the first caller gets it, inside a tokio runtime.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        let log = self.log.take()?;
        KernelLog::new(log).map_err(|error| tracing::debug!("no log of the programs: {error}")).ok()
    }

    /// Attaches the tracepoint program in place of the one that is pinned.
    ///
    /// The new one comes first, so that no listener goes unnoticed: for the moment between both see the same connections, and mark those that
    /// they have counted.
    pub fn attach_tracepoint(&mut self) -> Result<(), Error> {
        let Some(program) = &self.programs.socket_state else { return Ok(()) };
        let path = self.pins.link("socket_state");
        let link = sys::link_tracepoint(program).map_err(Error::call("attach to the tracepoint inet_sock_set_state"))?;
        let pin_error = |source| Error::Pins { path: path.clone(), source };
        if path.exists() {
            std::fs::remove_file(&path).map_err(pin_error)?;
        }
        sys::pin(&link, &path).map_err(pin_error)
    }

    /// Pins the programs in place of those of before, and removes the maps of other versions: the last step of a start.
    pub fn settle(&mut self) -> Result<(), Error> {
        for (name, program) in [("ingress", &self.programs.ingress), ("select_socket", &self.programs.selector)] {
            let path = self.pins.program(name);
            let pin_error = |source| Error::Pins { path: path.clone(), source };
            if path.exists() {
                std::fs::remove_file(&path).map_err(pin_error)?;
            }
            sys::pin(program, &path).map_err(pin_error)?;
        }
        for version in std::mem::take(&mut self.old_versions) {
            let path = self.pins.map_of(version, "");
            self.pins.remove_version(version).map_err(|source| Error::Pins { path, source })?;
        }
        Ok(())
    }
}

/// What is lost without the tc program.
pub(super) const KERNEL_COOKIES: &str =
    "the SYN defence uses the kernel's own cookies, and connections made in a flood have fewer TCP options";
/// What is lost without the iterator over sockets.
const OTHERS_UNNOTICED: &str = "a group that another program steers is not noticed";

/// Notes what is lost and why, once for each loss.
pub(super) fn lack(lacking: &mut Vec<String>, why: &dyn std::fmt::Display, effect: &str) {
    if !lacking.iter().any(|sentence| sentence.ends_with(effect)) {
        lacking.push(format!("{why}: {effect}"));
    }
}

/// Parses the object and makes its maps, or opens those that are pinned.
fn load_object(object: &[u8], pins: &Pins, options: &Options, offsets: &[(&'static str, u32)]) -> Result<Ebpf, Error> {
    let paths: Vec<_> = NAMES.iter().map(|name| (*name, pins.map(name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let limits = &options.limits;
    for name in ["SERVICE_COUNTERS", "SERVICE_TIMES", "DEFENCE", "FLOODS", "FLOOD_WINDOWS"] {
        loader.map_max_entries(name, limits.services + 1);
    }
    loader.map_max_entries("BACKEND_COUNTERS", limits.backends);
    loader.map_max_entries("BACKEND_TIMES", limits.backends);
    loader.map_max_entries("LISTENERS", limits.backends);
    loader.map_max_entries("UDP_FLOWS", limits.udp_flows);
    loader.map_max_entries("KNOWN_FLOWS", limits.known_flows);
    loader.map_max_entries("ENDED_FLOWS", limits.known_flows);
    loader.map_max_entries("PREFIX_BUCKETS", limits.prefix_buckets);
    for (name, offset) in offsets {
        loader.override_global(name, offset, true);
    }
    let level = log_level().map_or(0, |level| level as u8);
    loader.override_global(aya_log::LEVEL, &level, true);
    loader.load(object).map_err(|error| Error::Load(Box::new(error)))
}

/// The level that the programs log at; none where tracing would drop it: the verifier then takes the logging out of the programs.
fn log_level() -> Option<aya_log::Level> {
    log::log_enabled!(target: "weir_ebpf", log::Level::Debug).then_some(aya_log::Level::Debug)
}

/// The values of the object's `OFFSET_*`.
fn offsets(types: Result<&Types, &str>) -> Result<Vec<(&'static str, u32)>, String> {
    let types = types?;
    [
        ("OFFSET_SOCKET_SK", "socket", "sk"),
        ("OFFSET_SK_COOKIE", "sock_common", "skc_cookie"),
        ("OFFSET_SK_REUSEPORT", "sock", "sk_reuseport_cb"),
        ("OFFSET_REUSEPORT_PROGRAM", "sock_reuseport", "prog"),
        ("OFFSET_PROGRAM_AUX", "bpf_prog", "aux"),
        ("OFFSET_AUX_ID", "bpf_prog_aux", "id"),
    ]
    .into_iter()
    .map(|(global, structure, member)| {
        let offset = types.offset(structure, member);
        Ok((global, offset.ok_or_else(|| format!("the kernel has no `{member}` in `struct {structure}`"))?))
    })
    .collect()
}

/// Writes the settings: new ones with a key from the operating system's random numbers, or those of before.
fn settle(maps: &mut Maps, pins: &Pins, options: &Options, old_versions: &[u32]) -> Result<(), Error> {
    let mut settings = maps.settings()?;
    if settings.abi_version == 0 {
        settings = Settings {
            abi_version: ABI_VERSION,
            attached_at: boot_time(),
            tag_key: random(TagKey::new_zeroed())?,
            ..Settings::new_zeroed()
        };
        // Flows keep their backends when the version changes: the key and the UDP flows go with them.
        if let Some(old) = old_versions.last() {
            let before = maps.inherit(pins, *old)?;
            (settings.flow_hash_key, settings.attached_at) = (before.flow_hash_key, before.attached_at);
        } else {
            settings.flow_hash_key = random_key()?;
        }
    }
    if let Some(key) = options.flow_hash_key {
        settings.flow_hash_key = words(key);
    }
    // The tables keep the sizes that they were made with.
    (settings.known_flow_mask, settings.prefix_bucket_mask) = maps.defence.table_masks();
    settings.udp_new_flows_per_second = options.limits.udp_new_flows_per_second;
    maps.set_settings(settings)
}

/// A key of 16 bytes, from the operating system's random numbers.
pub fn random_key() -> Result<[u64; 2], Error> {
    random(<[u64; 2]>::new_zeroed())
}

/// What is given, with all its bytes from the operating system's random numbers.
fn random<T: FromBytes + IntoBytes>(mut value: T) -> Result<T, Error> {
    getrandom::fill(value.as_mut_bytes()).map_err(|error| Error::call("get random numbers")(std::io::Error::other(error)))?;
    Ok(value)
}

fn words(key: [u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(key);
    #[expect(clippy::cast_possible_truncation, reason = "each half is what is wanted")]
    [number as u64, (number >> 64) as u64]
}

/// The time since the machine started, suspend included, in nanoseconds.
#[must_use]
pub fn boot_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither part is negative on that clock.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The time that the programs have, nanoseconds of CLOCK_MONOTONIC: it stands still while the machine sleeps.
#[must_use]
pub fn monotonic_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither part is negative on that clock.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// What the object has been given of what only the running kernel knows.
#[derive(Debug)]
struct Able {
    /// Where it keeps what the iterator reads.
    offsets: bool,
    /// Which functions of its own the tc program calls.
    kernel_functions: bool,
    /// Where it keeps what the programs read that watch.
    needs: Needs,
}

fn load_programs(ebpf: &mut Ebpf, pins: &Pins, able: &Able, lacking: &mut Vec<String>) -> Result<Programs, Error> {
    let mut facts = Vec::new();
    let mut unknown = Vec::new();
    let ingress = load_program(ebpf, "ingress", None, &mut facts)?;
    let selector = load_program(ebpf, "select_socket", None, &mut facts)?;
    let types = Btf::from_sys_fs();
    let types = types.as_ref().ok();
    let mut optional = |name, effect: &str| match load_program(ebpf, name, types, &mut facts) {
        Ok(program) => Some(program),
        Err(error) => {
            lack(lacking, &error, effect);
            tracing::debug!("{:#}", anyhow::Error::from(error));
            None
        }
    };
    let socket_state = optional("socket_state", "listeners are noticed by scan alone, and connections are not counted");
    let Needs { common, queues, drops, accept } = &able.needs;
    let known = |needs: &Option<_>| needs.is_some() && common.is_some() && able.offsets;
    let mut watcher = |name, needs: &Option<_>, effect: &'static str| {
        if known(needs) {
            return optional(name, effect);
        }
        unknown.push(effect);
        None
    };
    let socket_queues = watcher("socket_queues", queues, QUEUES_UNSEEN);
    let kernel_drop = watcher("kernel_drop", drops, DROPS_UNSEEN);
    let accepted = watcher("accepted", accept, ACCEPTS_UNSEEN);
    // The call in it is of no helper that any kernel has.
    let restore = able.kernel_functions.then(|| optional("restore_request", KERNEL_COOKIES)).flatten();
    // Without the offsets it would read whatever lies elsewhere, and take it for facts.
    let socket_facts = able.offsets.then(|| optional("socket_facts", OTHERS_UNNOTICED)).flatten();
    for effect in unknown {
        lack(lacking, &"the kernel's structures are not as expected", effect);
    }
    let mut own_selectors: Vec<u32> = facts.iter().filter(|(name, ..)| name == "select_socket").map(|(_, id, _)| *id).collect();
    if let Ok(before) = ProgramInfo::from_pin(pins.program("select_socket")) {
        own_selectors.push(before.id());
    }
    Ok(Programs { ingress, selector, restore, socket_state, socket_facts, socket_queues, kernel_drop, accepted, facts, own_selectors })
}

fn load_program(ebpf: &mut Ebpf, name: &'static str, types: Option<&Btf>, facts: &mut Vec<(String, u32, u32)>) -> Result<OwnedFd, Error> {
    let missing = || Error::call(format!("find the program `{name}` in the object"))(std::io::ErrorKind::NotFound.into());
    let types = || types.ok_or_else(|| Error::call("read the kernel's type information")(std::io::ErrorKind::NotFound.into()));
    let target = match name {
        "socket_state" => "inet_sock_set_state",
        "kernel_drop" => "kfree_skb",
        "accepted" => "inet_csk_accept",
        "socket_queues" => "bpf_sk_storage_map",
        _ => "task_file",
    };
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    let fail = Error::program(name);
    let begun = Instant::now();
    match program {
        Program::Xdp(program) => program.load().map_err(fail)?,
        Program::SkReuseport(program) => program.load().map_err(fail)?,
        Program::SchedClassifier(program) => program.load().map_err(fail)?,
        Program::BtfTracePoint(program) => program.load(target, types()?).map_err(fail)?,
        Program::FExit(program) => program.load(target, types()?).map_err(fail)?,
        Program::Iter(program) => program.load(target, types()?).map_err(fail)?,
        _ => return Err(missing()),
    }
    let took = begun.elapsed().as_millis();
    let info = program.info().map_err(Error::program(name))?;
    let verified = info.verified_instruction_count().unwrap_or(0);
    tracing::debug!("program `{name}`: {verified} instructions verified, loaded in {took} ms");
    facts.push((name.to_owned(), info.id(), verified));
    let fd = program.fd().map_err(Error::program(name))?;
    fd.as_fd().try_clone_to_owned().map_err(Error::call("keep a program's descriptor"))
}
