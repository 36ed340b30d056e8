//! The state before a step, so that the step can be undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::types::PeerName;

use crate::leases::{Lease, LeaseKey};
use crate::persist::{Election, Holding, Known, Meta, Takeover};
use crate::range::{Address, Range};
use crate::ring::Change;

/// Previous values of everything that a step changed.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    pub(super) meta: Option<Meta>,
    pub(super) seeds: Option<Vec<PeerName>>,
    /// In the order of the changes. Of several of one token, the first counts.
    pub(super) entries: Vec<Change>,
    pub(super) addresses: BTreeMap<Address, Option<Holding>>,
    pub(super) leases: BTreeMap<Arc<LeaseKey>, Option<Lease>>,
    pub(super) election: Option<Option<Election>>,
    pub(super) takeovers: BTreeMap<PeerName, Option<Takeover>>,
    pub(super) idle: BTreeMap<Arc<LeaseKey>, Option<u64>>,
    /// The time that was saved before.
    pub(super) time: Option<u64>,
    pub(super) known: BTreeMap<PeerName, Option<Known>>,
}

/// Addresses that we gained or lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) gained: Vec<Range>,
    pub(crate) lost: Vec<Range>,
}

/// Returns the parts of `after` that are not in `before`, and vice versa. Both must be sorted and
/// without overlaps.
pub(super) fn difference(before: &[Range], after: &[Range]) -> (Vec<Range>, Vec<Range>) {
    (minus(after, before), minus(before, after))
}

fn minus(from: &[Range], take: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut holes = take.iter().peekable();
    for range in from {
        let mut start = range.start;
        while let Some(hole) = holes.peek() {
            if hole.end <= start {
                holes.next();
                continue;
            }
            if hole.start >= range.end {
                break;
            }
            if hole.start > start {
                out.push(Range::new(start, hole.start));
            }
            start = hole.end;
            if hole.end > range.end {
                break;
            }
        }
        if start < range.end {
            out.push(Range::new(start, range.end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range_set::RangeSet;

    proptest! {
        #[test]
        fn difference_of_lists_is_that_of_sets(
            a in prop::collection::vec((0u32..60, 0u32..9), 0..10),
            b in prop::collection::vec((0u32..60, 0u32..9), 0..10),
        ) {
            let set = |list: Vec<(u32, u32)>| -> RangeSet {
                list.into_iter()
                    .map(|(s, l)| Range::new(Address::new(s), Address::new(s + l)))
                    .collect()
            };
            let (a, b) = (set(a), set(b));
            let (list_a, list_b): (Vec<Range>, Vec<Range>) = (a.iter().collect(), b.iter().collect());
            let got: RangeSet = minus(&list_a, &list_b).into_iter().collect();
            prop_assert_eq!(got, a.minus(&b));
        }
    }
}
