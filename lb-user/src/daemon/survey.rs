//! Which listeners there are and what is known of each: asked of the kernel and of the helper, remembered by cookie.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    dataplane::Dataplane,
    listeners::{
        Holder, Listener, Protocol,
        diag::{self, Diag},
        group::{GroupKey, groups},
        helper::{CallError, Helper},
        serving::{Server, Serving, Sighting, Watch},
        socket,
    },
    plan::{Member, Process},
};

/// How many descriptors of others are held at once while they are asked questions: each keeps its socket alive for as long.
const HELD_AT_ONCE: usize = 32;

/// The listeners of the network namespace.
pub struct Survey {
    diag: Diag,
    helper: Helper,
    known: HashMap<u64, Known>,
    listeners: Vec<Listener>,
    start: Instant,
    /// When a doubtful socket becomes unserved, if nothing changes.
    doubtful_until: Option<Duration>,
    /// Whether it has been said that the helper is gone.
    helper_missed: bool,
}

/// What is known of a socket beyond what the kernel lists.
#[derive(Default)]
struct Known {
    holders: Vec<Holder>,
    /// Whether it has SO_REUSEPORT; none if nobody could be asked yet.
    reuseport: Option<bool>,
    foreign_program: bool,
    servers: Vec<Process>,
    unserved: bool,
    /// Whether it was ever looked at who serves it.
    looked_at: bool,
    watch: Watch,
}

impl Survey {
    /// A survey of the calling thread's network namespace that knows nothing yet.
    pub fn new(helper: Helper) -> Result<Self, diag::Error> {
        let diag = Diag::open()?;
        Ok(Self {
            diag,
            helper,
            known: HashMap::new(),
            listeners: Vec::new(),
            start: Instant::now(),
            doubtful_until: None,
            helper_missed: false,
        })
    }

    /// The helper.
    pub fn helper(&self) -> &Helper {
        &self.helper
    }

    /// When to look again at who serves what, if sooner than by the regular look.
    pub fn look_again_in(&self) -> Option<Duration> {
        self.doubtful_until.map(|until| until.saturating_sub(self.start.elapsed()))
    }

    /// Whether the configuration asks for UDP sockets at all.
    pub fn wants_udp(config: &Config) -> bool {
        config.discovery.udp || config.services.iter().any(|service| service.protocol == Protocol::Udp)
    }

    /// Lists the listeners anew, and finds out what a plan needs of those that are new; `pids` are the processes that are said to have
    /// made them. Who serves them is left to [`Survey::look_at_new`]: that takes as long as the host has epoll instances. Answers whether
    /// any came or went, or is still to be found out about.
    pub fn list(&mut self, config: &Config, dataplane: &Dataplane, pids: &BTreeSet<u32>) -> Result<bool, diag::Error> {
        let mut listeners = self.dump(config)?;
        let listed: HashSet<u64> = listeners.iter().map(|one| one.cookie).collect();
        if self.known.keys().any(|cookie| !listed.contains(cookie)) {
            // The kernel lists in pieces, and goes on in a bucket of its table by number: while other sockets begin and end there it
            // passes over some that live. A second list misses others, if any; a socket that has ended in between is announced.
            let first = std::mem::replace(&mut listeners, self.dump(config)?);
            listeners.extend(first);
        }
        let mut present = HashSet::new();
        // For the same reason one may be listed twice.
        listeners.retain(|one| present.insert(one.cookie));
        let before = self.known.len();
        self.known.retain(|cookie, _| present.contains(cookie));
        let gone = self.known.len() < before;
        let new: Vec<Listener> =
            listeners.iter().filter(|one| self.known.get(&one.cookie).is_none_or(|known| known.reuseport.is_none())).copied().collect();
        self.listeners = listeners;
        if !new.is_empty() {
            self.find_holders(&new, pids);
            self.ask(&new, dataplane);
            self.guess(&new);
        }
        Ok(gone || !new.is_empty())
    }

    /// Looks at who serves the sockets that are new, first of all in the processes that made them. Answers whether anything is otherwise
    /// than was guessed.
    pub fn look_at_new(&mut self, pids: &BTreeSet<u32>) -> bool {
        let is_new = |one: &&Listener| self.known.get(&one.cookie).is_some_and(|known| known.reuseport == Some(true) && !known.looked_at);
        let new: Vec<Listener> = self.listeners.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return false;
        }
        self.look_for_changes(&new, pids)
    }

    /// The sockets as the kernel lists them: TCP listeners, and UDP sockets if they are wanted.
    fn dump(&mut self, config: &Config) -> Result<Vec<Listener>, diag::Error> {
        let mut listeners = self.diag.listeners(Protocol::Tcp)?;
        if Self::wants_udp(config) {
            let ports: BTreeSet<u16> = config.services.iter().map(|service| service.port).collect();
            let sockets = self.diag.listeners(Protocol::Udp)?;
            // A client's socket is bound as well: without discovery only the ports that a service names matter.
            listeners.extend(sockets.into_iter().filter(|one| config.discovery.udp || ports.contains(&one.port)));
        }
        Ok(listeners)
    }

    /// Forgets a socket that is said to have stopped listening. Answers whether it was known.
    pub fn forget(&mut self, cookie: u64) -> bool {
        self.listeners.retain(|one| one.cookie != cookie);
        self.known.remove(&cookie).is_some()
    }

    /// Looks again at everything that may have changed unnoticed: holders, servers, and whose program a group has.
    pub fn look_at_all(&mut self, dataplane: &Dataplane) {
        let all = self.listeners.clone();
        self.find_holders(&all, &BTreeSet::new());
        let by_group = groups(&all, &HashMap::<u32, Vec<Holder>>::new());
        let one_of_each: Vec<Listener> = by_group.into_values().filter_map(|members| members.first().copied()).collect();
        let foreign = self.ask(&one_of_each, dataplane);
        for listener in &all {
            if let (Some(known), Some(foreign)) = (self.known.get_mut(&listener.cookie), foreign.get(&GroupKey::from(listener))) {
                known.foreign_program = *foreign;
            }
        }
        self.look(&all, &BTreeSet::new());
    }

    /// Looks again at who serves the sockets of groups. Answers whether anything is otherwise than it was.
    pub fn look_at_servers(&mut self) -> bool {
        let listeners: Vec<Listener> = self.listeners.iter().filter(|one| self.is_reuseport(one.cookie)).copied().collect();
        self.look_for_changes(&listeners, &BTreeSet::new())
    }

    fn look_for_changes(&mut self, listeners: &[Listener], pids: &BTreeSet<u32>) -> bool {
        let before: Vec<_> = self.known.iter().map(|(cookie, known)| (*cookie, known.unserved, known.servers.clone())).collect();
        self.look(listeners, pids);
        before.into_iter().any(|(cookie, unserved, servers)| {
            self.known.get(&cookie).is_none_or(|known| known.unserved != unserved || known.servers != servers)
        })
    }

    /// Takes the only process that holds a socket for its server until it is looked at.
    fn guess(&mut self, listeners: &[Listener]) {
        for listener in listeners {
            let Some(known) = self.known.get_mut(&listener.cookie) else { continue };
            if let Some(first) = known.holders.first()
                && known.holders.iter().all(|holder| holder.pid == first.pid)
            {
                known.servers = vec![process(first.pid, &known.holders)];
            }
        }
    }

    /// The listeners as the plan wants them.
    pub fn members(&self) -> Vec<Member> {
        self.listeners
            .iter()
            .map(|listener| {
                let known = self.known.get(&listener.cookie);
                Member {
                    listener: *listener,
                    reuseport: known.and_then(|known| known.reuseport).unwrap_or(false),
                    holders: known.map(|known| known.holders.clone()).unwrap_or_default(),
                    servers: known.map(|known| known.servers.clone()).unwrap_or_default(),
                    unserved: known.is_some_and(|known| known.unserved),
                    foreign_program: known.is_some_and(|known| known.foreign_program),
                }
            })
            .collect()
    }

    /// The accept queues, fresh from the kernel, by cookie.
    pub fn queues(&mut self) -> HashMap<u64, (u32, u32)> {
        let listeners = self.diag.listeners(Protocol::Tcp).unwrap_or_default();
        listeners.into_iter().filter_map(|one| one.queue.map(|queue| (one.cookie, (queue.length, queue.limit)))).collect()
    }

    /// The receive buffers of TCP listeners, by cookie.
    pub fn receive_buffers(&self) -> HashMap<u64, u32> {
        self.listeners.iter().filter_map(|one| Some((one.cookie, one.receive_buffer?))).collect()
    }

    /// Takes a descriptor of a socket from one of its holders. It is held only for the system calls that use it.
    pub fn take(&self, inode: u32, cookie: u64, holders: &[Holder]) -> Option<OwnedFd> {
        holders.iter().find_map(|holder| {
            let fd = self.helper.take(inode, holder.pid, holder.fd).ok()?;
            // An inode's number comes around again; a cookie does not.
            (socket::cookie(&fd).ok()? == cookie).then_some(fd)
        })
    }

    /// Takes a descriptor of a socket from one of the holders that are known.
    pub fn take_known(&self, inode: u32, cookie: u64) -> Option<OwnedFd> {
        self.take(inode, cookie, &self.known.get(&cookie)?.holders)
    }

    fn is_reuseport(&self, cookie: u64) -> bool {
        self.known.get(&cookie).is_some_and(|known| known.reuseport == Some(true))
    }

    /// Who holds these sockets: first among the processes that are said to, then among all.
    fn find_holders(&mut self, listeners: &[Listener], pids: &BTreeSet<u32>) {
        let mut missing: Vec<u32> = listeners.iter().map(|one| one.inode).collect();
        let mut found = HashMap::new();
        let pids: Vec<u32> = pids.iter().copied().collect();
        for pids in if pids.is_empty() { vec![&[][..]] } else { vec![&pids[..], &[]] } {
            if missing.is_empty() {
                break;
            }
            match self.helper.holders(&missing, pids) {
                Ok(answer) => found.extend(answer.found),
                Err(error) => self.complain("who holds the listeners", &error),
            }
            missing.retain(|inode| !found.contains_key(inode));
        }
        for listener in listeners {
            let known = self.known.entry(listener.cookie).or_default();
            if let Some(holders) = found.remove(&listener.inode) {
                known.holders = holders;
            }
        }
    }

    /// Asks the sockets themselves: SO_REUSEPORT, and whether another program steers the group. Answers with the latter by group.
    fn ask(&mut self, listeners: &[Listener], dataplane: &Dataplane) -> HashMap<GroupKey, bool> {
        let mut steered = HashMap::new();
        for chunk in listeners.chunks(HELD_AT_ONCE) {
            let mut held: Vec<(Listener, OwnedFd)> = Vec::new();
            for listener in chunk {
                let Some(known) = self.known.get(&listener.cookie) else { continue };
                let Some(fd) = self.take(listener.inode, listener.cookie, &known.holders) else { continue };
                let is_reuseport = socket::is_reuseport(&fd).ok();
                if let Some(known) = self.known.get_mut(&listener.cookie) {
                    known.reuseport = is_reuseport;
                }
                if is_reuseport == Some(true) {
                    held.push((*listener, fd));
                }
            }
            if held.is_empty() {
                continue;
            }
            let foreign = dataplane.steered_by_another().unwrap_or_else(|error| {
                tracing::warn!("{:#}", anyhow::Error::from(error));
                HashMap::new()
            });
            for (listener, _fd) in held {
                let foreign = foreign.get(&listener.cookie).copied().unwrap_or(false);
                steered.insert(GroupKey::from(&listener), foreign);
                if let Some(known) = self.known.get_mut(&listener.cookie) {
                    known.foreign_program = foreign;
                }
            }
        }
        steered
    }

    /// Looks at who serves these sockets, by their processes' epoll instances: those of `pids`, or of all processes if there are none.
    fn look(&mut self, listeners: &[Listener], pids: &BTreeSet<u32>) {
        let served: Vec<Listener> = listeners.iter().filter(|one| self.is_reuseport(one.cookie)).copied().collect();
        if served.is_empty() {
            self.doubtful_until = None;
            return;
        }
        if let Err(error) = self.sight(&served, pids) {
            self.complain("who serves the listeners", &error);
        }
    }

    /// Logs what the helper could not tell; that there is no helper any more is said once.
    fn complain(&mut self, what: &str, error: &CallError) {
        if self.helper.is_alive() {
            tracing::warn!("cannot find out {what}: {error}");
        } else if !std::mem::replace(&mut self.helper_missed, true) {
            tracing::error!("the privileged helper has ended: no new listener can join until the daemon is started anew; the rest goes on");
        }
    }

    fn sight(&mut self, listeners: &[Listener], pids: &BTreeSet<u32>) -> Result<(), CallError> {
        let pollers = self.pollers(listeners, pids)?;
        let none = Vec::new();
        let of = |inode: u32| pollers.get(&inode).unwrap_or(&none);
        let suspects: BTreeSet<u32> = listeners
            .iter()
            .filter(|one| of(one.inode).is_empty())
            .flat_map(|one| self.known.get(&one.cookie).into_iter().flat_map(|known| known.holders.iter().map(|holder| holder.pid)))
            .collect();
        let suspects: Vec<u32> = suspects.into_iter().collect();
        let waits = if suspects.is_empty() { HashMap::new() } else { self.helper.waits(&suspects)?.found };
        let other_means: Vec<u32> = waits.iter().filter(|(_, waits)| waits.may_serve()).map(|(pid, _)| *pid).collect();
        let mut group_pollers: HashMap<GroupKey, Vec<u32>> = HashMap::new();
        for listener in listeners {
            group_pollers.entry(GroupKey::from(listener)).or_default().extend(of(listener.inode));
        }
        let now = self.start.elapsed();
        self.doubtful_until = None;
        for listener in listeners {
            let Some(known) = self.known.get_mut(&listener.cookie) else { continue };
            known.looked_at = true;
            let holders: Vec<u32> = known.holders.iter().map(|holder| holder.pid).collect();
            let sighting = Sighting {
                holders: &holders,
                pollers: of(listener.inode),
                group_pollers: group_pollers.get(&GroupKey::from(listener)).unwrap_or(&none),
                other_means: &other_means,
                last_accepting: None,
            };
            let (server, serving) = known.watch.observe(&sighting, now);
            known.unserved = matches!(serving, Serving::Unserved { .. });
            if let Serving::Doubtful { until } = serving {
                self.doubtful_until = Some(self.doubtful_until.map_or(until, |earlier| earlier.min(until)));
            }
            known.servers = match server {
                Server::Known(pid) | Server::Shared { lowest: pid, .. } => vec![process(pid, &known.holders)],
                // A socket that only one process holds has no other server.
                Server::Unknown if known.holders.iter().all(|holder| holder.pid == known.holders[0].pid) => {
                    known.holders.first().map(|holder| process(holder.pid, &known.holders)).into_iter().collect()
                }
                Server::Unknown | Server::Nobody => Vec::new(),
            };
        }
        Ok(())
    }

    /// The processes that poll these sockets: the servers known are asked about first, which is cheap, and all others only about the rest.
    /// Where the processes are given, only those: a listener that has just begun is to be in its table before every descriptor of the
    /// machine has been looked at. If its server is another one, the regular look finds it before the second that it has is over.
    fn pollers(&self, listeners: &[Listener], pids: &BTreeSet<u32>) -> Result<HashMap<u32, Vec<u32>>, CallError> {
        let pairs: Vec<(u32, u32)> = listeners
            .iter()
            .flat_map(|one| {
                self.known.get(&one.cookie).into_iter().flat_map(|known| known.servers.iter().map(|server| (one.inode, server.pid)))
            })
            .collect();
        let mut pollers = if pairs.is_empty() { HashMap::new() } else { self.helper.still_polled(&pairs)?.found };
        let rest: Vec<u32> = listeners.iter().map(|one| one.inode).filter(|inode| !pollers.contains_key(inode)).collect();
        if !rest.is_empty() {
            let pids: Vec<u32> = pids.iter().copied().collect();
            pollers.extend(self.helper.pollers(&rest, &pids)?.found);
        }
        Ok(pollers)
    }
}

fn process(pid: u32, holders: &[Holder]) -> Process {
    let command = holders.iter().find(|holder| holder.pid == pid).map(|holder| holder.command.clone()).unwrap_or_default();
    Process { pid, command }
}
