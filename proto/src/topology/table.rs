//! The table of all peers, and our own entry in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::admission::{Admitted, Introduced, Refused};
use super::limits::NICKNAME_BYTES_MAX;
use super::resolve::resolve;
use super::short_ids::ShortIds;
use super::update::{self, Connection, Peer, encode_update};
use crate::gob::Encoder;
use crate::types::{PeerName, PeerUid, ShortId};

/// Everything known of the peers of the mesh and their connections.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(super) us: PeerName,
    pub(super) peers: BTreeMap<PeerName, Peer>,
    /// Number of local connections that hold each peer. Peers that none holds are absent.
    pub(super) references: BTreeMap<PeerName, u32>,
    pub(super) short_ids: ShortIds,
    /// The sum of [`Peer::extra_bytes`] over all peers.
    pub(super) extra_bytes: usize,
    pub(super) changes: Changes,
    pub(super) rng: fastrand::Rng,
}

/// What the caller must do after changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Changes {
    /// Our own entry has a new version: announce it.
    pub announce: bool,
    /// Peers or connections changed: calculate routes and look for targets.
    pub routes: bool,
    /// A short id has another owner: everything derived from short ids is stale.
    pub short_ids: bool,
}

impl Topology {
    /// Creates a mesh of one peer, ourselves, which claims `short_id` or a random id.
    pub fn new(
        name: PeerName,
        nickname: &str,
        uid: PeerUid,
        short_id: Option<ShortId>,
        mut rng: fastrand::Rng,
    ) -> Topology {
        let mut short_ids = ShortIds::default();
        let short_id = short_id.or_else(|| short_ids.draw(&mut rng));
        if let Some(id) = short_id {
            short_ids.claim(id, name);
        }
        let ourself = Peer {
            name,
            nickname: cut(nickname),
            uid,
            version: 0,
            short_id,
            connections: Vec::new(),
        };
        Topology {
            us: name,
            extra_bytes: ourself.extra_bytes(),
            peers: BTreeMap::from([(name, ourself)]),
            references: BTreeMap::new(),
            short_ids,
            changes: Changes::default(),
            rng,
        }
    }

    /// Returns our own name.
    pub fn us(&self) -> PeerName {
        self.us
    }

    /// Returns the peer with this name. Its connections are sorted by the names of their remotes.
    pub fn peer(&self, name: PeerName) -> Option<&Peer> {
        self.peers.get(&name)
    }

    /// Returns true if a peer lists a connection to `remote`.
    pub fn lists(&self, name: PeerName, remote: PeerName) -> bool {
        let peer = self.peers.get(&name);
        peer.is_some_and(|peer| peer.position(remote).is_ok())
    }

    /// Returns all peers, sorted by name, including ourselves.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.peers.values()
    }

    /// Returns the names of all peers, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = PeerName> {
        self.peers.keys().copied()
    }

    /// Returns the peer that owns a short id.
    pub fn short_id_owner(&self, id: ShortId) -> Option<PeerName> {
        self.short_ids.owner(id)
    }

    /// Returns what must be done since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Checks the peer at the other end of a connection, adds it if it is unknown and `accept_new`
    /// is true, and holds it until [`Topology::release`].
    ///
    /// `accept_new` is false only for connections to discovered addresses. The entry of a known
    /// peer is not changed: gossip over the connection brings a newer one.
    ///
    /// Rule: `docs/protocol/mesh.md#3-4-features`.
    pub fn admit(&mut self, peer: Introduced<'_>, accept_new: bool) -> Result<Admitted, Refused> {
        let known = self.peers.get(&peer.name).map(|known| known.uid);
        match known {
            Some(uid) if peer.name == self.us && uid != peer.uid => {
                return Err(Refused::NameCollision(self.us));
            }
            Some(_) if peer.name == self.us => return Err(Refused::Ourself),
            None if !accept_new || peer.name == PeerName::UNKNOWN => {
                return Err(Refused::UnknownPeer(peer.name));
            }
            None => self.insert(Peer {
                name: peer.name,
                nickname: cut(peer.nickname),
                uid: peer.uid,
                version: 0,
                short_id: peer.short_id,
                connections: Vec::new(),
            }),
            Some(_) => {}
        }
        *self.references.entry(peer.name).or_default() += 1;
        self.settle_short_id();
        Ok(Admitted {
            restarted: known.is_some_and(|uid| uid != peer.uid),
        })
    }

    /// Ends the hold that one successful [`Topology::admit`] made.
    pub fn release(&mut self, name: PeerName) {
        if let Some(count) = self.references.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.references.remove(&name);
            }
        }
    }

    /// Adds a connection, not yet established, to our entry. Replaces any connection to that peer.
    ///
    /// Rule: `docs/protocol/mesh.md#3-6-duplicates`.
    pub fn add_connection(&mut self, remote: PeerName, address: SocketAddr, outbound: bool) {
        let connection = Connection {
            remote,
            address: address.into(),
            outbound,
            established: false,
        };
        self.change_ourself(|ourself| {
            match ourself.position(remote) {
                Ok(index) => ourself.connections[index] = connection,
                Err(index) => ourself.connections.insert(index, connection),
            }
            true
        });
    }

    /// Marks our connection to `remote` as one that carries frames. Does nothing if there is none.
    ///
    /// Rule: `docs/protocol/mesh.md#3-6-duplicates`.
    pub fn establish_connection(&mut self, remote: PeerName) {
        self.change_ourself(|ourself| {
            let Ok(index) = ourself.position(remote) else {
                return false;
            };
            !std::mem::replace(&mut ourself.connections[index].established, true)
        });
    }

    /// Removes our connection to `remote` from our entry. Does nothing if there is none.
    ///
    /// Call [`Topology::collect_garbage`] before anything is announced: an update with unreachable
    /// peers may circulate forever.
    ///
    /// Rule: `docs/protocol/mesh.md#6-4-garbage`.
    pub fn delete_connection(&mut self, remote: PeerName) {
        self.change_ourself(|ourself| {
            let found = ourself.position(remote);
            found.map(|index| ourself.connections.remove(index)).is_ok()
        });
    }

    /// Encodes the entries of the known peers among `names` as an update.
    ///
    /// Format: `docs/protocol/mesh.md#6-1-payload`.
    pub fn encode(&self, names: impl IntoIterator<Item = PeerName>) -> Vec<u8> {
        encode_update(names.into_iter().filter_map(|name| self.peers.get(&name)))
    }

    /// Encodes the entries of the known peers among `names` as updates of about `bytes_max` bytes
    /// each: a part ends with the entry that makes it reach that size.
    ///
    /// The state of a mesh may exceed the maximum size of a message. Parts can be merged in any
    /// order, and each on its own.
    ///
    /// Format: `docs/protocol/mesh.md#6-1-payload`.
    pub fn encode_parts(
        &self,
        names: impl IntoIterator<Item = PeerName>,
        bytes_max: usize,
    ) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut encoder = Encoder::new();
        for peer in names.into_iter().filter_map(|name| self.peers.get(&name)) {
            update::write_peer(&mut encoder, peer);
            if encoder.len() >= bytes_max {
                parts.push(std::mem::take(&mut encoder).finish());
            }
        }
        if !encoder.is_empty() {
            parts.push(encoder.finish());
        }
        parts
    }

    /// Removes peers that cannot be reached from us over any listed connections, established or
    /// not, unless a local connection holds them. Returns their names in order.
    ///
    /// Rule: `docs/protocol/mesh.md#6-4-garbage`.
    pub fn collect_garbage(&mut self) -> Vec<PeerName> {
        let reached = self.reachable();
        let gone: Vec<PeerName> = self
            .peers
            .keys()
            .zip(&reached)
            .filter(|(name, reached)| !**reached && !self.references.contains_key(name))
            .map(|(name, _)| *name)
            .collect();
        for name in &gone {
            if let Some(peer) = self.peers.remove(name) {
                self.forget_entry(&peer);
            }
        }
        if !gone.is_empty() {
            self.changes.routes = true;
            self.settle_short_id();
        }
        gone
    }

    /// Returns for each peer, in order of names, whether it can be reached from us.
    fn reachable(&self) -> Vec<bool> {
        let names: Vec<PeerName> = self.names().collect();
        let peers: Vec<&Peer> = self.peers().collect();
        let mut reached = vec![false; names.len()];
        let mut waiting = Vec::new();
        if let Ok(us) = names.binary_search(&self.us) {
            reached[us] = true;
            waiting.push(us);
        }
        while let Some(index) = waiting.pop() {
            resolve(&names, &peers[index].connections, |remote, _| {
                if let Some(remote) = remote
                    && !std::mem::replace(&mut reached[remote], true)
                {
                    waiting.push(remote);
                }
            });
        }
        reached
    }

    pub(super) fn insert(&mut self, peer: Peer) {
        let (name, short_id) = (peer.name, peer.short_id);
        self.extra_bytes += peer.extra_bytes();
        let old = self.peers.insert(name, peer);
        let same_id = old.as_ref().is_some_and(|old| old.short_id == short_id);
        if let Some(mut old) = old {
            if same_id {
                old.short_id = None;
            }
            self.forget_entry(&old);
        }
        if let Some(id) = short_id.filter(|_| !same_id) {
            self.changes.short_ids |= self.short_ids.claim(id, name);
        }
        self.changes.routes = true;
    }

    /// Subtracts a removed entry from the totals.
    fn forget_entry(&mut self, peer: &Peer) {
        self.extra_bytes = self.extra_bytes.saturating_sub(peer.extra_bytes());
        if let Some(id) = peer.short_id {
            self.changes.short_ids |= self.short_ids.release(id, peer.name);
        }
    }

    /// Changes our entry. `change` returns true if it changed anything.
    fn change_ourself(&mut self, change: impl FnOnce(&mut Peer) -> bool) {
        let Some(ourself) = self.peers.get_mut(&self.us) else {
            return;
        };
        let old_bytes = ourself.extra_bytes();
        if change(ourself) {
            ourself.version = ourself.version.saturating_add(1);
            self.extra_bytes = self.extra_bytes - old_bytes + ourself.extra_bytes();
            self.changes.routes = true;
            self.changes.announce = true;
        }
    }

    /// Claims another short id if ours is owned by a peer with a lower name. If none is free, keeps
    /// ours and tries again when peers leave.
    ///
    /// Rule: `docs/protocol/mesh.md#6-5-short-ids`.
    pub(super) fn settle_short_id(&mut self) {
        let Some(ourself) = self.peers.get_mut(&self.us) else {
            return;
        };
        let old = ourself.short_id;
        if old.is_some_and(|id| self.short_ids.owner(id) == Some(self.us)) {
            return;
        }
        let Some(id) = self.short_ids.draw(&mut self.rng) else {
            return;
        };
        ourself.short_id = Some(id);
        ourself.version = ourself.version.saturating_add(1);
        if let Some(old) = old {
            self.short_ids.release(old, self.us);
        }
        self.changes.short_ids |= self.short_ids.claim(id, self.us);
        self.changes.announce = true;
    }
}

/// Returns the part of a nickname that is kept.
fn cut(nickname: &str) -> Box<[u8]> {
    let end = nickname.floor_char_boundary(NICKNAME_BYTES_MAX);
    nickname.as_bytes()[..end].into()
}
