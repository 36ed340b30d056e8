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
    /// Live leases by address; there may be several of one address when things went wrong.
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
    /// How many leases there are, those that are gone included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none, not even one that is gone.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more would be too many.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= LEASES_MAX
    }

    /// The lease of this key, gone or not.
    pub fn get(&self, key: &LeaseKey) -> Option<&Lease> {
        self.entries.get(key)
    }

    /// The lease of this key, unless it is gone.
    pub fn live(&self, key: &LeaseKey) -> Option<&Lease> {
        self.get(key).filter(|lease| lease.is_live())
    }

    /// The key as the table holds it, so that it need not be copied.
    pub fn shared(&self, key: &LeaseKey) -> Arc<LeaseKey> {
        match self.entries.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key.clone()),
        }
    }

    /// All leases, gone ones included, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<LeaseKey>, &Lease)> {
        self.entries.iter()
    }

    /// The live leases of an address.
    pub fn at(&self, address: Address) -> impl Iterator<Item = (&Arc<LeaseKey>, &Lease)> {
        self.within(Range::single(address))
    }

    /// The live leases whose address lies in a range, by address.
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

    /// Sets or removes a lease; returns what was there.
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

    fn toggle(&mut self, key: &LeaseKey, lease: &Lease) {
        let bucket = bucket_of(key_hash(key));
        if let Some(sum) = self.buckets.get_mut(bucket) {
            *sum ^= entry_hash(key, lease);
        }
    }

    /// The digest of each bucket.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// The digest of the whole table; that of an empty one is 0.
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

    /// Hashes of the keys of a bucket, each with the hash of its lease. Leases that are gone are
    /// left out, as they are in the digest: routers forget them at different times.
    pub fn summary(&self, bucket: usize) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bucket_entries(bucket)
            .filter(|(_, _, lease)| lease.is_live())
            .map(|(hash, key, lease)| (hash, entry_hash(key, lease)))
    }

    /// The lease whose key has this hash.
    pub fn by_hash(&self, hash: u64) -> Option<LeaseEntry> {
        let key = self.by_hash.get(&hash)?;
        Some((Arc::clone(key), self.entries.get(key)?.clone()))
    }

    /// The leases of a bucket whose hash differs from the one that `theirs` gives for the key, or
    /// for whose key it gives none.
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

/// The bucket of a key with this hash.
fn bucket_of(hash: u64) -> usize {
    (hash >> (u64::BITS - BUCKETS.ilog2())) as usize
}

/// The hash by which other routers name a key.
pub(crate) fn key_hash(key: &LeaseKey) -> u64 {
    let mut bytes = Vec::new();
    wire::put_key(&mut bytes, key);
    first_u64(Sha256::digest(&bytes).into())
}

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
