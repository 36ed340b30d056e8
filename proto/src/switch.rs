//! Where a frame goes: the MAC table and the forwarding decision, as in Weave Net's switch.
//!
//! A router is a learning bridge whose ports are the local bridge and the other peers. A frame
//! between routers carries the peer that captured it (source) and the peer for which it is meant
//! (destination).
//!
//! * A frame **captured** from the local bridge goes to the peer where the destination address was
//!   seen, or along our broadcast route.
//! * A frame **received** from a neighbour is relayed if it is meant for another peer. Otherwise it
//!   is injected into the local bridge and, unless the destination address is local, passed on
//!   along the broadcast route *of the source*. Every peer computes the same routes, so each gets
//!   one copy.
//!
//! [`Forwarding`] is an immutable snapshot of peers, routes and links, shared by the data threads.
//! Only [`MacTable`] is mutable, and it has no lock.

mod macs;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::routes::Routes;
use crate::types::{Mac, PeerName, Time};

pub use macs::{
    Learned, MAC_AGE_MAX, MACS_MAX, MACS_PER_PEER_MAX, MacEntry, MacTable, PeerSlot,
    REFRESH_INTERVAL,
};
pub use slots::{PEERS_MAX, PeerSlots};

/// Destination of spanning-tree frames, which concern one bridge and never leave it.
const SPANNING_TREE: Mac = Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0]);

/// The index of a link in the list that a [`Forwarding`] was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u16);

impl LinkIndex {
    /// Returns the index as a `usize`.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwitchDrop {
    /// A frame between routers (its header is zero), which never enters or leaves a bridge.
    Special,
    /// A spanning-tree frame.
    SpanningTree,
    /// The source or destination peer is unknown.
    UnknownPeer,
    /// No route of established connections leads to the destination peer.
    NoRoute,
    /// The next hop has no link, because its connection has just been made or lost.
    NoLink,
    /// We captured it ourselves: it went round in a circle.
    OwnSource,
    /// It would go back to the neighbour that it came from.
    Returned,
    /// It is for many, and came from another neighbour than those of its source come from: while
    /// peers see the mesh differently, copies would multiply.
    NotParent,
}

/// Decision about a frame captured from the local bridge.
#[derive(Clone, Copy, Debug)]
pub enum Captured<'a> {
    /// The destination is local; the bridge delivers the frame.
    Local,
    /// Goes to one peer.
    Peer {
        /// The link to the next hop.
        link: LinkIndex,
        /// The peer it is meant for.
        dest: PeerName,
    },
    /// Goes to all peers.
    Flood(Flood<'a>),
    /// Dropped.
    Drop(SwitchDrop),
}

/// Decision about a frame received from another peer.
#[derive(Clone, Copy, Debug)]
pub enum Received<'a> {
    /// Goes on to the next hop with source and destination peer unchanged, and not into the bridge.
    Relay(LinkIndex),
    /// Goes into the local bridge and nowhere else.
    Inject,
    /// Goes into the local bridge and on along the broadcast route of its source.
    InjectAndFlood(Flood<'a>),
    /// Dropped.
    Drop(SwitchDrop),
}

/// The neighbours that get a copy of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Flood<'a> {
    forwarding: &'a Forwarding,
    hops: &'a [PeerName],
}

impl<'a> Flood<'a> {
    /// Returns each neighbour, which is also the destination peer of its copy, with the link to it.
    pub fn targets(self) -> impl Iterator<Item = (PeerName, Option<LinkIndex>)> + 'a {
        let hops = self.hops.iter();
        hops.map(move |&hop| (hop, self.forwarding.link_to(hop)))
    }

    /// Returns how many copies there are.
    pub const fn len(self) -> usize {
        self.hops.len()
    }

    /// Returns true if there is nobody to send to.
    pub const fn is_empty(self) -> bool {
        self.hops.is_empty()
    }
}

/// An immutable snapshot of peers, routes and links.
pub struct Forwarding {
    us: PeerName,
    routes: Arc<Routes>,
    /// All known peers, sorted by name.
    peers: Box<[Known]>,
    /// The index in `peers` of each slot; [`NOWHERE`] if unused.
    by_slot: Box<[u16]>,
    /// The neighbours that have a link, sorted; positions are the [`LinkIndex`]es.
    neighbours: Box<[PeerName]>,
}

/// A peer of the topology.
struct Known {
    name: PeerName,
    slot: PeerSlot,
    next: Result<LinkIndex, SwitchDrop>,
}

const NOWHERE: u16 = u16::MAX;

impl Forwarding {
    /// Creates a snapshot for `routes`. `slots` must contain the peers of these routes; peers
    /// without a slot are left out. `neighbours` are the peers to which there is a link, sorted by
    /// name.
    pub fn new(routes: Arc<Routes>, slots: &PeerSlots, neighbours: &[PeerName]) -> Forwarding {
        debug_assert!(neighbours.is_sorted());
        let us = routes.us();
        let mut forwarding = Forwarding {
            us,
            peers: Box::default(),
            by_slot: vec![NOWHERE; slots.end()].into(),
            neighbours: neighbours.into(),
            routes,
        };
        let known = |&name: &PeerName| {
            let slot = slots.get(name)?;
            let hop = forwarding.routes.unicast(name).ok_or(SwitchDrop::NoRoute);
            let next = hop.and_then(|hop| forwarding.link_to(hop).ok_or(SwitchDrop::NoLink));
            Some(Known { name, slot, next })
        };
        let peers: Box<[Known]> = forwarding.routes.peers().iter().filter_map(known).collect();
        for (index, peer) in (0..NOWHERE).zip(&peers) {
            forwarding.by_slot[usize::from(peer.slot.0)] = index;
        }
        forwarding.peers = peers;
        forwarding
    }

    /// Returns our own name.
    pub const fn us(&self) -> PeerName {
        self.us
    }

    /// Returns the neighbours that have a link; positions are the [`LinkIndex`]es.
    pub fn neighbours(&self) -> &[PeerName] {
        &self.neighbours
    }

    /// Returns the neighbour at the other end of a link.
    #[inline]
    pub fn neighbour(&self, link: LinkIndex) -> Option<PeerName> {
        self.neighbours.get(link.get()).copied()
    }

    /// Returns the link to a neighbour.
    pub fn link_to(&self, neighbour: PeerName) -> Option<LinkIndex> {
        let index = self.neighbours.binary_search(&neighbour).ok()?;
        u16::try_from(index).ok().map(LinkIndex)
    }

    /// Returns the link to the next hop towards a peer.
    pub fn next_hop(&self, dest: PeerName) -> Option<LinkIndex> {
        self.peer(dest)?.next.ok()
    }

    /// Returns true if the topology names this peer.
    #[inline]
    pub fn knows(&self, name: PeerName) -> bool {
        self.peer(name).is_some()
    }

    /// Returns the peer that a slot stands for.
    pub fn name_of(&self, slot: PeerSlot) -> Option<PeerName> {
        Some(self.by_slot(slot)?.name)
    }

    /// Decides about a frame captured from the local bridge, and learns its source address. An
    /// address that was known at another peer has moved here, because we never capture what we
    /// injected.
    ///
    /// Rule: `docs/protocol/switching.md#1-captured`.
    pub fn captured(
        &self,
        now: Time,
        macs: &MacTable,
        dst: Mac,
        src: Mac,
    ) -> (Captured<'_>, Learned) {
        if is_special(dst, src) {
            return (Captured::Drop(SwitchDrop::Special), Learned::Invalid);
        }
        let learned = macs.learn(now, src, PeerSlot::US);
        if dst == SPANNING_TREE {
            return (Captured::Drop(SwitchDrop::SpanningTree), learned);
        }
        let decision = match macs.lookup(dst) {
            None => Captured::Flood(self.broadcast(self.us)),
            Some(PeerSlot::US) => Captured::Local,
            Some(slot) => match self.by_slot(slot) {
                None => Captured::Drop(SwitchDrop::UnknownPeer),
                Some(peer) => match peer.next {
                    Ok(link) => Captured::Peer {
                        link,
                        dest: peer.name,
                    },
                    Err(reason) => Captured::Drop(reason),
                },
            },
        };
        (decision, learned)
    }

    /// Decides about a frame that came from `source` and is meant for `dest`. Learns its source
    /// address if it is meant for us.
    ///
    /// Rule: `docs/protocol/switching.md#2-received`.
    pub fn received(
        &self,
        now: Time,
        macs: &MacTable,
        (from, source, dest): (PeerName, PeerName, PeerName),
        (dst, src): (Mac, Mac),
    ) -> (Received<'_>, Learned) {
        if source == self.us {
            return (Received::Drop(SwitchDrop::OwnSource), Learned::Known);
        }
        let neighbour = from;
        let (Some(from), Some(to)) = (self.peer(source), self.peer(dest)) else {
            return (Received::Drop(SwitchDrop::UnknownPeer), Learned::Known);
        };
        if dest != self.us {
            return match to.next {
                Ok(link) if self.neighbours.get(link.get()) == Some(&neighbour) => {
                    (Received::Drop(SwitchDrop::Returned), Learned::Known)
                }
                Ok(link) => (Received::Relay(link), Learned::Known),
                Err(reason) => (Received::Drop(reason), Learned::Known),
            };
        }
        if is_special(dst, src) {
            return (Received::Drop(SwitchDrop::Special), Learned::Invalid);
        }
        let is_local = macs.lookup(dst) == Some(PeerSlot::US);
        let is_stray = !is_local && neighbour != source && !self.is_parent(neighbour, source);
        if is_stray && dst.is_multicast() {
            return (Received::Drop(SwitchDrop::NotParent), Learned::Known);
        }
        let learned = macs.learn(now, src, from.slot);
        if is_local || is_stray || macs.lookup(dst) == Some(PeerSlot::US) {
            return (Received::Inject, learned);
        }
        let flood = self.broadcast(source);
        if flood.is_empty() {
            return (Received::Inject, learned);
        }
        (Received::InjectAndFlood(flood), learned)
    }

    /// Returns true if frames of `source` for many may come from this neighbour: if it is known from
    /// whom they come, only from that one.
    fn is_parent(&self, neighbour: PeerName, source: PeerName) -> bool {
        let parent = self.routes.parent(source);
        parent.is_none_or(|parent| parent == neighbour)
    }

    /// Rule: `docs/protocol/switching.md#3-broadcast`.
    fn broadcast(&self, source: PeerName) -> Flood<'_> {
        Flood {
            forwarding: self,
            hops: self.routes.broadcast(source),
        }
    }

    fn peer(&self, name: PeerName) -> Option<&Known> {
        let index = self.peers.binary_search_by_key(&name, |peer| peer.name);
        self.peers.get(index.ok()?)
    }

    fn by_slot(&self, slot: PeerSlot) -> Option<&Known> {
        let index = *self.by_slot.get(usize::from(slot.0))?;
        self.peers.get(usize::from(index))
    }
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding")
            .field("us", &self.us)
            .field("peers", &self.peers.len())
            .field("neighbours", &self.neighbours)
            .finish_non_exhaustive()
    }
}

/// Returns true if these are the addresses of a frame between routers.
///
/// Rule: `docs/protocol/switching.md#5-special`.
const fn is_special(dst: Mac, src: Mac) -> bool {
    dst.as_u64() == 0 && src.as_u64() == 0
}
