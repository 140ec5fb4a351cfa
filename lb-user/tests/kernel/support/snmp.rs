//! The counters of a namespace's network stack: /proc/net/snmp, snmp6 and netstat.

use std::collections::BTreeMap;
use std::fs;

use super::netns::Entrance;

/// What stands before the names of /proc/net/snmp6, which has no groups: `get("Snmp6", "Ip6InReceives")`.
const SNMP6: &str = "Snmp6";

/// All counters at one moment, by group and name as the kernel spells them: `Tcp` `OutRsts`, `TcpExt` `SyncookiesRecv`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters(BTreeMap<(String, String), i64>);

impl Counters {
    /// Reads the counters of a namespace.
    pub fn read(entrance: &Entrance) -> Self {
        // The thread's own: `/proc/net` is that of the process, whose first thread is elsewhere.
        let read =
            |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_else(|error| panic!("read {name}: {error}"));
        let [snmp, netstat, snmp6] = entrance.run(|| ["snmp", "netstat", "snmp6"].map(read));
        let mut counters = Self::default();
        counters.add_groups(&snmp);
        counters.add_groups(&netstat);
        counters.add_list(&snmp6);
        counters
    }

    /// What has been added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().map(|(name, value)| (name.clone(), value - earlier.0.get(name).copied().unwrap_or(0))).collect())
    }

    /// One counter; panics when the kernel has none of that name.
    #[track_caller]
    pub fn get(&self, group: &str, name: &str) -> i64 {
        let found = self.0.get(&(group.to_owned(), name.to_owned()));
        *found.unwrap_or_else(|| panic!("the kernel has no counter {name} in {group}"))
    }

    /// Those that are not 0, for a message.
    pub fn moved(&self) -> BTreeMap<String, i64> {
        self.0.iter().filter(|(_, value)| **value != 0).map(|((group, name), value)| (format!("{group} {name}"), *value)).collect()
    }

    /// Pairs of lines: `Tcp: NAME NAME ..` and `Tcp: VALUE VALUE ..`.
    fn add_groups(&mut self, text: &str) {
        let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(':')).collect();
        for pair in lines.chunks_exact(2) {
            let [(group, names), (same, values)] = pair else { unreachable!("chunks of two") };
            assert_eq!(group, same, "a line of names and one of values");
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                self.add(group, name, value);
            }
        }
    }

    /// A name and a value in each line.
    fn add_list(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(char::is_whitespace)) {
            self.add(SNMP6, name, value.trim());
        }
    }

    fn add(&mut self, group: &str, name: &str, value: &str) {
        let value = value.parse().unwrap_or_else(|_| panic!("{group} {name} is {value:?}"));
        self.0.insert((group.to_owned(), name.to_owned()), value);
    }
}
