//! A copy of the ring, and the changes that its owner makes.

use proto::types::PeerName;

use crate::range::{Address, Range};
use crate::range_set::RangeSet;

/// Maximum number of entries of a ring. A larger ring is refused.
pub const ENTRIES_MAX: usize = 1 << 20;
/// Maximum number of seeds of a ring. A ring with more is refused.
pub const SEEDS_MAX: usize = 1 << 16;
/// The highest version of an entry that is taken from another router: none gets there by
/// counting, and from there nobody could outdo it.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
pub const VERSION_MAX: u32 = u32::MAX - (1 << 24);
/// Added to the version of an entry by a takeover, so that it exceeds unseen changes of the
/// previous owner.
///
/// Rule: `docs/protocol/ipam.md#2-6-transfer`.
pub const TAKEOVER_STEP: u32 = 100;

/// One interval of the ring.
///
/// Format: `docs/protocol/ipam.md#2-1-structure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first address of the interval.
    pub token: Address,
    /// Its owner.
    pub peer: PeerName,
    /// Increases with each change of the entry.
    pub version: u32,
    /// Number of its free addresses, as last reported by its owner.
    pub free: u32,
}

/// The entry that was at a token before a change; `None` if there was none.
pub type Change = (Address, Option<Entry>);

/// A copy of the ring.
///
/// Format: `docs/protocol/ipam.md#2-1-structure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The first address of the universe.
    pub start: Address,
    /// The address after its last.
    pub end: Address,
    /// The entries, by token.
    pub entries: Vec<Entry>,
    /// The peers among which the universe was first divided, by name. Rings with different seeds
    /// never belong together.
    pub seeds: Vec<PeerName>,
}

/// Why a ring violates its invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Tokens do not increase.
    #[error("Ring not sorted")]
    NotSorted,
    /// Two entries have one token.
    #[error("Token appears twice in ring")]
    TokenRepeated,
    /// A token lies outside the universe.
    #[error("Token is out of range")]
    TokenOutOfRange,
    /// An entry reports more free addresses than it has addresses.
    #[error("Entry {token}-{next} reporting too much free space: {free} > {distance}")]
    TooMuchFree {
        /// The entry.
        token: Address,
        /// The token after it.
        next: Address,
        /// Number of reported free addresses.
        free: u32,
        /// Number of addresses.
        distance: u32,
    },
}

impl Ring {
    /// Creates a ring without entries.
    pub fn new(universe: Range) -> Ring {
        Ring {
            start: universe.start,
            end: universe.end,
            ..Ring::default()
        }
    }

    /// Creates the first division of the universe among `peers`, which must be sorted and unique.
    ///
    /// Rule: `docs/protocol/ipam.md#2-4-seed`.
    pub fn seeded(universe: Range, peers: &[PeerName]) -> Ring {
        let mut ring = Ring::new(universe);
        ring.subdivide(universe, peers);
        ring.seeds = peers.to_vec();
        ring
    }

    /// Rule: `docs/protocol/ipam.md#2-4-seed`.
    fn subdivide(&mut self, range: Range, peers: &[PeerName]) {
        let size = range.size();
        let (Some(first), 1..) = (peers.first(), size) else {
            return;
        };
        if size == 1 || peers.len() == 1 {
            self.entries.push(Entry {
                token: range.start,
                peer: *first,
                version: 0,
                free: size,
            });
            return;
        }
        let middle = range.start.plus(size / 2);
        let (left, right) = peers.split_at(peers.len() / 2);
        self.subdivide(Range::new(range.start, middle), left);
        self.subdivide(Range::new(middle.plus(size % 2), range.end), right);
    }

    /// Returns the universe.
    pub fn universe(&self) -> Range {
        Range::new(self.start, self.end)
    }

    /// Returns true if nobody owns anything yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of addresses from one token up to another, going around if necessary; the
    /// whole ring if they are equal.
    ///
    /// Rule: `docs/protocol/ipam.md#2-1-structure`.
    pub fn distance(&self, from: Address, to: Address) -> u32 {
        if to > from {
            to.above(from)
        } else {
            self.end.above(from).saturating_add(to.above(self.start))
        }
    }

    /// Returns the token after entry `index`, going around if necessary.
    pub(super) fn next_token(&self, index: usize) -> Address {
        next_token(&self.entries, index)
    }

    /// Returns the position of the entry whose interval contains `address`, or `None` if the ring
    /// is empty.
    fn position(&self, address: Address) -> Option<usize> {
        let after = self.entries.partition_point(|e| e.token <= address);
        after.checked_sub(1).or(self.entries.len().checked_sub(1))
    }

    /// Returns the entry with this token.
    pub fn get(&self, token: Address) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by_key(&token, |e| e.token)
            .ok()?;
        self.entries.get(at)
    }

    /// Returns who owns `address`.
    pub fn owner(&self, address: Address) -> Option<PeerName> {
        Some(self.entry_of(address)?.peer)
    }

    /// Returns the entry in whose interval `address` lies.
    pub fn entry_of(&self, address: Address) -> Option<&Entry> {
        if !self.universe().contains(address) {
            return None;
        }
        self.entries.get(self.position(address)?)
    }

    /// Returns the addresses from one token up to the next, in order. If the interval goes around
    /// the end of the universe there are two ranges; otherwise the first is empty.
    pub fn ranges_between(&self, from: Address, to: Address) -> [Range; 2] {
        if to > from {
            [Range::default(), Range::new(from, to)]
        } else {
            [Range::new(self.start, to), Range::new(from, self.end)]
        }
    }

    /// Returns each interval with its entry, in order of tokens. An interval that goes around the
    /// end is split, and its lower part comes first of the two.
    pub fn intervals(&self) -> impl Iterator<Item = (Range, &Entry)> + '_ {
        self.entries.iter().enumerate().flat_map(|(i, entry)| {
            self.ranges_between(entry.token, self.next_token(i))
                .into_iter()
                .filter(|range| !range.is_empty())
                .map(move |range| (range, entry))
        })
    }

    /// Returns the intervals of one peer, in order of addresses.
    pub fn owned_ranges(&self, peer: PeerName) -> Vec<Range> {
        let mut out: Vec<Range> = self
            .intervals()
            .filter(|(_, entry)| entry.peer == peer)
            .map(|(range, _)| range)
            .collect();
        out.sort_unstable();
        out
    }

    /// Returns the addresses of one peer.
    pub fn owned(&self, peer: PeerName) -> RangeSet {
        self.intervals()
            .filter(|(_, entry)| entry.peer == peer)
            .map(|(range, _)| range)
            .collect()
    }

    /// Returns true if the peer owns anything.
    pub fn has_owner(&self, peer: PeerName) -> bool {
        self.entries.iter().any(|entry| entry.peer == peer)
    }

    /// Returns the owners, each once, sorted.
    pub fn owners(&self) -> Vec<PeerName> {
        let mut out: Vec<PeerName> = self.entries.iter().map(|e| e.peer).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Gives `range`, which `us` must own completely, to another peer.
    ///
    /// Rule: `docs/protocol/ipam.md#2-5-grant`.
    pub fn grant(&mut self, us: PeerName, range: Range, to: PeerName) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(mut at) = self.position(range.start) else {
            return changes;
        };
        let mine = self.owned(us);
        if range.is_empty() || mine.count(range) != range.size() {
            debug_assert!(false, "granting {range}, which is not ours");
            return changes;
        }
        let free = self
            .distance(range.start, self.next_token(at))
            .min(range.size());
        if self.entries[at].token == range.start {
            self.update(at, to, free, &mut changes);
        } else {
            let before = self.distance(self.entries[at].token, range.start);
            self.update(at, us, before, &mut changes);
            at = self.insert(range.start, to, free, &mut changes);
        }
        at += 1;
        while self.entries.get(at).is_some_and(|e| e.token < range.end) {
            let left = range.end.above(self.entries[at].token);
            let free = self.entries[at].free.min(left);
            self.update(at, to, free, &mut changes);
            at += 1;
        }
        let end = if range.end == self.end {
            self.start
        } else {
            range.end
        };
        if self.get(end).is_none() {
            let next = self.entries.get(at % self.entries.len());
            let free = next.map_or(0, |next| self.distance(end, next.token));
            self.insert(end, us, free, &mut changes);
        }
        changes
    }

    fn update(&mut self, at: usize, peer: PeerName, free: u32, changes: &mut Vec<Change>) {
        if let Some(entry) = self.entries.get_mut(at) {
            changes.push((entry.token, Some(*entry)));
            entry.peer = peer;
            entry.free = free;
            entry.version = entry.version.saturating_add(1);
        }
    }

    fn insert(
        &mut self,
        token: Address,
        peer: PeerName,
        free: u32,
        changes: &mut Vec<Change>,
    ) -> usize {
        let at = self.entries.partition_point(|e| e.token < token);
        let entry = Entry {
            token,
            peer,
            version: 0,
            free,
        };
        self.entries.insert(at, entry);
        changes.push((token, None));
        at
    }

    /// Transfers everything that `from` owns to `to`.
    ///
    /// Rule: `docs/protocol/ipam.md#2-6-transfer`.
    pub fn transfer(&mut self, from: PeerName, to: PeerName) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in &mut self.entries {
            if entry.peer == from {
                changes.push((entry.token, Some(*entry)));
                entry.peer = to;
                entry.version = entry.version.saturating_add(TAKEOVER_STEP);
            }
        }
        changes
    }

    /// Sets the number of free addresses in each entry of `us` to the sum of `count` over its
    /// ranges. Entries for which `count` returns `None` are not changed.
    ///
    /// Rule: `docs/protocol/ipam.md#2-7-free`.
    pub fn report_free(
        &mut self,
        us: PeerName,
        mut count: impl FnMut(Range) -> Option<u32>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for at in 0..self.entries.len() {
            let entry = self.entries[at];
            if entry.peer != us {
                continue;
            }
            let next = self.next_token(at);
            let ranges = self.ranges_between(entry.token, next).into_iter();
            let counts = ranges.filter(|range| !range.is_empty()).map(&mut count);
            let Some(free) = counts.sum::<Option<u32>>() else {
                continue;
            };
            let free = free.min(self.distance(entry.token, next));
            if free != entry.free {
                self.update(at, us, free, &mut changes);
            }
        }
        changes
    }

    /// Raises the version of our entry, to decide a tie.
    ///
    /// Rule: `docs/protocol/ipam.md#3-4-contests`.
    pub fn assert_entry(&mut self, token: Address, step: u32) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Ok(at) = self.entries.binary_search_by_key(&token, |e| e.token) {
            let entry = &mut self.entries[at];
            changes.push((token, Some(*entry)));
            entry.version = entry.version.saturating_add(step);
        }
        changes
    }

    /// Undoes a series of changes, given in their original order.
    pub fn undo(&mut self, changes: &[Change]) {
        let mut before = std::collections::BTreeMap::new();
        for (token, entry) in changes {
            before.entry(*token).or_insert(*entry);
        }
        self.entries.retain(|e| !before.contains_key(&e.token));
        self.entries.extend(before.into_values().flatten());
        self.entries.sort_unstable_by_key(|e| e.token);
    }

    /// Returns the other peers that report free addresses in intervals that touch `wanted`, each
    /// with their number in these intervals, sorted by name.
    ///
    /// Rule: `docs/protocol/ipam.md#7-1-allocate`.
    pub fn donors(&self, us: PeerName, wanted: Range) -> Vec<(PeerName, u64)> {
        let mut donors = std::collections::BTreeMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if entry.token >= wanted.end {
                break;
            }
            let ends_below = self
                .entries
                .get(i + 1)
                .is_some_and(|next| next.token <= wanted.start);
            if !ends_below && entry.peer != us && entry.free > 0 {
                *donors.entry(entry.peer).or_insert(0u64) += u64::from(entry.free);
            }
        }
        donors.into_iter().collect()
    }

    /// Checks the invariants. Returns the first violation.
    ///
    /// Rule: `docs/protocol/ipam.md#2-2-invariants`.
    pub fn check(&self) -> Result<(), RingError> {
        let sorted = self.entries.is_sorted_by_key(|e| e.token);
        if !sorted {
            return Err(RingError::NotSorted);
        }
        if self.entries.windows(2).any(|w| w[0].token == w[1].token) {
            return Err(RingError::TokenRepeated);
        }
        let inside =
            |entry: Option<&Entry>| entry.is_none_or(|entry| self.universe().contains(entry.token));
        if !inside(self.entries.first()) || !inside(self.entries.last()) {
            return Err(RingError::TokenOutOfRange);
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let next = self.next_token(i);
            let distance = self.distance(entry.token, next);
            if entry.free > distance {
                return Err(RingError::TooMuchFree {
                    token: entry.token,
                    next,
                    free: entry.free,
                    distance,
                });
            }
        }
        Ok(())
    }
}

/// Returns the token after entry `index`, going around if necessary.
pub(super) fn next_token(entries: &[Entry], index: usize) -> Address {
    entries
        .get(index + 1)
        .or(entries.first())
        .map_or(Address::default(), |entry| entry.token)
}
