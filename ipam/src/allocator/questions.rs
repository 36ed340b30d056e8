//! What was asked of other routers of late, and what is not known until they answer.

pub(super) mod dispute;
pub(super) mod lease;
pub(super) mod space;

use proto::types::{PeerName, Time};

use dispute::Disputes;
use lease::LeaseQuestions;
use space::SpaceQuestions;

/// The questions to other routers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) space: SpaceQuestions,
    pub(super) leases: LeaseQuestions,
    pub(super) disputes: Disputes,
    /// Until when leases may exist that we do not know.
    pub(super) unknown_until: Option<Time>,
}

impl Questions {
    /// Until when a lease that is not in our table may still be in another; `None` if all that
    /// can be known is known.
    pub(super) fn leases_unknown_until(&self, now: Time) -> Option<Time> {
        self.unknown_until.filter(|until| *until > now)
    }

    /// Forgets what was asked of a peer that went.
    pub(super) fn forget(&mut self, peer: PeerName) {
        self.space.forget(peer);
        self.leases.forget(peer);
    }

    /// Forgets all that was asked.
    pub(super) fn forget_all(&mut self) {
        self.space = SpaceQuestions::default();
        self.leases = LeaseQuestions::default();
    }

    /// Forgets what was asked too long ago to matter.
    pub(super) fn forget_old(&mut self, now: Time) {
        self.space.forget_old(now);
        self.leases.forget_old(now);
        self.disputes.forget_old(now);
    }
}
