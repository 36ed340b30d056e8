//! The addresses that this router owns: free, in use, or held back.

use crate::range::{Address, Range};
use crate::range_set::RangeSet;

/// The addresses that the ring assigns to this router, in three disjoint sets that together are
/// exactly the owned ranges.
///
/// Rule: `docs/protocol/ipam.md#4-1-sets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Can be allocated or given away.
    free: RangeSet,
    /// Allocated, or reserved for an identity.
    ours: RangeSet,
    /// Must not be used before every known router was heard.
    held: RangeSet,
}

/// An address is not in the state that a claim or release requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// The address is in use, or we do not own it.
    #[error("Address {0} is not free to claim")]
    NotFree(Address),
    /// The address is not allocated here.
    #[error("Address {0} is not ours")]
    NotOurs(Address),
}

impl Space {
    /// Creates a space that owns nothing.
    pub fn new() -> Space {
        Space::default()
    }

    /// Returns the addresses that can be allocated or given away.
    pub fn free_ranges(&self) -> &RangeSet {
        &self.free
    }

    /// Returns the addresses that are allocated or reserved.
    pub fn our_ranges(&self) -> &RangeSet {
        &self.ours
    }

    /// Returns the addresses that are held back.
    pub fn held_ranges(&self) -> &RangeSet {
        &self.held
    }

    /// Returns all owned addresses.
    #[must_use]
    pub fn everything(&self) -> RangeSet {
        self.free
            .iter()
            .chain(self.ours.iter())
            .chain(self.held.iter())
            .collect()
    }

    /// Returns the owned addresses of `within`, as sorted ranges that may be adjacent.
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

    /// Adds newly owned addresses as free ones.
    pub fn gain(&mut self, range: Range) {
        self.free.insert(range);
    }

    /// Removes addresses that we do not own any more.
    pub fn lose(&mut self, range: Range) {
        self.free.remove(range);
        self.ours.remove(range);
        self.held.remove(range);
    }

    /// Allocates the lowest free address of `within`.
    ///
    /// Rule: `docs/protocol/ipam.md#4-1-sets`.
    pub fn allocate(&mut self, within: Range) -> Option<Address> {
        let address = self.free.first(within)?;
        self.free.remove(Range::single(address));
        self.ours.insert(Range::single(address));
        Some(address)
    }

    /// Allocates this address, which must be free.
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

    /// Removes and returns the block of free addresses that is given to a router which asks for
    /// space in `within`: the largest aligned block, or its upper half if it is more than half of
    /// what is free there.
    ///
    /// Rule: `docs/protocol/ipam.md#4-2-donation`.
    pub fn donate(&mut self, within: Range) -> Option<Range> {
        let gift = self.gift(within)?;
        self.free.remove(gift);
        Some(gift)
    }

    /// Returns the block that [`Space::donate`] would remove.
    ///
    /// Rule: `docs/protocol/ipam.md#4-2-donation`.
    pub fn gift(&self, within: Range) -> Option<Range> {
        let block = self.biggest_free(within)?;
        let half = block.size() / 2;
        Some(if block.size() > self.free.count(within) / 2 {
            Range::new(block.start.plus(half), block.end)
        } else {
            block
        })
    }

    /// Returns the largest aligned block of free addresses in `within`; of equal ones the last.
    ///
    /// Rule: `docs/protocol/ipam.md#4-2-donation`.
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

    /// Returns the number of free addresses in `within`.
    pub fn free_in(&self, within: Range) -> u32 {
        self.free.count(within)
    }

    /// Returns true if `within` is completely ours and none of it is allocated, so that no user
    /// would notice if another peer owned it.
    pub fn is_idle(&self, within: Range) -> bool {
        self.free.count(within) + self.held.count(within) == within.size()
    }

    /// Checks that the three sets are disjoint and together equal `owned`, which must be sorted.
    /// The error describes the first violation.
    ///
    /// Rule: `docs/protocol/ipam.md#4-1-sets`.
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

/// Joins adjacent ones of sorted ranges.
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
