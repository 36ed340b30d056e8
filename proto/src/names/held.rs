//! Entries of peers that are not known yet.
//!
//! News of a name can arrive before news of its peer. Such entries wait here for a while, so that
//! they are not missing until the next complete gossip.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::Entry;
use crate::types::{PeerName, Time};

/// How long entries wait for their peer: two rounds of complete gossip.
pub(super) const HELD_FOR: Duration = Duration::from_secs(60);
/// Maximum number of waiting entries. Further ones are dropped; complete gossip brings them again.
pub(super) const HELD_MAX: usize = 16_384;
/// Maximum number of entries that wait for one peer. Further ones are dropped likewise.
pub(super) const HELD_PER_ORIGIN_MAX: usize = 4_096;

/// The waiting entries.
///
/// Rule: `docs/protocol/names.md#3-receiving`.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// No list is empty.
    by_origin: BTreeMap<PeerName, Waiting>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Waiting {
    until: Time,
    entries: Vec<Entry>,
}

impl Held {
    /// Keeps an entry. Returns false if there is no room.
    pub(super) fn keep(&mut self, now: Time, entry: Entry) -> bool {
        if self.len >= HELD_MAX {
            return false;
        }
        let waiting = self
            .by_origin
            .entry(entry.key.origin)
            .or_insert_with(|| Waiting {
                until: now + HELD_FOR,
                entries: Vec::new(),
            });
        let place = waiting
            .entries
            .binary_search_by(|known| known.key.cmp(&entry.key));
        match place {
            Ok(place) => {
                let known = &mut waiting.entries[place];
                known.state = known.state.max(entry.state);
            }
            Err(_) if waiting.entries.len() >= HELD_PER_ORIGIN_MAX => return false,
            Err(place) => {
                waiting.entries.insert(place, entry);
                self.len += 1;
            }
        }
        true
    }

    /// Removes and returns the entries that wait for a peer, sorted by key.
    pub(super) fn release(&mut self, origin: PeerName) -> Vec<Entry> {
        let waiting = self.by_origin.remove(&origin);
        let entries = waiting.map(|waiting| waiting.entries).unwrap_or_default();
        self.len -= entries.len();
        entries
    }

    /// Drops entries that have waited long enough.
    pub(super) fn expire(&mut self, now: Time) {
        self.by_origin.retain(|_, waiting| waiting.until > now);
        self.len = self.by_origin.values().map(|w| w.entries.len()).sum();
    }

    /// Returns the time at which the next entries expire.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.by_origin.values().map(|waiting| waiting.until).min()
    }

    /// Returns the number of waiting entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
