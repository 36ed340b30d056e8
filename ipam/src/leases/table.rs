//! The replicated table of leases, and the digest by which two copies are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::lease::{LEASES_MAX, Lease, LeaseEntry, LeaseKey, Scope};
use super::wire::{self, BUCKETS};
use crate::range::{Address, Range};

/// All leases that a router knows.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    entries: BTreeMap<Arc<LeaseKey>, Lease>,
    /// Live leases by address. After errors there may be several of one address.
    by_address: BTreeSet<(Address, Arc<LeaseKey>)>,
    /// All leases by the hash of their key; the top bits of it name the bucket.
    by_hash: BTreeMap<u64, Arc<LeaseKey>>,
    /// For each bucket the XOR of the hashes of its live leases.
    buckets: [u64; BUCKETS],
}

impl Default for LeaseTable {
    fn default() -> LeaseTable {
        LeaseTable {
            entries: BTreeMap::new(),
            by_address: BTreeSet::new(),
            by_hash: BTreeMap::new(),
            buckets: [0; BUCKETS],
        }
    }
}

impl LeaseTable {
    /// Returns the number of leases, including ended ones.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no leases, not even ended ones.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns true if no further lease fits.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= LEASES_MAX
    }

    /// Returns the lease of this key, ended or not.
    pub fn get(&self, key: &LeaseKey) -> Option<&Lease> {
        self.entries.get(key)
    }

    /// Returns the lease of this key, unless it has ended.
    pub fn live(&self, key: &LeaseKey) -> Option<&Lease> {
        self.get(key).filter(|lease| lease.is_live())
    }

    /// Returns the table's shared copy of the key.
    pub fn shared(&self, key: &LeaseKey) -> Arc<LeaseKey> {
        match self.entries.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key.clone()),
        }
    }

    /// Returns all leases, including ended ones, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<LeaseKey>, &Lease)> {
        self.entries.iter()
    }

    /// Returns the live leases of an address.
    pub fn at(&self, address: Address) -> impl Iterator<Item = (&Arc<LeaseKey>, &Lease)> {
        self.within(Range::single(address))
    }

    /// Returns the live leases whose address lies in a range, by address.
    pub fn within(&self, range: Range) -> impl Iterator<Item = (&Arc<LeaseKey>, &Lease)> {
        let lowest = Arc::new(LeaseKey {
            scope: Scope::Explicit,
            name: String::new(),
            subnet: crate::range::Cidr {
                address: Address::default(),
                len: 0,
            },
        });
        let end = range.end.max(range.start);
        self.by_address
            .range((range.start, Arc::clone(&lowest))..(end, lowest))
            .filter_map(|(_, key)| self.entries.get_key_value(key))
    }

    /// Sets or removes a lease. Returns the previous one.
    pub fn put(&mut self, key: &Arc<LeaseKey>, lease: Option<Lease>) -> Option<Lease> {
        let before = match lease {
            Some(lease) => {
                self.index(key, &lease);
                self.entries.insert(Arc::clone(key), lease)
            }
            None => self.entries.remove(key),
        };
        if let Some(before) = &before {
            let now = self.entries.get(key);
            let (exists, stays) = (
                now.is_some(),
                now.is_some_and(|now| now.is_live() && now.address == before.address),
            );
            if before.is_live() {
                self.toggle(key, before);
                if !stays {
                    self.by_address.remove(&(before.address, Arc::clone(key)));
                }
            }
            if !exists {
                self.by_hash.remove(&key_hash(key));
            }
        }
        before
    }

    fn index(&mut self, key: &Arc<LeaseKey>, lease: &Lease) {
        if lease.is_live() {
            self.by_address.insert((lease.address, Arc::clone(key)));
            self.toggle(key, lease);
        }
        self.by_hash.insert(key_hash(key), Arc::clone(key));
    }

    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    fn toggle(&mut self, key: &LeaseKey, lease: &Lease) {
        let bucket = bucket_of(key_hash(key));
        if let Some(sum) = self.buckets.get_mut(bucket) {
            *sum ^= entry_hash(key, lease);
        }
    }

    /// Returns the digest of each bucket.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// Returns the digest of the whole table; that of an empty table is 0.
    ///
    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    pub fn digest(&self) -> u64 {
        if self.buckets.iter().all(|bucket| *bucket == 0) {
            return 0;
        }
        let mut hash = Sha256::new();
        for bucket in &self.buckets {
            hash.update(bucket.to_be_bytes());
        }
        first_u64(hash.finalize().into())
    }

    /// Returns the hashes of the keys of a bucket, each with the hash of its lease. Ended leases
    /// are left out, as in the digest, because routers forget them at different times.
    pub fn summary(&self, bucket: usize) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bucket_entries(bucket)
            .filter(|(_, _, lease)| lease.is_live())
            .map(|(hash, key, lease)| (hash, entry_hash(key, lease)))
    }

    /// Returns the lease whose key has this hash.
    pub fn by_hash(&self, hash: u64) -> Option<LeaseEntry> {
        let key = self.by_hash.get(&hash)?;
        Some((Arc::clone(key), self.entries.get(key)?.clone()))
    }

    /// Returns the leases of a bucket whose hash differs from the one in `theirs`, or whose key is
    /// not in `theirs`.
    pub fn differing(&self, bucket: usize, theirs: &BTreeMap<u64, u64>) -> Vec<LeaseEntry> {
        self.bucket_entries(bucket)
            .filter(|(hash, key, lease)| match theirs.get(hash) {
                Some(their_hash) => *their_hash != entry_hash(key, lease),
                None => lease.is_live(),
            })
            .map(|(_, key, lease)| (Arc::clone(key), lease.clone()))
            .collect()
    }

    fn bucket_entries(
        &self,
        bucket: usize,
    ) -> impl Iterator<Item = (u64, &Arc<LeaseKey>, &Lease)> + '_ {
        let shift = u64::BITS - BUCKETS.ilog2();
        let first = (bucket as u64) << shift;
        let last = first | (u64::MAX >> BUCKETS.ilog2());
        self.by_hash
            .range(first..=last)
            .filter_map(|(hash, key)| Some((*hash, key, self.entries.get(key)?)))
    }
}

/// Returns the bucket of a key with this hash.
///
/// Rule: `docs/protocol/ipam.md#9-4-replication`.
fn bucket_of(hash: u64) -> usize {
    (hash >> (u64::BITS - BUCKETS.ilog2())) as usize
}

/// Returns the hash by which routers refer to a key.
///
/// Rule: `docs/protocol/ipam.md#9-4-replication`.
pub(crate) fn key_hash(key: &LeaseKey) -> u64 {
    let mut bytes = Vec::new();
    wire::put_key(&mut bytes, key);
    first_u64(Sha256::digest(&bytes).into())
}

/// Rule: `docs/protocol/ipam.md#9-4-replication`.
fn entry_hash(key: &LeaseKey, lease: &Lease) -> u64 {
    let mut bytes = Vec::new();
    wire::put_key(&mut bytes, key);
    wire::put_lease(&mut bytes, lease);
    first_u64(Sha256::digest(&bytes).into())
}

fn first_u64(hash: [u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
