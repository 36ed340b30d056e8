//! The links that the node told of, and the snapshot for the data threads made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::native;
use proto::node::LinkInfo;
use proto::overlay::Overlay;
use proto::routes::Routes;
use proto::sleeve::link::Path;
use proto::sleeve::{LinkId, Tunnel, TunnelConfig};
use proto::switch::{Forwarding, PeerSlot, PeerSlots};
use proto::types::{PeerName, Time};

use boundary::snapshot::{Encap, Link, NativeLink, Session, Snapshot};

/// Packets sent back to back to a router that is not weft. Its receive buffer of 212,992 bytes takes
/// some 90 of full size, each costing it 2,304 with the kernel's own bookkeeping, and it has not
/// always read the burst before. Half as many lose a quarter as much, and are as fast.
pub const FOREIGN_BURST_PACKETS: u16 = 32;

/// The state that snapshots are made from.
pub struct Links {
    us: PeerName,
    entries: BTreeMap<LinkId, Entry>,
    /// Links to each neighbour, in the order in which they are to be tried.
    order: BTreeMap<PeerName, Vec<LinkId>>,
    slots: PeerSlots,
    routes: Arc<Routes>,
    changed: bool,
}

/// A link with what data threads need to know of it.
enum Entry {
    Sleeve {
        tunnel: Arc<Tunnel>,
        burst_packets: u16,
    },
    Native {
        tunnel: Arc<native::Tunnel>,
        keys: native::Keys,
    },
}

impl Links {
    /// No links yet.
    pub fn new(us: PeerName, routes: Arc<Routes>) -> Links {
        let slots = PeerSlots::new(us);
        Links {
            us,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            slots,
            routes,
            changed: true,
        }
    }

    /// There is a new link.
    pub fn add(&mut self, info: LinkInfo) {
        let is_weft = info.is_weft();
        let LinkInfo {
            link: id,
            peer,
            path,
            ..
        } = info;
        let entry = match info.overlay {
            Overlay::Sleeve => {
                let tunnel = Tunnel::new(TunnelConfig {
                    id,
                    us: self.us,
                    peer,
                    key: info.key,
                    dialled: info.dialled,
                    remote: path.remote,
                });
                Entry::Sleeve {
                    tunnel: Arc::new(tunnel),
                    burst_packets: if is_weft { 0 } else { FOREIGN_BURST_PACKETS },
                }
            }
            Overlay::Weft => Entry::Native {
                tunnel: Arc::new(native::Tunnel::new(id, self.us, peer, path.remote)),
                keys: native::Keys::default(),
            },
        };
        entry.set_path(path);
        self.entries.insert(id, entry);
        self.changed = true;
    }

    /// Packets of a link travel in another way. Takes effect at once, without a new snapshot.
    pub fn update(&mut self, link: LinkId, path: Path) {
        if let Some(entry) = self.entries.get(&link) {
            let was_usable = entry.is_usable();
            entry.set_path(path);
            self.changed |= was_usable != entry.is_usable();
        }
    }

    /// A native link has other keys.
    pub fn set_keys(&mut self, link: LinkId, new: native::Keys) {
        if let Some(Entry::Native { keys, .. }) = self.entries.get_mut(&link) {
            *keys = new;
            self.changed = true;
        }
    }

    /// A link is over.
    pub fn remove(&mut self, link: LinkId) {
        self.entries.remove(&link);
        self.changed = true;
    }

    /// The links to a neighbour are to be tried in this order; none if it is one no longer.
    pub fn set_order(&mut self, peer: PeerName, links: Vec<LinkId>) {
        if links.is_empty() {
            self.order.remove(&peer);
        } else {
            self.order.insert(peer, links);
        }
        self.changed = true;
    }

    /// There are new routes. Returns the slots of peers that are gone, whose MAC addresses are to
    /// be forgotten.
    pub fn set_routes(&mut self, now: Time, routes: Arc<Routes>) -> Vec<PeerSlot> {
        let gone = self.slots.update(now, routes.peers());
        self.routes = routes;
        self.changed = true;
        gone
    }

    /// Returns the tunnel of a sleeve link.
    pub fn tunnel(&self, link: LinkId) -> Option<&Arc<Tunnel>> {
        match self.entries.get(&link)? {
            Entry::Sleeve { tunnel, .. } => Some(tunnel),
            Entry::Native { .. } => None,
        }
    }

    /// Returns a native link that has a key to send with.
    pub fn native(&self, link: LinkId) -> Option<NativeLink> {
        match self.entries.get(&link)? {
            Entry::Native { tunnel, keys } => Some(NativeLink {
                tunnel: Arc::clone(tunnel),
                key: keys.send.clone()?,
            }),
            Entry::Sleeve { .. } => None,
        }
    }

    /// Returns the peers by their slots.
    pub fn names(&self) -> BTreeMap<PeerSlot, PeerName> {
        let peers = self.routes.peers().iter();
        peers
            .filter_map(|peer| Some((self.slots.get(*peer)?, *peer)))
            .collect()
    }

    /// Returns a snapshot, if anything changed since the last one.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let links: Vec<Link> = self
            .order
            .iter()
            .filter_map(|(peer, order)| {
                let entries = order.iter().filter_map(|link| self.entries.get(link));
                let mut usable = entries.filter(|entry| entry.is_usable());
                usable.find_map(|entry| entry.link(*peer))
            })
            .collect();
        let neighbours: Vec<PeerName> = links.iter().map(|link| link.peer).collect();
        let forwarding = Forwarding::new(Arc::clone(&self.routes), &self.slots, &neighbours);
        let mut tunnels = Vec::new();
        let mut sessions = Vec::new();
        for entry in self.entries.values() {
            match entry {
                Entry::Sleeve { tunnel, .. } => tunnels.push(Arc::clone(tunnel)),
                Entry::Native { tunnel, keys } => {
                    sessions.extend(keys.receive.iter().map(|key| Session {
                        key: Arc::clone(key),
                        tunnel: Arc::clone(tunnel),
                    }));
                }
            }
        }
        Some(Snapshot::new(forwarding, links, tunnels).with_sessions(sessions))
    }
}

impl Entry {
    fn set_path(&self, path: Path) {
        match self {
            Entry::Sleeve { tunnel, .. } => {
                tunnel.set_remote(path.remote);
                tunnel.set_limits(path.mtu, path.max_payload);
                tunnel.set_fragments_proven(path.fragments);
                tunnel.set_open(path.open);
            }
            Entry::Native { tunnel, .. } => {
                tunnel.set_remote(path.remote);
                tunnel.set_max_payload(path.max_payload);
            }
        }
    }

    /// Returns true if frames can be sent over it.
    fn is_usable(&self) -> bool {
        match self {
            Entry::Sleeve { .. } => true,
            Entry::Native { tunnel, keys } => {
                keys.send.is_some() && tunnel.remote().is_some() && tunnel.max_payload() > 0
            }
        }
    }

    fn link(&self, peer: PeerName) -> Option<Link> {
        let (encap, burst_packets) = match self {
            Entry::Sleeve {
                tunnel,
                burst_packets,
            } => (Encap::Sleeve(Arc::clone(tunnel)), *burst_packets),
            Entry::Native { tunnel, keys } => {
                let native = NativeLink {
                    tunnel: Arc::clone(tunnel),
                    key: keys.send.clone()?,
                };
                (Encap::Native(native), 0)
            }
        };
        Some(Link {
            peer,
            encap,
            burst_packets,
        })
    }
}
