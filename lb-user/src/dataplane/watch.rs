//! Queues, times and the kernel's drops: what their programs need to know of the kernel, and reading what they tell.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use aya::maps::{Array, MapData, PerCpuArray, PerCpuHashMap, SkStorage};
use lb_common::abi::{BackendTimes, DROP_REASONS, DropKey, ServiceTimes, SocketQueues};
use zerocopy::FromBytes as _;

use super::{
    Dataplane, Error,
    btf::Types,
    maps::{At, Plain, found, open, open_data},
    sys,
};

/// What a global holds that stands for a member which the kernel does not have.
const ABSENT: u32 = u16::MAX as u32;

/// The globals of a program and their values.
pub(super) type Globals = Vec<(&'static str, u32)>;

/// What the programs that watch need to know of the running kernel: their globals, or what the kernel lacks.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Of what more than one program reads. Without it none is loaded.
    pub common: Option<Globals>,
    /// Of the iterator over queues.
    pub queues: Option<Globals>,
    /// Of the tracepoint at drops.
    pub drops: Option<Globals>,
    /// Of the exit of accept.
    pub accept: Option<Globals>,
}

/// The names of the drop reasons that are counted, by the kernel's number.
pub type ReasonNames = BTreeMap<u32, String>;

impl Needs {
    /// Finds it all in the kernel's types.
    pub fn of(types: &Types) -> Self {
        let find = |list: &[(&'static str, &str, &[&str])]| {
            let one =
                |(global, structure, members): &(&'static str, &str, &[&str])| Some((*global, types.offset_within(structure, members)?));
            list.iter().map(one).collect::<Option<Globals>>()
        };
        let common = find(&[
            ("OFFSET_TCP_ESTABLISHED_AT", "tcp_sock", &["rcvq_space", "time"]),
            ("OFFSET_TCP_ROUND_TRIP", "tcp_sock", &["srtt_us"]),
            ("OFFSET_TCP_RETRANSMITTED", "tcp_sock", &["total_retrans"]),
        ]);
        let queues = find(&[
            ("OFFSET_SK_PROTOCOL", "sock", &["sk_protocol"]),
            ("OFFSET_SK_DROPS", "sock", &["sk_drops"]),
            ("OFFSET_SK_ACCEPT_LENGTH", "sock", &["sk_ack_backlog"]),
            ("OFFSET_SK_ACCEPT_LIMIT", "sock", &["sk_max_ack_backlog"]),
            ("OFFSET_SYN_LENGTH", "inet_connection_sock", &["icsk_accept_queue", "qlen"]),
            ("OFFSET_ACCEPT_HEAD", "inet_connection_sock", &["icsk_accept_queue", "rskq_accept_head"]),
            ("OFFSET_REQUEST_SK", "request_sock", &["sk"]),
            ("OFFSET_SK_RECEIVED", "sock", &["sk_backlog", "rmem_alloc"]),
            ("OFFSET_SK_RECEIVE_BUFFER", "sock", &["sk_rcvbuf"]),
            ("OFFSET_UDP_FORWARD_DEFICIT", "udp_sock", &["forward_deficit"]),
        ])
        .map(|mut globals| {
            // Linux 6.18 and later keep the drops of UDP sockets in two numbers of their own.
            let counters = types.offset("sock", "sk_drop_counters");
            let second = types.offset("numa_drop_counters", "drops1");
            let (counters, second) = counters.zip(second).unwrap_or((ABSENT, 0));
            globals.extend([("OFFSET_SK_DROP_COUNTERS", counters), ("OFFSET_DROPS_OF_OTHER_NODES", second)]);
            globals
        });
        let arguments = types.arguments_of_tracepoint("kfree_skb").unwrap_or(0);
        let namespace = std::fs::metadata("/proc/thread-self/ns/net").ok().and_then(|found| u32::try_from(found.ino()).ok());
        // Before Linux 5.17 the kernel gives no reason.
        let drops = namespace.filter(|_| arguments >= 3).and_then(|namespace| {
            let mut globals = find(&[
                ("OFFSET_SKB_HEAD", "sk_buff", &["head"]),
                ("OFFSET_SKB_NETWORK", "sk_buff", &["network_header"]),
                ("OFFSET_SKB_INTERFACE", "sk_buff", &["skb_iif"]),
                ("OFFSET_SKB_DEVICE", "sk_buff", &["dev"]),
                ("OFFSET_DEVICE_NAMESPACE", "net_device", &["nd_net"]),
                ("OFFSET_NAMESPACE_INODE", "net", &["ns", "inum"]),
            ])?;
            globals.extend([("NAMESPACE", namespace), ("DROPS_HAVE_SOCKET", u32::from(arguments >= 4))]);
            Some(globals)
        });
        let accept = types.arguments_of_function("inet_csk_accept").filter(|count| matches!(count, 2 | 4));
        Self { common, queues, drops, accept: accept.map(|count| vec![("ACCEPT_ARGUMENTS", count)]) }
    }

    /// All globals that are known.
    pub fn globals(&self) -> Globals {
        let absent = || vec![("OFFSET_TCP_ROUND_TRIP", ABSENT)];
        let common = self.common.clone().unwrap_or_else(absent);
        [&self.queues, &self.drops, &self.accept].into_iter().flatten().flatten().copied().chain(common).collect()
    }

    /// Whether drops come with the socket that they were for.
    pub fn drops_have_socket(&self) -> bool {
        self.drops.iter().flatten().any(|global| *global == ("DROPS_HAVE_SOCKET", 1))
    }
}

/// The reasons that say that a packet was dropped and why.
///
/// Left out is what says neither (the kernel gives back what it has used up under these names too), and what XDP drops: Weir's program
/// counts its own.
pub(super) fn reason_names(types: &Types) -> ReasonNames {
    const NO_DROPS: [&str; 5] = ["NOT_SPECIFIED", "NOT_DROPPED_YET", "XDP", "MAX", "SUBSYS_MASK"];
    let reasons = types.enumeration("skb_drop_reason").unwrap_or_default();
    let named = reasons.into_iter().filter_map(|(name, number)| Some((number, name.strip_prefix("SKB_DROP_REASON_")?.to_owned())));
    named
        .filter(|(number, name)| *number < DROP_REASONS && !NO_DROPS.contains(&name.as_str()))
        .map(|(number, name)| (number, name.to_ascii_lowercase()))
        .collect()
}

/// The maps of what is watched.
pub struct WatchMaps {
    watched: SkStorage<MapData, u32>,
    /// The same map: for the iterator, which wants its descriptor.
    watched_data: MapData,
    backend_times: Array<MapData, Plain<BackendTimes>>,
    service_times: Array<MapData, Plain<ServiceTimes>>,
    drop_reasons: Array<MapData, u32>,
    kernel_drops: PerCpuHashMap<MapData, Plain<DropKey>, u64>,
    drops_folded: PerCpuArray<MapData, u64>,
}

/// The kernel's drops: rows, and how many packets found the table of rows full.
pub type KernelDrops = (Vec<(DropKey, u64)>, u64);

impl WatchMaps {
    /// Opens the pinned maps; `at` says where a map of a name is.
    pub(super) fn pinned<'a>(at: impl Fn(&'static str) -> At<'a>) -> Result<Self, Error> {
        Ok(Self {
            watched: open(at("WATCHED"))?,
            watched_data: open_data(at("WATCHED"))?,
            backend_times: open(at("BACKEND_TIMES"))?,
            service_times: open(at("SERVICE_TIMES"))?,
            drop_reasons: open(at("DROP_REASONS"))?,
            kernel_drops: open(at("KERNEL_DROPS"))?,
            drops_folded: open(at("DROPS_FOLDED"))?,
        })
    }

    /// Lets the iterator visit a socket for as long as it lives.
    pub fn watch(&mut self, socket: impl AsFd) -> Result<(), Error> {
        self.watched.insert(&socket.as_fd(), 1, 0).map_err(Error::map("WATCHED"))
    }

    /// How long the connections of a slot waited to be accepted.
    pub fn backend_times(&self, slot: u32) -> Result<BackendTimes, Error> {
        self.backend_times.get(&slot, 0).map(|Plain(times)| times).map_err(Error::map("BACKEND_TIMES"))
    }

    /// Lets the times of a slot begin anew, for a backend of this service.
    pub(super) fn clear_backend(&mut self, slot: u32, service: u32) -> Result<(), Error> {
        let times = BackendTimes { service, ..BackendTimes::default() };
        self.backend_times.set(slot, Plain(times), 0).map_err(Error::map("BACKEND_TIMES"))
    }

    /// How long the handshakes of a service took.
    pub fn service_times(&self, service: u32) -> Result<ServiceTimes, Error> {
        self.service_times.get(&service, 0).map(|Plain(times)| times).map_err(Error::map("SERVICE_TIMES"))
    }

    /// Lets the times and drops of a service begin anew.
    pub(super) fn clear_service(&mut self, service: u32) -> Result<(), Error> {
        self.service_times.set(service, Plain(ServiceTimes::default()), 0).map_err(Error::map("SERVICE_TIMES"))?;
        let keys: Vec<DropKey> = self.kernel_drops.keys().filter_map(|key| Some(key.ok()?.0)).collect();
        for key in keys.into_iter().filter(|key| key.service == service) {
            self.forget_drops(&key)?;
        }
        Ok(())
    }

    /// Removes a row of the kernel's drops.
    pub fn forget_drops(&mut self, key: &DropKey) -> Result<(), Error> {
        found(self.kernel_drops.remove(&Plain(*key))).map(drop).map_err(Error::map("KERNEL_DROPS"))
    }

    /// Says which of the kernel's reasons are counted.
    pub(super) fn set_reasons(&mut self, names: &ReasonNames) -> Result<(), Error> {
        (0..DROP_REASONS)
            .try_for_each(|reason| self.drop_reasons.set(reason, u32::from(names.contains_key(&reason)), 0))
            .map_err(Error::map("DROP_REASONS"))
    }

    /// The kernel's drops. This walks the table: some system calls for each row.
    pub fn kernel_drops(&self) -> Result<KernelDrops, Error> {
        let mut rows = Vec::new();
        for row in &self.kernel_drops {
            let (Plain(key), counts) = row.map_err(Error::map("KERNEL_DROPS"))?;
            rows.push((key, counts.iter().sum()));
        }
        let folded = self.drops_folded.get(&0, 0).map_err(Error::map("DROPS_FOLDED"))?.iter().sum();
        Ok((rows, folded))
    }
}

/// The kernel's names for the reasons of drops, by number; none where it does not show its types.
#[must_use]
pub fn drop_reason_names() -> ReasonNames {
    Types::of_kernel().map(|types| reason_names(&types)).unwrap_or_default()
}

impl Dataplane {
    /// What waits at the sockets that are watched, by cookie. None where the kernel does not take the iterator.
    pub fn queues(&self) -> Option<Result<HashMap<u64, SocketQueues>, Error>> {
        let program = self.programs.socket_queues.as_ref()?;
        let read = || {
            let mut bytes = Vec::new();
            sys::iterate_storage(program, self.maps.watch.watched_data.fd())?.read_to_end(&mut bytes)?;
            // While sockets come and go one may be visited twice.
            let records = bytes.chunks_exact(size_of::<SocketQueues>()).filter_map(|chunk| SocketQueues::read_from_bytes(chunk).ok());
            Ok(records.map(|record| (record.cookie, record)).collect())
        };
        Some(read().map_err(Error::call("read the queues of sockets")))
    }

    /// Whether the kernel takes the iterator over queues.
    #[must_use]
    pub fn has_queues(&self) -> bool {
        self.programs.socket_queues.is_some()
    }

    /// Attaches the programs that count drops and times, those that the kernel takes and that are wanted, in place of those that are
    /// pinned. What cannot be attached is noted as lacking.
    pub fn attach_watchers(&mut self, kernel_drops: bool) -> Result<(), Error> {
        let counting = self.programs.kernel_drop.as_ref().filter(|_| kernel_drops);
        self.watching.kernel_drops = self.attach_tracing("kernel_drop", counting)?;
        match self.attach_tracing("accepted", self.programs.accepted.as_ref()) {
            Ok(attached) => self.watching.accepts = attached,
            // Some kernels take the program and refuse the trampoline that it needs.
            Err(error) => {
                self.watching.accepts = false;
                super::load::lack(&mut self.lacking, &error, ACCEPTS_UNSEEN);
            }
        }
        Ok(())
    }

    /// Attaches a program in place of the one that is pinned, or leaves none. Answers whether there is one now.
    fn attach_tracing(&self, name: &str, program: Option<&OwnedFd>) -> Result<bool, Error> {
        let link = program.map(|program| sys::link_tracepoint(program).map_err(Error::call(format!("attach the program `{name}`"))));
        let path = self.pins.link(name);
        let pin_error = |source| Error::Pins { path: path.clone(), source };
        if path.exists() {
            std::fs::remove_file(&path).map_err(pin_error)?;
        }
        let Some(link) = link.transpose()? else { return Ok(false) };
        sys::pin(&link, &path).map_err(pin_error)?;
        Ok(true)
    }
}

/// What is lost without the program at the exit of accept.
pub(super) const ACCEPTS_UNSEEN: &str = "accept latency is estimated from what waits, not measured";
/// What is lost without the iterator over queues.
pub(super) const QUEUES_UNSEEN: &str = "of the listeners' queues only the accept queues are known";
/// What is lost without the tracepoint at drops.
pub(super) const DROPS_UNSEEN: &str = "the kernel's own drops are not counted";

/// Which of the watching programs are attached.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four programs or parts of them, each there or not")]
pub struct Watching {
    /// That which counts the kernel's drops.
    pub kernel_drops: bool,
    /// Whether it knows which socket a packet was for.
    pub drops_by_backend: bool,
    /// That at the exit of accept.
    pub accepts: bool,
    /// Whether handshakes are timed.
    pub handshakes: bool,
}
