//! Giving space to peers that ask for it, and making room for that.

use std::sync::Arc;

use proto::types::PeerName;

use super::super::{Allocator, Channel, Event, Output};
use crate::leases::{Lease, LeaseKey};
use crate::messages::Unicast;
use crate::range::{Address, Range};

impl Allocator {
    /// Answers a wish for space: with a grant if there is something to give, and always with our
    /// ring, from which the asker sees what it got or whom else to ask.
    pub(in crate::allocator) fn on_space_request(&mut self, from: PeerName, wanted: Range) {
        if self.durable.ring().is_empty() || self.is_silent(from) || from == self.durable.us() {
            return;
        }
        let gift = if self.hosted.found && !wanted.is_empty() {
            self.gift(from, wanted)
        } else {
            None
        };
        match gift {
            Some(range) => {
                self.durable.grant(range, from);
                self.event(Event::Granted { range, to: from });
            }
            None => {
                let payload = Unicast::SpaceDenied(wanted).encode();
                self.unicast(Channel::Ring, from, payload);
            }
        }
        self.send_ring(from);
        if gift.is_some() {
            self.emit(Output::BroadcastState);
        }
    }

    /// What is to be given to a peer that wants space in a range.
    fn gift(&mut self, to: PeerName, wanted: Range) -> Option<Range> {
        let gift = self.durable.gift(wanted);
        if gift.is_some() {
            return gift;
        }
        if wanted.size() == 1 {
            return self.is_for_lease_of(to, wanted.start).then_some(wanted);
        }
        // Leases that nobody uses come last, after what everyone else has to give.
        if self.others_have_space(to, wanted) {
            return None;
        }
        self.reclaim(wanted)?;
        self.durable.gift(wanted)
    }

    /// Whether the peer holds the lease that keeps this address, which is ours and not in use.
    fn is_for_lease_of(&self, peer: PeerName, address: Address) -> bool {
        let mut leases = self.durable.leases().at(address);
        self.durable.owns(address)
            && !self.durable.is_held_back(address)
            && self.durable.holding(address).is_none()
            && leases.any(|(_, lease)| lease.holder == peer)
    }

    fn others_have_space(&self, except: PeerName, wanted: Range) -> bool {
        self.free_elsewhere(wanted, |peer| {
            peer != except && self.members.is_reachable(peer)
        })
    }

    /// Whether one of these peers says that addresses are free which a host can have.
    fn free_elsewhere(&self, within: Range, of: impl Fn(PeerName) -> bool) -> bool {
        let (us, ring) = (self.durable.us(), self.durable.ring());
        let ends = self.ends_of_subnet();
        // What no host can have is always free, and so always said to be.
        let idle = |token: Address| {
            let entries = ends.iter().filter_map(|end| ring.entry_of(*end));
            entries.filter(|entry| entry.token == token).count() as u32
        };
        let mut intervals = ring.intervals();
        intervals.any(|(range, entry)| {
            let theirs = entry.peer != us && range.overlaps(&within);
            theirs && entry.free > 0 && of(entry.peer) && entry.free > idle(entry.token)
        })
    }

    /// The network's and the broadcast address, which no host can have.
    fn ends_of_subnet(&self) -> [Address; 2] {
        let range = self.default_subnet().range();
        [range.start, Address::new(range.end.get().saturating_sub(1))]
    }

    /// Ends the lease of ours in `within` that nobody has used for longest, so that its address
    /// becomes free; returns that.
    pub(in crate::allocator) fn reclaim(&mut self, within: Range) -> Option<Address> {
        let oldest = self
            .durable
            .leases()
            .within(within)
            .filter(|(_, lease)| self.can_reclaim(lease))
            .min_by_key(|(key, lease)| (lease.since, Arc::clone(key)));
        let (key, lease) = oldest.map(|(key, lease)| (Arc::clone(key), lease.clone()))?;
        self.end_lease(&key, &lease, "space was short");
        // Another lease may keep the same address.
        let free = self.durable.space().free_ranges().contains(lease.address);
        free.then_some(lease.address)
    }

    fn can_reclaim(&self, lease: &Lease) -> bool {
        lease.is_reclaimable()
            && lease.holder == self.durable.us()
            && self.durable.owns(lease.address)
            && !self.durable.is_held_back(lease.address)
            && self.durable.holding(lease.address).is_none()
    }

    /// Other routers that hold leases in a range which nobody uses, those with the oldest first.
    pub(in crate::allocator) fn holders_of_unused(&self, within: Range) -> Vec<PeerName> {
        let us = self.durable.us();
        let mut leases: Vec<(u64, &Arc<LeaseKey>, PeerName)> = self
            .durable
            .leases()
            .within(within)
            .filter(|(_, lease)| lease.is_reclaimable() && lease.holder != us)
            .map(|(key, lease)| (lease.since, key, lease.holder))
            .collect();
        leases.sort_unstable();
        let mut out = Vec::new();
        for (_, _, holder) in leases {
            if !out.contains(&holder) {
                out.push(holder);
            }
        }
        out
    }

    /// Says in our ring how many addresses are free.
    ///
    /// If nobody says that anything is free, leases that nobody uses are counted as free: routers
    /// that know nothing of leases ask only those who say that they have something to give.
    pub(in crate::allocator) fn report_free(&mut self) {
        let us = self.durable.us();
        let free = self.durable.space().free_ranges();
        let ends = self.ends_of_subnet();
        let idle = ends.iter().filter(|end| free.contains(**end)).count() as u32;
        let universe = self.durable.ring().universe();
        let short = free.len() <= idle && !self.free_elsewhere(universe, |_| true);
        self.durable.report_free(|leases, range| {
            if !short {
                return 0;
            }
            let reclaimable = leases
                .within(range)
                .filter(|(_, lease)| lease.is_reclaimable() && lease.holder == us);
            u32::try_from(reclaimable.count()).unwrap_or(u32::MAX)
        });
    }
}
