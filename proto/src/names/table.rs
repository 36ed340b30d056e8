//! The table of all known entries, and the index made from the living ones.
//!
//! Its content does not depend on the order or repetition of merges: each identity has the greatest
//! of the received states. Deleted entries are kept for [`TOMBSTONE_KEPT`], so that old copies do
//! not revive them, and are then forgotten.
//!
//! Clocks of other hosts decide nothing here. A deleted entry is kept from the time at which its
//! deletion was heard of. An unknown one whose time of deletion is far from our clock is not added,
//! or routers would return forgotten entries to each other forever.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::domain;
use super::entry::{Entry, Key, State, UnixSecs};
use super::index::{ADDRESSES_MAX, Index};
use crate::types::{PeerName, Time};

/// Maximum number of entries in a table, not counting our own. At the limit, a new entry replaces
/// one of the peer with the most entries, or is refused if its own peer has as many.
pub const ENTRIES_MAX: usize = 131_072;
/// Maximum number of entries of one peer. Further ones are refused.
pub const ENTRIES_PER_ORIGIN_MAX: usize = 32_768;
/// Minimum time for which a deleted entry is kept after its deletion was heard of.
pub const TOMBSTONE_KEPT: Duration = Duration::from_secs(30 * 60);
/// By how many seconds the clock of a peer may differ from ours. Beyond it, Weave Net closes
/// connections.
pub const SKEW_SECS_MAX: i64 = 900;

/// Result of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The entry is new, or its state is newer than the one known.
    News,
    /// Nothing new.
    Known,
    /// An unknown entry that was deleted long ago.
    Stale,
    /// A version that nobody can have counted to.
    Incredible,
    /// There is no room.
    Full,
}

/// All entries.
#[derive(Clone, Debug)]
pub struct Table {
    us: PeerName,
    entries: BTreeMap<Arc<Key>, Record>,
    alive: BTreeSet<Arc<Key>>,
    alive_by_addr: BTreeSet<(Ipv4Addr, Arc<Key>)>,
    /// No set is empty.
    by_origin: BTreeMap<PeerName, BTreeSet<Arc<Key>>>,
    limits: Limits,
    index: Index,
    changed: Changed,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    state: State,
    /// When the death was heard of; the time of arrival while alive.
    since: Time,
}

/// How many entries a table holds.
#[derive(Clone, Copy, Debug)]
struct Limits {
    all: usize,
    per_origin: usize,
}

/// Names and addresses that the index does not show as the table has them.
#[derive(Clone, Debug, Default)]
struct Changed {
    keys: BTreeMap<Box<[u8]>, Arc<Key>>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Table {
    /// Creates an empty table of the peer `us`.
    pub fn new(us: PeerName) -> Table {
        Table {
            us,
            entries: BTreeMap::new(),
            alive: BTreeSet::new(),
            alive_by_addr: BTreeSet::new(),
            by_origin: BTreeMap::new(),
            limits: Limits {
                all: ENTRIES_MAX,
                per_origin: ENTRIES_PER_ORIGIN_MAX,
            },
            index: Index::default(),
            changed: Changed::default(),
        }
    }

    /// The same table with less room.
    #[cfg(test)]
    pub(super) fn with_limits(mut self, all: usize, per_origin: usize) -> Table {
        self.limits = Limits { all, per_origin };
        self
    }

    /// Returns the state of an entry.
    pub fn get(&self, key: &Key) -> Option<State> {
        self.entries.get(key).map(|record| record.state)
    }

    /// Returns all entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Key>, State)> {
        self.entries.iter().map(|(key, record)| (key, record.state))
    }

    /// Returns how many entries there are, alive or dead.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns how many entries are alive.
    pub fn alive(&self) -> usize {
        self.alive.len()
    }

    /// Returns the entries that `origin` registered, in the order of their keys.
    pub fn of(&self, origin: PeerName) -> impl Iterator<Item = (&Arc<Key>, State)> {
        let keys = self.by_origin.get(&origin).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.get(key)?)))
    }

    /// Returns the entries of a name in any spelling.
    pub(super) fn variants(&self, key: &Key) -> impl Iterator<Item = (&Arc<Key>, State)> {
        let range = self.entries.range::<Key, _>(&Key::floor(&key.hostname)..);
        range
            .map(|(known, record)| (known, record.state))
            .take_while(|(known, _)| known.hostname.eq_ignore_ascii_case(&key.hostname))
            .filter(|(known, _)| known.is_variant_of(key))
    }

    /// Merges an entry: stores it if it is new or newer.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    pub fn merge(&mut self, now: Time, wall: UnixSecs, entry: &Entry) -> Merged {
        match self.get(&entry.key) {
            Some(known) if known >= entry.state => Merged::Known,
            Some(known) if !known.may_become(entry.state) => Merged::Incredible,
            Some(_) => {
                self.set(now, entry);
                Merged::News
            }
            None if !State::default().may_become(entry.state) => Merged::Incredible,
            None if is_stale(entry.state, wall) => Merged::Stale,
            None if !self.make_room(entry.key.origin) => Merged::Full,
            None => {
                self.set(now, entry);
                Merged::News
            }
        }
    }

    /// Stores an entry, whatever is known of it.
    pub(super) fn set(&mut self, now: Time, entry: &Entry) {
        let key = &entry.key;
        let record = Record {
            state: entry.state,
            since: now,
        };
        let before = self.entries.insert(key.clone(), record);
        if before.is_none() {
            let keys = self.by_origin.entry(key.origin).or_default();
            keys.insert(key.clone());
        }
        let was_alive = before.is_some_and(|record| record.state.is_alive());
        self.note_life(key, was_alive, entry.state.is_alive());
    }

    /// Removes an entry without a trace.
    fn remove(&mut self, key: &Key) {
        let Some((key, record)) = self.entries.remove_entry(key) else {
            return;
        };
        if let Some(keys) = self.by_origin.get_mut(&key.origin) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_origin.remove(&key.origin);
            }
        }
        self.note_life(&key, record.state.is_alive(), false);
    }

    /// Removes all entries of a peer. Returns how many there were.
    pub fn remove_origin(&mut self, origin: PeerName) -> usize {
        let keys = self.by_origin.get(&origin).cloned().unwrap_or_default();
        for key in &keys {
            self.remove(key);
        }
        keys.len()
    }

    /// Forgets entries that died at least [`TOMBSTONE_KEPT`] ago. Returns how many.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
    pub fn expire(&mut self, now: Time) -> usize {
        let long_dead =
            |record: &Record| !record.state.is_alive() && now.since(record.since) >= TOMBSTONE_KEPT;
        let records = self.entries.iter();
        let doomed: Vec<Arc<Key>> = records
            .filter(|(_, record)| long_dead(record))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &doomed {
            self.remove(key);
        }
        doomed.len()
    }

    /// Makes room for one more entry of `origin` if it may have one.
    ///
    /// Rule: `docs/protocol/names.md#5-limits`.
    fn make_room(&mut self, origin: PeerName) -> bool {
        let count = |peer: &PeerName| self.by_origin.get(peer).map_or(0, BTreeSet::len);
        let held = count(&origin);
        if held >= self.limits.per_origin {
            return false;
        }
        if origin == self.us || self.entries.len() - count(&self.us) < self.limits.all {
            return true;
        }
        let others = self.by_origin.iter().filter(|(peer, _)| **peer != self.us);
        let largest = others.max_by_key(|(_, keys)| keys.len());
        let Some((_, keys)) = largest.filter(|(_, keys)| keys.len() > held + 1) else {
            return false;
        };
        if let Some(victim) = keys.last().cloned() {
            self.remove(&victim);
        }
        true
    }

    fn note_life(&mut self, key: &Arc<Key>, was_alive: bool, is_alive: bool) {
        if was_alive == is_alive {
            return;
        }
        if is_alive {
            self.alive.insert(key.clone());
            self.alive_by_addr.insert((key.addr, key.clone()));
        } else {
            self.alive.remove(key);
            self.alive_by_addr.remove(&(key.addr, key.clone()));
        }
        let mut name = Vec::with_capacity(key.hostname.len() + 1);
        domain::push_wire(&key.hostname, &mut name);
        self.changed.keys.insert(name.into(), key.clone());
        self.changed.addresses.insert(key.addr);
    }

    /// Returns true if [`index`](Table::index) would return something new.
    pub fn index_is_behind(&self) -> bool {
        !self.changed.keys.is_empty()
    }

    /// Returns the index of the entries as they are.
    pub fn index(&mut self) -> &Index {
        let changed = std::mem::take(&mut self.changed);
        for (name, key) in &changed.keys {
            let addresses = self.addresses_of(&key.hostname);
            self.index.set_addresses(name, &addresses);
        }
        for addr in changed.addresses {
            let range = self.alive_by_addr.range((addr, Arc::new(Key::floor("")))..);
            let first = range.take_while(|(other, _)| *other == addr).next();
            let name = first.map(|(_, key)| domain::wire_as_spelled(&key.hostname));
            self.index.set_name_of(addr, name.as_deref());
        }
        &self.index
    }

    /// Returns the addresses of a name, sorted, each once.
    fn addresses_of(&self, hostname: &str) -> Vec<Ipv4Addr> {
        let range = self.alive.range::<Key, _>(&Key::floor(hostname)..);
        let mut out: Vec<Ipv4Addr> = range
            .take_while(|key| key.hostname.eq_ignore_ascii_case(hostname))
            .map(|key| key.addr)
            .take(ADDRESSES_MAX)
            .collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// Returns true if a deleted entry is not worth adding where it is unknown: it was deleted long
/// ago, or by a clock that is too far ahead.
///
/// Rule: `docs/protocol/names.md#6-weft`.
pub(super) fn is_stale(state: State, wall: UnixSecs) -> bool {
    let age = wall.since(state.tombstone);
    !state.is_alive() && (age > TOMBSTONE_KEPT.as_secs().cast_signed() || age < -SKEW_SECS_MAX)
}
