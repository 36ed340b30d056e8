//! How everything is, for status pages, reports and metrics.

use proto::types::PeerName;

use super::error::Waiting;
use super::notice::Alarm;
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
