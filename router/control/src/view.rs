//! The state of the router as others read it: a copy that is made between two turns of the loop
//! and rendered wherever its reader likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipam::allocator::Status;
use ipam::range::Cidr;
use proto::connector::TargetState;
use proto::names;
use proto::node::{ConnectionView, Counters};
use proto::routes::Routes;
use proto::switch::PeerSlot;
use proto::topology::Peer;
use proto::types::{PeerName, Time};

use super::consumers::LeftOver;
use super::loop_time::LoopTime;

/// All state, at one time.
#[derive(Clone, Debug)]
pub struct View {
    /// The time at which it was made.
    pub at: Time,
    /// Wall clock time at that moment.
    pub wall: SystemTime,
    /// How long the loop took for its turns.
    pub loop_time: LoopTime,
    /// The mesh.
    pub mesh: Arc<MeshView>,
    /// The allocator; `None` if addresses are not allocated.
    pub addresses: Option<Arc<AddressesView>>,
    /// The names; `None` if they are off.
    pub names: Option<Arc<NamesView>>,
}

/// Peers, connections and routes.
#[derive(Clone, Debug)]
pub struct MeshView {
    /// Our name.
    pub us: PeerName,
    /// All known peers, ourself included, by name.
    pub peers: BTreeMap<PeerName, Peer>,
    /// The routes in use.
    pub routes: Arc<Routes>,
    /// Connections that are introduced, oldest first.
    pub connections: Vec<ConnectionView>,
    /// Connections that are not introduced yet.
    pub introductions: usize,
    /// All addresses that are dialled or waited for.
    pub targets: Vec<TargetFacts>,
    /// The target as the user named it.
    pub named_targets: Vec<String>,
    /// Events so far.
    pub counters: Counters,
    /// Gossip that nobody here took.
    pub left_over: LeftOver,
    /// The peers by the numbers that the MAC table has for them.
    pub slots: BTreeMap<PeerSlot, PeerName>,
}

/// An address that is dialled or waited for.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// The address.
    pub address: SocketAddr,
    /// Whether the user named it.
    pub direct: bool,
    /// The current state.
    pub state: TargetState,
    /// Why the last attempt or connection ended.
    pub error: Option<String>,
    /// Time of the next attempt, or of the last one; `None` for never again.
    pub next_try: Option<Time>,
}

/// The allocator.
#[derive(Clone, Debug)]
pub struct AddressesView {
    /// State of allocation.
    pub status: Status,
}

/// The names of the mesh.
#[derive(Clone, Debug)]
pub struct NamesView {
    /// All names, dead ones included, in their order.
    pub entries: Vec<(Arc<names::Key>, names::State)>,
    /// Number of those that are alive.
    pub alive: usize,
    /// Number of entries that wait for their peer to become known.
    pub waiting: usize,
    /// Counts of received names by result.
    pub counters: names::Counters,
    /// Neighbours whose clocks are off, and by how many seconds they are ahead of ours.
    pub clocks_off: Vec<(PeerName, i64)>,
}

/// The ranges that addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// All addresses of the mesh.
    pub universe: Cidr,
    /// The subnet of requests that name none.
    pub default_subnet: Cidr,
    /// Whether it is settled who gives out which addresses, so that the ranges stay.
    pub settled: bool,
    /// The subnets that this router gives addresses from.
    pub owned: Vec<Cidr>,
}

impl View {
    /// Returns how long the router has run, as its own clock counts.
    pub fn uptime(&self) -> Duration {
        self.at.since(Time::ZERO)
    }

    /// Returns what the wall clock showed, or will show, at a time of the core.
    pub fn wall(&self, at: Time) -> SystemTime {
        if at <= self.at {
            self.wall - self.at.since(at)
        } else {
            self.wall + at.since(self.at)
        }
    }
}

impl MeshView {
    /// Returns the nickname of a peer; empty if it is not known.
    pub fn nickname(&self, name: PeerName) -> String {
        let peer = self.peers.get(&name);
        let text = |peer: &Peer| String::from_utf8_lossy(&peer.nickname).into_owned();
        peer.map(text).unwrap_or_default()
    }
}
