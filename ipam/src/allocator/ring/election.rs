//! Coming to a first ring.

use std::time::Duration;

use super::super::{Allocator, Event, Init, Output};
use crate::consensus::{Nodes, normalize};
use crate::persist::Election;
use crate::ring::Ring;
use proto::types::PeerName;

/// After this time without a ring a new proposal is made.
const PROPOSE_EVERY: Duration = Duration::from_secs(5);
/// Up to this much is added, so that electors do not outdo each other for ever.
const PROPOSE_SPREAD_US: u64 = 1_000_000;

impl Allocator {
    /// Sees to it that there will be a ring.
    pub(in crate::allocator) fn establish(&mut self) {
        if !self.durable.ring().is_empty() || self.propose_at.is_some() {
            return;
        }
        let quorum = self.quorum();
        if let Some(elector) = &mut self.elector {
            elector.set_quorum(quorum);
        }
        self.propose();
    }

    fn quorum(&self) -> usize {
        let size = match self.config.init {
            Init::Consensus(Some(count)) => count,
            _ => self.targets + 1,
        };
        size / 2 + 1
    }

    /// Makes a proposal, or as an observer asks for a ring.
    pub(in crate::allocator) fn propose(&mut self) {
        if !self.durable.ring().is_empty() {
            self.propose_at = None;
            return;
        }
        let spread = Duration::from_micros(self.rng.u64(0..PROPOSE_SPREAD_US));
        self.propose_at = Some(self.clock.now + PROPOSE_EVERY + spread);
        if let Some(elector) = &mut self.elector {
            elector.propose();
            self.save_claims();
        }
        self.emit(Output::BroadcastState);
        self.conclude();
    }

    /// Takes in what other electors said.
    pub(in crate::allocator) fn on_election(&mut self, nodes: &Nodes) {
        let Some(elector) = &mut self.elector else {
            return;
        };
        if !elector.update(nodes) {
            return;
        }
        if elector.think() {
            self.save_claims();
            self.emit(Output::BroadcastState);
        }
        self.conclude();
    }

    /// Makes the ring, if the election came to an end.
    fn conclude(&mut self) {
        let value = self.elector.as_ref().and_then(|e| e.consensus());
        if let Some(peers) = value {
            self.make_ring(&peers);
            self.emit(Output::BroadcastState);
        }
    }

    /// Makes the first ring.
    pub(in crate::allocator) fn make_ring(&mut self, peers: &[PeerName]) {
        let peers = normalize(peers);
        let universe = self.durable.meta().universe.range();
        let moved = self.durable.seed(Ring::seeded(universe, &peers));
        self.event(Event::RingMade(peers));
        self.ring_updated(&moved);
    }

    fn save_claims(&mut self) {
        let Some(elector) = &self.elector else {
            return;
        };
        let election = Election {
            uid: elector.id().uid,
            claims: elector.claims().cloned().unwrap_or_default(),
        };
        self.durable.set_election(Some(election));
    }

    /// Goes back to what was saved of our part, after the store failed.
    pub(in crate::allocator) fn resume_election(&mut self) {
        let wanted = matches!(self.config.init, Init::Consensus(_));
        if !wanted || !self.durable.ring().is_empty() {
            self.elector = None;
            return;
        }
        let before = self.elector.take();
        self.join_election();
        if let (Some(elector), Some(before)) = (&mut self.elector, before) {
            elector.set_quorum(before.quorum());
            let mut others = before.nodes().clone();
            others.remove(&elector.id());
            elector.update(&others);
        }
    }
}
