//! Leases about which another router says what we know better.
//!
//! Two routers that both believe that an identity is up with them outdo each other's statements.
//! That settles what was a matter of time. If it was not, because their rings contradict each other
//! or one of them lies, it must not go on forever: the intervals grow, and the number of times is
//! limited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::types::Time;

use crate::leases::LeaseKey;

/// Maximum number of times that a statement about one lease is outdone.
///
/// Rule: `docs/protocol/ipam.md#11-3-disputes`.
const REFUTALS_MAX: u32 = 6;
/// Wait before the second time; it doubles with each further one.
const REFUTE_AGAIN: Duration = Duration::from_secs(1);
/// Time after which a dispute that nobody touched is over.
const DISPUTE_OVER: Duration = Duration::from_secs(1800);
/// Maximum number of disputes at a time; beyond it, statements are neither taken nor outdone.
const DISPUTES_MAX: usize = 4096;

/// The reaction to a false statement.
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

/// Recent disputes.
#[derive(Debug, Default)]
pub(crate) struct Disputes {
    of: BTreeMap<Arc<LeaseKey>, Dispute>,
}

impl Disputes {
    /// Returns what to do about a statement on this lease that is not true.
    ///
    /// Rule: `docs/protocol/ipam.md#11-3-disputes`.
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
