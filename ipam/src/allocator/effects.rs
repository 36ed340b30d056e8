//! What follows from what a part of the allocator did, for other parts to act on.

use std::sync::Arc;

use proto::types::PeerName;

use crate::leases::LeaseKey;

/// Something that happened in a step, which other parts want to know.
#[derive(Debug)]
pub(super) enum Effect {
    /// We changed a lease: the others are to be told.
    LeaseChanged(Arc<LeaseKey>),
    /// The ring changed.
    RingChanged,
    /// A ring of this neighbour was merged.
    HeardRing(PeerName),
    /// A peer came into reach.
    PeerCame(PeerName),
    /// A peer went out of reach.
    PeerWent(PeerName),
    /// A peer never comes back, an administrator says: what it owns is to be taken over.
    RemovalConfirmed(PeerName),
    /// Who has which address on this host may have changed against the ring.
    HoldingsChanged,
    /// Everything is allocated from another universe, of which there is no ring yet.
    UniverseChanged,
}
