//! Decisions on contradictions between two copies of the ring.

use std::collections::BTreeMap;

use proto::types::PeerName;

use super::super::durable::Durable;
use super::super::members::Members;
use crate::range::{Address, Range};
use crate::ring::{Contest, ContestKind, Decision, Rules};

/// Decides contests between our ring and another.
///
/// An entry of ours with another owner and a higher version was taken over by an administrator, who
/// said that we are gone. The mesh believes that, and insisting would only keep the rings apart: we
/// yield, and addresses in use here become strays.
pub(super) struct Referee<'a> {
    durable: &'a Durable,
    members: &'a Members,
    /// Entries that we keep although another owner has the same version.
    pub(super) ties: Vec<(Address, PeerName)>,
    /// How many used addresses each peer took from us.
    pub(super) taken_by: BTreeMap<PeerName, u32>,
}

impl<'a> Referee<'a> {
    pub(super) fn new(durable: &'a Durable, members: &'a Members) -> Referee<'a> {
        Referee {
            durable,
            members,
            ties: Vec::new(),
            taken_by: BTreeMap::new(),
        }
    }

    /// Returns the addresses from our entry up to the next.
    fn interval(&self, contest: &Contest) -> Vec<Range> {
        self.durable
            .ring()
            .intervals()
            .filter(|(_, entry)| entry.token == contest.mine.token)
            .map(|(range, _)| range)
            .collect()
    }

    /// Returns true if `a` takes precedence over `b` when both own one entry at the same version: a
    /// Weave Net router, because it does not yield, or else the lower name.
    ///
    /// Rule: `docs/protocol/ipam.md#3-4-contests`.
    fn goes_before(&self, a: PeerName, b: PeerName) -> bool {
        (self.members.is_weft(a), a) < (self.members.is_weft(b), b)
    }

    /// Rule: `docs/protocol/ipam.md#3-4-contests`.
    fn same_version(&mut self, contest: &Contest) -> Decision {
        let (us, other) = (self.durable.us(), contest.theirs.peer);
        let weft = self.members.is_weft(other);
        let held = self.durable.space().held_ranges();
        let mut ranges = self.interval(contest).into_iter();
        if contest.idle && ranges.any(|range| held.count(range) > 0) {
            // We took the range over and wait to hear who else claims it: this is such a claim.
            return if weft && us < other {
                Decision::KeepMine
            } else {
                Decision::TakeTheirs
            };
        }
        if !weft {
            // Weave Net does not decide ties, and crashes if it must give up a range.
            return if contest.idle {
                Decision::TakeTheirs
            } else {
                Decision::AsOriginal
            };
        }
        self.ties.push((contest.mine.token, other));
        Decision::KeepMine
    }
}

impl Rules for Referee<'_> {
    fn is_idle(&self, range: Range) -> bool {
        self.durable.space().is_idle(range)
    }

    /// Rule: `docs/protocol/ipam.md#3-4-contests`.
    fn decide(&mut self, contest: &Contest) -> Decision {
        match contest.kind {
            ContestKind::Newer => {
                let ranges = self.interval(contest);
                let ours = self.durable.space().our_ranges();
                let used = ranges.iter().map(|range| ours.count(*range)).sum::<u32>();
                *self.taken_by.entry(contest.theirs.peer).or_default() += used;
                Decision::TakeTheirs
            }
            ContestKind::SameVersion => self.same_version(contest),
            ContestKind::Behind if contest.idle => Decision::TakeTheirs,
            ContestKind::Others if contest.mine.free != contest.theirs.free => Decision::AsOriginal,
            ContestKind::Others => {
                if self.goes_before(contest.theirs.peer, contest.mine.peer) {
                    Decision::TakeTheirs
                } else {
                    Decision::KeepMine
                }
            }
            ContestKind::Inside | ContestKind::Behind => Decision::AsOriginal,
        }
    }
}
