//! The state that survives restarts, and the record of what a step changed of it.
//!
//! Every change goes through a method here that notes what was there before. At the end of a
//! step [`Durable::commit`] makes a batch of the changed records; the notes stay with it, so that
//! a batch that cannot be stored can be taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::types::PeerName;

use crate::leases::{Lease, LeaseKey, LeaseTable, wire};
use crate::persist::{self, Batch, Election, Holding, Key, Known, Meta, Stored, Takeover};
use crate::range::{Address, Range};
use crate::range_set::RangeSet;
use crate::ring::{Change, Failed, MergeError, Merged, Ring, Rules};
use crate::space::Space;

/// What was there before a step, of everything that it changed.
#[derive(Debug, Default)]
pub(super) struct Undo {
    meta: Option<Meta>,
    seeds: Option<Vec<PeerName>>,
    /// In the order of the changes; of several of one token the first counts.
    entries: Vec<Change>,
    addresses: BTreeMap<Address, Option<Holding>>,
    leases: BTreeMap<Arc<LeaseKey>, Option<Lease>>,
    election: Option<Option<Election>>,
    takeovers: BTreeMap<PeerName, Option<Takeover>>,
    known: BTreeMap<PeerName, Option<Known>>,
}

/// Addresses that came to be ours, or ceased to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) gained: Vec<Range>,
    pub(super) lost: Vec<Range>,
}

#[derive(Debug)]
pub(super) struct Durable {
    meta: Meta,
    ring: Ring,
    space: Space,
    addresses: BTreeMap<Address, Holding>,
    by_id: BTreeMap<String, BTreeSet<Address>>,
    leases: LeaseTable,
    election: Option<Election>,
    takeovers: BTreeMap<PeerName, Takeover>,
    known: BTreeMap<PeerName, Known>,
    undo: Undo,
}

impl Durable {
    /// The state that was stored, or the first one of a router that never ran.
    pub(super) fn load(stored: Stored, meta: Meta) -> Durable {
        let mut ring = Ring::new(meta.universe.range());
        ring.seeds = stored.seeds;
        ring.entries = stored.entries.into_values().collect();
        let mut leases = LeaseTable::default();
        for (key, lease) in stored.leases {
            leases.put(&key, Some(lease));
        }
        let mut by_id: BTreeMap<String, BTreeSet<Address>> = BTreeMap::new();
        for (address, holding) in &stored.addresses {
            let of_id = by_id.entry(holding.id.clone()).or_default();
            of_id.insert(*address);
        }
        let mut state = Durable {
            meta,
            ring,
            space: Space::new(),
            addresses: stored.addresses,
            by_id,
            leases,
            election: stored.election,
            takeovers: stored.takeovers,
            known: stored.known,
            undo: Undo::default(),
        };
        state.rebuild_space();
        state
    }

    /// Notes that what the records belong to changed.
    pub(super) fn touch_meta(&mut self) {
        self.undo.meta = Some(self.meta);
    }

    /// Notes every record as changed, so that the next commit writes them all.
    pub(super) fn touch_all(&mut self) {
        self.undo.meta = Some(self.meta);
        self.undo.seeds = Some(Vec::new());
        let tokens = self.ring.entries.iter().map(|entry| (entry.token, None));
        self.undo.entries.extend(tokens);
        let addresses = self.addresses.keys().map(|address| (*address, None));
        self.undo.addresses.extend(addresses);
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn us(&self) -> PeerName {
        self.meta.name
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    pub(super) fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    pub(super) fn election(&self) -> Option<&Election> {
        self.election.as_ref()
    }

    pub(super) fn takeovers(&self) -> &BTreeMap<PeerName, Takeover> {
        &self.takeovers
    }

    pub(super) fn known(&self) -> &BTreeMap<PeerName, Known> {
        &self.known
    }

    pub(super) fn holding(&self, address: Address) -> Option<&Holding> {
        self.addresses.get(&address)
    }

    pub(super) fn holdings(&self) -> &BTreeMap<Address, Holding> {
        &self.addresses
    }

    /// All ids with their addresses.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&str, &BTreeSet<Address>)> {
        self.by_id.iter().map(|(id, set)| (id.as_str(), set))
    }

    /// The addresses of an id.
    pub(super) fn addresses_of(&self, id: &str) -> impl Iterator<Item = Address> + '_ {
        self.by_id.get(id).into_iter().flatten().copied()
    }

    /// Whether the ring says that `address` is ours.
    pub(super) fn owns(&self, address: Address) -> bool {
        self.ring.owner(address) == Some(self.us())
    }

    /// Whether `address` was taken over and is held back.
    pub(super) fn is_held_back(&self, address: Address) -> bool {
        let mut takeovers = self.takeovers.values();
        takeovers.any(|takeover| takeover.ranges.contains(address))
    }

    /// The addresses in use here that the ring says are not ours.
    pub(super) fn strays(&self) -> impl Iterator<Item = (Address, &Holding)> {
        let universe = self.ring.universe();
        self.addresses
            .range(universe.start..universe.end)
            .filter(|(address, _)| !self.owns(**address))
            .map(|(address, holding)| (*address, holding))
    }

    pub(super) fn set_meta(&mut self, meta: Meta) {
        self.undo.meta.get_or_insert(self.meta);
        if meta.universe != self.meta.universe {
            let entries = self.ring.entries.iter();
            let changes: Vec<Change> = entries.map(|e| (e.token, Some(*e))).collect();
            self.undo.entries.extend(changes);
            self.undo
                .seeds
                .get_or_insert(std::mem::take(&mut self.ring.seeds));
            self.ring = Ring::new(meta.universe.range());
            self.meta = meta;
            self.rebuild_space();
        }
        self.meta = meta;
    }

    pub(super) fn set_election(&mut self, election: Option<Election>) {
        if self.election != election {
            let before = std::mem::replace(&mut self.election, election);
            self.undo.election.get_or_insert(before);
        }
    }

    pub(super) fn set_known(&mut self, peer: PeerName, known: Option<Known>) {
        let before = match known {
            Some(known) => self.known.insert(peer, known),
            None => self.known.remove(&peer),
        };
        self.undo.known.entry(peer).or_insert(before);
    }

    /// Sets or removes a takeover, and holds back or frees what that says.
    pub(super) fn set_takeover(&mut self, peer: PeerName, takeover: Option<Takeover>) {
        let before = match takeover {
            Some(takeover) => self.takeovers.insert(peer, takeover),
            None => self.takeovers.remove(&peer),
        };
        let now = self.takeovers.get(&peer);
        let mut touched: Vec<Range> = now.iter().flat_map(|t| t.ranges.iter()).collect();
        touched.extend(before.iter().flat_map(|t| t.ranges.iter()));
        self.undo.takeovers.entry(peer).or_insert(before);
        for range in touched {
            self.resettle(range);
        }
    }

    /// Says who has an address, or that nobody has it.
    pub(super) fn set_holding(&mut self, address: Address, holding: Option<Holding>) {
        let before = self.put_holding(address, holding);
        self.undo.addresses.entry(address).or_insert(before);
        self.settle(address);
    }

    fn put_holding(&mut self, address: Address, holding: Option<Holding>) -> Option<Holding> {
        if let Some(holding) = &holding {
            let of_id = self.by_id.entry(holding.id.clone()).or_default();
            of_id.insert(address);
        }
        let new_id = holding.as_ref().map(|holding| holding.id.clone());
        let before = match holding {
            Some(holding) => self.addresses.insert(address, holding),
            None => self.addresses.remove(&address),
        };
        if let Some(before) = &before
            && new_id.as_ref() != Some(&before.id)
            && let Some(of_id) = self.by_id.get_mut(&before.id)
        {
            of_id.remove(&address);
            if of_id.is_empty() {
                self.by_id.remove(&before.id);
            }
        }
        before
    }

    /// Sets or forgets a lease.
    pub(super) fn set_lease(&mut self, key: &Arc<LeaseKey>, lease: Option<Lease>) {
        let address = lease.as_ref().map(|lease| lease.address);
        let before = self.leases.put(key, lease);
        let old_address = before.as_ref().map(|lease| lease.address);
        let undo = self.undo.leases.entry(Arc::clone(key));
        undo.or_insert(before);
        for address in address.into_iter().chain(old_address) {
            self.settle(address);
        }
    }

    /// What merging `theirs` would do.
    pub(super) fn try_merge(
        &self,
        theirs: &Ring,
        rules: &mut impl Rules,
    ) -> Result<Merged, Failed> {
        self.ring.merge(self.us(), theirs, rules)
    }

    /// The addresses that a merge would take from us although they are in use.
    pub(super) fn loses_used(&self, merged: &Merged) -> Option<MergeError> {
        let us = self.us();
        let (ring, mut after) = (&self.ring, Ring::new(self.ring.universe()));
        after.entries.clone_from(&merged.entries);
        let (_, lost) = difference(&ring.owned_ranges(us), &after.owned_ranges(us));
        let mut used = lost.into_iter().flat_map(|range| {
            let used: Vec<Range> = self.space.our_ranges().parts(range).collect();
            used
        });
        used.next().map(|range| MergeError::InUse(range.start))
    }

    /// Makes the ring what a merge said it would be.
    pub(super) fn apply(&mut self, merged: Merged) -> Moved {
        let changes = merged.changes.clone();
        if merged.seeds.is_some() {
            self.undo.seeds.get_or_insert(self.ring.seeds.clone());
        }
        self.change_ring(|ring| {
            ring.apply(merged);
            changes
        })
    }

    /// Replaces a ring without entries by a first one.
    pub(super) fn seed(&mut self, ring: Ring) -> Moved {
        self.undo.seeds.get_or_insert(self.ring.seeds.clone());
        self.change_ring(|mine| {
            let changes = ring.entries.iter().map(|e| (e.token, None)).collect();
            *mine = ring;
            changes
        })
    }

    /// Changes the ring, and the space with it. `change` returns what was there before.
    pub(super) fn change_ring(&mut self, change: impl FnOnce(&mut Ring) -> Vec<Change>) -> Moved {
        let us = self.us();
        let before = self.ring.owned_ranges(us);
        let changes = change(&mut self.ring);
        self.undo.entries.extend(changes);
        let after = self.ring.owned_ranges(us);
        if before == after {
            return Moved::default();
        }
        let (gained, lost) = difference(&before, &after);
        for range in &lost {
            self.space.lose(*range);
        }
        for range in &gained {
            self.space.gain(*range);
            self.resettle(*range);
        }
        Moved { gained, lost }
    }

    /// Gives addresses that are ours to another peer.
    pub(super) fn grant(&mut self, range: Range, to: PeerName) {
        let us = self.us();
        let changes = self.ring.grant(us, range, to);
        if !changes.is_empty() {
            self.undo.entries.extend(changes);
            self.space.lose(range);
        }
    }

    /// Says in the ring how many of our addresses are free: what is, plus `extra` of a range.
    ///
    /// Nothing is said of entries with addresses that are held back: that would raise their
    /// version, and outdo a peer that has a better claim.
    pub(super) fn report_free(&mut self, extra: impl Fn(&LeaseTable, Range) -> u32) {
        let us = self.us();
        let (space, leases) = (&self.space, &self.leases);
        let changes = self.ring.report_free(us, |range| {
            let held = space.held_ranges().count(range) > 0;
            (!held).then(|| space.free_in(range) + extra(leases, range))
        });
        self.undo.entries.extend(changes);
    }

    /// The block that we would give away when asked for space in `wanted`.
    pub(super) fn gift(&self, wanted: Range) -> Option<Range> {
        self.space.gift(wanted)
    }

    /// Puts an address where it belongs: in use, held back or free, if it is ours at all.
    fn settle(&mut self, address: Address) {
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

    /// Does what [`Durable::settle`] does for the addresses of a range that are ours.
    fn resettle(&mut self, range: Range) {
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

    fn rebuild_space(&mut self) {
        self.space = Space::new();
        let owned = self.ring.owned_ranges(self.us());
        for range in &owned {
            self.space.gain(*range);
        }
        for range in owned {
            self.resettle(range);
        }
    }

    /// Whether everything fits together; else what does not.
    pub(super) fn check(&self) -> Result<(), String> {
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

    /// The records that were changed since the last commit, and what was there before; `None`
    /// if nothing was.
    pub(super) fn commit(&mut self) -> Option<(Batch, Undo)> {
        let undo = std::mem::take(&mut self.undo);
        let mut batch = Batch::new();
        if undo.meta.is_some() {
            batch.push(
                &Key::Meta,
                Some(|out: &mut _| persist::put_meta(out, &self.meta)),
            );
        }
        if undo.seeds.is_some() {
            let seeds = &self.ring.seeds;
            batch.push(
                &Key::Seeds,
                Some(|out: &mut _| persist::put_names(out, seeds)),
            );
        }
        self.commit_entries(&undo, &mut batch);
        for (address, before) in &undo.addresses {
            let now = self.addresses.get(address);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| persist::put_holding(out, now));
                batch.push(&Key::Address(*address), write);
            }
        }
        for (key, before) in &undo.leases {
            let now = self.leases.get(key);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| wire::put_lease(out, now));
                batch.push(&Key::Lease(Arc::clone(key)), write);
            }
        }
        if let Some(before) = &undo.election
            && *before != self.election
        {
            let now = self.election.as_ref();
            let write = now.map(|now| |out: &mut _| persist::put_election(out, now));
            batch.push(&Key::Election, write);
        }
        for (peer, before) in &undo.takeovers {
            let now = self.takeovers.get(peer);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| persist::put_takeover(out, now));
                batch.push(&Key::Takeover(*peer), write);
            }
        }
        for (peer, before) in &undo.known {
            let now = self.known.get(peer);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| persist::put_known(out, now));
                batch.push(&Key::Known(*peer), write);
            }
        }
        (!batch.is_empty()).then_some((batch, undo))
    }

    fn commit_entries(&self, undo: &Undo, batch: &mut Batch) {
        let mut changes = undo.entries.clone();
        // A stable sort keeps the first change of each token first.
        changes.sort_by_key(|(token, _)| *token);
        changes.dedup_by_key(|(token, _)| *token);
        for (token, before) in changes {
            let now = self.ring.get(token);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| persist::put_ring_entry(out, now));
                batch.push(&Key::Entry(token), write);
            }
        }
    }

    /// Takes back steps whose batches were not stored, the last one first.
    pub(super) fn roll_back(&mut self, undos: impl Iterator<Item = Undo>) {
        debug_assert!(self.undo.entries.is_empty(), "a step is under way");
        for undo in undos {
            if let Some(meta) = undo.meta {
                self.ring.start = meta.universe.range().start;
                self.ring.end = meta.universe.range().end;
                self.meta = meta;
            }
            if let Some(seeds) = undo.seeds {
                self.ring.seeds = seeds;
            }
            self.ring.undo(&undo.entries);
            for (address, holding) in undo.addresses {
                self.put_holding(address, holding);
            }
            for (key, lease) in undo.leases {
                self.leases.put(&key, lease);
            }
            if let Some(election) = undo.election {
                self.election = election;
            }
            for (peer, takeover) in undo.takeovers {
                match takeover {
                    Some(takeover) => self.takeovers.insert(peer, takeover),
                    None => self.takeovers.remove(&peer),
                };
            }
            for (peer, seen) in undo.known {
                match seen {
                    Some(seen) => self.known.insert(peer, seen),
                    None => self.known.remove(&peer),
                };
            }
        }
        self.rebuild_space();
    }

    /// All addresses that are ours.
    pub(super) fn owned_by_ring(&self) -> RangeSet {
        self.ring.owned(self.us())
    }
}

/// The parts of `after` that are not in `before`, and the other way round. Both are sorted and
/// each without overlaps.
fn difference(before: &[Range], after: &[Range]) -> (Vec<Range>, Vec<Range>) {
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
