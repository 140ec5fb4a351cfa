//! The picture of a network namespace, against devices that `ip` makes.

use std::net::IpAddr;
use std::time::Duration;

use lb_user::network::{Network, connect, watch};
use libtest_mimic::Trial;

use crate::support::netns::Namespace;
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("network::devices_and_addresses_are_read", devices_and_addresses_are_read),
        trial("network::changes_are_reported", changes_are_reported),
        trial("network::an_unchecked_address_is_left_out_until_it_is_usable", an_unchecked_address_is_left_out_until_it_is_usable),
    ]
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs `work` on a runtime of one thread, inside the namespace.
fn inside<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    })
}

fn read(namespace: &Namespace) -> Network {
    inside(namespace, async || Network::read(&connect().expect("connect")).await.expect("read"))
}

fn devices_and_addresses_are_read() {
    let host = Namespace::new("network");
    host.ip("link add port type veth peer name far");
    host.ip("link add br0 address 02:00:00:00:00:b0 type bridge");
    host.ip("link set port address 02:00:00:00:00:a0 master br0 mtu 1400 up");
    host.ip("link set br0 up");
    host.ip("link add down0 type veth peer name down1");
    host.ip("address add 192.0.2.1/24 dev br0");
    host.ip("address add 198.51.100.1 peer 198.51.100.2 dev far");
    host.ip("address add 203.0.113.1/24 dev down0");
    host.ip("address add 2001:db8::1/64 dev br0 nodad");
    host.ip("address add fe80::b0/64 dev br0 nodad");
    host.ip("address add fe80::fa/64 dev far nodad");
    host.ip("link set far up");

    let network = read(&host);
    let [port, bridge, far] = ["port", "br0", "far"].map(|name| network.interface_by_name(name).expect("listed"));
    assert_eq!((port.mac, port.master, port.link), (Some(0x0200_0000_00a0), Some(bridge.index), None));
    assert_eq!((port.kind.as_deref(), port.up, port.mtu, port.loopback), (Some("veth"), true, 1400, false));
    assert_eq!((bridge.kind.as_deref(), bridge.master), (Some("bridge"), None));
    let lo = network.interface_by_name("lo").expect("listed");
    assert_eq!((lo.index, lo.loopback, lo.up, lo.mac, lo.kind.as_deref()), (1, true, true, Some(0), None));
    assert!(!network.interface_by_name("down0").expect("listed").up);
    assert_eq!(network.macs_on(port.index), [0x0200_0000_00a0, 0x0200_0000_00b0]);

    assert!(network.addresses.contains(&(ip("203.0.113.1"), network.interface_by_name("down0").expect("listed").index)));
    let by_port = network.local_addresses(port.index);
    for own in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "fe80::b0"] {
        assert!(by_port.contains(&ip(own)), "{own} in {by_port:?}");
    }
    for other in ["198.51.100.2", "127.0.0.1", "::1", "fe80::fa"] {
        assert!(!by_port.contains(&ip(other)), "{other} in {by_port:?}");
    }
    assert!(network.local_addresses(far.index).contains(&ip("fe80::fa")));
    assert!(network.local_addresses(lo.index).contains(&ip("127.0.0.1")));
    // What the kernel says of the two that may surprise.
    assert!(host.ip("route get 203.0.113.1").starts_with("local"), "down0 is down, its address is local all the same");
    assert!(!host.ip("route get 198.51.100.2").starts_with("local"), "the other end is not local");
}

fn changes_are_reported() {
    let host = Namespace::new("watch");
    host.ip("link add v0 type veth peer name v1");
    inside(&host, async || {
        let mut watch = watch::watch().expect("watch");
        let handle = connect().expect("connect");
        let quiet = Duration::from_millis(200);
        assert!(tokio::time::timeout(quiet, watch.changed()).await.is_err(), "nothing has changed yet");

        for change in ["link set v0 up", "address add 192.0.2.1/24 dev v0", "address add 2001:db8::1/64 dev v0 nodad", "link delete v0"] {
            host.ip(change);
            tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect(change).expect("receive");
            // Addresses that the kernel makes by itself come a little later.
            while tokio::time::timeout(quiet, watch.changed()).await.is_ok() {}
        }
        let network = Network::read(&handle).await.expect("read");
        assert_eq!(network.interfaces.len(), 1, "only lo is left");

        // Far more changes than the socket holds: the loss itself is a change, and the watch goes on.
        host.ip("link add v0 type veth peer name v1");
        for number in 0..40 {
            let batch = (0..250).map(|last| format!("address add 10.{number}.1.{last}/32 dev v0")).collect::<Vec<_>>().join("\n");
            let file = std::env::temp_dir().join(format!("weir-network-{}", std::process::id()));
            std::fs::write(&file, batch).expect("write");
            host.tool("ip", &["-batch", file.to_str().expect("a path")]);
            std::fs::remove_file(&file).expect("remove");
        }
        let mut reported = 0;
        while let Ok(changed) = tokio::time::timeout(quiet, watch.changed()).await {
            changed.expect("receive");
            reported += 1;
        }
        assert!((1..=12).contains(&reported), "10,000 changes were reported as {reported}");
        assert_eq!(Network::read(&handle).await.expect("read").addresses.len(), 10_002, "with 127.0.0.1 and ::1");
        host.ip("link set v0 up");
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect("reported").expect("receive");
    });
}

fn an_unchecked_address_is_left_out_until_it_is_usable() {
    let host = Namespace::new("dad");
    host.ip("link add v0 type veth peer name v1");
    host.ip("link set v0 up");
    host.ip("link set v1 up");
    inside(&host, async || {
        let mut watch = watch::watch().expect("watch");
        let handle = connect().expect("connect");
        let address = ip("2001:db8::1");
        let listed = async || Network::read(&handle).await.expect("read").addresses.iter().any(|(own, _)| *own == address);
        host.ip("address add 2001:db8::1/64 dev v0");
        assert!(!listed().await, "duplicate address detection takes a second");
        let usable = async {
            while !listed().await {
                watch.changed().await.expect("receive");
            }
        };
        tokio::time::timeout(Duration::from_secs(5), usable).await.expect("usable in the end");
    });
}
