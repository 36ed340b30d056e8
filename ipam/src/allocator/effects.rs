//! What follows from what a part of the allocator did, for other parts to act on.

use std::sync::Arc;

use crate::leases::LeaseKey;

/// Something that happened in a step, which other parts want to know.
#[derive(Debug)]
pub(super) enum Effect {
    /// We changed a lease: the others are to be told.
    LeaseChanged(Arc<LeaseKey>),
    /// Who has which address on this host may have changed against the ring.
    HoldingsChanged,
    /// Everything is allocated from another universe, of which there is no ring yet.
    UniverseChanged,
}
