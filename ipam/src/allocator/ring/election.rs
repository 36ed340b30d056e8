//! Establishing the first ring.

use std::time::Duration;

use super::super::api::{Event, Init, Output};
use super::super::cx::Cx;
use crate::consensus::{Nodes, normalize};
use crate::persist;
use crate::ring::Ring;
use proto::types::{PeerName, Time};

/// Time after which a new proposal is made while there is no ring.
///
/// Rule: `docs/protocol/ipam.md#5-5-course`.
const PROPOSE_EVERY: Duration = Duration::from_secs(5);
/// Up to this much is added, so that electors do not outdo each other forever.
const PROPOSE_SPREAD_US: u64 = 1_000_000;

/// Our part in the election of the first ring.
#[derive(Debug, Default)]
pub(crate) struct Election {
    /// When to propose again, while a ring is needed and there is none.
    propose_at: Option<Time>,
    /// Number of peers to which we were told to connect.
    targets: usize,
}

impl Election {
    pub(crate) fn next_wake(&self) -> Option<Time> {
        self.propose_at
    }

    /// Returns true if a ring is wanted and there is none.
    pub(crate) fn is_under_way(&self) -> bool {
        self.propose_at.is_some()
    }

    /// Takes how many peers we were told to connect to.
    pub(crate) fn set_targets(&mut self, count: usize) {
        self.targets = count;
    }

    /// There is a ring.
    pub(crate) fn end(&mut self, cx: &Cx) {
        if !cx.durable.ring().is_empty() {
            self.propose_at = None;
        }
    }

    /// Proposes again, if it is time for that.
    pub(crate) fn timeout(&mut self, cx: &mut Cx) {
        if self.propose_at.is_some_and(|at| at <= cx.clock.now) {
            self.propose(cx);
        }
    }

    /// Starts to establish a ring.
    ///
    /// Rule: `docs/protocol/ipam.md#5-5-course`.
    pub(crate) fn establish(&mut self, cx: &mut Cx) {
        if !cx.durable.ring().is_empty() || self.propose_at.is_some() {
            return;
        }
        let quorum = self.quorum(cx);
        if let Some(elector) = &mut cx.elector {
            elector.set_quorum(quorum);
        }
        self.propose(cx);
    }

    /// Rule: `docs/protocol/ipam.md#5-2-quorum`.
    fn quorum(&self, cx: &Cx) -> usize {
        let size = match cx.config.init {
            Init::Consensus(Some(count)) => count,
            _ => self.targets + 1,
        };
        size / 2 + 1
    }

    /// Makes a proposal, or asks for a ring as an observer.
    ///
    /// Rule: `docs/protocol/ipam.md#5-5-course`.
    pub(crate) fn propose(&mut self, cx: &mut Cx) {
        if !cx.durable.ring().is_empty() {
            self.propose_at = None;
            return;
        }
        let spread = Duration::from_micros(cx.rng.u64(0..PROPOSE_SPREAD_US));
        self.propose_at = Some(cx.clock.now + PROPOSE_EVERY + spread);
        if let Some(elector) = &mut cx.elector {
            elector.propose();
            save_claims(cx);
        }
        cx.emit(Output::BroadcastState);
        self.conclude(cx);
    }

    /// Handles the claims of other electors.
    ///
    /// Rule: `docs/protocol/ipam.md#5-5-course`.
    pub(crate) fn hear(&mut self, cx: &mut Cx, nodes: &Nodes) {
        let Some(elector) = &mut cx.elector else {
            return;
        };
        if !elector.update(nodes) {
            return;
        }
        if elector.think() {
            save_claims(cx);
            cx.emit(Output::BroadcastState);
        }
        self.conclude(cx);
    }

    /// Makes the ring, if there is a consensus.
    ///
    /// Rule: `docs/protocol/ipam.md#5-5-course`.
    fn conclude(&mut self, cx: &mut Cx) {
        let value = cx.elector.as_ref().and_then(|e| e.consensus());
        if let Some(peers) = value {
            self.make_ring(cx, &peers);
            cx.emit(Output::BroadcastState);
        }
    }

    /// Makes the first ring.
    ///
    /// Rule: `docs/protocol/ipam.md#2-4-seed`.
    pub(crate) fn make_ring(&mut self, cx: &mut Cx, peers: &[PeerName]) {
        let peers = normalize(peers);
        let universe = cx.durable.meta().universe.range();
        let moved = cx.durable.seed(Ring::seeded(universe, &peers));
        cx.event(Event::RingMade(peers));
        cx.ring_changed(&moved);
    }

    /// Restores our part from what was saved, after the store failed.
    pub(crate) fn resume(&mut self, cx: &mut Cx) {
        let wanted = matches!(cx.config.init, Init::Consensus(_));
        if !wanted || !cx.durable.ring().is_empty() {
            cx.elector = None;
            return;
        }
        let before = cx.elector.take();
        cx.join_election();
        if let (Some(elector), Some(before)) = (&mut cx.elector, before) {
            elector.set_quorum(before.quorum());
            let mut others = before.nodes().clone();
            others.remove(&elector.id());
            elector.update(&others);
        }
    }
}

fn save_claims(cx: &mut Cx) {
    let Some(elector) = &cx.elector else {
        return;
    };
    let election = persist::Election {
        uid: elector.id().uid,
        claims: elector.claims().cloned().unwrap_or_default(),
    };
    cx.durable.set_election(Some(election));
}
