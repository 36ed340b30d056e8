//! The universe, and whether there is a ring of it yet.

use std::collections::BTreeMap;

use proto::types::PeerName;

use super::api::{Event, Init, Waiting};
use super::cx::Cx;
use super::durable::Moved;
use super::effects::Effect;
use super::progress::{ASK_AGAIN, NotYet};
use crate::consensus::{Elector, NodeId};
use crate::persist::{Election, Meta};
use crate::range::Cidr;

impl Cx {
    /// Adopts the universe of a neighbour, if ours yields.
    ///
    /// Rule: `docs/protocol/ipam.md#11-weft`.
    pub(super) fn adopt_universe(&mut self, via: PeerName, theirs: Cidr) -> bool {
        let ours = self.durable.meta().universe;
        if !self.universe_yields() || theirs == ours {
            return false;
        }
        let meta = Meta {
            universe: theirs,
            ..*self.durable.meta()
        };
        self.durable.set_meta(meta);
        self.durable.set_election(None);
        if matches!(self.config.init, Init::Consensus(_)) {
            self.config.uid = self.rng.u64(1..);
            self.join_election();
        }
        self.effect(Effect::UniverseChanged);
        let subnet = self.config.default_subnet;
        if subnet.is_some_and(|subnet| !subnet.range().overlaps(&theirs.range())) {
            self.config.default_subnet = None;
        }
        self.event(Event::UniverseYielded { ours, theirs, via });
        true
    }

    /// Returns true if our universe is a default from which nothing is known to be allocated.
    ///
    /// Rule: `docs/protocol/ipam.md#11-weft`.
    pub(super) fn universe_yields(&self) -> bool {
        let universe = self.durable.ring().universe();
        let mut held = self.durable.holdings().range(universe.start..universe.end);
        self.durable.meta().defaulted
            && held.next().is_none()
            && self.durable.leases().within(universe).next().is_none()
            && self
                .durable
                .ring()
                .intervals()
                .map(|(range, entry)| (entry.token, range.size(), entry.free))
                .fold(BTreeMap::new(), |mut sums, (token, size, free)| {
                    let sum = sums.entry(token).or_insert((0, free));
                    sum.0 += size;
                    sums
                })
                .values()
                .all(|(size, free)| size == free)
    }

    pub(super) fn join_election(&mut self) {
        let stored = self.durable.election().cloned();
        let election = stored.unwrap_or_else(|| Election {
            uid: self.config.uid,
            ..Election::default()
        });
        let id = NodeId {
            name: self.config.name,
            uid: election.uid,
        };
        self.elector = Some(if self.durable.election().is_some() {
            Elector::resumed(id, election.claims)
        } else {
            Elector::new(id)
        });
    }

    /// Returns what a request that needs the first ring waits for.
    pub(super) fn waiting_for_ring(&self) -> Waiting {
        match &self.elector {
            Some(elector) => Waiting::Consensus {
                quorum: elector.quorum(),
                known: elector.nodes().len(),
            },
            None => Waiting::Observer,
        }
    }

    /// Returns why nothing can be given out yet, if so. Starts to establish a ring.
    pub(super) fn not_ready(&mut self) -> Option<NotYet> {
        let wake = self.clock.now + ASK_AGAIN;
        if !self.hosted.found {
            return Some((Waiting::Found, wake));
        }
        let no_ring = self.durable.ring().is_empty();
        no_ring.then(|| (self.waiting_for_ring(), wake))
    }

    /// Records the effects of a changed ring.
    pub(super) fn ring_changed(&mut self, moved: &Moved) {
        if !self.durable.ring().is_empty() {
            self.elector = None;
            self.durable.set_election(None);
        }
        let gained: u32 = moved.gained.iter().map(|range| range.size()).sum();
        if gained > 0 {
            self.event(Event::Gained(gained));
        }
        self.effect(Effect::RingChanged);
        self.try_again();
    }
}
