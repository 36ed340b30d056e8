//! A channel's data as simple as can be: a counter for each peer, of which the highest stays.

use std::collections::BTreeMap;

use proto::types::PeerName;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) counters: BTreeMap<PeerName, u64>,
}

impl Store {
    pub(crate) fn bump(&mut self, name: PeerName) -> Vec<u8> {
        let counter = self.counters.entry(name).or_default();
        *counter += 1;
        entry(name, *counter)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let entries = self.counters.iter();
        entries
            .flat_map(|(name, counter)| entry(*name, *counter))
            .collect()
    }

    /// Returns what was new.
    pub(crate) fn merge(&mut self, update: &[u8]) -> Vec<u8> {
        let mut news = Vec::new();
        for chunk in update.chunks_exact(ENTRY_BYTES) {
            let (name, counter) = chunk.split_at(6);
            let name = PeerName::from_bytes(name.try_into().unwrap());
            let counter = u64::from_be_bytes(counter.try_into().unwrap());
            if self
                .counters
                .get(&name)
                .is_none_or(|known| *known < counter)
            {
                self.counters.insert(name, counter);
                news.extend_from_slice(chunk);
            }
        }
        news
    }
}

const ENTRY_BYTES: usize = 14;

fn entry(name: PeerName, counter: u64) -> Vec<u8> {
    [&name.as_bytes()[..], &counter.to_be_bytes()].concat()
}
