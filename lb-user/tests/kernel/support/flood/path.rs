//! The way a flood takes: from a veth device of the client's to the server's, and the server's answers back.

use std::net::IpAddr;

use crate::support::netns::{Entrance, Pair};

/// Readies a pair for a flood and returns the MAC of the server's device.
///
/// Frames of XDP reach a veth's peer only while that polls, which it does with GRO on (or with an XDP program attached). The server
/// answers every source by way of the client, and neither end has to ask for the other's MAC in the midst of a flood.
pub fn ready(pair: &Pair) -> [u8; 6] {
    let ends = [
        (&pair.server, Pair::SERVER_DEVICE, [&pair.client_v4, &pair.client_v6], mac_of(&pair.client, Pair::CLIENT_DEVICE)),
        (&pair.client, Pair::CLIENT_DEVICE, [&pair.server_v4, &pair.server_v6], mac_of(&pair.server, Pair::SERVER_DEVICE)),
    ];
    for (namespace, device, others, mac) in ends {
        namespace.tool("ethtool", &["-K", device, "gro", "on"]);
        for other in others.into_iter().flatten() {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            namespace.ip(&format!("neighbour replace {other} lladdr {mac} dev {device} nud permanent"));
        }
    }
    for gateway in [pair.client_v4[0], pair.client_v6[0]] {
        let family = if gateway.is_ipv4() { "-4" } else { "-6" };
        pair.server.ip(&format!("{family} route replace default via {gateway} dev {}", Pair::SERVER_DEVICE));
    }
    mac_of(&pair.server, Pair::SERVER_DEVICE)
}

/// The MAC of a device.
pub fn mac_of(entrance: &Entrance, device: &str) -> [u8; 6] {
    let told = link(entrance, device).unwrap_or_else(|problem| panic!("{problem}"));
    parse_mac(told["address"].as_str().unwrap_or_default()).unwrap_or_else(|| panic!("{device} has no MAC: {told}"))
}

/// The MAC to which a namespace sends packets for an address, when it knows it.
pub(super) fn neighbour(entrance: &Entrance, device: &str, address: IpAddr) -> Option<[u8; 6]> {
    let told = entrance.ip(&format!("neighbour show {address} dev {device}"));
    parse_mac(told.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)?)
}

/// Says why a flood may not go out by a device: it is none, or it is not a veth, behind which another namespace is.
pub fn refuse_all_but_veth(entrance: &Entrance, device: &str) -> Result<(), String> {
    let told = link(entrance, device)?;
    match told["linkinfo"]["info_kind"].as_str() {
        Some("veth") => Ok(()),
        other => Err(format!("{device} is no veth but {}: a flood goes to a namespace only", other.unwrap_or("a device of this host"))),
    }
}

fn link(entrance: &Entrance, device: &str) -> Result<serde_json::Value, String> {
    let output = entrance.command("ip").args(["-json", "-details", "link", "show", "dev", device]).output();
    let output = output.map_err(|error| format!("start ip: {error}"))?;
    if !output.status.success() {
        return Err(format!("no device {device} in the namespace: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("what ip says is no JSON: {error}"))?;
    Ok(told[0].clone())
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
