//! Recent questions to other routers, and what is unknown until they answer.

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
    /// Until when leases may exist that are unknown here.
    pub(super) unknown_until: Option<Time>,
}

impl Questions {
    /// Returns until when a lease that is not in our table may be in another one, or `None` if
    /// everything is known.
    pub(super) fn leases_unknown_until(&self, now: Time) -> Option<Time> {
        self.unknown_until.filter(|until| *until > now)
    }

    /// Forgets the questions to a peer that went away.
    pub(super) fn forget(&mut self, peer: PeerName) {
        self.space.forget(peer);
        self.leases.forget(peer);
    }

    /// Forgets all that was asked.
    pub(super) fn forget_all(&mut self) {
        self.space = SpaceQuestions::default();
        self.leases = LeaseQuestions::default();
    }

    /// Forgets questions that are too old.
    pub(super) fn forget_old(&mut self, now: Time) {
        self.space.forget_old(now);
        self.leases.forget_old(now);
        self.disputes.forget_old(now);
    }
}
