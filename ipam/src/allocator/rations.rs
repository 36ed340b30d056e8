//! Rations of answers: how much each peer may be told, so that questions cannot cost more than they
//! are worth.
//!
//! A question of a few bytes is answered with a whole ring, or with the differences between two
//! tables. Each asker has a ration of bytes that refills with time; an asker that has used it up is
//! answered later, once for all of its questions.

use std::collections::{BTreeMap, BTreeSet};

use proto::types::{PeerName, Time};

/// Maximum size in bytes of a ration: what an asker that has not asked for long may be told at
/// once.
///
/// Rule: `docs/protocol/ipam.md#11-1-rations`.
const RATION_BYTES_MAX: u64 = 8 << 20;
/// Rate at which a ration refills, in bytes per second.
const RATION_BYTES_PER_SECOND: u64 = 512 << 10;

#[derive(Debug)]
struct Ration {
    /// Bytes that may still be told. The last answer may have taken more than there was.
    left: i64,
    at: Time,
}

impl Ration {
    fn fill(&mut self, now: Time) {
        let passed = now.as_micros().saturating_sub(self.at.as_micros());
        let more = passed.saturating_mul(RATION_BYTES_PER_SECOND) / 1_000_000;
        if more > 0 {
            let left = self.left.saturating_add_unsigned(more);
            self.left = left.min(RATION_BYTES_MAX.cast_signed());
            self.at = now;
        }
    }
}

/// The rations of recent askers.
#[derive(Debug, Default)]
pub(super) struct Rations {
    of: BTreeMap<PeerName, Ration>,
    /// Peers that are to be sent our ring as soon as their ration allows it.
    owed: BTreeSet<PeerName>,
}

impl Rations {
    /// Returns true if the peer may be told anything now.
    pub(super) fn allows(&mut self, peer: PeerName, now: Time) -> bool {
        self.of.get_mut(&peer).is_none_or(|ration| {
            ration.fill(now);
            ration.left > 0
        })
    }

    /// Records that the peer was told this many bytes.
    pub(super) fn spend(&mut self, peer: PeerName, bytes: usize, now: Time) {
        let ration = self.of.entry(peer).or_insert(Ration {
            left: RATION_BYTES_MAX.cast_signed(),
            at: now,
        });
        ration.left = ration.left.saturating_sub_unsigned(bytes as u64);
    }

    /// The peer is to be sent our ring later.
    pub(super) fn owe(&mut self, peer: PeerName) {
        self.owed.insert(peer);
    }

    /// Returns those that are owed our ring and may be told now.
    pub(super) fn payable(&mut self, now: Time) -> Vec<PeerName> {
        let owed: Vec<PeerName> = self.owed.iter().copied().collect();
        let payable: Vec<PeerName> = owed
            .into_iter()
            .filter(|peer| self.allows(*peer, now))
            .collect();
        self.owed.retain(|peer| !payable.contains(peer));
        payable
    }

    /// Forgets a peer that went.
    pub(super) fn forget(&mut self, peer: PeerName) {
        self.owed.remove(&peer);
    }

    /// Forgets rations that are full again.
    pub(super) fn forget_old(&mut self, now: Time) {
        self.of.retain(|_, ration| {
            ration.fill(now);
            ration.left < RATION_BYTES_MAX.cast_signed()
        });
    }
}
