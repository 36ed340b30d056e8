//! The peers of the mesh: which can be reached, and which are weft routers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::api::{Alarm, Peer};

/// Maximum number of nicknames. Further ones are ignored.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
const NICKNAMES_MAX: usize = 1 << 14;

/// Maximum number of nicknames of peers that are not in the mesh: anybody can claim those.
const STRANGER_NICKNAMES_MAX: usize = 1024;
/// Maximum size in bytes of a nickname that is remembered because another peer told it.
const NICKNAME_BYTES_MAX: usize = 255;

/// The other peers of the mesh.
#[derive(Debug)]
pub(super) struct Members {
    us: PeerName,
    /// Each peer, and whether it is reachable.
    seen: BTreeMap<PeerName, bool>,
    /// Since when each reachable peer has been reachable.
    came: BTreeMap<PeerName, Time>,
    /// When each unreachable peer was last reachable.
    lost: BTreeMap<PeerName, Time>,
    nicknames: BTreeMap<PeerName, String>,
    /// Peers that were weft routers when they were last in reach.
    weft: BTreeSet<PeerName>,
    /// Peers that announced themselves as weft routers since they came into reach.
    greeted: BTreeSet<PeerName>,
    started: Time,
    /// Neighbours to which we send nothing about addresses, because they belong to another mesh.
    silent: BTreeMap<PeerName, Alarm>,
    /// Peers that announced that they leave, and are still in the mesh.
    pub(super) leaving: BTreeSet<PeerName>,
}

/// Changes by a new list of peers.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Peers that came into reach.
    pub(super) came: Vec<PeerName>,
    /// Peers that went out of reach.
    pub(super) went: Vec<PeerName>,
}

impl Members {
    pub(super) fn new(us: PeerName, nickname: &str, now: Time) -> Members {
        Members {
            us,
            seen: BTreeMap::new(),
            came: BTreeMap::new(),
            lost: BTreeMap::new(),
            nicknames: BTreeMap::from([(us, nickname.to_owned())]),
            weft: BTreeSet::new(),
            greeted: BTreeSet::new(),
            started: now,
            silent: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// Handles the complete list of peers.
    pub(super) fn update(&mut self, now: Time, peers: Vec<Peer>) -> Change {
        let mut change = Change::default();
        let mut seen = BTreeMap::new();
        for peer in peers {
            if peer.name == self.us {
                continue;
            }
            if peer.reachable && !self.is_reachable(peer.name) {
                change.came.push(peer.name);
                self.came.insert(peer.name, now);
                self.lost.remove(&peer.name);
            }
            if !peer.nickname.is_empty() {
                self.learn_nickname(peer.name, peer.nickname);
            }
            seen.insert(peer.name, peer.reachable);
        }
        for (name, before) in &self.seen {
            if *before && seen.get(name) != Some(&true) {
                change.went.push(*name);
                self.came.remove(name);
                self.greeted.remove(name);
                self.lost.insert(*name, now);
            }
        }
        self.seen = seen;
        change
    }

    fn learn_nickname(&mut self, peer: PeerName, nickname: String) {
        let known = self.nicknames.contains_key(&peer);
        if peer != self.us && (known || self.nicknames.len() < NICKNAMES_MAX) {
            self.nicknames.insert(peer, nickname);
        }
    }

    /// Records what a router says that a peer is called. Peers of the mesh say that themselves; of
    /// others, which may be gone, a few are remembered.
    pub(super) fn hear_nickname(&mut self, peer: PeerName, nickname: String) {
        let known = self.nicknames.contains_key(&peer);
        if self.seen.contains_key(&peer) && known {
            return;
        }
        let strangers = self.nicknames.len().saturating_sub(self.seen.len() + 1);
        let room = known || strangers < STRANGER_NICKNAMES_MAX;
        if room && nickname.len() <= NICKNAME_BYTES_MAX {
            self.learn_nickname(peer, nickname);
        }
    }

    /// Forgets peers that are neither in the mesh nor to be kept.
    pub(super) fn prune(&mut self, keep: impl Fn(PeerName) -> bool) {
        let (us, seen) = (self.us, &self.seen);
        let stays = |peer: PeerName| peer == us || seen.contains_key(&peer) || keep(peer);
        self.nicknames.retain(|peer, _| stays(*peer));
        self.lost.retain(|peer, _| stays(*peer));
        self.weft.retain(|peer| stays(*peer));
    }

    /// Returns true if nothing about addresses must be sent to this neighbour.
    pub(super) fn is_silent(&self, neighbour: PeerName) -> bool {
        self.silent.contains_key(&neighbour)
    }

    /// Stops sending anything about addresses to this neighbour.
    pub(super) fn silence(&mut self, neighbour: PeerName, why: Alarm) {
        self.silent.insert(neighbour, why);
    }

    /// Resumes sending to this neighbour. Returns why it was stopped.
    pub(super) fn unsilence(&mut self, neighbour: PeerName) -> Option<Alarm> {
        self.silent.remove(&neighbour)
    }

    pub(super) fn is_known(&self, peer: PeerName) -> bool {
        peer == self.us || self.seen.contains_key(&peer)
    }

    pub(super) fn is_reachable(&self, peer: PeerName) -> bool {
        self.seen.get(&peer) == Some(&true)
    }

    pub(super) fn reachable(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.seen
            .iter()
            .filter(|(_, reachable)| **reachable)
            .map(|(name, _)| *name)
    }

    /// Returns all peers of the mesh.
    pub(super) fn known(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.seen.keys().copied()
    }

    pub(super) fn is_weft(&self, peer: PeerName) -> bool {
        self.weft.contains(&peer)
    }

    pub(super) fn weft_in_reach(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.reachable().filter(|peer| self.is_weft(*peer))
    }

    /// Records that a peer is a weft router. Returns true if this was unknown since it came into
    /// reach.
    pub(super) fn set_weft(&mut self, peer: PeerName) -> bool {
        if peer == self.us {
            return false;
        }
        self.weft.insert(peer);
        self.greeted.insert(peer)
    }

    /// Records that a peer was a weft router when it was last in reach.
    pub(super) fn was_weft(&mut self, peer: PeerName) {
        self.weft.insert(peer);
    }

    /// Returns the reachable peers that have not announced themselves since they came into reach.
    pub(super) fn strangers(&self) -> impl Iterator<Item = PeerName> + '_ {
        self.reachable().filter(|peer| !self.greeted.contains(peer))
    }

    /// Returns true if the peer has been in reach for this long.
    pub(super) fn is_reachable_for(&self, peer: PeerName, time: Duration, now: Time) -> bool {
        self.came.get(&peer).is_some_and(|came| *came + time <= now)
    }

    /// Treats weft routers that did not announce themselves for this long, although in reach, as
    /// Weave Net routers that replaced them.
    pub(super) fn forget_weft(&mut self, time: Duration, now: Time) {
        let silent: Vec<PeerName> = self
            .strangers()
            .filter(|peer| self.is_weft(*peer) && self.is_reachable_for(*peer, time, now))
            .collect();
        for peer in silent {
            self.weft.remove(&peer);
        }
    }

    /// Returns when we were started.
    pub(super) fn started(&self) -> Time {
        self.started
    }

    /// Returns since when the peer cannot be reached. For one that was never seen this is our own
    /// start.
    pub(super) fn lost_at(&self, peer: PeerName, now: Time) -> Time {
        if self.is_reachable(peer) {
            return now;
        }
        self.lost.get(&peer).copied().unwrap_or(self.started)
    }

    pub(super) fn nicknames(&self) -> &BTreeMap<PeerName, String> {
        &self.nicknames
    }

    pub(super) fn nickname(&self, peer: PeerName) -> Option<&str> {
        self.nicknames.get(&peer).map(String::as_str)
    }

    /// Returns the peer with this name or nickname.
    pub(super) fn find(&self, text: &str) -> Option<PeerName> {
        let by_nickname = self
            .nicknames
            .iter()
            .find(|(_, nickname)| *nickname == text);
        by_nickname
            .map(|(name, _)| *name)
            .or_else(|| text.parse().ok())
    }

    /// Formats a peer as its name with the nickname in brackets.
    pub(super) fn describe(&self, peer: PeerName) -> String {
        match self.nickname(peer) {
            Some(nickname) if !nickname.is_empty() => format!("{peer}({nickname})"),
            _ => peer.to_string(),
        }
    }

    pub(super) fn describe_all<'p>(&self, peers: impl IntoIterator<Item = &'p PeerName>) -> String {
        let names: Vec<String> = peers.into_iter().map(|peer| self.describe(*peer)).collect();
        names.join(", ")
    }
}
