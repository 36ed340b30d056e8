//! The addresses that this router owns: which are free, in use, or held back.

use crate::range::{Address, Range};
use crate::range_set::RangeSet;

/// The addresses that the ring gives this router, in three disjoint sets that together are
/// exactly the owned ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Can be allocated or given away.
    free: RangeSet,
    /// Allocated, or reserved for an identity.
    ours: RangeSet,
    /// Not to be used before everyone was asked about them: our store was lost.
    held: RangeSet,
}

/// A claim or release of an address that is not in the state it must be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// Somebody has it, or we do not own it.
    #[error("Address {0} is not free to claim")]
    NotFree(Address),
    /// It is not allocated here.
    #[error("Address {0} is not ours")]
    NotOurs(Address),
}

impl Space {
    /// A space that owns nothing.
    pub fn new() -> Space {
        Space::default()
    }

    /// What can be allocated or given away.
    pub fn free_ranges(&self) -> &RangeSet {
        &self.free
    }

    /// What is allocated or reserved.
    pub fn our_ranges(&self) -> &RangeSet {
        &self.ours
    }

    /// What is held back.
    pub fn held_ranges(&self) -> &RangeSet {
        &self.held
    }

    /// All owned addresses.
    #[must_use]
    pub fn everything(&self) -> RangeSet {
        self.free
            .iter()
            .chain(self.ours.iter())
            .chain(self.held.iter())
            .collect()
    }

    /// The owned addresses of `within`, as ranges in order that may touch.
    #[must_use]
    pub fn everything_in(&self, within: Range) -> Vec<Range> {
        let mut out: Vec<Range> = self
            .free
            .parts(within)
            .chain(self.ours.parts(within))
            .chain(self.held.parts(within))
            .collect();
        out.sort_unstable();
        out
    }

    /// Adds addresses that we have come to own, as free ones.
    pub fn gain(&mut self, range: Range) {
        self.free.insert(range);
    }

    /// Forgets addresses that we own no more.
    pub fn lose(&mut self, range: Range) {
        self.free.remove(range);
        self.ours.remove(range);
        self.held.remove(range);
    }

    /// Takes the lowest free address of `within`.
    pub fn allocate(&mut self, within: Range) -> Option<Address> {
        let address = self.free.first(within)?;
        self.free.remove(Range::single(address));
        self.ours.insert(Range::single(address));
        Some(address)
    }

    /// Takes this free address.
    pub fn claim(&mut self, address: Address) -> Result<(), SpaceError> {
        if !self.free.contains(address) {
            return Err(SpaceError::NotFree(address));
        }
        self.free.remove(Range::single(address));
        self.ours.insert(Range::single(address));
        Ok(())
    }

    /// Makes an allocated address free again.
    pub fn free(&mut self, address: Address) -> Result<(), SpaceError> {
        if !self.ours.contains(address) {
            return Err(SpaceError::NotOurs(address));
        }
        self.ours.remove(Range::single(address));
        self.free.insert(Range::single(address));
        Ok(())
    }

    /// Holds back those addresses of `range` that are free.
    pub fn hold(&mut self, range: Range) {
        let parts: Vec<Range> = self.free.parts(range).collect();
        for part in parts {
            self.free.remove(part);
            self.held.insert(part);
        }
    }

    /// Takes the block out of the free addresses of `within` that a router gives away when
    /// another asks for space there: the largest aligned one, but no more than half of what is
    /// free there.
    pub fn donate(&mut self, within: Range) -> Option<Range> {
        let gift = self.gift(within)?;
        self.free.remove(gift);
        Some(gift)
    }

    /// The block that [`Space::donate`] would take out.
    pub fn gift(&self, within: Range) -> Option<Range> {
        let block = self.biggest_free(within)?;
        let half = block.size() / 2;
        Some(if block.size() > self.free.count(within) / 2 {
            Range::new(block.start.plus(half), block.end)
        } else {
            block
        })
    }

    /// The largest aligned block of free addresses in `within`; of equal ones the last.
    pub fn biggest_free(&self, within: Range) -> Option<Range> {
        let mut biggest = Range::default();
        for chunk in self.free.parts(within) {
            if chunk.size() >= biggest.size() {
                let block = chunk.biggest_block();
                if block.size() >= biggest.size() {
                    biggest = block;
                }
            }
        }
        (!biggest.is_empty()).then_some(biggest)
    }

    /// How many free addresses `within` has.
    pub fn free_in(&self, within: Range) -> u32 {
        self.free.count(within)
    }

    /// Whether nothing in `within` would be lost to a user if another peer owned it: all of it
    /// is ours, and none of it allocated.
    pub fn is_idle(&self, within: Range) -> bool {
        self.free.count(within) + self.held.count(within) == within.size()
    }

    /// Whether the three sets are disjoint and together are `owned`, which is sorted; else what is
    /// wrong.
    pub fn check(&self, owned: &[Range]) -> Result<(), String> {
        let sets = [&self.free, &self.ours, &self.held];
        let mut all: Vec<Range> = sets.into_iter().flat_map(RangeSet::iter).collect();
        all.sort_unstable();
        if let Some(w) = all.windows(2).find(|w| w[1].start < w[0].end) {
            return Err(format!("{} is both free and in use", w[1].start));
        }
        let (all, owned) = (joined(all.into_iter()), joined(owned.iter().copied()));
        if all != owned {
            return Err(format!("the space is {all:?}, but the ring says {owned:?}"));
        }
        Ok(())
    }
}

/// Sorted ranges, with those that touch joined.
fn joined(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut out: Vec<Range> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}
