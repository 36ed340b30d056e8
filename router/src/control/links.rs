//! The links that the node told of, and the snapshot for the data threads made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::node::LinkInfo;
use proto::overlay::Overlay;
use proto::routes::Routes;
use proto::sleeve::link::Path;
use proto::sleeve::{LinkId, Tunnel, TunnelConfig};
use proto::switch::{Forwarding, PeerSlot, PeerSlots};
use proto::types::{PeerName, Time};

use crate::data::{Encap, Link, Snapshot};

/// Packets sent back to back to a router that is not weft. Its receive buffer of 212,992 bytes takes
/// some 90 of full size, each costing it 2,304 with the kernel's own bookkeeping, and it has not
/// always read the burst before. Half as many lose a quarter as much, and are as fast.
pub const FOREIGN_BURST_PACKETS: u16 = 32;

/// Everything that snapshots are made of.
pub struct Links {
    us: PeerName,
    tunnels: BTreeMap<LinkId, Arc<Tunnel>>,
    /// Links to each neighbour, in the order in which they are to be tried.
    order: BTreeMap<PeerName, Vec<LinkId>>,
    slots: PeerSlots,
    routes: Arc<Routes>,
    changed: bool,
}

impl Links {
    /// No links yet.
    pub fn new(us: PeerName, routes: Arc<Routes>) -> Links {
        let slots = PeerSlots::new(us);
        Links {
            us,
            tunnels: BTreeMap::new(),
            order: BTreeMap::new(),
            slots,
            routes,
            changed: true,
        }
    }

    /// There is a new link.
    pub fn add(&mut self, info: LinkInfo) {
        match info.overlay {
            Overlay::Sleeve => {
                let tunnel = Tunnel::new(TunnelConfig {
                    id: info.link,
                    us: self.us,
                    peer: info.peer,
                    key: info.key,
                    dialled: info.dialled,
                    remote: info.path.remote,
                });
                set_path(&tunnel, info.path);
                self.tunnels.insert(info.link, Arc::new(tunnel));
            }
        }
        self.changed = true;
    }

    /// Packets of a link travel in another way. Takes effect at once, without a new snapshot.
    pub fn update(&self, link: LinkId, path: Path) {
        if let Some(tunnel) = self.tunnels.get(&link) {
            set_path(tunnel, path);
        }
    }

    /// A link is over.
    pub fn remove(&mut self, link: LinkId) {
        self.tunnels.remove(&link);
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

    /// The tunnel of a link.
    pub fn tunnel(&self, link: LinkId) -> Option<&Arc<Tunnel>> {
        self.tunnels.get(&link)
    }

    /// The peers by their slots.
    pub fn names(&self) -> BTreeMap<PeerSlot, PeerName> {
        let peers = self.routes.peers().iter();
        peers
            .filter_map(|peer| Some((self.slots.get(*peer)?, *peer)))
            .collect()
    }

    /// A snapshot, if anything changed since the last one.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let links: Vec<Link> = self
            .order
            .iter()
            .filter_map(|(peer, order)| {
                let tunnel = order.iter().find_map(|link| self.tunnels.get(link))?;
                Some(Link {
                    peer: *peer,
                    encap: Encap::Sleeve(Arc::clone(tunnel)),
                    burst_packets: FOREIGN_BURST_PACKETS,
                })
            })
            .collect();
        let neighbours: Vec<PeerName> = links.iter().map(|link| link.peer).collect();
        let forwarding = Forwarding::new(Arc::clone(&self.routes), &self.slots, &neighbours);
        Some(Snapshot::new(
            forwarding,
            links,
            self.tunnels.values().cloned().collect(),
        ))
    }
}

fn set_path(tunnel: &Tunnel, path: Path) {
    tunnel.set_remote(path.remote);
    tunnel.set_limits(path.mtu, path.max_payload);
    tunnel.set_fragments_proven(path.fragments);
}
