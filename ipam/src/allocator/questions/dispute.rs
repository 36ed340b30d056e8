//! Leases about which another router says what we know better.
//!
//! Two routers that both believe that an identity is up with them outdo each other's statement.
//! That settles what was a matter of time; what is not, because their rings contradict each other
//! or one of them lies, must not go on for ever: each time is later than the one before, and
//! there is a last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::types::Time;

use crate::leases::LeaseKey;

/// How often a statement about one lease is outdone.
const REFUTALS_MAX: u32 = 6;
/// How long the second time waits for; each further one for twice as long.
const REFUTE_AGAIN: Duration = Duration::from_secs(1);
/// A dispute that nobody has touched for so long is over.
const DISPUTE_OVER: Duration = Duration::from_secs(1800);
/// Most disputes at a time; beyond, statements are neither taken nor outdone.
const DISPUTES_MAX: usize = 4096;

/// What to do about a statement that is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refutal {
    /// Outdo it. How often that was done before.
    Now(u32),
    /// Leave it alone: it was outdone just now, or too often.
    Not,
}

#[derive(Debug)]
struct Dispute {
    count: u32,
    next: Time,
}

/// The disputes of late.
#[derive(Debug, Default)]
pub(crate) struct Disputes {
    of: BTreeMap<Arc<LeaseKey>, Dispute>,
}

impl Disputes {
    /// What to do about a statement on this lease that is not true.
    pub(crate) fn refutal(&mut self, key: &Arc<LeaseKey>, now: Time) -> Refutal {
        let full = self.of.len() >= DISPUTES_MAX && !self.of.contains_key(key);
        if full {
            return Refutal::Not;
        }
        let dispute = self.of.entry(Arc::clone(key)).or_insert(Dispute {
            count: 0,
            next: now,
        });
        if now < dispute.next || dispute.count >= REFUTALS_MAX {
            return Refutal::Not;
        }
        let before = dispute.count;
        dispute.next = now + REFUTE_AGAIN * (1 << before);
        dispute.count += 1;
        Refutal::Now(before)
    }

    pub(crate) fn forget_old(&mut self, now: Time) {
        self.of
            .retain(|_, dispute| dispute.next + DISPUTE_OVER > now);
    }
}
