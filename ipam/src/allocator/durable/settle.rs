//! The space that follows from the durable state, kept in step with it.

use std::collections::BTreeSet;

use super::data::Durable;
use crate::range::{Address, Range};
use crate::space::Space;

impl Durable {
    /// Moves an address to the set to which it belongs: in use, held back or free, if it is ours.
    pub(super) fn settle(&mut self, address: Address) {
        if !self.owns(address) {
            return;
        }
        let one = Range::single(address);
        self.space.lose(one);
        self.space.gain(one);
        if self.holding(address).is_some() {
            let _ = self.space.claim(address);
        } else if self.is_held_back(address) {
            self.space.hold(one);
        } else if self.leases.at(address).next().is_some() {
            let _ = self.space.claim(address);
        }
    }

    /// Does the same as [`Durable::settle`] for all addresses of a range that are ours.
    pub(super) fn resettle(&mut self, range: Range) {
        let owned: Vec<Range> = self.space.everything_in(range);
        for part in &owned {
            self.space.lose(*part);
            self.space.gain(*part);
            let held: Vec<Range> = self
                .takeovers
                .values()
                .flat_map(|takeover| takeover.ranges.parts(*part))
                .collect();
            for range in held {
                self.space.hold(range);
            }
        }
        for part in owned {
            let held = self.addresses.range(part.start..part.end);
            let mut special: BTreeSet<Address> = held.map(|(address, _)| *address).collect();
            special.extend(self.leases.within(part).map(|(_, lease)| lease.address));
            for address in special {
                self.settle(address);
            }
        }
    }

    pub(super) fn rebuild_space(&mut self) {
        self.space = Space::new();
        let owned = self.ring.owned_ranges(self.us());
        for range in &owned {
            self.space.gain(*range);
        }
        for range in owned {
            self.resettle(range);
        }
    }

    /// Checks all invariants. The error describes the first violation.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.ring.check().map_err(|error| error.to_string())?;
        self.space.check(&self.ring.owned_ranges(self.us()))?;
        for (address, holding) in &self.addresses {
            if self.owns(*address) && !self.space.our_ranges().contains(*address) {
                return Err(format!("{address} of {} is not in use", holding.id));
            }
        }
        for range in self.space.our_ranges().iter() {
            for number in range.start.get()..range.end.get() {
                let address = Address::new(number);
                let leased = self.leases.at(address).next().is_some();
                if self.holding(address).is_none() && !leased {
                    return Err(format!("{address} is in use by nobody"));
                }
            }
        }
        Ok(())
    }
}
