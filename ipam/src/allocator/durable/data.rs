//! The durable state, and every way to change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::types::PeerName;

use super::time::PassedTime;
use crate::allocator::api::{Clock, Proof};
use crate::leases::{Lease, LeaseKey, LeaseState, LeaseTable};
use crate::persist::{Election, Holding, Known, Meta, Stored, Takeover};
use crate::range::{Address, Range};
use crate::range_set::RangeSet;
use crate::ring::{Change, Failed, MergeError, Merged, Ring, Rules};
use crate::space::Space;

use super::undo::{Moved, Undo, difference};

#[derive(Debug)]
pub(crate) struct Durable {
    pub(super) meta: Meta,
    pub(super) ring: Ring,
    pub(super) space: Space,
    pub(super) addresses: BTreeMap<Address, Holding>,
    pub(super) by_id: BTreeMap<String, BTreeSet<Address>>,
    pub(super) leases: LeaseTable,
    pub(super) election: Option<Election>,
    pub(super) takeovers: BTreeMap<PeerName, Takeover>,
    pub(super) known: BTreeMap<PeerName, Known>,
    /// Since when, in the time that we saw pass, those leases are idle that we are to end or
    /// forget one day.
    pub(super) idle: BTreeMap<Arc<LeaseKey>, u64>,
    pub(super) time: PassedTime,
    pub(super) undo: Undo,
}

impl Durable {
    /// The state that was stored, or the first one of a router that never ran.
    pub(crate) fn load(stored: Stored, meta: Meta, clock: Clock) -> Durable {
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
            idle: stored.idle,
            time: PassedTime::new(stored.time, clock),
            undo: Undo::default(),
        };
        state.rebuild_space();
        state.date_old_records();
        state
    }

    /// Records that the router or universe of the records changed.
    pub(crate) fn touch_meta(&mut self) {
        self.undo.meta = Some(self.meta);
    }

    /// Marks every record as changed, so that the next commit writes all of them.
    pub(crate) fn touch_all(&mut self) {
        self.undo.meta = Some(self.meta);
        self.undo.seeds = Some(Vec::new());
        let tokens = self.ring.entries.iter().map(|entry| (entry.token, None));
        self.undo.entries.extend(tokens);
        let addresses = self.addresses.keys().map(|address| (*address, None));
        self.undo.addresses.extend(addresses);
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn us(&self) -> PeerName {
        self.meta.name
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    pub(crate) fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    pub(crate) fn election(&self) -> Option<&Election> {
        self.election.as_ref()
    }

    pub(crate) fn takeovers(&self) -> &BTreeMap<PeerName, Takeover> {
        &self.takeovers
    }

    pub(crate) fn known(&self) -> &BTreeMap<PeerName, Known> {
        &self.known
    }

    pub(crate) fn holding(&self, address: Address) -> Option<&Holding> {
        self.addresses.get(&address)
    }

    pub(crate) fn holdings(&self) -> &BTreeMap<Address, Holding> {
        &self.addresses
    }

    /// Returns all ids with their addresses.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (&str, &BTreeSet<Address>)> {
        self.by_id.iter().map(|(id, set)| (id.as_str(), set))
    }

    /// Returns the addresses of an id.
    pub(crate) fn addresses_of(&self, id: &str) -> impl Iterator<Item = Address> + '_ {
        self.by_id.get(id).into_iter().flatten().copied()
    }

    /// Returns true if the ring says that `address` is ours.
    pub(crate) fn owns(&self, address: Address) -> bool {
        self.ring.owner(address) == Some(self.us())
    }

    /// Returns true if `address` was taken over and is held back.
    pub(crate) fn is_held_back(&self, address: Address) -> bool {
        let mut takeovers = self.takeovers.values();
        takeovers.any(|takeover| takeover.ranges.contains(address))
    }

    /// Returns the addresses in use here that the ring assigns to others.
    pub(crate) fn strays(&self) -> impl Iterator<Item = (Address, &Holding)> {
        let universe = self.ring.universe();
        self.addresses
            .range(universe.start..universe.end)
            .filter(|(address, _)| !self.owns(**address))
            .map(|(address, holding)| (*address, holding))
    }

    pub(crate) fn set_meta(&mut self, meta: Meta) {
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

    pub(crate) fn set_election(&mut self, election: Option<Election>) {
        if self.election != election {
            let before = std::mem::replace(&mut self.election, election);
            self.undo.election.get_or_insert(before);
        }
    }

    pub(crate) fn set_known(&mut self, peer: PeerName, known: Option<Known>) {
        let before = match known {
            Some(known) => self.known.insert(peer, known),
            None => self.known.remove(&peer),
        };
        self.undo.known.entry(peer).or_insert(before);
    }

    /// Sets or removes a takeover, and holds back or frees its addresses.
    pub(crate) fn set_takeover(&mut self, peer: PeerName, takeover: Option<Takeover>) {
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

    /// Says who has an address.
    pub(crate) fn set_holding(&mut self, address: Address, holding: Holding) {
        self.change_holding(address, Some(holding));
    }

    /// Frees an address: the only way to do so, and only with a proof that its user is gone.
    pub(crate) fn vacate(&mut self, address: Address, _: Proof) {
        self.change_holding(address, None);
    }

    fn change_holding(&mut self, address: Address, holding: Option<Holding>) {
        let before = self.put_holding(address, holding);
        self.undo.addresses.entry(address).or_insert(before);
        self.settle(address);
    }

    pub(super) fn put_holding(
        &mut self,
        address: Address,
        holding: Option<Holding>,
    ) -> Option<Holding> {
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

    /// Sets or removes a lease.
    pub(crate) fn set_lease(&mut self, key: &Arc<LeaseKey>, lease: Option<Lease>) {
        let address = lease.as_ref().map(|lease| lease.address);
        let idle = lease.as_ref().is_some_and(|lease| self.is_idle(lease));
        let unlike = |before: &Lease| {
            let after = lease.as_ref();
            after.is_none_or(|after| {
                (after.address, after.holder, &after.state)
                    != (before.address, before.holder, &before.state)
            })
        };
        let changed = self.leases.get(key).is_none_or(unlike);
        if changed || !idle {
            self.set_idle(key, idle.then_some(self.time.now()));
        }
        let before = self.leases.put(key, lease);
        let old_address = before.as_ref().map(|lease| lease.address);
        let undo = self.undo.leases.entry(Arc::clone(key));
        undo.or_insert(before);
        for address in address.into_iter().chain(old_address) {
            self.settle(address);
        }
    }

    /// Whether we are to end the lease, or to forget it, when it has been as it is for too long.
    fn is_idle(&self, lease: &Lease) -> bool {
        match lease.state {
            LeaseState::Gone => true,
            LeaseState::Unused => lease.holder == self.us(),
            LeaseState::Used(_) => false,
        }
    }

    fn set_idle(&mut self, key: &Arc<LeaseKey>, since: Option<u64>) {
        let before = match since {
            Some(since) => self.idle.insert(Arc::clone(key), since),
            None => self.idle.remove(key),
        };
        if before != since {
            self.undo.idle.entry(Arc::clone(key)).or_insert(before);
        }
    }

    /// For how many seconds, of those that we saw pass, a lease has been idle.
    pub(crate) fn idle_for(&self, key: &LeaseKey) -> u64 {
        let since = self.idle.get(key).copied();
        since.map_or(0, |since| self.time.now().saturating_sub(since))
    }

    /// Seconds, of those that we saw pass; only differences of it mean anything.
    pub(crate) fn time(&self) -> u64 {
        self.time.now()
    }

    /// Takes what the clock says.
    pub(crate) fn set_clock(&mut self, clock: Clock) {
        self.time.set(clock);
    }

    /// Has the time saved with the step under way, if that was long ago.
    pub(crate) fn save_time(&mut self) {
        if self.time.is_unsaved_for_long() {
            self.undo.time.get_or_insert(self.time.saved());
        }
    }

    /// What was stored before time was, or says that it is of the future, is as of now.
    fn date_old_records(&mut self) {
        let now = self.time.now();
        let leases = self.leases.iter();
        let undated: Vec<Arc<LeaseKey>> = leases
            .filter(|(key, lease)| self.is_idle(lease) && !self.idle.contains_key(*key))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in undated {
            self.set_idle(&key, Some(now));
        }
        for since in self.idle.values_mut() {
            *since = now.min(*since);
        }
        for known in self.known.values_mut() {
            known.seen = now.min(known.seen);
        }
        for takeover in self.takeovers.values_mut() {
            takeover.since = now.min(takeover.since);
        }
    }

    /// Computes the result of merging `theirs`.
    pub(crate) fn try_merge(
        &self,
        theirs: &Ring,
        rules: &mut impl Rules,
    ) -> Result<Merged, Failed> {
        self.ring.merge(self.us(), theirs, rules)
    }

    /// Returns an error if a merge would take addresses from us that are in use.
    pub(crate) fn loses_used(&self, merged: &Merged) -> Option<MergeError> {
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

    /// Applies the result of a merge.
    pub(crate) fn apply(&mut self, merged: Merged) -> Moved {
        let changes = merged.changes.clone();
        if merged.seeds.is_some() {
            self.undo.seeds.get_or_insert(self.ring.seeds.clone());
        }
        self.change_ring(|ring| {
            ring.apply(merged);
            changes
        })
    }

    /// Replaces an empty ring by the first one.
    pub(crate) fn seed(&mut self, ring: Ring) -> Moved {
        self.undo.seeds.get_or_insert(self.ring.seeds.clone());
        self.change_ring(|mine| {
            let changes = ring.entries.iter().map(|e| (e.token, None)).collect();
            *mine = ring;
            changes
        })
    }

    /// Changes the ring, and the space accordingly. `change` returns the previous entries.
    pub(crate) fn change_ring(&mut self, change: impl FnOnce(&mut Ring) -> Vec<Change>) -> Moved {
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

    /// Grants addresses of ours to another peer.
    pub(crate) fn grant(&mut self, range: Range, to: PeerName) {
        let us = self.us();
        let changes = self.ring.grant(us, range, to);
        if !changes.is_empty() {
            self.undo.entries.extend(changes);
            self.space.lose(range);
        }
    }

    /// Updates the numbers of free addresses in our entries of the ring: those that are free, plus
    /// `extra` of each range.
    ///
    /// Entries with addresses that are held back are not updated: that would raise their version
    /// above that of a peer with a better claim.
    pub(crate) fn report_free(&mut self, extra: impl Fn(&LeaseTable, Range) -> u32) {
        let us = self.us();
        let (space, leases) = (&self.space, &self.leases);
        let changes = self.ring.report_free(us, |range| {
            let held = space.held_ranges().count(range) > 0;
            (!held).then(|| space.free_in(range) + extra(leases, range))
        });
        self.undo.entries.extend(changes);
    }

    /// Returns the block that we would give away if asked for space in `wanted`.
    pub(crate) fn gift(&self, wanted: Range) -> Option<Range> {
        self.space.gift(wanted)
    }

    /// Returns all addresses that are ours.
    pub(crate) fn owned_by_ring(&self) -> RangeSet {
        self.ring.owned(self.us())
    }
}
