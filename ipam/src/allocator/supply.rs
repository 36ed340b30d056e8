//! Free addresses: where they are, and how to obtain one.

use std::cmp::Reverse;
use std::sync::Arc;

use proto::types::PeerName;

use super::api::{Channel, Waiting};
use super::cx::Cx;
use super::progress::{ASK_AGAIN, NotYet};
use super::questions::space::Asked;
use crate::leases::{Lease, LeaseKey};
use crate::messages::Unicast;
use crate::range::{Address, Cidr, Range};

impl Cx {
    /// Asks a peer for space in a range, unless it was just asked.
    pub(super) fn ask_for_space(&mut self, peer: PeerName, range: Range) -> Asked {
        let now = self.clock.now;
        if !self.members.is_reachable(peer) || self.members.is_silent(peer) {
            return Asked::Unreachable;
        }
        if let Some(asked) = self.questions.space.state(peer, range, now) {
            return asked;
        }
        let payload = Unicast::SpaceRequest(range).encode();
        self.unicast(Channel::Ring, peer, payload);
        self.questions.space.sent(peer, range, now)
    }

    /// Finds a free host address of the subnet: first in our own free space, then in that of
    /// others, then by ending unused leases, oldest first.
    ///
    /// Rule: `docs/protocol/ipam.md#7-1-allocate`.
    pub(super) fn find_space(&mut self, subnet: Cidr) -> Result<Address, NotYet> {
        let hosts = subnet.host_range();
        let free = self.durable.space().free_ranges().first(hosts);
        if let Some(address) = free {
            return Ok(address);
        }
        // Weave Net asks for the whole subnet. Two of that kind which both lack space can hand the
        // network's and the broadcast address to and fro forever.
        let (wanted, now) = (hosts, self.clock.now);
        let unreachable = self.unreachable_owners(wanted);
        let waiting = Waiting::Space {
            subnet,
            unreachable,
        };
        if let Some(again) = self.questions.space.outstanding(wanted, now) {
            return Err((waiting, again));
        }
        for donor in self.choose_donors(wanted) {
            if let Asked::Waiting(again) = self.ask_for_space(donor, wanted) {
                return Err((waiting, again));
            }
        }
        if let Some(address) = self.make_room(hosts) {
            return Ok(address);
        }
        for holder in self.holders_of_unused(hosts) {
            if let Asked::Waiting(again) = self.ask_for_space(holder, wanted) {
                return Err((waiting, again));
            }
        }
        Err((waiting, now + ASK_AGAIN))
    }

    /// Returns the peers that report free space, in a random order that favours those with more of
    /// it.
    ///
    /// Rule: `docs/protocol/ipam.md#7-1-allocate`.
    fn choose_donors(&mut self, wanted: Range) -> Vec<PeerName> {
        let donors = self.durable.ring().donors(self.durable.us(), wanted);
        let mut weighted: Vec<(f64, PeerName)> = donors
            .into_iter()
            .map(|(peer, free)| (free as f64 * self.rng.f64(), peer))
            .collect();
        weighted.sort_by(|a, b| b.0.total_cmp(&a.0));
        weighted.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Returns, for an error message, who owns addresses of the range but cannot be reached.
    fn unreachable_owners(&self, wanted: Range) -> String {
        let us = self.durable.us();
        let mut away: Vec<PeerName> = self
            .durable
            .ring()
            .intervals()
            .filter(|(range, entry)| range.overlaps(&wanted) && entry.peer != us)
            .map(|(_, entry)| entry.peer)
            .filter(|peer| !self.members.is_reachable(*peer))
            .collect();
        away.sort_unstable();
        away.dedup();
        if away.is_empty() {
            return String::new();
        }
        let names = self.members.describe_all(&away);
        format!(
            "; {names} own some but cannot be reached ('weft rmpeer' if they are gone for ever)"
        )
    }

    pub(super) fn others_have_space(&self, except: PeerName, wanted: Range) -> bool {
        self.free_elsewhere(wanted, |peer| {
            peer != except && self.members.is_reachable(peer)
        })
    }

    /// Returns true if one of these peers reports free host addresses.
    fn free_elsewhere(&self, within: Range, of: impl Fn(PeerName) -> bool) -> bool {
        let (us, ring) = (self.durable.us(), self.durable.ring());
        let mut intervals = ring.intervals();
        intervals.any(|(range, entry)| {
            let theirs = entry.peer != us && range.overlaps(&within);
            theirs && entry.free > 0 && of(entry.peer) && entry.free > self.idle_ends(entry.token)
        })
    }

    /// Returns how many addresses of an entry no host can have: they are always free, and so always
    /// said to be.
    pub(super) fn idle_ends(&self, token: Address) -> u32 {
        let ends = self.ends_of_subnet();
        let entries = ends
            .iter()
            .filter_map(|end| self.durable.ring().entry_of(*end));
        entries.filter(|entry| entry.token == token).count() as u32
    }

    /// Returns the network address and the broadcast address, which no host can have.
    fn ends_of_subnet(&self) -> [Address; 2] {
        let range = self.default_subnet().range();
        [range.start, Address::new(range.end.get().saturating_sub(1))]
    }

    /// Ends our lease in `within` that was unused for longest, so that its address becomes free.
    /// Returns the address.
    pub(super) fn make_room(&mut self, within: Range) -> Option<Address> {
        let oldest = self
            .durable
            .leases()
            .within(within)
            .filter(|(_, lease)| self.can_end(lease))
            .max_by_key(|(key, _)| (self.durable.idle_for(key), Reverse(Arc::clone(key))));
        let (key, lease) = oldest.map(|(key, lease)| (Arc::clone(key), lease.clone()))?;
        self.end_lease(&key, &lease, "space was short");
        // Another lease may reserve the same address.
        let free = self.durable.space().free_ranges().contains(lease.address);
        free.then_some(lease.address)
    }

    fn can_end(&self, lease: &Lease) -> bool {
        lease.is_reclaimable()
            && lease.holder == self.durable.us()
            && self.durable.owns(lease.address)
            && !self.durable.is_held_back(lease.address)
            && self.durable.holding(lease.address).is_none()
    }

    /// Returns the other routers that hold unused leases in a range, those with the oldest ones
    /// first.
    pub(super) fn holders_of_unused(&self, within: Range) -> Vec<PeerName> {
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

    /// Updates the numbers of free addresses in our ring.
    ///
    /// If no router reports free addresses, unused leases are counted as free: routers that know
    /// nothing of leases only ask those that report free addresses.
    ///
    /// Rule: `docs/protocol/ipam.md#2-7-free`.
    pub(super) fn report_free(&mut self) {
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

    /// Rule: `docs/protocol/ipam.md#6-2-denied`.
    pub(super) fn space_denied(&mut self, from: PeerName, range: Range) {
        let now = self.clock.now;
        self.questions.space.denied(from, range, now);
        self.try_again();
    }

    /// Returns an address outside the universe.
    pub(super) fn nowhere(&self) -> Range {
        let universe = self.durable.ring().universe();
        let below = Range::single(Address::new(1));
        let above = Range::single(Address::new(0xf000_0001));
        if universe.overlaps(&above) {
            below
        } else {
            above
        }
    }
}
