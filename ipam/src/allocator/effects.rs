//! Effects of one part of the allocator, on which other parts act.

use std::sync::Arc;

use proto::types::PeerName;

use crate::leases::LeaseKey;

/// An effect of a step.
#[derive(Debug)]
pub(super) enum Effect {
    /// We changed a lease, which must be sent to the others.
    LeaseChanged(Arc<LeaseKey>),
    /// The ring changed.
    RingChanged,
    /// A ring of this neighbour was merged.
    HeardRing(PeerName),
    /// A peer came into reach.
    PeerCame(PeerName),
    /// A peer went out of reach.
    PeerWent(PeerName),
    /// An administrator says that a peer never comes back: take over what it owns.
    RemovalConfirmed(PeerName),
    /// Addresses in use here that the ring assigns to others may have changed.
    HoldingsChanged,
    /// The universe was replaced by another one without a ring.
    UniverseChanged,
}
