//! Leaving, and addresses that are in use against the ring.

use std::collections::BTreeSet;

use proto::types::PeerName;

use super::questions::space::Asked;
use super::{Alarm, Allocator, Event, Output};
use crate::leases::{Lease, LeaseState};
use crate::persist::Meta;
use crate::range::{Address, Range};

impl Allocator {
    /// Gives everything away and stops.
    pub(super) fn shut_down(&mut self) {
        self.cancel_where(|_| true);
        let us = self.durable.us();
        let left = Meta {
            left: true,
            ..*self.durable.meta()
        };
        let heir = self.choose_heir();
        if let Some(heir) = heir {
            self.leave_leases(heir);
            let held: Vec<Address> = self.durable.holdings().keys().copied().collect();
            for address in held {
                self.durable.set_holding(address, None);
            }
            let moved = self.durable.change_ring(|ring| ring.transfer(us, heir));
            self.ring_updated(&moved);
            self.event(Event::HandedOver(heir));
            self.send_ring(heir);
            self.emit(Output::BroadcastState);
            self.announce_gone(us);
        }
        self.durable.set_meta(left);
        self.take_retry();
    }

    /// Who gets what we own: a weft router that has ranges, in the order of the ring, or another
    /// weft router, before one of the original; and one that can be reached before one that
    /// cannot.
    fn choose_heir(&self) -> Option<PeerName> {
        let us = self.durable.us();
        let ring = self.durable.ring();
        let owners = ring.entries.iter().map(|entry| entry.peer);
        let nicknamed = self.members.nicknames().keys().copied();
        let mut all: Vec<PeerName> = owners.clone().chain(nicknamed).collect();
        all.retain(|peer| *peer != us && *peer != PeerName::UNKNOWN);
        let reachable = |peer: &&PeerName| self.members.is_reachable(**peer);
        let weft = |peer: &&PeerName| self.members.is_weft(**peer);
        let mut candidates = all.iter();
        candidates
            .clone()
            .find(|peer| reachable(peer) && weft(peer))
            .or_else(|| candidates.clone().find(reachable))
            .or_else(|| candidates.next())
            .copied()
    }

    /// Gives the leases that we hold to our heir, or if it is not a weft router to another one.
    fn leave_leases(&mut self, heir: PeerName) {
        let weft = self.members.weft_in_reach().next();
        let Some(holder) = weft.map(|first| {
            if self.members.is_weft(heir) {
                heir
            } else {
                first
            }
        }) else {
            return;
        };
        let us = self.durable.us();
        let leases = self.durable.leases().iter();
        let held = leases.filter(|(_, lease)| lease.holder == us && lease.is_live());
        let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
        for (key, lease) in held {
            let left = Lease {
                version: lease.version.saturating_add(1),
                holder,
                state: LeaseState::Unused,
                since: self.clock.wall,
                ..lease
            };
            self.write_lease(&key, left);
        }
        self.drain();
        self.push_leases();
    }

    /// Raises alarms for addresses that are in use here although the ring gives them to others,
    /// and ends those of others.
    pub(super) fn watch_strays(&mut self) {
        let us = self.durable.us();
        let ring = self.durable.ring();
        let strays: Vec<(Address, String, PeerName)> = self
            .durable
            .strays()
            .filter_map(|(address, holding)| {
                let owner = ring.owner(address).filter(|owner| *owner != us)?;
                Some((address, holding.id.clone(), owner))
            })
            .collect();
        let now: BTreeSet<Address> = strays.iter().map(|(address, ..)| *address).collect();
        let ended: Vec<Address> = self.strays.difference(&now).copied().collect();
        for address in ended {
            self.notices.end(|alarm| match alarm {
                Alarm::Stray { address: a, .. } | Alarm::Duplicate { address: a, .. } => {
                    *a == address
                }
                _ => false,
            });
        }
        for (address, id, owner) in strays {
            if !self.strays.contains(&address) {
                self.alarm(Alarm::Stray { address, id, owner });
            }
        }
        self.strays = now;
    }

    /// Asks the owners of addresses that are in use here for them.
    pub(super) fn claim_strays(&mut self) {
        let us = self.durable.us();
        let strays: Vec<(Address, String)> = self
            .durable
            .strays()
            .map(|(address, holding)| (address, holding.id.clone()))
            .collect();
        for (address, id) in strays {
            let Some(owner) = self.durable.ring().owner(address).filter(|o| *o != us) else {
                continue;
            };
            if self.ask_for_space(owner, Range::single(address)) == Asked::Denied {
                self.alarm(Alarm::Duplicate { address, id, owner });
            }
        }
    }

    /// A peer sent its ring, after which a denial of it is final: it keeps what is in use here.
    pub(super) fn note_kept_strays(&mut self, by: PeerName) {
        let (now, asks, ring) = (self.clock.now, &self.questions.space, self.durable.ring());
        let kept: Vec<(Address, String)> = self
            .durable
            .strays()
            .filter(|(address, _)| ring.owner(*address) == Some(by))
            .filter(|(address, _)| asks.is_denied(by, Range::single(*address), now))
            .map(|(address, holding)| (address, holding.id.clone()))
            .collect();
        for (address, id) in kept {
            let owner = by;
            self.alarm(Alarm::Duplicate { address, id, owner });
        }
    }
}
