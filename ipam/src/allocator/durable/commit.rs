//! The records of a step, and how to undo it if they are not stored.

use std::sync::Arc;

use super::data::Durable;
use super::undo::Undo;
use crate::leases::wire;
use crate::persist::{self, Batch, Key};

impl Durable {
    /// Returns the records that were changed since the last commit, and their previous values, or
    /// `None` if nothing was changed.
    pub(crate) fn commit(&mut self) -> Option<(Batch, Undo)> {
        let mut undo = std::mem::take(&mut self.undo);
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
        for (key, before) in &undo.idle {
            let now = self.idle.get(key);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| wire::put_u64(out, *now));
                batch.push(&Key::Idle(Arc::clone(key)), write);
            }
        }
        for (peer, before) in &undo.known {
            let now = self.known.get(peer);
            if now != before.as_ref() {
                let write = now.map(|now| |out: &mut _| persist::put_known(out, now));
                batch.push(&Key::Known(*peer), write);
            }
        }
        if undo.time.is_some() || (!batch.is_empty() && self.time.is_unsaved()) {
            undo.time.get_or_insert(self.time.saved());
            let now = self.time.now();
            batch.push(&Key::Time, Some(|out: &mut _| wire::put_u64(out, now)));
            self.time.set_saved(now);
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

    /// Rolls back steps whose batches were not stored, the last one first.
    pub(crate) fn roll_back(&mut self, undos: impl Iterator<Item = Undo>) {
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
            for (key, since) in undo.idle {
                match since {
                    Some(since) => self.idle.insert(key, since),
                    None => self.idle.remove(&key),
                };
            }
            if let Some(saved) = undo.time {
                self.time.set_saved(saved);
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
}
