//! A flood by itself, for a person who tries something out: `kernel --role flood ORDER`, which `cargo xtask flood` runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::path::{neighbour, refuse_all_but_veth};
use super::{Flood, FloodKind, FloodPlan};
use crate::support::netns::Entrance;

/// The role's name.
pub const NAME: &str = "flood";

/// What is wanted, as JSON.
#[derive(Debug, Deserialize)]
struct Order {
    netns: String,
    device: String,
    target: SocketAddr,
    kind: FloodKind,
    packets: u64,
    seconds: u64,
    rate: Option<u64>,
}

/// Floods as ordered, and says what was sent.
pub fn play(order: &str) -> ExitCode {
    let result = serde_json::from_str(order).map_err(|error| format!("no order for a flood: {error}")).and_then(|order| flood(&order));
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("flood: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn flood(order: &Order) -> Result<String, String> {
    let Order { netns, device, target, kind, packets, seconds, rate } = order;
    let entrance = Entrance::named(netns).map_err(|error| format!("no network namespace {netns}: {error}"))?;
    refuse_all_but_veth(&entrance, device)?;
    // The packets below are made, not routed: whether they have a way is asked of the namespace, and the MAC, too.
    let route = entrance.ip(&format!("route get {}", target.ip()));
    if !route.contains(&format!(" dev {device} ")) {
        return Err(format!("{} is not reached by {device}: {}", target.ip(), route.trim()));
    }
    let hop = route.split_whitespace().skip_while(|word| *word != "via").nth(1).and_then(|via| via.parse().ok()).unwrap_or(target.ip());
    let mac = ask_for(&entrance, device, hop).ok_or_else(|| format!("nobody answers for {hop} on {device}"))?;
    let plan = FloodPlan::new(*kind, *target, mac).packets(*packets).lasting(Duration::from_secs(*seconds));
    let plan = FloodPlan { rate: *rate, ..plan };
    let report = Flood::start(&entrance, device, &plan).finish();
    Ok(format!("sent {} packets in {:.2} s: {:.0} a second", report.sent, report.elapsed.as_secs_f64(), report.rate()))
}

/// The MAC for an address, after a datagram has made the kernel ask for it.
fn ask_for(entrance: &Entrance, device: &str, hop: IpAddr) -> Option<[u8; 6]> {
    const DISCARD: u16 = 9;
    let any: IpAddr = if hop.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // That nobody listens there is no matter.
    let _ = entrance.run(|| UdpSocket::bind((any, 0))?.send_to(b"", (hop, DISCARD)));
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let found = neighbour(entrance, device, hop);
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
