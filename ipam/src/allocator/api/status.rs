//! Status of the allocator, for status pages, reports and metrics.

use proto::types::PeerName;

use super::error::Waiting;
use super::notice::Alarm;
use crate::range::{Address, Cidr};

/// Status of the allocator.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Summary.
    pub health: Health,
    /// The universe.
    pub universe: Cidr,
    /// The subnet of requests that name none.
    pub default_subnet: Cidr,
    /// Number of addresses that are in use here or reserved for our identities.
    pub active: u32,
    /// Number of those that are in use.
    pub used: u32,
    /// Number of free addresses here.
    pub free: u32,
    /// Number of addresses that are held back.
    pub held_back: u32,
    /// The ring. An interval that goes around the end occurs twice.
    pub entries: Vec<EntryStatus>,
    /// The election; `None` if there is none.
    pub election: Option<ElectionStatus>,
    /// Waiting claims: id, address, and what each waits for.
    pub pending_claims: Vec<(String, Cidr, Waiting)>,
    /// Waiting allocations: id, subnet, and what each waits for.
    pub pending_allocates: Vec<(String, Cidr, Waiting)>,
    /// Number of leases in the mesh.
    pub leases: u32,
    /// Number of unused leases.
    pub leases_unused: u32,
    /// Unfinished takeovers.
    pub takeovers: Vec<TakeoverStatus>,
    /// Current alarms.
    pub alarms: Vec<Alarm>,
    /// Why the store failed last.
    pub store_error: Option<String>,
}

/// Summary of the allocator's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Addresses are available.
    Ready,
    /// Requests wait, and all ranges are owned by peers that cannot be reached.
    AllUnreachable,
    /// Requests wait for free addresses.
    WaitingForSpace,
    /// An election is under way.
    Election,
    /// An observer waits for a ring.
    Priming,
    /// There is no ring, and none was needed yet.
    Idle,
}

/// One interval of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryStatus {
    /// Its first address.
    pub token: Address,
    /// Number of its addresses.
    pub size: u32,
    /// Its owner.
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
    /// Number of known electors.
    pub known: usize,
    /// Number of electors that must agree.
    pub quorum: usize,
}

/// An unfinished takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeoverStatus {
    /// The lost peer; our own name if our store was lost.
    pub peer: PeerName,
    /// Its nickname, if known.
    pub nickname: String,
    /// Number of addresses that it owns.
    pub addresses: u32,
    /// Routers that were not heard yet.
    pub waiting: Vec<PeerName>,
}
