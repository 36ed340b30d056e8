//! Container names in the loop: gossip and registration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipam::leases::LeaseState;
use proto::names::gossip::CHANNEL;
use proto::names::{AddError, Event, Filter, Index, Key, Names, Output};
use proto::node::{Content, DeliveryKind};
use proto::types::{ConnId, PeerName};

use super::control::Control;
use super::request::{NameFilter, Stopped};
use boundary::records::{Change, Record};

/// Prefix of the keys of our own names in the store.
const RECORD_PREFIX: &[u8] = b"names/";

/// The names of the mesh, and the server that answers from them.
pub struct Naming {
    pub(super) names: Names,
    index: Arc<ArcSwap<Index>>,
    leases: Leased,
}

/// The identities that are up here, as they were last registered.
#[derive(Default)]
struct Leased {
    /// The digest of the table of leases that they were read from.
    digest: u64,
    names: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

/// Why names were not registered, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// The router runs without names.
    #[error("names are off: the router runs with --no-dns")]
    Off,
    /// The loop has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// These names were left out; others were registered.
    #[error("{}", list(.0))]
    Refused(Vec<(String, AddError)>),
}

fn list(refused: &[(String, AddError)]) -> String {
    let texts = refused.iter().map(|(name, why)| format!("{name}: {why}"));
    texts.collect::<Vec<_>>().join("; ")
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

impl Control {
    /// Registers names of a container, and tells the mesh.
    pub(super) fn register_names(
        &mut self,
        container: &str,
        address: Ipv4Addr,
        names: &[String],
    ) -> Result<(), NamesError> {
        let (now, wall) = (self.now(), self.surroundings.unix());
        self.publisher.changed().names = true;
        let naming = self.naming.as_mut().ok_or(NamesError::Off)?;
        let (mut refused, mut changes) = (Vec::new(), Vec::new());
        for name in names {
            let hostname = naming.names.domain().qualify(name);
            match naming.names.add(now, wall, container, &hostname, address) {
                Ok(key) => changes.push(SavedName::from(&*key).change(true)),
                Err(error) => refused.push((name.clone(), error)),
            }
        }
        self.save_names(changes);
        if refused.is_empty() {
            Ok(())
        } else {
            Err(NamesError::Refused(refused))
        }
    }

    /// Removes those of our names that match, and tells the mesh. Returns how many.
    pub(super) fn remove_names(&mut self, wanted: &NameFilter) -> Result<usize, NamesError> {
        let (now, wall) = (self.now(), self.surroundings.unix());
        self.publisher.changed().names = true;
        let naming = self.naming.as_mut().ok_or(NamesError::Off)?;
        let domain = naming.names.domain();
        let relative = wanted.relative.iter().map(|name| domain.qualify(name));
        let mut hostnames: Vec<Option<String>> = wanted
            .hostnames
            .iter()
            .cloned()
            .chain(relative)
            .map(Some)
            .collect();
        if hostnames.is_empty() {
            hostnames.push(None);
        }
        let mut removed = Vec::new();
        for hostname in &hostnames {
            let filter = Filter {
                hostname: hostname.as_deref(),
                container: wanted.container.as_deref(),
                addr: wanted.address,
            };
            removed.extend(naming.names.delete(now, wall, &filter));
        }
        let changes = removed
            .iter()
            .map(|key| SavedName::from(&**key).change(false));
        self.save_names(changes.collect());
        Ok(removed.len())
    }

    /// Returns the containers that have names here.
    pub(super) fn named_containers(&self) -> BTreeSet<String> {
        let keys = self
            .naming
            .iter()
            .flat_map(|naming| naming.names.own_alive());
        keys.map(|key| key.container.to_string()).collect()
    }

    /// Forgets names that were saved and are not registered.
    pub(super) fn forget_saved_names(&self, names: &[SavedName]) {
        self.save_names(names.iter().map(|name| name.change(false)).collect());
    }

    /// A name that is lost with the store is registered again at its container's next start, so
    /// nothing waits for the disk.
    fn save_names(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let done = |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "names were not saved and will be gone after a restart");
            }
        };
        self.surroundings
            .records
            .save_alone(changes, Box::new(done));
    }

    /// Takes gossip for the names.
    pub(super) fn deliver_to_names(
        &mut self,
        neighbour: PeerName,
        kind: DeliveryKind,
        payload: &[u8],
    ) {
        let (now, wall) = (self.now(), self.surroundings.unix());
        self.publisher.changed().names = true;
        let Some(naming) = &mut self.naming else {
            return;
        };
        let names = &mut naming.names;
        let taken = match kind {
            DeliveryKind::Gossip => names.handle_gossip(now, wall, neighbour, payload),
            DeliveryKind::Broadcast { source } => {
                names.handle_broadcast(now, wall, source, payload)
            }
            // Nobody sends names to one peer alone.
            DeliveryKind::Unicast { .. } => Ok(()),
        };
        if let Err(error) = taken {
            tracing::debug!(%neighbour, %error, "a message about names was left out");
        }
    }

    /// The node wants to send the names.
    pub(super) fn names_state_wanted(&mut self, conn: ConnId) {
        let (now, wall) = (self.now(), self.surroundings.unix());
        self.publisher.changed().names = true;
        let Some(naming) = &mut self.naming else {
            return;
        };
        let state = naming.names.state(wall);
        self.node.handle_state(now, CHANNEL, conn, Some(&state));
    }

    /// Peers came or went: names of those that are gone go with them.
    pub(super) fn tell_names_of_peers(&mut self) {
        let (now, wall) = (self.now(), self.surroundings.unix());
        if let Some(naming) = &mut self.naming {
            self.publisher.changed().names = true;
            let peers: Vec<PeerName> = self.node.topology().peers().map(|peer| peer.name).collect();
            naming.names.handle_peers(now, wall, &peers);
        }
    }

    pub(super) fn handle_names_time(&mut self) {
        let now = self.now();
        if let Some(naming) = &mut self.naming
            && naming.names.poll_timeout().is_some_and(|at| at <= now)
        {
            self.publisher.changed().names = true;
            naming.names.handle_timeout(now);
        }
    }

    /// Does what the names want. Tells whether there was anything.
    pub(super) fn act_for_names(&mut self) -> bool {
        let mut acted = false;
        while let Some(output) = self
            .naming
            .as_mut()
            .and_then(|naming| naming.names.poll_output())
        {
            acted = true;
            self.publisher.changed().names = true;
            self.act_on_names(output);
        }
        acted
    }

    fn act_on_names(&mut self, output: Output) {
        let now = self.now();
        match output {
            Output::Gossip { except, payload } => {
                let content = Content::Payload(payload);
                match except {
                    Some(from) => self.node.relay_gossip(now, CHANNEL, from, content),
                    None => self.node.gossip_neighbours(now, CHANNEL, content),
                }
            }
            Output::Broadcast { payload } => {
                self.node.broadcast(now, CHANNEL, Content::Payload(payload));
            }
            Output::Relay { source, payload } => {
                let content = Content::Payload(payload);
                self.node.relay_broadcast(now, CHANNEL, source, content);
            }
            Output::Index(index) => {
                if let Some(naming) = &self.naming {
                    naming.index.store(index);
                }
            }
            Output::Event(
                event @ (Event::PeerClock { off: false, .. } | Event::OurClock { off: false, .. }),
            ) => {
                tracing::info!("{event}");
            }
            Output::Event(event) => tracing::warn!("{event}"),
        }
    }

    /// Keeps the identities that are up here registered. Looks only when leases have changed.
    pub(super) fn follow_leases(&mut self) {
        let (now, wall) = (self.now(), self.surroundings.unix());
        let (Some(naming), Some(addresses)) = (&mut self.naming, &self.addresses) else {
            return;
        };
        let table = addresses.allocator.lease_table();
        let digest = table.digest();
        if digest == naming.leases.digest {
            return;
        }
        naming.leases.digest = digest;
        self.publisher.changed().names = true;
        let us = self.node.us();
        let mut up: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (key, lease) in table.iter() {
            if lease.holder == us && matches!(lease.state, LeaseState::Used(_)) {
                let addresses = up.entry(key.name.clone()).or_default();
                addresses.insert(lease.address.into());
            }
        }
        let before = std::mem::replace(&mut naming.leases.names, up.clone());
        for (identity, had) in &before {
            let has = up.get(identity);
            if has.is_none_or(|has| !had.is_subset(has)) {
                naming.names.delete_lease(now, wall, identity);
            }
        }
        for (identity, has) in up {
            if before.get(&identity) == Some(&has) {
                continue;
            }
            for address in has {
                let added = naming.names.add_lease(now, wall, &identity, address);
                if let Err(error) = added {
                    tracing::debug!(identity, %error, "an identity has no name");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::names::BadEntry;

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

    #[test]
    fn every_refused_name_is_told() {
        let refused = [
            ("x.example.com.".to_owned(), AddError::OutsideDomain),
            ("a b".to_owned(), AddError::Bad(BadEntry::Hostname)),
        ];
        assert_eq!(
            NamesError::Refused(refused.into()).to_string(),
            "x.example.com.: name lies outside the domain; a b: invalid hostname"
        );
    }
}
