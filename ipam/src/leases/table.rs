//! The replicated table of leases, and the digest by which two copies are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::types::PeerName;
use sha2::{Digest as _, Sha256};

use super::lease::{
    HOLDER_LEASES_MAX, LEASES_MAX, LEASES_RESERVED, Lease, LeaseEntry, LeaseKey, Scope,
};
use super::wire::{self, BUCKETS};
use crate::range::{Address, Range};

/// All leases that a router knows.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    entries: BTreeMap<Arc<LeaseKey>, Lease>,
    /// Live leases by address. After errors there may be several of one address.
    by_address: BTreeSet<(Address, Arc<LeaseKey>)>,
    /// All leases by the hash of their key, the top bits of which name the bucket, each with its
    /// own hash: whoever compares tables must not make us hash them all again.
    by_hash: BTreeMap<u64, (Arc<LeaseKey>, u64)>,
    /// How many leases each holder has.
    by_holder: BTreeMap<PeerName, usize>,
    /// For each bucket the XOR of the hashes of its live leases.
    buckets: [u64; BUCKETS],
}

impl Default for LeaseTable {
    fn default() -> LeaseTable {
        LeaseTable {
            entries: BTreeMap::new(),
            by_address: BTreeSet::new(),
            by_hash: BTreeMap::new(),
            by_holder: BTreeMap::new(),
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

    /// Returns true if router `us` may make one more.
    pub fn has_room(&self) -> bool {
        self.entries.len() < LEASES_MAX
    }

    /// Returns true if one more may come from another router, of which `holder` is the holder:
    /// nobody takes what others need, and none of them what we need ourselves. Of holders that are
    /// not `known` to be routers of the mesh all together may have no more than one that is.
    pub fn has_room_for(&self, holder: PeerName, known: bool) -> bool {
        let held = self.by_holder.get(&holder).copied().unwrap_or_default();
        let most = if known {
            LEASES_MAX - LEASES_RESERVED
        } else {
            HOLDER_LEASES_MAX
        };
        held < HOLDER_LEASES_MAX && self.entries.len() < most
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
        let hash = key_hash(key);
        let before = match lease {
            Some(lease) => {
                self.index(key, hash, &lease);
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
            self.count(before.holder, -1);
            if before.is_live() {
                let before_hash = entry_hash(key, before);
                self.toggle(hash, before_hash);
                if !stays {
                    self.by_address.remove(&(before.address, Arc::clone(key)));
                }
            }
            if !exists {
                self.by_hash.remove(&hash);
            }
        }
        before
    }

    fn index(&mut self, key: &Arc<LeaseKey>, hash: u64, lease: &Lease) {
        let lease_hash = entry_hash(key, lease);
        if lease.is_live() {
            self.by_address.insert((lease.address, Arc::clone(key)));
            self.toggle(hash, lease_hash);
        }
        self.count(lease.holder, 1);
        self.by_hash.insert(hash, (Arc::clone(key), lease_hash));
    }

    fn count(&mut self, holder: PeerName, change: isize) {
        let count = self.by_holder.entry(holder).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.by_holder.remove(&holder);
        }
    }

    fn toggle(&mut self, key_hash: u64, entry_hash: u64) {
        if let Some(sum) = self.buckets.get_mut(bucket_of(key_hash)) {
            *sum ^= entry_hash;
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
            .filter(|entry| entry.lease.is_live())
            .map(|entry| (entry.hash, entry.lease_hash))
    }

    /// Returns the lease whose key has this hash.
    pub fn by_hash(&self, hash: u64) -> Option<LeaseEntry> {
        let (key, _) = self.by_hash.get(&hash)?;
        Some((Arc::clone(key), self.entries.get(key)?.clone()))
    }

    /// Returns the leases of a bucket whose hash differs from the one in `theirs`, or whose key is
    /// not in `theirs`.
    pub fn differing(&self, bucket: usize, theirs: &BTreeMap<u64, u64>) -> Vec<LeaseEntry> {
        self.bucket_entries(bucket)
            .filter(|entry| match theirs.get(&entry.hash) {
                Some(their_hash) => *their_hash != entry.lease_hash,
                None => entry.lease.is_live(),
            })
            .map(|entry| (Arc::clone(entry.key), entry.lease.clone()))
            .collect()
    }

    fn bucket_entries(&self, bucket: usize) -> impl Iterator<Item = Hashed<'_>> + '_ {
        let shift = u64::BITS - BUCKETS.ilog2();
        let first = (bucket as u64) << shift;
        let last = first | (u64::MAX >> BUCKETS.ilog2());
        self.by_hash
            .range(first..=last)
            .filter_map(|(hash, (key, lease_hash))| {
                Some(Hashed {
                    hash: *hash,
                    lease_hash: *lease_hash,
                    key,
                    lease: self.entries.get(key)?,
                })
            })
    }
}

/// A lease with the hashes of its key and of itself.
struct Hashed<'a> {
    hash: u64,
    lease_hash: u64,
    key: &'a Arc<LeaseKey>,
    lease: &'a Lease,
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
