//! Container names in the loop: gossip and registration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proto::names::{Index, Key, Names};

use boundary::records::{Change, Record};

/// Prefix of the keys of our own names in the store.
const RECORD_PREFIX: &[u8] = b"names/";

/// The names of the mesh, and the server that answers from them.
pub struct Naming {
    pub(super) names: Names,
    pub(super) index: Arc<ArcSwap<Index>>,
    pub(super) leases: Leased,
}

/// The identities that are up here, as they were last registered.
#[derive(Default)]
pub(super) struct Leased {
    /// The digest of the table of leases that they were read from.
    pub(super) digest: u64,
    pub(super) names: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

/// A name registered here, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedName {
    /// The container.
    pub container: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The name, fully qualified.
    pub hostname: String,
}

impl SavedName {
    /// Returns the names among all records of the store.
    pub fn all(records: &[Record]) -> impl Iterator<Item = SavedName> {
        records.iter().filter_map(|(key, _)| SavedName::read(key))
    }

    fn read(key: &[u8]) -> Option<SavedName> {
        let text = std::str::from_utf8(key.strip_prefix(RECORD_PREFIX)?).ok()?;
        let mut parts = text.split('\0');
        let name = SavedName {
            container: parts.next()?.to_owned(),
            address: parts.next()?.parse().ok()?,
            hostname: parts.next()?.to_owned(),
        };
        parts.next().is_none().then_some(name)
    }

    /// Returns the record that keeps the name, or its removal. Neither part can have a zero byte.
    pub fn change(&self, kept: bool) -> Change {
        let SavedName {
            container,
            address,
            hostname,
        } = self;
        let text = format!("{container}\0{address}\0{hostname}");
        Change {
            key: [RECORD_PREFIX, text.as_bytes()].concat(),
            value: kept.then(Vec::new),
        }
    }
}

impl From<&Key> for SavedName {
    fn from(key: &Key) -> SavedName {
        SavedName {
            container: key.container.to_string(),
            address: key.addr,
            hostname: key.hostname.to_string(),
        }
    }
}

impl Naming {
    /// Names without any entry yet; `index` is where a server finds those that are alive.
    pub fn new(names: Names, index: Arc<ArcSwap<Index>>) -> Naming {
        Naming {
            names,
            index,
            leases: Leased::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_names_are_read_back() {
        let name = SavedName {
            container: "weave:extern".to_owned(),
            address: Ipv4Addr::new(10, 7, 0, 5),
            hostname: "db.weave.local.".to_owned(),
        };
        let kept = name.change(true);
        let value = kept.value.clone().unwrap();
        let records = [
            (b"ipam/x".to_vec(), Vec::new()),
            (kept.key.clone(), value),
            (b"names/c\0nowhere\0x.".to_vec(), Vec::new()),
            (b"names/c\x0010.7.0.5\0x.\0more".to_vec(), Vec::new()),
            (b"names/\xff".to_vec(), Vec::new()),
        ];
        let mut read = SavedName::all(&records);
        assert_eq!((read.next().as_ref(), read.next()), (Some(&name), None));
        let gone = name.change(false);
        assert_eq!((gone.key, gone.value), (kept.key, None));
    }
}
