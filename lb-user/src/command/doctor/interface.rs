//! What one network device allows.

use std::path::Path;

use super::{Check, State, defence};
use crate::{
    dataplane::probe::{Loaded, instance_of, program},
    exit::Exit,
    network::{
        Attached, AttachedMode, Interface, Network,
        card::{Card, Offload},
        other_end_runs_program,
    },
};

/// A driver without support for fragments takes at most a page for headroom (256), frame and bookkeeping (320): 4096 less these and an
/// Ethernet header with one VLAN tag.
const MOST_IN_A_PAGE: u32 = 4096 - 256 - 320 - 18;

pub(super) fn checks(name: &str, network: &Network, pin_root: &Path) -> Vec<Check> {
    let Some(interface) = network.interface_by_name(name) else {
        let known: Vec<&str> = network.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let check = Check::ok(name, "no such device in this network namespace", "There is nothing to attach to.");
        return vec![check.stops(Exit::Interface, format!("choose one of: {}", known.join(", ")))];
    };
    let card = Card::read(interface);
    let mut checks = vec![link(interface)];
    match &card {
        Ok(card) => {
            checks.push(mode(interface, card, network));
            checks.extend(frames(interface, card));
            checks.extend(card.lro.map(|lro| joined(name, lro)));
            checks.extend(sends_back(interface, card));
        }
        Err(error) => checks.push(
            Check::ok(format!("{name}: xdp"), error.to_string(), "What the card can do is found out at start.")
                .with_remedy(State::Unknown, "nothing has to be done"),
        ),
    }
    let described = interface.xdp.map(|xdp| (xdp, program(xdp.program_id), instance_of(xdp.program_id, pin_root)));
    checks.push(occupant(name, described));
    checks
}

fn link(interface: &Interface) -> Check {
    let name = format!("{}: link", interface.name);
    if interface.up {
        return Check::ok(name, "up", "Packets come in.");
    }
    Check::ok(name, "down", "No packet comes in.").with_remedy(State::Limited, format!("ip link set {} up", interface.name))
}

fn mode(interface: &Interface, card: &Card, network: &Network) -> Check {
    let name = format!("{}: xdp", interface.name);
    let driver = card.driver.as_deref().or(interface.kind.as_deref()).unwrap_or(if interface.loopback { "loopback" } else { "no driver" });
    let slow = "The program sees a packet only after the kernel has made a socket buffer of it: everything works, floods cost more.";
    match card.xdp {
        None => Check::ok(name, format!("{driver}; this kernel does not say"), "Native mode is tried at start, then generic mode.")
            .with_remedy(State::Unknown, "nothing has to be done; Linux 6.3 and later say it beforehand"),
        Some(xdp) if xdp.native && card.host_offloads_fixed => {
            Check::ok(name, format!("generic mode only ({driver}: the host joins packets and cannot be told not to)"), slow).with_remedy(
                State::Limited,
                "have the hypervisor offer this card with guest_csum, guest_tso4, guest_tso6, guest_ecn and guest_ufo off, or with ctrl_guest_offloads",
            )
        }
        Some(xdp) if xdp.native => {
            Check::ok(name, format!("native mode ({driver})"), "The program runs in the driver, before anything else is done for a packet.")
        }
        Some(_) => {
            let is_below = |other: &&Interface| interface.link == Some(other.index) || other.master == Some(interface.index);
            let below: Vec<String> = network.interfaces.iter().filter(is_below).map(|below| format!("--iface {}", below.name)).collect();
            let remedy = match below.as_slice() {
                [] if interface.loopback => "nothing has to be done".to_owned(),
                [] => "use a card whose driver has native XDP".to_owned(),
                below => format!("attach below it: {}", below.join(" ")),
            };
            Check::ok(name, format!("generic mode only ({driver})"), slow).with_remedy(State::Limited, remedy)
        }
    }
}

/// What the SYN defence needs of a driver, where it matters: in native mode.
fn sends_back(interface: &Interface, card: &Card) -> Vec<Check> {
    if !card.xdp.is_some_and(|xdp| xdp.native) {
        return Vec::new();
    }
    let is_veth = interface.kind.as_deref() == Some("veth");
    let other_end = is_veth.then(|| defence::other_end(&interface.name, other_end_runs_program(interface.index).ok()));
    // A veth has room for it.
    other_end.into_iter().chain((!is_veth).then(|| defence::metadata(&interface.name))).collect()
}

/// Large frames, where they matter: in native mode.
fn frames(interface: &Interface, card: &Card) -> Option<Check> {
    let xdp = card.xdp.filter(|xdp| xdp.native)?;
    let name = format!("{}: mtu", interface.name);
    if xdp.fragments || interface.mtu <= MOST_IN_A_PAGE {
        return Some(Check::ok(name, interface.mtu.to_string(), "Every frame fits what the driver hands to a program."));
    }
    let effect = "The driver cannot hand frames of several pages to a program, and may refuse native mode.";
    let remedy = format!("ip link set {} mtu {MOST_IN_A_PAGE}, or run with --mode generic", interface.name);
    Some(Check::ok(name, interface.mtu.to_string(), effect).with_remedy(State::Limited, remedy))
}

fn joined(interface: &str, lro: Offload) -> Check {
    let name = format!("{interface}: lro");
    match lro {
        Offload { on: false, .. } => Check::ok(name, "off", "Packets are counted as they came."),
        Offload { on: true, changeable } => {
            let effect =
                "The card joins packets before the program sees them: they are counted as one, and the driver may refuse native mode.";
            let remedy = if changeable {
                format!("ethtool -K {interface} lro off")
            } else {
                "run with --mode generic if native mode is refused: this driver does not let it be turned off".to_owned()
            };
            Check::ok(name, "on", effect).with_remedy(State::Limited, remedy)
        }
    }
}

/// The program that is attached, what is known of it, and the instance of Weir that it belongs to.
fn occupant(interface: &str, attached: Option<(Attached, Option<Loaded>, Option<String>)>) -> Check {
    let name = format!("{interface}: other xdp programs");
    let Some((xdp, loaded, instance)) = attached else {
        return Check::ok(name, "none", "The place is free.");
    };
    let called = loaded.map(|loaded| loaded.name).filter(|name| !name.is_empty()).unwrap_or_else(|| "without a name".to_owned());
    let id = xdp.program_id;
    if let Some(instance) = instance {
        return Check::ok(
            name,
            format!("none but Weir's own, {called} (id {id}) of instance {instance}"),
            "That instance serves this device.",
        );
    }
    let option = match xdp.mode {
        AttachedMode::Native => "xdpdrv",
        AttachedMode::Generic => "xdpgeneric",
        AttachedMode::Offload => "xdpoffload",
    };
    let effect = "A device has one place for a program, and Weir does not push another out.";
    Check::ok(name, format!("{called} (id {id})"), effect).stops(
        Exit::Interface,
        format!(
            "end what attached it; if nothing owns it any more: ip link set dev {interface} {option} off, or `bpftool link` and a detach"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::card::XdpSupport;

    fn device(name: &str) -> Interface {
        Interface {
            index: 2,
            name: name.to_owned(),
            mac: Some(2),
            master: None,
            link: None,
            kind: None,
            up: true,
            loopback: false,
            mtu: 1500,
            parent: None,
            xdp: None,
        }
    }

    fn card(native: bool, fragments: bool) -> Card {
        Card { xdp: Some(XdpSupport { native, fragments }), ..Card::default() }
    }

    #[test]
    fn the_mode_is_what_the_driver_says_unless_the_host_stands_in_the_way() {
        let network = Network { interfaces: vec![device("eth0")], ..Network::default() };
        let state = |card: &Card| mode(&device("eth0"), card, &network).state;
        assert_eq!(state(&card(true, true)), State::Ok);
        assert_eq!(state(&card(false, false)), State::Limited);
        assert_eq!(state(&Card { host_offloads_fixed: true, ..card(true, true) }), State::Limited);
        assert_eq!(state(&Card::default()), State::Unknown, "before Linux 6.3");
    }

    #[test]
    fn a_vlan_and_a_bridge_are_better_served_by_the_devices_below() {
        let vlan = Interface { index: 5, link: Some(2), ..device("eth0.7") };
        let bridge = Interface { index: 6, ..device("br0") };
        let port = |index, name| Interface { index, master: Some(6), ..device(name) };
        let interfaces = vec![device("eth0"), vlan.clone(), bridge.clone(), port(7, "p0"), port(8, "p1")];
        let network = Network { interfaces, ..Network::default() };
        let remedy = |interface| mode(interface, &card(false, false), &network).remedy.unwrap();
        assert_eq!(remedy(&vlan), "attach below it: --iface eth0");
        assert_eq!(remedy(&bridge), "attach below it: --iface p0 --iface p1");
        assert_eq!(remedy(&device("eth0")), "use a card whose driver has native XDP");
    }

    #[test]
    fn large_frames_matter_to_a_driver_without_fragments() {
        let state = |mtu, card: &Card| frames(&Interface { mtu, ..device("eth0") }, card).map(|check| check.state);
        assert_eq!(state(1500, &card(true, false)), Some(State::Ok));
        assert_eq!(state(9000, &card(true, false)), Some(State::Limited));
        assert_eq!(state(9000, &card(true, true)), Some(State::Ok));
        assert_eq!(state(9000, &card(false, false)), None, "generic mode takes any");
    }

    #[test]
    fn joined_packets_are_a_limit_with_the_command_against_it() {
        let check = |on, changeable| joined("eth0", Offload { on, changeable });
        assert_eq!(check(false, true).state, State::Ok);
        assert_eq!(check(true, true).remedy.as_deref(), Some("ethtool -K eth0 lro off"));
        assert_eq!(check(true, false).state, State::Limited);
    }

    #[test]
    fn a_foreign_program_is_named_and_stops_weir_and_our_own_does_not() {
        let attached = Attached { program_id: 7, mode: AttachedMode::Generic };
        let loaded = Some(Loaded { id: 7, name: "xdp_dispatcher".to_owned(), at: None });
        assert_eq!(occupant("eth0", None).state, State::Ok);
        assert_eq!(occupant("eth0", Some((attached, loaded.clone(), Some("blue".to_owned())))).state, State::Ok);
        let foreign = occupant("eth0", Some((attached, loaded, None)));
        assert_eq!((foreign.found.as_str(), foreign.exit), ("xdp_dispatcher (id 7)", Some(Exit::Interface)));
        assert!(foreign.remedy.unwrap().contains("ip link set dev eth0 xdpgeneric off"));
    }
}
