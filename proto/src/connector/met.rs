//! Where peers were met, so that they are found again when nobody else knows them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::link::Link;
use crate::types::{PeerName, Time};

/// How long a peer that is gone is looked for.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Maximum number of peers that are remembered; the one that was lost first makes room.
const PEERS_MAX: usize = 1024;
/// Maximum number of addresses for one peer; the one that worked last comes first.
const ADDRESSES_MAX: usize = 4;
/// For how long a peer counts as just lost.
const JUST_LOST: Duration = Duration::from_secs(10);

/// The peers that we had connections with.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    peers: BTreeMap<PeerName, Seen>,
    changed: bool,
}

#[derive(Clone, Debug)]
struct Seen {
    addresses: Vec<SocketAddr>,
    /// When the last connection came or went.
    at: Time,
    /// When the last connection went.
    lost_at: Option<Time>,
}

impl Met {
    /// There is a connection. One that was accepted does not tell the port at which the other
    /// end listens; `port`, our own, takes its place.
    pub(super) fn note(&mut self, now: Time, link: &Link, port: u16) {
        let mut address = link.address;
        if !link.outbound {
            address.set_port(port);
        }
        self.recall(now, link.peer, address);
        if let Some(seen) = self.peers.get_mut(&link.peer) {
            seen.lost_at = None;
        }
    }

    /// A peer was met at this address.
    pub(super) fn recall(&mut self, now: Time, peer: PeerName, address: SocketAddr) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let oldest = self.peers.iter().min_by_key(|(_, seen)| seen.at);
            let oldest = oldest.map(|(name, _)| *name);
            oldest.and_then(|name| self.peers.remove(&name));
        }
        let seen = self.peers.entry(peer).or_insert_with(|| Seen {
            addresses: Vec::new(),
            at: now,
            lost_at: None,
        });
        seen.at = now;
        if seen.addresses.first() != Some(&address) {
            seen.addresses.retain(|known| *known != address);
            seen.addresses.insert(0, address);
            seen.addresses.truncate(ADDRESSES_MAX);
            self.changed = true;
        }
    }

    /// A connection is over.
    pub(super) fn lost(&mut self, now: Time, peer: PeerName) {
        if let Some(seen) = self.peers.get_mut(&peer) {
            seen.at = now;
            seen.lost_at = Some(now);
        }
    }

    pub(super) fn forget(&mut self, peer: PeerName) {
        self.changed |= self.peers.remove(&peer).is_some();
    }

    pub(super) fn forget_address(&mut self, address: SocketAddr) {
        let before = self.peers.len();
        self.peers
            .retain(|_, seen| !seen.addresses.contains(&address));
        self.changed |= self.peers.len() != before;
    }

    /// Returns true if a connection to the peer was lost a moment ago.
    pub(super) fn is_just_lost(&self, now: Time, peer: PeerName) -> bool {
        let lost_at = self.peers.get(&peer).and_then(|seen| seen.lost_at);
        lost_at.is_some_and(|at| now < at + JUST_LOST)
    }

    /// Returns true if somebody was met at this address.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let mut peers = self.peers.values();
        peers.any(|seen| seen.addresses.contains(&address))
    }

    /// Returns where to look for peers, those aside that are gone for too long.
    pub(super) fn wanted(&self, now: Time) -> impl Iterator<Item = (PeerName, SocketAddr)> {
        let peers = self.peers.iter();
        peers
            .filter(move |(_, seen)| now < seen.at + KEPT)
            .flat_map(|(name, seen)| seen.addresses.iter().map(|address| (*name, *address)))
    }

    /// Everything that is remembered.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerName, SocketAddr)> {
        let peers = self.peers.iter();
        peers.flat_map(|(name, seen)| seen.addresses.iter().map(|address| (*name, *address)))
    }

    /// Returns true if what is remembered changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
