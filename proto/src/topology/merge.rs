//! Merging updates of other peers.

use std::collections::BTreeSet;

use super::limits::{ENTRIES_BYTES_MAX, PEERS_MAX, VERSION_END, VERSION_STEP_MAX};
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
    /// What the update says of ourselves that we do not say, if it would outlast what we do. Our
    /// entry was lifted beyond it.
    pub foreign: Option<Foreign>,
}

/// An entry of our peer that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The start of our peer that it speaks of. If it is this one, the entry is forged; if it is
    /// another, that may be over and forgotten, or be a second router with our name.
    pub uid: PeerUid,
    /// Its version.
    pub version: u64,
}

impl Topology {
    /// Merges an update. If it returns an error, nothing changed.
    ///
    /// Lists of entries that are not newer than what is known are not looked into, so an update
    /// that brings nothing new costs little, however large it is. Only our own entry is compared
    /// with what we said, once for each update.
    pub fn merge(&mut self, update: &[u8]) -> Result<Merged, Error> {
        let mut merged = Merged::default();
        let (mut fresh, mut wanted) = (Vec::new(), 0);
        let own = self.header(self.us);
        let (mut foreign, mut is_compared) = (None, false);
        update::decode(
            update,
            |header| {
                merged.named.insert(header.name);
                if header.name == self.us {
                    foreign = foreign.max(own.and_then(|own| beyond(&own, header)));
                    let same = own.is_some_and(|own| own.version > 0 && own == *header);
                    return same && !std::mem::replace(&mut is_compared, true);
                }
                let news = self.is_news(header);
                if news && !self.is_credible(header) {
                    merged.ignored += 1;
                    return false;
                }
                wanted += usize::from(news);
                news && wanted <= PEERS_MAX
            },
            |peer| fresh.push(peer),
        )?;
        merged.ignored += wanted.saturating_sub(PEERS_MAX);
        for peer in fresh {
            match peer.filter(|peer| peer.name == self.us || self.has_room_for(peer)) {
                None => merged.ignored += 1,
                Some(peer) if peer.name == self.us => {
                    if self.differs_from_ours(&peer) {
                        foreign = foreign.max(Some((peer.version, peer.uid)));
                    }
                }
                // An earlier entry of the update may have been a newer one of the same peer.
                Some(peer) if self.is_news(&peer.header()) => {
                    merged.improved.insert(peer.name);
                    self.take_entry(peer);
                }
                Some(_) => {}
            }
        }
        if let Some((version, uid)) = foreign {
            merged.foreign = Some(Foreign { uid, version });
            self.outdo(version);
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

    /// Returns true if a peer can have come to this version by counting.
    fn is_credible(&self, header: &Header) -> bool {
        let known = self.header(header.name).map_or(0, |known| known.version);
        header.version < VERSION_END && header.version - known <= VERSION_STEP_MAX
    }

    /// Returns true if an entry with our version does not say what ours does.
    fn differs_from_ours(&self, said: &Peer) -> bool {
        let mut said = said.clone();
        said.sort_connections();
        self.peers.get(&self.us).is_some_and(|ours| {
            said.version == ours.version && said.connections != ours.connections
        })
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
        if version >= VERSION_END {
            return;
        }
        let Some(ourself) = self.peers.get_mut(&self.us) else {
            return;
        };
        let step = ourself.version.saturating_add(VERSION_STEP_MAX / 2);
        let beyond = version.saturating_add(1).min(step);
        if ourself.version < beyond && beyond < VERSION_END {
            ourself.version = beyond;
            self.changes.announce = true;
        }
    }
}

/// Version and start of an entry of our peer that would replace `own`, and is not of this start
/// or newer.
fn beyond(own: &Header, said: &Header) -> Option<(u64, PeerUid)> {
    let outlasts = match said.uid == own.uid {
        true => said.version > own.version,
        false => said.version >= own.version,
    };
    outlasts.then_some((said.version, said.uid))
}
