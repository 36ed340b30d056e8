//! A set of addresses, stored as the fewest ranges.

use std::collections::BTreeMap;

use crate::range::{Address, Range};

/// A set of addresses. Adjacent ranges are joined, so equal sets compare equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end of each range.
    ranges: BTreeMap<Address, Address>,
}

impl RangeSet {
    /// Creates the empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// Returns true if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns true if the set contains `address`.
    pub fn contains(&self, address: Address) -> bool {
        self.ranges
            .range(..=address)
            .next_back()
            .is_some_and(|(_, end)| address < *end)
    }

    /// Returns the ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range> + '_ {
        self.ranges
            .iter()
            .map(|(start, end)| Range::new(*start, *end))
    }

    /// Returns the parts of the set that lie in `within`, in order. None is empty.
    pub fn parts(&self, within: Range) -> impl Iterator<Item = Range> + '_ {
        let first = self
            .ranges
            .range(..=within.start)
            .next_back()
            .map_or(within.start, |(start, _)| *start);
        let upto = first.max(within.end);
        self.ranges
            .range(first..upto)
            .map(move |(start, end)| Range::new(*start, *end).intersect(&within))
            .filter(|part| !part.is_empty())
    }

    /// Returns the number of addresses of `within` in the set.
    pub fn count(&self, within: Range) -> u32 {
        self.parts(within).map(|part| part.size()).sum()
    }

    /// Returns the number of addresses in the set.
    pub fn len(&self) -> u32 {
        self.iter().map(|range| range.size()).sum()
    }

    /// Returns the lowest address of `within` that is in the set.
    pub fn first(&self, within: Range) -> Option<Address> {
        self.parts(within).next().map(|part| part.start)
    }

    /// Adds all addresses of `range`.
    pub fn insert(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((s, e)) = self.ranges.range(..=start).next_back()
            && *e >= start
        {
            (start, end) = (*s, end.max(*e));
        }
        while let Some((s, e)) = self.ranges.range(start..=end).next() {
            end = end.max(*e);
            let s = *s;
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// Removes all addresses of `range`.
    pub fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        if let Some((s, e)) = self.ranges.range(..range.start).next_back()
            && *e > range.start
        {
            let (s, e) = (*s, *e);
            self.ranges.insert(s, range.start);
            if e > range.end {
                self.ranges.insert(range.end, e);
                return;
            }
        }
        while let Some((s, e)) = self.ranges.range(range.start..range.end).next() {
            let (s, e) = (*s, *e);
            self.ranges.remove(&s);
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
    }

    /// Returns the addresses of this set that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &RangeSet) -> RangeSet {
        let mut out = RangeSet::new();
        for range in self.iter() {
            let mut start = range.start;
            for hole in other.parts(range) {
                if hole.start > start {
                    out.ranges.insert(start, hole.start);
                }
                start = hole.end;
            }
            if start < range.end {
                out.ranges.insert(start, range.end);
            }
        }
        out
    }
}

impl FromIterator<Range> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> RangeSet {
        let mut out = RangeSet::new();
        for range in ranges {
            out.insert(range);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(start: u32, len: u32) -> Range {
        Range::new(Address::new(start), Address::new(start + len))
    }

    fn flat(set: &RangeSet) -> BTreeSet<u32> {
        set.iter()
            .flat_map(|r| r.start.get()..r.end.get())
            .collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            ops in prop::collection::vec((any::<bool>(), 0u32..60, 0u32..12), 0..60),
            within in (0u32..60, 0u32..40),
        ) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (add, start, len) in ops {
                if add {
                    set.insert(range(start, len));
                    model.extend(start..start + len);
                } else {
                    set.remove(range(start, len));
                    model.retain(|x| !(start..start + len).contains(x));
                }
                prop_assert_eq!(flat(&set), model.clone());
                let ends: Vec<Range> = set.iter().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].end < w[1].start));
            }
            let inside: Vec<u32> = (within.0..within.0 + within.1)
                .filter(|x| model.contains(x))
                .collect();
            let within = range(within.0, within.1);
            prop_assert_eq!(set.count(within) as usize, inside.len());
            prop_assert_eq!(set.first(within).map(Address::get), inside.first().copied());
            for x in 0..80 {
                prop_assert_eq!(set.contains(Address::new(x)), model.contains(&x));
            }
            prop_assert_eq!(set.len() as usize, model.len());
        }

        #[test]
        fn difference_is_that_of_numbers(
            a in prop::collection::vec((0u32..60, 0u32..12), 0..10),
            b in prop::collection::vec((0u32..60, 0u32..12), 0..10),
        ) {
            let a: RangeSet = a.into_iter().map(|(s, l)| range(s, l)).collect();
            let b: RangeSet = b.into_iter().map(|(s, l)| range(s, l)).collect();
            let expected: BTreeSet<u32> = flat(&a).difference(&flat(&b)).copied().collect();
            prop_assert_eq!(flat(&a.minus(&b)), expected);
        }
    }
}
