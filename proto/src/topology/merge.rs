//! Merging updates of other peers.

use std::collections::BTreeSet;

use super::limits::{ENTRIES_BYTES_MAX, PEERS_MAX};
use super::resolve::resolve;
use super::table::Topology;
use super::update::{self, Header, Peer};
use crate::gob::Error;
use crate::types::{PeerName, PeerUid};

/// Result of a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Peers about which the update had news. They are passed on to neighbours.
    pub improved: BTreeSet<PeerName>,
    /// All peers of which the update had an entry. They are passed on if it was a broadcast.
    pub named: BTreeSet<PeerName>,
    /// Number of entries that were left out because of a limit.
    pub ignored: usize,
}

impl Topology {
    /// Merges an update. If it returns an error, nothing changed.
    ///
    /// Connections of entries that are not newer than the known ones are not decoded, so an update
    /// without news is cheap, however large it is.
    ///
    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    pub fn merge(&mut self, update: &[u8]) -> Result<Merged, Error> {
        let mut merged = Merged::default();
        let (mut fresh, mut wanted) = (Vec::new(), 0);
        // The highest version of an entry from an earlier start of this peer.
        let mut old_self = None;
        let own = self.header(self.us);
        update::decode(
            update,
            |header| {
                merged.named.insert(header.name);
                if header.name == self.us {
                    if own.is_some_and(|own| own.uid != header.uid) {
                        old_self = old_self.max(Some(header.version));
                    }
                    return false;
                }
                let news = self.is_news(header);
                wanted += usize::from(news);
                news && wanted <= PEERS_MAX
            },
            |peer| fresh.push(peer),
        )?;
        if let Some(version) = old_self {
            self.outdo(version);
        }
        merged.ignored = wanted.saturating_sub(PEERS_MAX);
        for peer in fresh {
            match peer.filter(|peer| self.has_room_for(peer)) {
                None => merged.ignored += 1,
                // An earlier entry of the update may have been a newer one of the same peer.
                Some(peer) if self.is_news(&peer.header()) => {
                    merged.improved.insert(peer.name);
                    self.take_entry(peer);
                }
                Some(_) => {}
            }
        }
        merged.named.retain(|name| self.peers.contains_key(name));
        self.add_placeholders(&merged.improved);
        self.settle_short_id();
        Ok(merged)
    }

    fn header(&self, name: PeerName) -> Option<Header> {
        self.peers.get(&name).map(Peer::header)
    }

    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    fn is_news(&self, header: &Header) -> bool {
        self.header(header.name)
            .is_none_or(|known| header.is_newer_than(&known))
    }

    /// Returns true if the limits allow this entry in place of the known one, if any.
    fn has_room_for(&self, peer: &Peer) -> bool {
        if self.references.contains_key(&peer.name) {
            return true;
        }
        let known = self.peers.get(&peer.name);
        let (old, new) = (known.map(Peer::extra_bytes), peer.extra_bytes());
        let rest = self.extra_bytes.saturating_sub(old.unwrap_or_default());
        let room = rest + new <= ENTRIES_BYTES_MAX || old.is_some_and(|old| new <= old);
        room && (known.is_some() || self.peers.len() < PEERS_MAX)
    }

    /// Adds or replaces the entry of another peer.
    fn take_entry(&mut self, mut peer: Peer) {
        peer.sort_connections();
        peer.connections.shrink_to_fit();
        self.insert(peer);
    }

    /// Adds placeholders for unknown peers to which connections of `improved` lead.
    ///
    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    fn add_placeholders(&mut self, improved: &BTreeSet<PeerName>) {
        let names: Vec<PeerName> = self.names().collect();
        let mut unknown = BTreeSet::new();
        for peer in improved.iter().filter_map(|name| self.peers.get(name)) {
            resolve(&names, &peer.connections, |index, connection| {
                if index.is_none() {
                    unknown.insert(connection.remote);
                }
            });
        }
        let room = PEERS_MAX.saturating_sub(self.peers.len());
        for name in unknown.into_iter().take(room) {
            self.insert(Peer {
                name,
                nickname: Box::default(),
                uid: PeerUid(0),
                version: 0,
                short_id: None,
                connections: Vec::new(),
            });
        }
    }

    /// Raises our version above `version`, so that our entry replaces that of an earlier start.
    ///
    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    fn outdo(&mut self, version: u64) {
        let beyond = version.saturating_add(1);
        if let Some(ourself) = self.peers.get_mut(&self.us)
            && ourself.version < beyond
        {
            ourself.version = beyond;
            self.changes.announce = true;
        }
    }
}
