//! The election of the peers that share the universe first: Paxos by gossip.
//!
//! Every elector keeps what it knows of every other elector and gossips all of it. A proposal is
//! chosen when a quorum has accepted it. Every router that sees this makes the same first ring from
//! its value.
//!
//! An elector must not forget what it promised, or two groups could each reach a quorum. So its own
//! [`Claims`] and its number ([`NodeId::uid`]) are saved before they are sent, and a restarted peer
//! continues as the same elector.

use std::collections::{BTreeMap, BTreeSet};

use proto::types::PeerName;

/// Maximum number of electors. Further ones are ignored.
pub const NODES_MAX: usize = 4096;
/// Maximum number of names in a proposed value. A longer one is refused.
pub const VALUE_NAMES_MAX: usize = 1 << 16;

/// Id of an elector: a peer, and the number under which it takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId {
    /// Its name.
    pub name: PeerName,
    /// Distinguishes electors of one name.
    pub uid: u64,
}

/// The number of a proposal. Ordered by round, then by proposer.
///
/// Rule: `docs/protocol/ipam.md#5-3-state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId {
    /// 0 means "none".
    pub round: u64,
    /// Who made it.
    pub proposer: NodeId,
}

impl ProposalId {
    /// Returns true if this is the number of a proposal.
    pub const fn is_some(&self) -> bool {
        self.round > 0
    }
}

/// A value that was accepted, and the proposal that first had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedValue {
    /// The peers that are to share the universe, in any order, possibly repeated.
    pub value: Vec<PeerName>,
    /// The proposal that first had this value.
    pub origin: ProposalId,
}

/// What one elector has promised and accepted.
///
/// Format: `docs/protocol/ipam.md#5-3-state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// It will not accept a proposal below this one.
    pub promise: ProposalId,
    /// The last proposal that it accepted.
    pub accepted: ProposalId,
    /// The value of that proposal.
    pub value: AcceptedValue,
}

/// What all electors are known to have promised and accepted.
pub type Nodes = BTreeMap<NodeId, Claims>;

/// One elector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elector {
    id: NodeId,
    quorum: usize,
    nodes: Nodes,
}

impl Elector {
    /// Creates an elector that has not taken part yet. Its quorum of 0 is never reached.
    pub fn new(id: NodeId) -> Elector {
        Elector {
            id,
            quorum: 0,
            nodes: Nodes::new(),
        }
    }

    /// Creates an elector that continues after a restart with its earlier claims.
    pub fn resumed(id: NodeId, claims: Claims) -> Elector {
        let mut elector = Elector::new(id);
        elector.nodes.insert(id, claims);
        elector
    }

    /// Returns the id of the elector.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns its own claims, or `None` before it took part.
    pub fn claims(&self) -> Option<&Claims> {
        self.nodes.get(&self.id)
    }

    /// Returns everything that it knows of all electors.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Returns the number of electors that must agree.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// Sets the number of electors that must agree.
    pub fn set_quorum(&mut self, quorum: usize) {
        self.quorum = quorum;
    }

    /// Makes a new proposal, higher than all known ones.
    ///
    /// Rule: `docs/protocol/ipam.md#5-4-steps`.
    pub fn propose(&mut self) {
        let known = self.nodes.values();
        let round = known
            .map(|claims| claims.promise.round.max(claims.accepted.round))
            .max()
            .unwrap_or(0);
        let proposal = ProposalId {
            round: round.saturating_add(1),
            proposer: self.id,
        };
        self.nodes.entry(self.id).or_default().promise = proposal;
        if self.quorum == 1 {
            self.think();
        }
    }

    /// Merges what another elector knows. Returns true if any of it was new.
    ///
    /// Rule: `docs/protocol/ipam.md#5-4-steps`.
    pub fn update(&mut self, from: &Nodes) -> bool {
        let mut changed = false;
        for (id, theirs) in from {
            let Some(mine) = self.nodes.get_mut(id) else {
                if self.nodes.len() < NODES_MAX {
                    self.nodes.insert(*id, theirs.clone());
                    changed = true;
                }
                continue;
            };
            if mine.promise < theirs.promise {
                mine.promise = theirs.promise;
                changed = true;
            }
            if mine.accepted < theirs.accepted {
                mine.accepted = theirs.accepted;
                mine.value = theirs.value.clone();
                changed = true;
            }
        }
        changed
    }

    /// Promises and accepts what it can. Returns true if that changed its own claims.
    ///
    /// Rule: `docs/protocol/ipam.md#5-4-steps`.
    pub fn think(&mut self) -> bool {
        let before = self.nodes.get(&self.id).cloned().unwrap_or_default();
        let mut own = before.clone();
        let highest = self.nodes.values().map(|claims| claims.promise).max();
        own.promise = highest.unwrap_or_default().max(own.promise);
        if own.promise.proposer == self.id {
            self.count_promises(&mut own);
        }
        if let Some(value) = self.accepted_value(own.promise) {
            own.accepted = own.promise;
            own.value = value;
        }
        let changed = own.promise != before.promise
            || own.accepted != before.accepted
            || own.value.origin != before.value.origin;
        if changed {
            self.nodes.insert(self.id, own);
        }
        changed
    }

    /// Accepts our own proposal if a quorum has promised to follow it: with the value of the
    /// highest proposal that any of them had accepted before, or else with a new value.
    ///
    /// Rule: `docs/protocol/ipam.md#5-4-steps`.
    fn count_promises(&self, own: &mut Claims) {
        let promised = || {
            self.nodes
                .values()
                .filter(|claims| claims.promise == own.promise)
        };
        if promised().count() < self.quorum || self.quorum == 0 {
            return;
        }
        let accepted = promised()
            .filter(|claims| claims.accepted.is_some())
            .max_by_key(|claims| claims.accepted);
        own.value = match accepted {
            Some(claims) => claims.value.clone(),
            None => AcceptedValue {
                value: self.nodes.keys().map(|id| id.name).collect(),
                origin: own.promise,
            },
        };
        own.accepted = own.promise;
    }

    fn accepted_value(&self, proposal: ProposalId) -> Option<AcceptedValue> {
        if !proposal.is_some() {
            return None;
        }
        let mut nodes = self.nodes.values();
        let accepted = nodes.find(|claims| claims.accepted == proposal)?;
        Some(accepted.value.clone())
    }

    /// Returns the chosen value, sorted and each name once, or `None` if none was chosen yet.
    ///
    /// Rule: `docs/protocol/ipam.md#5-4-steps`.
    pub fn consensus(&self) -> Option<Vec<PeerName>> {
        let mut counts: BTreeMap<ProposalId, usize> = BTreeMap::new();
        for claims in self.nodes.values().filter(|c| c.accepted.is_some()) {
            let count = counts.entry(claims.value.origin).or_default();
            *count += 1;
            if *count >= self.quorum && self.quorum > 0 {
                return Some(normalize(&claims.value.value));
            }
        }
        None
    }
}

/// Returns the names sorted, each once.
pub fn normalize(names: &[PeerName]) -> Vec<PeerName> {
    names
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}
