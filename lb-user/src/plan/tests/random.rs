//! Random lives of a daemon, carried out on a model of the kernel's maps.

use std::collections::{BTreeMap, HashMap};

use lb_common::abi::{
    BackendState, GroupKey, GroupRecord, NO_SLOT, PortBitmap, ServiceKey, ServiceRecord, TABLE_HEADER, service_flags, state_flags,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{super::registry::Key, *};
use crate::listeners::group as listener_group;

const CONFIG: &str = "
    limits = { services = 3, backends = 7, backends_per_service = 3 }
    discovery = { tcp = true, udp = true }
    [[service]]
    name = 'web'
    protocol = 'tcp'
    port = 80
    address = '0.0.0.0'
    weights = [2, 1, 0]";

const PLACES: [&str; 7] =
    ["tcp 0.0.0.0 80", "tcp 10.0.0.1 80", "tcp :: 80", "tcp :: 80 v6only", "tcp 0.0.0.0 81", "udp 0.0.0.0 80", "tcp 10.0.0.1 80 %2"];

#[derive(Debug, Clone, Copy)]
enum Step {
    Join(&'static str),
    /// The socket closes. Which one: counted round among all.
    Leave(usize),
    Drain(usize),
    Unserved(usize),
    Foreign(usize),
    /// A listener without SO_REUSEPORT, which it may get later.
    JoinAlone(&'static str),
    Reuseport(usize),
    Hide(usize),
    Release,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => select(PLACES.to_vec()).prop_map(Step::Join),
        6 => any::<usize>().prop_map(Step::Leave),
        2 => any::<usize>().prop_map(Step::Drain),
        2 => any::<usize>().prop_map(Step::Unserved),
        1 => any::<usize>().prop_map(Step::Foreign),
        2 => select(PLACES.to_vec()).prop_map(Step::JoinAlone),
        2 => any::<usize>().prop_map(Step::Reuseport),
        1 => any::<usize>().prop_map(Step::Hide),
        4 => Just(Step::Release),
        1 => Just(Step::Restart),
    ]
}

/// What the kernel's maps hold.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    sockets: BTreeMap<u32, u64>,
    states: BTreeMap<u32, BackendState>,
    tables: BTreeMap<u32, Vec<u32>>,
    groups: HashMap<GroupKey, GroupRecord>,
    services: HashMap<ServiceKey, ServiceRecord>,
    ports: Option<Box<PortBitmap>>,
}

impl Kernel {
    /// As the daemon does, in the order of the fields. What points to something finds it at every moment.
    fn carry_out(&mut self, changes: &Changes, plan: &Plan, previous: &Plan) {
        for (slot, state) in &changes.states {
            self.states.insert(*slot, *state);
        }
        for fill in &changes.fill {
            let other_slot = self.sockets.iter().find(|(slot, cookie)| **cookie == fill.cookie && **slot != fill.slot);
            assert_eq!(other_slot, None, "EBUSY: a socket sits in one slot");
            let before = self.sockets.insert(fill.slot, fill.cookie);
            assert!(before.is_none_or(|cookie| cookie == fill.cookie), "slot {} was not empty", fill.slot);
            assert_eq!(self.states[&fill.slot].generation, fill.generation);
        }
        for (service, table) in &changes.tables {
            assert!(table[TABLE_HEADER as usize..].iter().all(|slot| *slot == NO_SLOT || self.sockets.contains_key(slot)));
            self.tables.insert(*service, table.clone());
        }
        for (group, record) in &changes.groups {
            assert!(self.tables.contains_key(&record.service));
            self.groups.insert(*group, *record);
        }
        for attach in &changes.attach {
            assert!(attach.sockets.iter().any(|(cookie, ..)| self.sockets.values().any(|there| there == cookie)));
        }
        self.services.extend(changes.services.iter().copied());
        if let Some(ports) = &changes.ports {
            self.ports = Some(ports.clone());
        }
        let ports = self.ports.as_ref();
        for key in self.services.keys().filter(|key| !changes.services_removed.contains(key)) {
            assert!(ports.is_some_and(|ports| ports.has(key.protocol, key.port)));
        }
        for key in &changes.services_removed {
            assert!(self.services.remove(key).is_some());
        }
        for group in &changes.groups_removed {
            assert!(self.groups.remove(group).is_some());
            assert!(changes.detach.iter().any(|detach| detach.group == *group));
        }
        for service in &changes.tables_removed {
            assert!(self.tables.remove(service).is_some());
        }
        for (slot, cookie) in &changes.slots_left {
            assert!(!self.tables.values().any(|table| table[1..].contains(slot)), "a table still names slot {slot}");
            assert!(self.sockets.remove(slot).is_none_or(|there| there == *cookie));
        }
        self.matches(plan, previous);
    }

    /// The maps are as if the plan had been carried out on empty ones.
    fn matches(&self, plan: &Plan, previous: &Plan) {
        let fresh = changes(&Plan::default(), plan);
        assert_eq!(self.tables, fresh.tables.into_iter().collect());
        assert_eq!(self.groups, fresh.groups.into_iter().collect());
        assert_eq!(self.services, fresh.services.into_iter().collect());
        assert_eq!(self.sockets, fresh.fill.iter().map(|fill| (fill.slot, fill.cookie)).collect());
        assert!(fresh.states.iter().all(|(slot, state)| self.states[slot] == *state));
        assert!(fresh.ports.is_none() || fresh.ports == self.ports);
        assert!(changes(plan, plan).is_empty());
        assert_eq!(changes(previous, plan).is_empty(), changes(plan, previous).is_empty());
    }
}

/// What must hold of a plan, whatever was before.
fn sound(world: &World, tables: &mut Tables) {
    let limits = &world.config.limits;
    let plan = &world.plan;
    let quarantined: BTreeSet<u32> = world.registry.quarantined().collect();
    let (mut slots, mut cookies, mut entries, mut indexes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut listeners = BTreeSet::new();
    assert!(plan.services.len() <= limits.services as usize);
    assert!(plan.services.iter().any(|service| service.name == "web"));
    for service in &plan.services {
        assert!((1..=limits.services).contains(&service.index) && indexes.insert(service.index));
        assert!(service.backends.len() <= limits.backends_per_service as usize);
        assert_eq!(service.balanced, service.listeners.is_empty(), "{service:?}");
        assert_eq!(service.balanced, service.flags & service_flags::UNBALANCED == 0);
        assert!(service.balanced || service.backends.is_empty() && service.protocol == Protocol::Tcp);
        for listener in &service.listeners {
            assert!(listeners.insert(listener.cookie));
        }
        let mut workers = BTreeSet::new();
        for backend in &service.backends {
            assert!(backend.slot < limits.backends && slots.insert(backend.slot) && cookies.insert(backend.cookie));
            assert!(!quarantined.contains(&backend.slot), "slot {} is in quarantine", backend.slot);
            assert!(backend.index < limits.backends_per_service && workers.insert(backend.index));
        }
        for entry in &service.entries {
            assert!(entries.insert((service.protocol, service.port, *entry)), "two services have {entry:?}");
        }
        let open = |slot: &u32| {
            service.backends.iter().any(|backend| backend.slot == *slot && backend.state == State::Ready && backend.weight > 0)
        };
        let nobody = !service.backends.iter().any(|backend| open(&backend.slot));
        assert!(tables.table(service)[TABLE_HEADER as usize..].iter().all(|slot| if nobody { *slot == NO_SLOT } else { open(slot) }));
        assert!(!nobody || service.backends.is_empty() || !service.notes.is_empty());
    }
    let is_everybody_in = plan.notes.is_empty();
    for member in &world.members {
        let Listener { protocol, address, port, cookie, .. } = member.listener;
        if protocol == Protocol::Udp && !member.reuseport {
            continue;
        }
        let is_entered = listeners.contains(&cookie) || plan.services.iter().any(|service| Key::from(service) == key(member));
        assert!(is_entered || !is_everybody_in || protocol == Protocol::Udp, "{member:?} is not defended\n{}", world.show());
        assert!(!listeners.contains(&cookie) || !cookies.contains(&cookie));
        let said = plan.services.iter().any(|service| (service.protocol, service.port) == (protocol, port) && !service.notes.is_empty())
            || plan.others.iter().any(|other| (other.protocol, other.address, other.port) == (protocol, address, port));
        assert!(cookies.contains(&cookie) || said, "nothing is said of {member:?}\n{}", world.show());
    }
}

/// What a service of this member is told from others by.
fn key(member: &Member) -> Key {
    Key::from(&listener_group::GroupKey::from(&member.listener))
}

/// What must hold between a plan and the next.
fn steady(before: &Plan, world: &World, generations: &mut HashMap<u32, u32>, was_quarantined: &BTreeSet<u32>) {
    let known: HashMap<u64, (&Service, &Backend)> = before
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |backend| (backend.cookie, (service, backend))))
        .collect();
    let used: BTreeSet<u32> = known.values().map(|(_, backend)| backend.slot).collect();
    for service in &world.plan.services {
        for backend in &service.backends {
            if let Some((old_service, old)) = known.get(&backend.cookie) {
                assert_eq!((old.index, old.slot, old.generation), (backend.index, backend.slot, backend.generation));
                assert_eq!(old_service.index, service.index);
                continue;
            }
            assert!(!used.contains(&backend.slot), "slot {} is used again in one step", backend.slot);
            assert!(!was_quarantined.contains(&backend.slot), "slot {} is used again in quarantine", backend.slot);
            let last = generations.insert(backend.slot, backend.generation);
            assert!(last.is_none_or(|last| last < backend.generation));
        }
        let old = before.services.iter().find(|old| old.name == service.name);
        assert!(old.is_none_or(|old| old.index == service.index && old.table_size <= service.table_size));
    }
}

fn nth(world: &mut World, number: usize) -> Option<&mut Member> {
    let count = world.members.len();
    world.members.get_mut(number.checked_rem(count)?)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_life_of_a_daemon_is_sound(steps in vec(vec(step(), 1..4), 1..30)) {
        let mut world = World::new(CONFIG);
        let mut kernel = Kernel::default();
        let mut generations = HashMap::new();
        let mut tables = Tables::default();
        let mut next_cookie = 1;
        for event in steps {
            let mut has_restarted = false;
            for step in event {
                match step {
                    Step::Join(place) => {
                        world.members.extend(group(place, [next_cookie]));
                        next_cookie += 1;
                    }
                    Step::Leave(number) => {
                        if let Some(cookie) = nth(&mut world, number).map(|member| member.listener.cookie) {
                            world.members.retain(|member| member.listener.cookie != cookie);
                            kernel.sockets.retain(|_, there| *there != cookie);
                        }
                    }
                    Step::Drain(number) => {
                        if let Some(cookie) = nth(&mut world, number).map(|member| member.listener.cookie) && !world.drains.remove(&cookie) {
                            world.drains.insert(cookie);
                        }
                    }
                    Step::Unserved(number) => if let Some(member) = nth(&mut world, number) { member.unserved ^= true },
                    Step::Foreign(number) => if let Some(member) = nth(&mut world, number) { member.foreign_program ^= true },
                    Step::JoinAlone(place) => {
                        world.members.extend(alone(place, next_cookie, "solo"));
                        next_cookie += 1;
                    }
                    Step::Reuseport(number) => if let Some(member) = nth(&mut world, number) { member.reuseport ^= true },
                    Step::Hide(number) => if let Some(member) = nth(&mut world, number) { member.holders.clear() },
                    // A daemon that has just started has carried out no plan, and so releases nothing.
                    Step::Release if has_restarted => {}
                    Step::Release => world.release(),
                    Step::Restart => {
                        has_restarted = true;
                        let slots: Vec<(u32, u64)> = kernel.sockets.iter().map(|(slot, cookie)| (*slot, *cookie)).collect();
                        let known: Vec<(u32, u32)> = kernel.states.iter().map(|(slot, state)| (*slot, state.generation)).collect();
                        world.registry = Registry::adopt(&world.plan, &slots, &known);
                    }
                }
            }
            let (before, quarantined) = (world.plan.clone(), world.registry.quarantined().collect());
            let changes = world.step();
            sound(&world, &mut tables);
            steady(&before, &world, &mut generations, &quarantined);
            kernel.carry_out(&changes, &world.plan, &before);
            for (slot, state) in &kernel.states {
                prop_assert!(state.flags & !state_flags::CLOSED_TO_NEW == 0 && *slot < world.config.limits.backends);
            }
            // Where all services together are at a limit, who waits for a place may only find out in the next plan that one is free.
            let settled = world.plan.clone();
            let again = world.step();
            sound(&world, &mut tables);
            kernel.carry_out(&again, &world.plan, &settled);
            if settled.notes.is_empty() {
                prop_assert_eq!(&world.plan, &settled, "to plan again changes nothing");
            }
        }
    }
}
