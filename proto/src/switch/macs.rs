//! The MAC table: at which peer each address was last seen.
//!
//! All data threads read and write it at once without a lock. An entry is one word and therefore
//! always consistent; a second word holds the time at which the address was last seen.
//!
//! ```text
//! word   = MAC (48 bits) | peer slot (16 bits)      0 = free (the zero address is never learned)
//! bucket = ENTRIES words, found by a keyed hash of the address; never more than one bucket is read
//! ```

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use crate::types::{Mac, Time};

/// Maximum number of addresses in the table. If the bucket of a new address is full, the address
/// replaces one that was not seen for [`REFRESH_INTERVAL`]; if there is none it is not learned, and
/// frames to it are flooded.
pub const MACS_MAX: usize = BUCKETS * ENTRIES;
/// Maximum number of addresses that are learned at one peer; those that move there from others
/// count as well, but are followed beyond it. Made-up addresses of one peer do not push out those of
/// others.
pub const MACS_PER_PEER_MAX: usize = MACS_MAX / 4;
/// How long an address is remembered after it was last seen.
pub const MAC_AGE_MAX: Duration = Duration::from_secs(600);
/// By how much the recorded time of last sight may be too early.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

const BUCKETS: usize = 1024;
const ENTRIES: usize = 16;

/// A number for a peer, local to this router and short enough to share a word with a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSlot(pub u16);

impl PeerSlot {
    /// Ourself.
    pub const US: PeerSlot = PeerSlot(0);
}

/// Result of [`MacTable::learn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The address was known there.
    Known,
    /// The address was unknown.
    New,
    /// The address was known at this other peer.
    Moved(PeerSlot),
    /// The address was unknown, and there is no room for it, or none for further ones of this
    /// peer.
    Full,
    /// The address is a group address or zero, which is not a valid source.
    Invalid,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacEntry {
    /// The address.
    pub mac: Mac,
    /// Where it was seen.
    pub at: PeerSlot,
    /// When it was last seen, up to [`REFRESH_INTERVAL`] too early.
    pub last_seen: Time,
}

#[repr(align(128))]
struct Bucket {
    words: [AtomicU64; ENTRIES],
    seen: [AtomicU64; ENTRIES],
}

/// The table. Its memory is allocated once.
///
/// Rule: `docs/protocol/switching.md#4-mac-table`.
pub struct MacTable {
    buckets: Box<[Bucket]>,
    /// How many entries each slot has. Threads that change one entry at a time may leave a count
    /// one off until it is gone.
    counts: Box<[AtomicU32]>,
    key: u64,
}

impl MacTable {
    /// Creates an empty table. `key` should be random, so that nobody can choose addresses that all
    /// fall into one bucket.
    pub fn new(key: u64) -> MacTable {
        let bucket = || Bucket {
            words: [const { AtomicU64::new(0) }; ENTRIES],
            seen: [const { AtomicU64::new(0) }; ENTRIES],
        };
        MacTable {
            buckets: (0..BUCKETS).map(|_| bucket()).collect(),
            counts: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect(),
            key: key | 1,
        }
    }

    /// Returns where `mac` was last seen, or `None` if it is unknown or a group address.
    pub fn lookup(&self, mac: Mac) -> Option<PeerSlot> {
        let (bucket, wanted) = (self.bucket(mac), mac.as_u64());
        let mut words = bucket.words.iter().map(|word| word.load(Relaxed));
        words
            .find(|&word| wanted != 0 && word >> 16 == wanted)
            .map(slot_of)
    }

    /// Records that `mac` was seen `at` a peer.
    ///
    /// Rule: `docs/protocol/switching.md#4-mac-table`.
    pub fn learn(&self, now: Time, mac: Mac, at: PeerSlot) -> Learned {
        if mac.is_multicast() || mac == Mac::ZERO {
            return Learned::Invalid;
        }
        let (bucket, wanted) = (self.bucket(mac), word_of(mac, at));
        for (entry, seen) in bucket.words.iter().zip(&bucket.seen) {
            let word = entry.load(Relaxed);
            if word >> 16 != wanted >> 16 {
                continue;
            }
            if now.since(time_of(seen)) >= REFRESH_INTERVAL {
                seen.store(now.as_micros(), Relaxed);
            }
            if word == wanted {
                return Learned::Known;
            }
            return match entry.compare_exchange(word, wanted, Relaxed, Relaxed) {
                Ok(_) => {
                    seen.store(now.as_micros(), Relaxed);
                    self.replaced(word, wanted);
                    Learned::Moved(slot_of(word))
                }
                // Another thread was faster: its update counts.
                Err(_) => Learned::Known,
            };
        }
        self.insert(now, bucket, wanted)
    }

    /// Writes a new entry to a free place of its bucket, or replaces the one that was not seen for
    /// longest.
    ///
    /// Rule: `docs/protocol/switching.md#6-weft`.
    fn insert(&self, now: Time, bucket: &Bucket, wanted: u64) -> Learned {
        let age = |index: usize, word: u64| match word {
            0 => Duration::MAX,
            _ => now.since(time_of(&bucket.seen[index])),
        };
        let at = slot_of(wanted);
        // A peer that has its share can only give up one of its own.
        let is_open = |word: u64| self.has_room(at) || (word != 0 && slot_of(word) == at);
        let candidates = bucket.words.iter().map(|word| word.load(Relaxed));
        let oldest = candidates
            .enumerate()
            .filter(|&(_, word)| is_open(word))
            .filter(|&(index, word)| age(index, word) >= REFRESH_INTERVAL)
            // The first of equal places, so that two threads choose the same one.
            .min_by_key(|&(index, word)| std::cmp::Reverse(age(index, word)));
        let Some((index, old)) = oldest else {
            return Learned::Full;
        };
        // The time is written first, so that a sweep does not mistake the new entry for an expired
        // one.
        bucket.seen[index].store(now.as_micros(), Relaxed);
        let taken = bucket.words[index].compare_exchange(old, wanted, Release, Relaxed);
        if taken.is_err() {
            // Another thread took the place. The next frame from this address tries again.
            return Learned::Known;
        }
        self.replaced(old, wanted);
        for _ in 0..bucket.remove_twins(wanted) {
            self.replaced(wanted, 0);
        }
        Learned::New
    }

    /// Removes the addresses that were not seen for [`MAC_AGE_MAX`] and returns their number. Call
    /// this every minute.
    ///
    /// Rule: `docs/protocol/switching.md#4-mac-table`.
    pub fn expire(&self, now: Time) -> usize {
        self.remove_where(|_, seen| now.since(time_of(seen)) >= MAC_AGE_MAX)
    }

    /// Removes all addresses of a peer and returns their number.
    ///
    /// Rule: `docs/protocol/switching.md#4-mac-table`.
    pub fn forget_peer(&self, peer: PeerSlot) -> usize {
        self.remove_where(|word, _| slot_of(word) == peer)
    }

    /// Returns all entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = MacEntry> {
        let places = self
            .buckets
            .iter()
            .flat_map(|b| b.words.iter().zip(&b.seen));
        places.filter_map(|(word, seen)| {
            let word = word.load(Relaxed);
            let [a, b, c, d, e, f, _, _] = word.to_be_bytes();
            (word != 0).then(|| MacEntry {
                mac: Mac::from_bytes([a, b, c, d, e, f]),
                at: slot_of(word),
                last_seen: time_of(seen),
            })
        })
    }

    fn remove_where(&self, condition: impl Fn(u64, &AtomicU64) -> bool) -> usize {
        let places = self
            .buckets
            .iter()
            .flat_map(|b| b.words.iter().zip(&b.seen));
        places
            .filter(|(entry, seen)| {
                let word = entry.load(Acquire);
                let removed = word != 0
                    && condition(word, seen)
                    && entry.compare_exchange(word, 0, Relaxed, Relaxed).is_ok();
                if removed {
                    self.replaced(word, 0);
                }
                removed
            })
            .count()
    }

    fn has_room(&self, at: PeerSlot) -> bool {
        let count = self.counts.get(usize::from(at.0));
        count.is_some_and(|count| (count.load(Relaxed) as usize) < MACS_PER_PEER_MAX)
    }

    /// Counts that the word `new` stands where `old` stood; 0 for none.
    fn replaced(&self, old: u64, new: u64) {
        let count = |word| self.counts.get(usize::from(slot_of(word).0));
        if let Some(count) = count(new).filter(|_| new != 0) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(count) = count(old).filter(|_| old != 0) {
            // Never below zero: a twin may have been of another peer.
            let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        }
    }

    fn bucket(&self, mac: Mac) -> &Bucket {
        // Multiply and mix: the high bits depend on all of the address and of the key.
        let mixed = (mac.as_u64() ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(self.key);
        &self.buckets[(mixed >> 40) as usize % BUCKETS]
    }
}

impl fmt::Debug for MacTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

impl Bucket {
    /// Two threads that learn one address at a time may both find it missing and insert it at two
    /// places. Both come here afterwards and both keep the first. Returns how many were removed.
    fn remove_twins(&self, wanted: u64) -> usize {
        let mut first = true;
        let mut removed = 0;
        for entry in &self.words {
            let word = entry.load(Relaxed);
            if word >> 16 == wanted >> 16 && !std::mem::take(&mut first) {
                removed += usize::from(entry.compare_exchange(word, 0, Relaxed, Relaxed).is_ok());
            }
        }
        removed
    }
}

fn word_of(mac: Mac, at: PeerSlot) -> u64 {
    (mac.as_u64() << 16) | u64::from(at.0)
}

fn slot_of(word: u64) -> PeerSlot {
    let [.., high, low] = word.to_be_bytes();
    PeerSlot(u16::from_be_bytes([high, low]))
}

fn time_of(seen: &AtomicU64) -> Time {
    Time::from_micros(seen.load(Relaxed))
}
