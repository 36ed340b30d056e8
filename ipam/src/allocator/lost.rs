//! Facts about lost peers.

use std::collections::BTreeSet;

use proto::types::{PeerName, Time};

use super::api::RequestError;
use super::cx::Cx;
use super::progress::MESSAGE_LIFETIME;
use crate::persist::{Known, Takeover};

impl Cx {
    /// Returns another router, not lost itself, that takes the peer over.
    pub(super) fn other_taker(&self, peer: PeerName) -> Option<PeerName> {
        let taker = self.durable.known().get(&peer)?.taker;
        let other = taker != PeerName::UNKNOWN && taker != self.durable.us();
        (other && !self.is_gone(taker)).then_some(taker)
    }

    pub(super) fn taken_by_other(&self, peer: PeerName, taker: PeerName) -> RequestError {
        RequestError::TakenByOther {
            peer: self.members.describe(peer),
            taker: self.members.describe(taker),
        }
    }

    /// Returns all peers that may know of a grant that we do not know.
    pub(super) fn everyone_but(&self, lost: PeerName) -> BTreeSet<PeerName> {
        let us = self.durable.us();
        let owners = self.durable.ring().owners();
        let known = self.durable.known();
        let met = known.iter().filter(|(_, known)| !known.gone);
        owners
            .into_iter()
            .chain(met.map(|(peer, _)| *peer))
            .chain(self.members.known())
            .filter(|peer| *peer != us && *peer != lost && *peer != PeerName::UNKNOWN)
            .filter(|peer| self.members.is_reachable(*peer) || !self.is_gone(*peer))
            .collect()
    }

    /// Returns true if the peer left or was removed, here or elsewhere.
    pub(super) fn is_gone(&self, peer: PeerName) -> bool {
        self.durable
            .known()
            .get(&peer)
            .is_some_and(|known| known.gone)
    }

    pub(super) fn is_waited_for(&self, peer: PeerName) -> bool {
        let mut takeovers = self.durable.takeovers().values();
        takeovers.any(|takeover| takeover.waiting.contains(&peer))
    }

    /// Returns the time after which no message of the lost peer can be under way.
    pub(super) fn quiet_since(&self, lost: PeerName) -> Time {
        let lost_at = if lost == self.durable.us() {
            self.members.started()
        } else {
            self.members.lost_at(lost, self.clock.now)
        };
        lost_at + MESSAGE_LIFETIME
    }

    /// Handles the first received ring. If it says that we own something, although we did not take
    /// part in making it, we have lost our store and the record of our grants. Then nothing of it
    /// is used until every router was heard.
    pub(super) fn hold_back_forgotten(&mut self) {
        let us = self.durable.us();
        let owned = self.durable.owned_by_ring();
        if owned.is_empty() || self.durable.election().is_some() {
            return;
        }
        let takeover = Takeover {
            since: self.durable.time(),
            intended: true,
            ranges: owned,
            waiting: self.everyone_but(us),
        };
        self.durable.set_takeover(us, Some(takeover));
    }

    /// Records the peers that we have met, with the day, so that a takeover can wait for them.
    pub(super) fn note_known(&mut self) {
        let day = 24 * 60 * 60;
        let time = self.durable.time();
        let known = self.durable.known();
        let stale = |peer: &PeerName| {
            let known = known.get(peer);
            known.is_none_or(|known| {
                let weft = self.members.is_weft(*peer);
                known.gone || known.weft != weft || time.abs_diff(known.seen) > day
            })
        };
        let fresh: Vec<PeerName> = self
            .members
            .known()
            .filter(|peer| !self.members.leaving.contains(peer) && stale(peer))
            .collect();
        for peer in fresh {
            let known = Known {
                seen: time,
                weft: self.members.is_weft(peer),
                ..Known::default()
            };
            self.durable.set_known(peer, Some(known));
        }
    }

    /// Records that a peer is a weft router, so that this is known when it is away.
    pub(super) fn note_weft(&mut self, peer: PeerName) {
        let known = self.durable.known().get(&peer).copied();
        if let Some(known) = known.filter(|known| !known.weft && !known.gone) {
            let known = Known {
                weft: true,
                ..known
            };
            self.durable.set_known(peer, Some(known));
        }
    }

    /// Returns when a takeover that waits for messages to arrive can continue.
    pub(super) fn takeover_wake(&self) -> Option<Time> {
        let active = self
            .durable
            .takeovers()
            .iter()
            .filter(|(_, t)| t.is_active());
        active
            .map(|(lost, _)| self.quiet_since(*lost))
            .filter(|at| *at > self.clock.now)
            .min()
    }
}
