//! The daemon's part of the SYN defence: it tells the programs how each service is defended, keeps their record of its life and the keys
//! fresh, and watches what they alone cannot see.
//!
//! The defence itself is the programs': a flood is noticed, answered and over without the daemon. What the daemon does here may come late
//! by a second; without it for ten, XDP answers nothing any more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::{
    Address,
    abi::{DefencePolicy, LiveState, policy_flags},
    flood::Mode,
};

use super::{
    Daemon,
    host::{Cookies, HostFacts},
    story::{Look, Story},
};
use crate::{
    api::protocol::Order,
    config::Protocol,
    dataplane::{Error, monotonic_time, random_key},
    defence::{self, Facts, Keys},
    network,
    plan::Service,
};

/// How often the SYN queues are watched: one small file of the kernel's is read.
const WATCH: Duration = Duration::from_millis(250);
/// How often the record is renewed and floods are looked at; the programs take it for good ten times as long.
const RENEW: Duration = Duration::from_secs(1);
/// How often the host is asked again what may have changed unnoticed: its packet filter, its settings.
const CHECK: Duration = Duration::from_secs(60);
/// How long after the last flood `net.ipv4.tcp_syncookies` is what it was before: as long as the kernel may honour its cookies.
const SYSCTL_LINGERS: Duration = Duration::from_secs(120);

/// What the daemon knows of the defence.
pub(super) struct Guard {
    /// What the host allows and is like.
    pub host: HostFacts,
    /// The record that was written last.
    pub live: LiveState,
    /// What was told to the programs, by the service's index.
    pub policies: BTreeMap<u32, DefencePolicy>,
    /// What goes on at each service whose defence is not calm.
    pub stories: BTreeMap<u32, Story>,
    /// Until when a service's SYN queue counts as full.
    full: BTreeMap<u32, u64>,
    /// When services that were defended were ordered off.
    left: BTreeMap<u32, u64>,
    prefixes: BTreeMap<(u32, Address, u32), u32>,
    addresses: Vec<Address>,
    syns: BTreeMap<u32, u64>,
    next_watch: Instant,
    next_renewal: Instant,
    next_check: Instant,
    last_flood: Option<Instant>,
}

impl Guard {
    /// What is known before anything was looked at; the record is that of the daemon before, with its keys, and so are the policies.
    pub fn new(live: LiveState, policies: BTreeMap<u32, DefencePolicy>) -> Self {
        let now = Instant::now();
        Self {
            host: HostFacts::default(),
            live,
            policies,
            stories: BTreeMap::new(),
            full: BTreeMap::new(),
            left: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            addresses: Vec::new(),
            syns: BTreeMap::new(),
            next_watch: now,
            next_renewal: now,
            next_check: now,
            last_flood: None,
        }
    }

    /// When there is something to do again, if nothing happens.
    pub fn next(&self) -> Instant {
        self.next_watch.min(self.next_renewal)
    }

    /// Has the host asked again at the next look.
    pub fn check_soon(&mut self) {
        self.next_check = Instant::now();
        self.next_renewal = self.next_check;
    }

    /// Forgets what went on at a service that has left its index.
    fn forget(&mut self, index: u32) {
        self.policies.remove(&index);
        self.stories.remove(&index);
        self.full.remove(&index);
        self.left.remove(&index);
        self.syns.remove(&index);
    }
}

impl Daemon {
    /// Does what is due by the clock for the defence.
    pub(super) fn guard(&mut self) {
        let now = Instant::now();
        if now >= self.guard.next_check {
            self.guard.next_check = now + CHECK;
            self.guard.host = HostFacts::of(&self.dataplane, &self.network, &self.attached, &self.config.defence);
            self.defend();
        }
        if now >= self.guard.next_watch {
            self.guard.next_watch = now + WATCH;
            self.watch_queues();
        }
        if now >= self.guard.next_renewal {
            self.guard.next_renewal = now + RENEW;
            self.look_at_floods();
        }
    }

    /// Looks at all floods, tells what has changed, and renews the record.
    pub(super) fn look_at_floods(&mut self) {
        if let Err(error) = self.try_look_at_floods() {
            tracing::error!("{:#}; without its record XDP stops answering SYNs within 10 s", anyhow::Error::from(error));
        }
    }

    fn try_look_at_floods(&mut self) -> Result<(), Error> {
        let now = monotonic_time();
        let mut is_stale = false;
        let mut looks = Vec::new();
        for (position, service) in self.plan.services.iter().enumerate().filter(|(_, service)| service.protocol == Protocol::Tcp) {
            let Some(policy) = self.guard.policies.get(&service.index).copied().filter(DefencePolicy::is_defended) else { continue };
            let state = self.dataplane.maps.defence.flood(service.index)?;
            let mode = policy.mode(&state, now);
            if mode == Mode::Calm {
                if state.entered != 0 {
                    self.dataplane.maps.defence.clear_flood(service.index)?;
                }
                is_stale |= self.guard.full.remove(&service.index).is_some() | self.guard.left.remove(&service.index).is_some();
            }
            let totals = self.dataplane.maps.service_totals(service.index)?;
            let cookies = self.cookies(service);
            // The first client has come, or the host was asked anew.
            let told = policy.flags & (policy_flags::UNSAFE | policy_flags::KERNEL_SCHEME);
            is_stale |= match cookies {
                Cookies::Any => told == policy_flags::KERNEL_SCHEME,
                Cookies::Kernels => told != policy_flags::KERNEL_SCHEME,
                Cookies::None(_) => told & policy_flags::UNSAFE == 0,
            };
            looks.push((position, Look { now, policy, mode, totals, cookies, answers_syns: policy.answers_syns(&state, now) }));
        }
        // Told after the record is renewed: what is done about a flood may depend on a sysctl that is set with it.
        self.renew(now, looks.iter().any(|(_, look)| look.mode == Mode::Flood))?;
        for (position, look) in looks {
            Story::go_on(&mut self.guard.stories, &self.plan.services[position], &look, &self.guard.live, &self.guard.host);
        }
        if is_stale {
            self.defend();
        }
        Ok(())
    }

    /// Writes the record anew, with a new key if one is due.
    fn renew(&mut self, now: u64, flood: bool) -> Result<(), Error> {
        let keys = Keys::new(self.config.defence.key_lifetime);
        let mut live = defence::live_limits(self.guard.live, &self.config.defence, self.guard.host.cpus);
        live.renewed_at = now;
        live.scheme = self.guard.host.scheme as u32;
        live.flags = self.guard.host.willing;
        live.namespace = self.guard.host.namespace;
        self.manage_sysctl(&mut live, flood);
        if keys.is_due(&live, now) {
            for step in keys.rotated(&live, now, random_key()?) {
                self.dataplane.maps.defence.set_live(step)?;
                live = step;
            }
        } else {
            self.dataplane.maps.defence.set_live(live)?;
        }
        self.guard.live = live;
        Ok(())
    }

    /// The kernel takes its own cookies only from a listener whose queue overflowed, or always if net.ipv4.tcp_syncookies is 2: so for the
    /// time of a flood it is.
    fn manage_sysctl(&mut self, live: &mut LiveState, flood: bool) {
        const NAME: &str = "net.ipv4.tcp_syncookies";
        let now = Instant::now();
        if flood {
            self.guard.last_flood = Some(now);
        }
        let wanted = self.guard.host.uses_kernels() && self.config.defence.manage_sysctl;
        let lingers = self.guard.last_flood.is_some_and(|last| now < last + SYSCTL_LINGERS);
        if wanted && flood && live.syncookies_before == 0 && self.guard.host.syncookies == 1 {
            match network::set_sysctl(NAME, "2") {
                Ok(()) => {
                    live.syncookies_before = 2;
                    tracing::info!(
                        "{NAME} is 2 instead of 1 for the time of the flood, so that the kernel honours the cookies made in XDP"
                    );
                }
                Err(error) => tracing::warn!("cannot set {NAME}: {error}; the kernel honours cookies only while its SYN queue is full"),
            }
        } else if live.syncookies_before != 0 && !lingers && !flood {
            restore_syncookies(live);
        }
    }

    /// Takes a full SYN queue for a flood: of the services that get the most SYNs, since the kernel does not say whose queue it is.
    fn watch_queues(&mut self) {
        let overflows = network::syn_queue_overflows();
        let before = std::mem::replace(&mut self.guard.host.overflows, overflows);
        // Under 2 every SYN counts as one.
        let is_news = before.zip(overflows).is_some_and(|(before, now)| now > before) && self.guard.live.syncookies_before == 0;
        if !is_news || self.guard.host.syncookies == 2 {
            return;
        }
        let defended =
            self.plan.services.iter().filter(|service| self.guard.policies.get(&service.index).is_some_and(DefencePolicy::is_defended));
        let mut arrived: Vec<(u32, u64)> = Vec::new();
        for service in defended {
            let Ok(totals) = self.dataplane.maps.service_totals(service.index) else { return };
            let syns = totals.syns();
            let last = self.guard.syns.insert(service.index, syns).unwrap_or(0);
            arrived.push((service.index, syns.saturating_sub(last)));
        }
        let most = arrived.iter().map(|(_, syns)| *syns).max().unwrap_or(0);
        let until = monotonic_time().saturating_add(u64::try_from(self.config.defence.minimum_time.as_nanos()).unwrap_or(u64::MAX / 4));
        let mut changed = false;
        for (index, _) in arrived.into_iter().filter(|(_, syns)| most > 0 && *syns * 10 >= most) {
            self.guard.full.insert(index, until);
            changed = true;
        }
        if changed {
            self.defend();
            self.look_at_floods();
        }
    }

    /// Tells the programs how the services of the plan are defended.
    pub(super) fn defend(&mut self) {
        if let Err(error) = self.try_defend() {
            tracing::error!("{:#}; the defence of some services is what it was before", anyhow::Error::from(error));
        }
    }

    fn try_defend(&mut self) -> Result<(), Error> {
        if !self.guard.host.is_known() {
            // What a daemon before this one has told the programs is better than what can be told now.
            return Ok(());
        }
        let keys = Keys::new(self.config.defence.key_lifetime);
        let buffers = self.survey.receive_buffers();
        let mut wanted = BTreeMap::new();
        for service in &self.plan.services {
            let window = self.guard.host.window(defence::receive_buffer(service, &buffers));
            let facts = self.facts(service, window);
            wanted.insert(service.index, defence::policy(service, &self.config.defence, &keys, &facts));
        }
        for index in defence::left_over(&self.guard.policies, &wanted) {
            self.dismiss(index)?;
        }
        // The lists before the policies that say there are some.
        let prefixes = defence::prefixes(&self.plan);
        if prefixes != self.guard.prefixes {
            self.dataplane.maps.defence.set_prefixes(&prefixes)?;
            self.guard.prefixes = prefixes;
        }
        let addresses = defence::addresses_of(self.network.addresses.iter().map(|(address, _)| *address));
        if addresses != self.guard.addresses {
            self.dataplane.maps.defence.set_addresses(&addresses)?;
            self.guard.addresses = addresses;
        }
        for (index, policy) in wanted {
            if self.guard.policies.get(&index) != Some(&policy) {
                self.dataplane.maps.defence.set_policy(index, policy)?;
                self.guard.policies.insert(index, policy);
            }
        }
        Ok(())
    }

    /// Takes back what the programs were told of an index, and what they have noted there: its service is gone, or another has it now.
    pub(super) fn dismiss(&mut self, index: u32) -> Result<(), Error> {
        self.dataplane.maps.defence.set_policy(index, DefencePolicy::default())?;
        self.dataplane.maps.defence.clear_flood(index)?;
        self.guard.forget(index);
        Ok(())
    }

    /// Which cookies may be sent to the service's clients.
    fn cookies(&self, service: &Service) -> Cookies {
        self.guard.host.cookies(service, self.arrives(service))
    }

    /// Whether SYNs from outside have reached a worker of the service. A listener that the host's rules keep everything from is the
    /// service of somebody else, as the one of Docker's proxy is.
    fn arrives(&self, service: &Service) -> bool {
        let selected =
            |slot: u32| self.dataplane.maps.backend_totals(slot).is_ok_and(|totals| totals.selected.iter().any(|count| *count > 0));
        service.backends.iter().any(|backend| selected(backend.slot))
    }

    fn facts(&self, service: &Service, window: Option<(u32, u8)>) -> Facts {
        let order = self.overrides.get(&service.name).copied().unwrap_or(Order::Auto);
        let left = self.guard.left.get(&service.index).copied();
        let cookies = self.cookies(service);
        Facts {
            cpus: self.guard.host.cpus,
            window: window.unwrap_or_default(),
            order,
            // A window of 0 would stop the client.
            is_unsafe: window.is_none() || matches!(cookies, Cookies::None(_)),
            kernels_only: cookies == Cookies::Kernels,
            full_until: self.guard.full.get(&service.index).copied().or(left).unwrap_or(0),
            is_leaving: left.is_some(),
        }
    }

    /// Carries out an order about a service's defence. One that was on leaves in peace: cookies that are on their way are honoured.
    pub(super) fn carry_out_order(&mut self, index: u32, order: Order) {
        let now = monotonic_time();
        let was_on = self.guard.stories.get(&index).is_some_and(|story| story.mode != Mode::Calm);
        match order {
            Order::Off if was_on => drop(self.guard.left.insert(index, now)),
            Order::Auto if was_on => drop(self.guard.full.entry(index).or_insert(now)),
            Order::Auto | Order::On | Order::Off => drop(self.guard.left.remove(&index)),
        }
        self.defend();
        self.look_at_floods();
    }
}

/// Sets net.ipv4.tcp_syncookies to what it was before the daemon changed it.
pub(super) fn restore_syncookies(live: &mut LiveState) {
    const NAME: &str = "net.ipv4.tcp_syncookies";
    let Some(before) = live.syncookies_before.checked_sub(1) else { return };
    match network::set_sysctl(NAME, &before.to_string()) {
        Ok(()) => {
            live.syncookies_before = 0;
            tracing::info!("{NAME} is {before} again");
        }
        Err(error) => tracing::warn!("cannot set {NAME} to {before}, which it was before: {error}"),
    }
}

/// Sets what a daemon that is gone has changed in this network namespace to what it was before.
pub fn restore_settings(mut live: LiveState) {
    if live.syncookies_before == 0 {
        return;
    }
    if live.namespace != super::host::namespace() {
        let before = live.syncookies_before - 1;
        tracing::warn!("net.ipv4.tcp_syncookies of the network namespace with inode {} was {before} before weir set 2", live.namespace);
        return;
    }
    restore_syncookies(&mut live);
}
