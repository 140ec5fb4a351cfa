//! Which devices see a packet after the one that it came in by.

use std::collections::BTreeSet;

use super::Network;

/// Devices are stacked a few deep; the bound keeps a picture that was taken in the middle of a change from being walked for ever.
const MOST_STACKED: usize = 8;

impl Network {
    /// The chain of bridges, bonds and teams that a device is a port of, the nearest first.
    pub(super) fn switches_above(&self, ifindex: u32) -> Vec<u32> {
        let mut chain = Vec::new();
        let mut at = ifindex;
        while chain.len() < MOST_STACKED
            && let Some(master) = self.interface(at).and_then(|interface| interface.master).and_then(|index| self.interface(index))
            && master.kind.as_deref() != Some("vrf")
        {
            chain.push(master.index);
            at = master.index;
        }
        chain
    }

    /// A device and all that are stacked on it: what it is a port of, the VLANs and macvlans over it, and what those are ports of.
    #[must_use]
    pub fn above(&self, ifindex: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut unseen = vec![ifindex];
        while let Some(index) = unseen.pop() {
            if found.insert(index) {
                unseen.extend(self.switches_above(index));
                unseen.extend(self.interfaces.iter().filter(|upper| upper.link == Some(index)).map(|upper| upper.index));
            }
        }
        found
    }
}
