//! The kernel's own counters of a namespace.

use std::collections::BTreeMap;

use super::netns::Entrance;

/// What /proc/net says of a namespace at one moment: `Tcp.InSegs`, `TcpExt.SyncookiesSent`, `Udp6InCsumErrors`.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them.
    pub fn of(entrance: &Entrance) -> Self {
        // /proc/net would be that of the process's first thread, which is outside.
        let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        let [snmp, netstat, snmp6] = entrance.run(|| ["snmp", "netstat", "snmp6"].map(read));
        let mut counters = BTreeMap::new();
        for text in [snmp, netstat] {
            let lines: Vec<_> = text.lines().collect();
            // Two lines for each protocol: the names, then the values, both behind the protocol's name.
            for pair in lines.chunks_exact(2) {
                let protocol = pair[0].split(':').next().unwrap_or_default();
                let named = pair[0].split_whitespace().zip(pair[1].split_whitespace()).skip(1);
                counters.extend(named.filter_map(|(name, value)| Some((format!("{protocol}.{name}"), value.parse().ok()?))));
            }
        }
        let plain = snmp6.lines().filter_map(|line| line.split_once(char::is_whitespace));
        counters.extend(plain.filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?))));
        Self(counters)
    }

    /// One counter; 0 for one that the kernel does not have.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How far a counter has moved since an earlier moment.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.get(name).saturating_sub(before.get(name))
    }
}

/// Packets that a device has received and sent, and those that came and found no room.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
    pub dropped: u64,
}

impl Traffic {
    /// Reads the counters of a device.
    pub fn of(entrance: &Entrance, device: &str) -> Self {
        let text = entrance.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("read the devices' counters");
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
        let fields: Vec<u64> =
            line.unwrap_or_else(|| panic!("no device {device}")).split_whitespace().filter_map(|field| field.parse().ok()).collect();
        Self { received: fields[1], sent: fields[9], dropped: fields[3] }
    }

    /// What came and went since an earlier moment.
    pub fn since(self, before: Self) -> Self {
        Self { received: self.received - before.received, sent: self.sent - before.sent, dropped: self.dropped - before.dropped }
    }
}
