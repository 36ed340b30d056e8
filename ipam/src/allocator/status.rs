//! How everything is, for status pages, reports and metrics.

use proto::types::PeerName;

use super::api::Waiting;
use super::queue::Op;
use super::{Alarm, Allocator, Init};
use crate::leases::LeaseState;
use crate::range::{Address, Cidr};

/// How everything is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// In one word.
    pub health: Health,
    /// The universe.
    pub universe: Cidr,
    /// The subnet of requests that name none.
    pub default_subnet: Cidr,
    /// How many addresses of the universe are in use here or kept for identities of ours.
    pub active: u32,
    /// How many of those are in use.
    pub used: u32,
    /// How many are free here.
    pub free: u32,
    /// How many are held back, as our store was lost.
    pub held_back: u32,
    /// The ring; an interval that wraps comes twice.
    pub entries: Vec<EntryStatus>,
    /// The election; `None` if none is under way.
    pub election: Option<ElectionStatus>,
    /// Claims that wait: for whom, which address, and what for.
    pub pending_claims: Vec<(String, Cidr, Waiting)>,
    /// Allocations that wait: for whom, where, and what for.
    pub pending_allocates: Vec<(String, Cidr, Waiting)>,
    /// How many leases there are in the mesh.
    pub leases: u32,
    /// How many of them nobody uses.
    pub leases_unused: u32,
    /// Takeovers that are not over.
    pub takeovers: Vec<TakeoverStatus>,
    /// What a person should look at.
    pub alarms: Vec<Alarm>,
    /// Why the store did not take what was last to be saved.
    pub store_error: Option<String>,
}

/// How it stands with allocation, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Addresses can be had.
    Ready,
    /// Requests wait, and all ranges are owned by peers that cannot be reached.
    AllUnreachable,
    /// Requests wait for free addresses.
    WaitingForSpace,
    /// An election is under way.
    Election,
    /// An observer waits for a ring.
    Priming,
    /// There is no ring, and nobody has asked for one.
    Idle,
}

/// One interval of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryStatus {
    /// Its first address.
    pub token: Address,
    /// How many addresses it has.
    pub size: u32,
    /// Who owns it.
    pub peer: PeerName,
    /// The owner's nickname.
    pub nickname: String,
    /// Whether the owner is in the mesh.
    pub known: bool,
    /// The version of the entry.
    pub version: u32,
}

/// The state of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionStatus {
    /// Whether we take part.
    pub elector: bool,
    /// How many electors are known.
    pub known: usize,
    /// How many must agree.
    pub quorum: usize,
}

/// A takeover that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeoverStatus {
    /// The lost peer; our own name if it is our store that was lost.
    pub peer: PeerName,
    /// Its nickname, if known.
    pub nickname: String,
    /// How many addresses it owns.
    pub addresses: u32,
    /// Who has not been heard yet.
    pub waiting: Vec<PeerName>,
}

impl Allocator {
    /// How everything is at this moment, what is not saved yet included.
    pub fn status(&self) -> Status {
        let space = self.state.space();
        let universe = self.state.ring().universe();
        let holdings = self.state.holdings();
        let used = holdings.range(universe.start..universe.end).count();
        let live = || self.state.leases().iter().filter(|(_, l)| l.is_live());
        let unused = live().filter(|(_, l)| l.state == LeaseState::Unused);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Status {
            health: self.health(),
            universe: self.state.meta().universe,
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
            alarms: self.alarms.iter().cloned().collect(),
            store_error: self.store_error.clone(),
        }
    }

    fn health(&self) -> Health {
        let ring = self.state.ring();
        if ring.is_empty() {
            return match (self.propose_at, &self.config.init) {
                (None, _) => Health::Idle,
                (Some(_), Init::Observer) => Health::Priming,
                (Some(_), _) => Health::Election,
            };
        }
        let us = self.state.us();
        let in_reach = |peer| peer == us || self.peers.is_reachable(peer);
        if self.pending.len() == 0 {
            Health::Ready
        } else if !ring.entries.iter().any(|entry| in_reach(entry.peer)) {
            Health::AllUnreachable
        } else {
            Health::WaitingForSpace
        }
    }

    fn entry_status(&self) -> Vec<EntryStatus> {
        let intervals = self.state.ring().intervals();
        intervals
            .map(|(range, entry)| EntryStatus {
                token: range.start,
                size: range.size(),
                peer: entry.peer,
                nickname: self
                    .peers
                    .nickname(entry.peer)
                    .unwrap_or_default()
                    .to_owned(),
                known: self.peers.is_known(entry.peer),
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
        let takeovers = self.state.takeovers().iter();
        takeovers
            .filter(|(_, takeover)| takeover.is_active())
            .map(|(peer, takeover)| TakeoverStatus {
                peer: *peer,
                nickname: self.peers.nickname(*peer).unwrap_or_default().to_owned(),
                addresses: self.state.ring().owned(*peer).len(),
                waiting: takeover.waiting.iter().copied().collect(),
            })
            .collect()
    }
}
