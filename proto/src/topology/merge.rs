//! Taking in what others tell.

use std::collections::BTreeSet;

use super::limits::{ENTRIES_BYTES_MAX, PEERS_MAX};
use super::resolve::resolve;
use super::table::Topology;
use super::update::{self, Header, Peer};
use crate::gob::Error;
use crate::types::{PeerName, PeerUid};

/// What an update did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Peers that the update told something new of: what goes on to neighbours.
    pub improved: BTreeSet<PeerName>,
    /// All peers that the update has an entry of: what goes on if it was a broadcast.
    pub named: BTreeSet<PeerName>,
    /// How many entries were left out because they reach a limit.
    pub ignored: usize,
}

impl Topology {
    /// Takes in an update. An error leaves everything as it was.
    ///
    /// Lists of entries that are not newer than what is known are not looked into, so an update
    /// that brings nothing new costs little, however large it is.
    pub fn merge(&mut self, update: &[u8]) -> Result<Merged, Error> {
        let mut merged = Merged::default();
        let (mut fresh, mut wanted) = (Vec::new(), 0);
        // The highest version under which an earlier start of ourselves is still known.
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
                // The update may have had a newer one of the same peer before.
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

    fn is_news(&self, header: &Header) -> bool {
        self.header(header.name)
            .is_none_or(|known| header.is_newer_than(&known))
    }

    /// Whether the limits allow this entry in place of the one that is known of the peer, if any.
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

    /// Adds the peers that are known only because connections of `improved` lead to them.
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

    /// Lifts our version beyond `version`, so that our entry replaces that of an earlier start.
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
