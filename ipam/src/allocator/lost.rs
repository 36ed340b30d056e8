//! What is known of peers that are lost.

use std::collections::BTreeSet;

use proto::types::{PeerName, Time};

use super::api::RequestError;
use super::cx::Cx;
use super::progress::MESSAGE_LIFETIME;

impl Cx {
    /// Another router, not lost itself, that takes the peer over.
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

    /// Everyone who may know of a grant that we do not know.
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

    /// Whether the peer left or was removed, here or elsewhere.
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

    /// From when on nothing that the lost peer sent can be under way any more.
    pub(super) fn quiet_since(&self, lost: PeerName) -> Time {
        let lost_at = if lost == self.durable.us() {
            self.members.started()
        } else {
            self.members.lost_at(lost, self.clock.now)
        };
        lost_at + MESSAGE_LIFETIME
    }
}
