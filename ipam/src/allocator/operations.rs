//! Requests of users that may have to wait.

pub(super) mod allocate;
pub(super) mod claim;
pub(super) mod lease_change;
pub(super) mod removal;

use super::api::{RequestError, Response};
use super::cx::Cx;
use super::progress::{ASK_AGAIN, Progress};
use allocate::Allocate;
use claim::Claim;
use lease_change::LeaseChange;
use removal::Removal;

/// An operation. Waiting operations are tried in the order of these variants.
#[derive(Debug)]
pub(super) enum Operation {
    Prime,
    Claim(Claim),
    Allocate(Allocate),
    LeaseChange(LeaseChange),
    Removal(Removal),
}

impl Operation {
    pub(super) fn class(&self) -> u8 {
        match self {
            Operation::Prime => 0,
            Operation::Claim(_) => 1,
            Operation::Allocate(_) => 2,
            Operation::LeaseChange(_) => 3,
            Operation::Removal(_) => 4,
        }
    }

    /// Returns its name and its subject, for the error of a cancelled operation.
    fn title(&self) -> (&'static str, &str) {
        match self {
            Operation::Prime => ("Prime", "the ring"),
            Operation::Claim(claim) => ("Claim", &claim.id),
            Operation::Allocate(allocate) => ("Allocate", allocate.title()),
            Operation::LeaseChange(change) => ("Lease", &change.key.name),
            Operation::Removal(_) => ("Remove", "a peer"),
        }
    }

    /// Returns the error of a cancelled operation.
    pub(super) fn cancelled(&self) -> RequestError {
        let (kind, id) = self.title();
        RequestError::Cancelled {
            kind,
            id: id.to_owned(),
        }
    }

    /// Returns true if it is for this container.
    pub(super) fn is_for(&self, container: &str) -> bool {
        match self {
            Operation::Claim(claim) => claim.id == container,
            Operation::Allocate(allocate) => allocate.is_for(container),
            Operation::Prime | Operation::LeaseChange(_) | Operation::Removal(_) => false,
        }
    }

    /// Returns true if it needs a ring, which must be established if there is none.
    pub(super) fn wants_ring(&self, cx: &Cx) -> bool {
        match self {
            Operation::Prime => true,
            Operation::Claim(claim) => claim.wants_ring(cx),
            Operation::Allocate(allocate) => allocate.wants_ring(cx),
            Operation::LeaseChange(_) | Operation::Removal(_) => false,
        }
    }

    /// Forgets what it found out in steps that were not stored.
    pub(super) fn rolled_back(&mut self, cx: &Cx) {
        match self {
            Operation::Allocate(allocate) => allocate.rolled_back(),
            Operation::Removal(removal) => removal.rolled_back(cx),
            Operation::Prime | Operation::Claim(_) | Operation::LeaseChange(_) => {}
        }
    }

    /// Continues as far as possible now.
    pub(super) fn advance(&mut self, cx: &mut Cx) -> Progress {
        match self {
            Operation::Prime if cx.durable.ring().is_empty() => {
                Progress::Wait(cx.waiting_for_ring(), cx.clock.now + ASK_AGAIN)
            }
            Operation::Prime => Progress::Done(Ok(Response::Done)),
            Operation::Claim(claim) => claim.advance(cx),
            Operation::Allocate(allocate) => allocate.advance(cx),
            Operation::LeaseChange(change) => change.advance(cx),
            Operation::Removal(removal) => removal.advance(cx),
        }
    }
}
