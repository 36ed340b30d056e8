//! The snapshot from which questions are answered: from names to addresses, and back.
//!
//! The table changes one name at a time and is read by every query, so a snapshot shares all that
//! did not change with the one before: names are spread over shards, each behind a counted
//! pointer, and a change copies only its shard.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::domain;

/// Maximum number of addresses of one name; a TCP message holds fewer.
pub const ADDRESSES_MAX: usize = 4096;

/// How many shards names and addresses are each spread over.
const SHARDS: usize = 256;

/// An immutable view of the living entries. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Lower-case labels to addresses, without repetitions, never empty.
    names: Box<[Arc<Names>]>,
    /// Addresses to the labels of their names, as spelled.
    reverse: Box<[Arc<Reverse>]>,
}

type Names = BTreeMap<Arc<[u8]>, Arc<[Ipv4Addr]>>;
type Reverse = BTreeMap<Ipv4Addr, Arc<[u8]>>;

impl Default for Index {
    fn default() -> Index {
        Index {
            names: vec![Arc::default(); SHARDS].into(),
            reverse: vec![Arc::default(); SHARDS].into(),
        }
    }
}

impl Index {
    /// Returns the index of these fully qualified names; others are left out.
    pub fn of<'a>(names: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) -> Index {
        let mut by_name = BTreeMap::<Vec<u8>, Vec<Ipv4Addr>>::new();
        let mut index = Index::default();
        for (hostname, addr) in names {
            if !domain::is_hostname(hostname) {
                continue;
            }
            let mut name = Vec::with_capacity(hostname.len() + 1);
            domain::push_wire(hostname, &mut name);
            by_name.entry(name).or_default().push(addr);
            if index.name_of(addr).is_none() {
                index.set_name_of(addr, Some(&domain::wire_as_spelled(hostname)));
            }
        }
        for (name, addresses) in &mut by_name {
            addresses.sort_unstable();
            addresses.dedup();
            addresses.truncate(ADDRESSES_MAX);
            index.set_addresses(name, addresses);
        }
        index
    }

    /// Returns the addresses of a name given as labels in lower case.
    pub(super) fn addresses(&self, name: &[u8]) -> &[Ipv4Addr] {
        self.names[shard_of(name)]
            .get(name)
            .map_or(&[], |addresses| addresses)
    }

    /// Returns the addresses of a fully qualified name, in any case.
    pub fn lookup(&self, hostname: &str) -> &[Ipv4Addr] {
        if !domain::is_hostname(hostname) {
            return &[];
        }
        let mut name = Vec::with_capacity(hostname.len() + 1);
        domain::push_wire(hostname, &mut name);
        self.addresses(&name)
    }

    /// Returns the labels of the name of an address.
    pub(super) fn name_of(&self, addr: Ipv4Addr) -> Option<&[u8]> {
        self.reverse[shard_of(&addr.octets())]
            .get(&addr)
            .map(|name| &**name)
    }

    /// Returns how many names have an address.
    pub fn len(&self) -> usize {
        self.names.iter().map(|shard| shard.len()).sum()
    }

    /// Returns true if no name has an address.
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(|shard| shard.is_empty())
    }

    /// Sets the addresses of a name; none removes it.
    pub(super) fn set_addresses(&mut self, name: &[u8], addresses: &[Ipv4Addr]) {
        if self.addresses(name) == addresses {
            return;
        }
        let shard = Arc::make_mut(&mut self.names[shard_of(name)]);
        if addresses.is_empty() {
            shard.remove(name);
        } else if let Some(known) = shard.get_mut(name) {
            *known = addresses.into();
        } else {
            shard.insert(name.into(), addresses.into());
        }
    }

    /// Sets the name of an address; none removes it.
    pub(super) fn set_name_of(&mut self, addr: Ipv4Addr, name: Option<&[u8]>) {
        if self.name_of(addr) == name {
            return;
        }
        let shard = Arc::make_mut(&mut self.reverse[shard_of(&addr.octets())]);
        match name {
            Some(name) => shard.insert(addr, name.into()),
            None => shard.remove(&addr),
        };
    }
}

/// FNV-1a, folded to the number of shards. Names that a hostile peer picks to meet in one shard
/// make changes slower there; lookups stay logarithmic.
fn shard_of(bytes: &[u8]) -> usize {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (hash ^ hash >> 16) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut index = Index::default();
        let addr = Ipv4Addr::new(10, 0, 0, 1);
        index.set_addresses(b"\x01a\0", &[addr]);
        index.set_name_of(addr, Some(b"\x01A\0"));
        let before = index.clone();
        index.set_addresses(b"\x01a\0", &[]);
        index.set_name_of(addr, None);
        assert!(index.is_empty() && index.name_of(addr).is_none());
        assert_eq!(before.lookup("A."), [addr]);
        assert_eq!(before.name_of(addr), Some(&b"\x01A\0"[..]));
        assert_eq!(before.len(), 1);
    }

    #[test]
    fn names_spread_over_the_shards() {
        let mut hits = vec![0; SHARDS];
        for i in 0..25_600 {
            let mut name = Vec::new();
            domain::push_wire(&format!("web-{i}.weave.local."), &mut name);
            hits[shard_of(&name)] += 1;
        }
        assert!(hits.iter().all(|hits| (20..400).contains(hits)), "{hits:?}");
    }
}
