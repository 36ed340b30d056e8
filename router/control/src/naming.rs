//! Names in the loop: their gossip, and who registers them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use boundary::records::Change;
use ipam::leases::LeaseState;
use proto::names::gossip::CHANNEL;
use proto::names::{Event, Filter, Output};
use proto::node::{Content, DeliveryKind};
use proto::types::{ConnId, PeerName};

use super::control::Control;
use super::errors::NamesError;
use super::names::SavedName;
use super::request::NameFilter;

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

    /// The containers that have names here.
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

    /// Does what the names want. Returns true if there was anything.
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
