//! How everything is, read from all parts.

use super::api::{ElectionStatus, EntryStatus, Health, Status, TakeoverStatus, Waiting};
use super::queue::Op;
use super::{Allocator, Init};
use crate::leases::LeaseState;
use crate::range::Cidr;

impl Allocator {
    /// How everything is at this moment, what is not saved yet included.
    pub fn status(&self) -> Status {
        let space = self.durable.space();
        let universe = self.durable.ring().universe();
        let holdings = self.durable.holdings();
        let used = holdings.range(universe.start..universe.end).count();
        let live = || self.durable.leases().iter().filter(|(_, l)| l.is_live());
        let unused = live().filter(|(_, l)| l.state == LeaseState::Unused);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Status {
            health: self.health(),
            universe: self.durable.meta().universe,
            default_subnet: self.default_subnet(),
            active: space.our_ranges().len(),
            used: count(used),
            free: space.free_ranges().len(),
            held_back: space.held_ranges().len(),
            entries: self.entry_status(),
            election: self.election_status(),
            pending_claims: self.pending_claims(),
            pending_allocates: self.pending_allocates(),
            leases: count(live().count()),
            leases_unused: count(unused.count()),
            takeovers: self.takeover_status(),
            alarms: self.notices.alarms().cloned().collect(),
            store_error: self.store_error.clone(),
        }
    }

    fn health(&self) -> Health {
        let ring = self.durable.ring();
        if ring.is_empty() {
            return match (self.propose_at, &self.config.init) {
                (None, _) => Health::Idle,
                (Some(_), Init::Observer) => Health::Priming,
                (Some(_), _) => Health::Election,
            };
        }
        let us = self.durable.us();
        let in_reach = |peer| peer == us || self.members.is_reachable(peer);
        if self.pending.len() == 0 {
            Health::Ready
        } else if !ring.entries.iter().any(|entry| in_reach(entry.peer)) {
            Health::AllUnreachable
        } else {
            Health::WaitingForSpace
        }
    }

    fn entry_status(&self) -> Vec<EntryStatus> {
        let intervals = self.durable.ring().intervals();
        intervals
            .map(|(range, entry)| EntryStatus {
                token: range.start,
                size: range.size(),
                peer: entry.peer,
                nickname: self
                    .members
                    .nickname(entry.peer)
                    .unwrap_or_default()
                    .to_owned(),
                known: self.members.is_known(entry.peer),
                version: entry.version,
            })
            .collect()
    }

    fn election_status(&self) -> Option<ElectionStatus> {
        self.propose_at?;
        Some(match &self.elector {
            Some(elector) => ElectionStatus {
                elector: true,
                known: elector.nodes().len(),
                quorum: elector.quorum(),
            },
            None => ElectionStatus {
                elector: false,
                known: 0,
                quorum: 0,
            },
        })
    }

    fn pending_claims(&self) -> Vec<(String, Cidr, Waiting)> {
        let claims = self.pending.ops().filter_map(|(op, waiting)| match op {
            Op::Claim(claim) => Some((claim.id.clone(), claim.cidr, waiting.clone())),
            _ => None,
        });
        claims.collect()
    }

    fn pending_allocates(&self) -> Vec<(String, Cidr, Waiting)> {
        let allocates = self.pending.ops().filter_map(|(op, waiting)| match op {
            Op::Allocate(op) => Some((op.title().to_owned(), op.subnet(), waiting.clone())),
            _ => None,
        });
        allocates.collect()
    }

    /// The takeovers that are not over, be that saved or not: for tests and diagnosis.
    pub fn takeover_status(&self) -> Vec<TakeoverStatus> {
        let takeovers = self.durable.takeovers().iter();
        takeovers
            .filter(|(_, takeover)| takeover.is_active())
            .map(|(peer, takeover)| TakeoverStatus {
                peer: *peer,
                nickname: self.members.nickname(*peer).unwrap_or_default().to_owned(),
                addresses: self.durable.ring().owned(*peer).len(),
                waiting: takeover.waiting.iter().copied().collect(),
            })
            .collect()
    }
}
