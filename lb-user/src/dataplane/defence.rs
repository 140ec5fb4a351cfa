//! The maps of the SYN defence, as the daemon writes and reads them.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, lpm_trie::Key};
use lb_common::{
    Address,
    abi::{AddressFilter, DefencePolicy, KnownFlow, LiveState, PrefixBucket, PrefixKey},
    flood::FloodState,
};

use super::{
    Error,
    maps::{At, Plain, found, open},
};

/// A prefix of sources in the trie: the service's index, the address, and how many bits of it count (of 128).
pub type Listed = (u32, Address, u32);

/// The maps of the defence.
pub struct DefenceMaps {
    policies: Array<MapData, Plain<DefencePolicy>>,
    floods: Array<MapData, Plain<FloodState>>,
    live: Array<MapData, Plain<LiveState>>,
    prefixes: LpmTrie<MapData, Plain<PrefixKey>, u32>,
    addresses: HashMap<MapData, Plain<Address>, u32>,
    address_filter: Array<MapData, Plain<AddressFilter>>,
    known_flows: u32,
    prefix_buckets: u32,
}

impl DefenceMaps {
    /// Opens the pinned maps; `at` says where a map of a name is.
    pub(super) fn pinned<'a>(at: impl Fn(&'static str) -> At<'a>) -> Result<Self, Error> {
        Ok(Self {
            policies: open(at("DEFENCE"))?,
            floods: open(at("FLOODS"))?,
            live: open(at("LIVE"))?,
            prefixes: open(at("PREFIXES"))?,
            addresses: open(at("ADDRESSES"))?,
            address_filter: open(at("ADDRESS_FILTER"))?,
            known_flows: open::<PerCpuArray<MapData, Plain<KnownFlow>>>(at("KNOWN_FLOWS"))?.len(),
            prefix_buckets: open::<PerCpuArray<MapData, Plain<PrefixBucket>>>(at("PREFIX_BUCKETS"))?.len(),
        })
    }

    /// The masks of the table of known flows and of that of buckets: their sizes, powers of two, less one.
    #[must_use]
    pub fn table_masks(&self) -> (u32, u32) {
        let mask = |length: u32| length.max(1) - 1;
        (mask(self.known_flows), mask(self.prefix_buckets))
    }

    /// Writes how a service is defended.
    pub fn set_policy(&mut self, service: u32, policy: DefencePolicy) -> Result<(), Error> {
        self.policies.set(service, Plain(policy), 0).map_err(Error::map("DEFENCE"))
    }

    /// How a service is defended.
    pub fn policy(&self, service: u32) -> Result<DefencePolicy, Error> {
        self.policies.get(&service, 0).map(|Plain(policy)| policy).map_err(Error::map("DEFENCE"))
    }

    /// How every index is defended that is not left alone, service or not.
    pub fn told(&self) -> Result<BTreeMap<u32, DefencePolicy>, Error> {
        let all = (0..self.policies.len()).map(|index| Ok((index, self.policy(index)?)));
        all.filter(|one| one.as_ref().map_or(true, |(_, policy)| *policy != DefencePolicy::default())).collect()
    }

    /// The flood on a service, as the programs have written it down.
    pub fn flood(&self, service: u32) -> Result<FloodState, Error> {
        self.floods.get(&service, 0).map(|Plain(state)| state).map_err(Error::map("FLOODS"))
    }

    /// Writes down that there is no flood on a service.
    pub fn clear_flood(&mut self, service: u32) -> Result<(), Error> {
        self.floods.set(service, Plain(FloodState::default()), 0).map_err(Error::map("FLOODS"))
    }

    /// The record that the daemon renews.
    pub fn live(&self) -> Result<LiveState, Error> {
        self.live.get(&0, 0).map(|Plain(live)| live).map_err(Error::map("LIVE"))
    }

    /// Renews the record.
    pub fn set_live(&mut self, live: LiveState) -> Result<(), Error> {
        self.live.set(0, Plain(live), 0).map_err(Error::map("LIVE"))
    }

    /// Makes the lists of prefixes what they are to be, all services' together.
    pub fn set_prefixes(&mut self, wanted: &BTreeMap<Listed, u32>) -> Result<(), Error> {
        let present: Vec<(Key<Plain<PrefixKey>>, u32)> = self.prefixes.iter().collect::<Result<_, _>>().map_err(Error::map("PREFIXES"))?;
        let keys: BTreeMap<[u8; 24], u32> = wanted.iter().map(|(listed, action)| (bytes(&key(*listed)), *action)).collect();
        for (key, _) in present.iter().filter(|(key, _)| !keys.contains_key(&bytes(key))) {
            found(self.prefixes.remove(key)).map_err(Error::map("PREFIXES"))?;
        }
        for (listed, action) in wanted {
            self.prefixes.insert(&key(*listed), *action, 0).map_err(Error::map("PREFIXES"))?;
        }
        Ok(())
    }

    /// Makes the set of this host's addresses what it is to be.
    pub fn set_addresses(&mut self, wanted: &[Address]) -> Result<(), Error> {
        // First: where the filter says no, nobody looks.
        self.address_filter.set(0, Plain(AddressFilter::of(wanted)), 0).map_err(Error::map("ADDRESS_FILTER"))?;
        let present: Vec<Address> = self.addresses.keys().filter_map(|key| Some(key.ok()?.0)).collect();
        for address in present.iter().filter(|address| !wanted.contains(address)) {
            found(self.addresses.remove(&Plain(*address))).map_err(Error::map("ADDRESSES"))?;
        }
        for address in wanted.iter().filter(|address| !present.contains(address)) {
            self.addresses.insert(Plain(*address), 1, 0).map_err(Error::map("ADDRESSES"))?;
        }
        Ok(())
    }
}

fn key((service, address, bits): Listed) -> Key<Plain<PrefixKey>> {
    Key::new(PrefixKey::SERVICE_BITS + bits, Plain(PrefixKey::new(service, address)))
}

/// A key as bytes, to compare it: it is packed, and has no order of its own.
fn bytes(key: &Key<Plain<PrefixKey>>) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&key.prefix_len().to_ne_bytes());
    let Plain(PrefixKey { service, address }) = key.data();
    bytes[4..8].copy_from_slice(&service);
    bytes[8..].copy_from_slice(&address);
    bytes
}
