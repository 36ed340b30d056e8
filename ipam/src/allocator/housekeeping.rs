//! Periodic work: retries, and forgetting what is old.

use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::cx::Cx;
use crate::leases::LeaseState;

/// Interval of retries of everything that depends on messages which may have been lost.
const TICK: Duration = Duration::from_secs(5);
/// Interval of checks for leases that exceed their retention.
const EXPIRY_TICK: Duration = Duration::from_secs(60);
/// How long an ended lease is remembered, in seconds.
///
/// Rule: `docs/protocol/ipam.md#9-4-replication`.
const TOMBSTONE_KEPT: u64 = 7 * 24 * 60 * 60;
/// How long a finished takeover is remembered, in seconds, so that ranges of the lost peer that
/// appear later are taken over as well.
const REMEMBERED: u64 = 30 * 24 * 60 * 60;

/// When to do it next.
#[derive(Debug)]
pub(super) struct Housekeeping {
    tick_at: Time,
    expiry_at: Time,
}

impl Housekeeping {
    pub(super) fn new(now: Time) -> Housekeeping {
        Housekeeping {
            tick_at: now + TICK,
            expiry_at: now + EXPIRY_TICK,
        }
    }

    pub(super) fn next_wake(&self) -> Time {
        self.tick_at.min(self.expiry_at)
    }

    /// Returns true if it is time to try again what may have been lost.
    pub(super) fn ticks(&mut self, now: Time) -> bool {
        let due = self.tick_at <= now;
        if due {
            self.tick_at = now + TICK;
        }
        due
    }

    /// Forgets what is old, if it is time for that.
    pub(super) fn forget(&mut self, cx: &mut Cx) {
        if self.expiry_at <= cx.clock.now {
            self.expiry_at = cx.clock.now + EXPIRY_TICK;
            expire_leases(cx);
            forget_known(cx);
            forget_takeovers(cx);
            cx.durable.save_time();
        }
    }
}

/// Ends leases that were unused for too long, and forgets those that ended long ago.
fn expire_leases(cx: &mut Cx) {
    let us = cx.durable.us();
    let mut expired = Vec::new();
    let mut forgotten = Vec::new();
    for (key, lease) in cx.durable.leases().iter() {
        let age = cx.durable.idle_for(key);
        match lease.state {
            LeaseState::Gone if age > TOMBSTONE_KEPT => forgotten.push(Arc::clone(key)),
            LeaseState::Unused
                if lease.holder == us && !lease.pinned && age > cx.config.lease_retention =>
            {
                expired.push((Arc::clone(key), lease.clone()));
            }
            _ => {}
        }
    }
    for (key, lease) in expired {
        cx.end_lease(&key, &lease, "nobody has used it for too long");
    }
    for key in forgotten {
        cx.durable.set_lease(&key, None);
    }
}

/// Forgets peers that were not met for a long time and own nothing.
fn forget_known(cx: &mut Cx) {
    let time = cx.durable.time();
    let (ring, known) = (cx.durable.ring(), cx.durable.known());
    let old: Vec<PeerName> = known
        .iter()
        .filter(|(peer, known)| {
            let old = time.saturating_sub(known.seen) > REMEMBERED;
            old && !ring.has_owner(**peer)
        })
        .map(|(peer, _)| *peer)
        .filter(|peer| !cx.members.is_known(*peer))
        .collect();
    for peer in old {
        cx.durable.set_known(peer, None);
    }
}

/// Forgets old takeovers.
fn forget_takeovers(cx: &mut Cx) {
    let time = cx.durable.time();
    let old: Vec<PeerName> = cx
        .durable
        .takeovers()
        .iter()
        .filter(|(_, t)| !t.is_active() && time.saturating_sub(t.since) > REMEMBERED)
        .map(|(peer, _)| *peer)
        .collect();
    for peer in old {
        cx.durable.set_takeover(peer, None);
    }
}
