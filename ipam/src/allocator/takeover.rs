//! Peers that leave: handing over, taking over, and addresses that are in use against the ring.
//!
//! # What a takeover must wait for
//!
//! A lost peer may have granted some of its ranges in its last moments, and we may not know of
//! it: the grant may be known only to its new owner, who may be cut off from us. So what was
//! taken over is *held back* until every router that we have ever met has been heard: its ring,
//! made when no message of the lost peer could be under way to it any more, would show what it
//! was given. A router that never answers is either cut off, so it must be waited for, or lost
//! as well, so it can be removed in turn.

use std::collections::BTreeSet;

use proto::types::{PeerName, Time};

use super::api::{RequestError, Response};
use super::gossip::Source;
use super::{Alarm, Allocator, Channel, Event, MESSAGE_LIFETIME, Output};
use crate::leases::Lease;
use crate::leases::wire::Message;
use crate::messages::Unicast;
use crate::persist::{Meta, Takeover};
use crate::range::{Address, Range};
use crate::range_set::RangeSet;

/// A takeover that is over is remembered for this long, in seconds, so that what the lost peer
/// owned and nobody knew of is taken over when it shows.
const REMEMBERED: u64 = 30 * 24 * 60 * 60;

/// What is known of takeovers that need not survive a restart.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The stray addresses that are known as such.
    strays: BTreeSet<Address>,
}

impl Allocator {
    pub(super) fn remove_peer(
        &mut self,
        text: &str,
        confirmed: bool,
    ) -> Result<Response, RequestError> {
        let us = self.state.us();
        let Some(peer) = self.peers.find(text).filter(|peer| *peer != us) else {
            return Ok(Response::TakenOver(0));
        };
        if self.peers.is_reachable(peer) {
            return Err(RequestError::Reachable(self.peers.describe(peer)));
        }
        let ranges = self.state.ring().owned(peer);
        let waited_for = self.state.takeovers().values();
        let waited_for = waited_for.into_iter().any(|t| t.waiting.contains(&peer));
        if ranges.is_empty() && !waited_for {
            self.state.set_known(peer, None);
            return Ok(Response::TakenOver(0));
        }
        if !confirmed {
            return Err(RequestError::Unconfirmed {
                peer: self.peers.describe(peer),
                addresses: ranges.len(),
            });
        }
        let count = self.take_over(peer);
        self.peer_gone(peer);
        self.emit(Output::BroadcastState);
        self.announce_gone(peer);
        self.progress_takeovers();
        Ok(Response::TakenOver(count))
    }

    /// Makes everything that a lost peer owns ours, to be used once everyone was heard.
    fn take_over(&mut self, peer: PeerName) -> u32 {
        let us = self.state.us();
        let ranges = self.state.ring().owned(peer);
        let count = ranges.len();
        let mut takeover = self
            .state
            .takeovers()
            .get(&peer)
            .cloned()
            .unwrap_or_default();
        takeover.since = self.clock.wall;
        if count > 0 {
            for range in ranges.iter() {
                takeover.ranges.insert(range);
            }
            takeover.waiting = self.everyone_but(peer);
        }
        // Held back first, so that nothing of it is free for a moment.
        self.state.set_takeover(peer, Some(takeover));
        let moved = self.state.change_ring(|ring| ring.transfer(peer, us));
        if count > 0 {
            self.event(Event::TakenOver {
                peer,
                addresses: count,
            });
            self.inherit_leases(peer);
            self.ring_updated(&moved);
        }
        count
    }

    /// Everyone who may know of a grant that we do not know.
    fn everyone_but(&self, lost: PeerName) -> BTreeSet<PeerName> {
        let us = self.state.us();
        let owners = self.state.ring().owners();
        let met = self.state.known().keys().copied();
        owners
            .into_iter()
            .chain(met)
            .chain(self.peers.known())
            .filter(|peer| *peer != us && *peer != lost && *peer != PeerName::UNKNOWN)
            .filter(|peer| {
                // Those removed before have nothing to tell any more.
                self.peers.is_reachable(*peer) || !self.state.takeovers().contains_key(peer)
            })
            .collect()
    }

    /// Becomes the holder of the leases of a lost peer.
    fn inherit_leases(&mut self, lost: PeerName) {
        let leases = self.state.leases().iter();
        let held = leases.filter(|(_, lease)| lease.holder == lost && lease.is_live());
        let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
        for (key, lease) in held {
            self.seize(&key, &lease);
        }
    }

    /// After the ring changed: a removed peer may turn out to own more than was known.
    pub(super) fn take_over_again(&mut self) {
        let removed: Vec<PeerName> = self
            .state
            .takeovers()
            .keys()
            .copied()
            .filter(|peer| *peer != self.state.us() && self.state.ring().has_owner(*peer))
            .filter(|peer| !self.peers.is_reachable(*peer))
            .collect();
        for peer in removed {
            self.take_over(peer);
            self.emit(Output::BroadcastState);
        }
    }

    /// After a first ring was received: if it says that we own something although we took no
    /// part in its making, then we have lost our store, and with it what we granted.
    pub(super) fn forgotten_ranges(&mut self) {
        let us = self.state.us();
        let owned = self.state.owned_by_ring();
        if owned.is_empty() || self.state.election().is_some() {
            return;
        }
        let takeover = Takeover {
            since: self.clock.wall,
            ranges: owned,
            waiting: self.everyone_but(us),
        };
        self.state.set_takeover(us, Some(takeover));
    }

    /// A peer that was removed can be reached.
    pub(super) fn removed_peer_back(&mut self, peer: PeerName) {
        let Some(takeover) = self.state.takeovers().get(&peer).cloned() else {
            return;
        };
        self.alarm(Alarm::RemovedPeerBack(peer));
        if takeover.ranges.is_empty() {
            self.state.set_takeover(peer, None);
            return;
        }
        let mut takeover = takeover;
        takeover.waiting.insert(peer);
        self.state.set_takeover(peer, Some(takeover));
    }

    /// From when on nothing that the lost peer sent can be under way any more.
    fn quiet_since(&self, lost: PeerName) -> Time {
        let lost_at = if lost == self.state.us() {
            self.peers.started()
        } else {
            self.peers.lost_at(lost, self.clock.now)
        };
        lost_at + MESSAGE_LIFETIME
    }

    /// Asks those who have not been heard about a takeover, and ends takeovers.
    pub(super) fn progress_takeovers(&mut self) {
        let mut ask = BTreeSet::new();
        for (lost, takeover) in self.state.takeovers() {
            if !takeover.ranges.is_empty() && self.quiet_since(*lost) <= self.clock.now {
                ask.extend(takeover.waiting.iter().copied());
                // Those that were heard may know that one who was not is gone.
                ask.extend(self.peers.weft_in_reach());
            }
        }
        for peer in ask {
            if !self.peers.is_reachable(peer) || self.is_silent(peer) {
                continue;
            }
            if self.peers.is_weft(peer) {
                let nonce = self.clock.now.as_micros();
                let message = Message::RingQuery { nonce };
                self.unicast(Channel::Leases, peer, message.encode());
            } else {
                // A wish for an address that nobody has is answered with the ring.
                let nowhere = self.nowhere();
                let payload = Unicast::SpaceRequest(nowhere).encode();
                self.unicast(Channel::Ring, peer, payload);
            }
        }
        self.end_takeovers();
    }

    /// An address outside the universe.
    fn nowhere(&self) -> Range {
        let universe = self.state.ring().universe();
        let below = Range::single(Address::new(1));
        let above = Range::single(Address::new(0xf000_0001));
        if universe.overlaps(&above) {
            below
        } else {
            above
        }
    }

    fn end_takeovers(&mut self) {
        let wall = self.clock.wall;
        let takeovers: Vec<(PeerName, Takeover)> = self
            .state
            .takeovers()
            .iter()
            .map(|(peer, takeover)| (*peer, takeover.clone()))
            .collect();
        for (peer, mut takeover) in takeovers {
            let heard = takeover.waiting.is_empty();
            let quiet = self.quiet_since(peer) <= self.clock.now;
            if !takeover.ranges.is_empty() && heard && quiet {
                takeover.ranges = RangeSet::new();
                let ours = peer == self.state.us();
                self.state.set_takeover(peer, (!ours).then_some(takeover));
                self.event(Event::TakeoverDone(peer));
                self.retry = true;
            } else if takeover.ranges.is_empty() && takeover.since + REMEMBERED < wall {
                self.state.set_takeover(peer, None);
            }
        }
    }

    /// Takes the ring that a peer sent because we asked for it at the time `asked`.
    pub(super) fn on_ring_answer(&mut self, from: PeerName, asked: Time, state: &[u8]) {
        let source = Source {
            sender: Some(from),
            via: from,
        };
        if asked <= self.clock.now && self.on_state(source, state) {
            self.heard(from, asked);
        }
    }

    /// A ring came. One that came so late was also made late enough.
    pub(super) fn heard_ring(&mut self, source: Source) {
        let at = self.clock.now.as_micros();
        let lifetime = MESSAGE_LIFETIME.as_micros() as u64;
        if let Some(at) = at.checked_sub(lifetime) {
            self.heard(source.via, Time::from_micros(at));
        }
    }

    /// A peer's ring was merged that it made after `at`.
    fn heard(&mut self, peer: PeerName, at: Time) {
        let heard: Vec<(PeerName, Takeover)> = self
            .state
            .takeovers()
            .iter()
            .filter(|(lost, t)| t.waiting.contains(&peer) && self.quiet_since(**lost) <= at)
            .map(|(lost, takeover)| (*lost, takeover.clone()))
            .collect();
        for (lost, mut takeover) in heard {
            takeover.waiting.remove(&peer);
            self.state.set_takeover(lost, Some(takeover));
        }
        self.end_takeovers();
    }

    fn announce_gone(&mut self, peer: PeerName) {
        let payload = Message::Gone(peer).encode();
        self.emit(Output::Broadcast {
            channel: Channel::Leases,
            payload,
        });
    }

    /// The peers that we have removed and that have not come back.
    pub(super) fn removed_peers(&self) -> Vec<PeerName> {
        let us = self.state.us();
        let removed = self.state.takeovers().keys().copied();
        removed
            .filter(|peer| *peer != us && !self.peers.is_reachable(*peer))
            .collect()
    }

    /// This peer is gone for ever, somebody says: nobody waits for it any more.
    pub(super) fn peer_gone(&mut self, peer: PeerName) {
        if peer == self.state.us() || self.peers.is_reachable(peer) {
            return;
        }
        self.state.set_known(peer, None);
        let waiting: Vec<(PeerName, Takeover)> = self
            .state
            .takeovers()
            .iter()
            .filter(|(_, takeover)| takeover.waiting.contains(&peer))
            .map(|(lost, takeover)| (*lost, takeover.clone()))
            .collect();
        for (lost, mut takeover) in waiting {
            takeover.waiting.remove(&peer);
            self.state.set_takeover(lost, Some(takeover));
        }
        self.end_takeovers();
    }

    /// Gives everything away and stops.
    pub(super) fn shut_down(&mut self) {
        self.cancel_where(|_| true);
        let us = self.state.us();
        let left = Meta {
            left: true,
            ..*self.state.meta()
        };
        let heir = self.choose_heir();
        if let Some(heir) = heir {
            self.leave_leases(heir);
            let held: Vec<Address> = self.state.holdings().keys().copied().collect();
            for address in held {
                self.state.set_holding(address, None);
            }
            let moved = self.state.change_ring(|ring| ring.transfer(us, heir));
            self.ring_updated(&moved);
            self.event(Event::HandedOver(heir));
            self.send_ring(heir);
            self.emit(Output::BroadcastState);
            self.announce_gone(us);
        }
        self.state.set_meta(left);
        self.retry = false;
    }

    /// Who gets what we own: a weft router that has ranges, in the order of the ring, or another
    /// weft router, before one of the original; and one that can be reached before one that
    /// cannot.
    fn choose_heir(&self) -> Option<PeerName> {
        let us = self.state.us();
        let ring = self.state.ring();
        let owners = ring.entries.iter().map(|entry| entry.peer);
        let nicknamed = self.peers.nicknames().keys().copied();
        let mut all: Vec<PeerName> = owners.clone().chain(nicknamed).collect();
        all.retain(|peer| *peer != us && *peer != PeerName::UNKNOWN);
        let reachable = |peer: &&PeerName| self.peers.is_reachable(**peer);
        let weft = |peer: &&PeerName| self.peers.is_weft(**peer);
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
        let weft = self.peers.weft_in_reach().next();
        let Some(holder) = weft.map(|first| {
            if self.peers.is_weft(heir) {
                heir
            } else {
                first
            }
        }) else {
            return;
        };
        let us = self.state.us();
        let leases = self.state.leases().iter();
        let held = leases.filter(|(_, lease)| lease.holder == us && lease.is_live());
        let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
        for (key, lease) in held {
            let left = Lease {
                version: lease.version.saturating_add(1),
                holder,
                state: crate::leases::LeaseState::Unused,
                since: self.clock.wall,
                ..lease
            };
            self.write_lease(&key, left);
        }
        self.push_leases();
    }

    /// Raises alarms for addresses that are in use here although the ring gives them to others,
    /// and ends those of others.
    pub(super) fn watch_strays(&mut self) {
        let us = self.state.us();
        let ring = self.state.ring();
        let strays: Vec<(Address, String, PeerName)> = self
            .state
            .strays()
            .filter_map(|(address, holding)| {
                let owner = ring.owner(address).filter(|owner| *owner != us)?;
                Some((address, holding.id.clone(), owner))
            })
            .collect();
        let now: BTreeSet<Address> = strays.iter().map(|(address, ..)| *address).collect();
        let ended: Vec<Address> = self.takeovers.strays.difference(&now).copied().collect();
        for address in ended {
            self.end_alarms(|alarm| match alarm {
                Alarm::Stray { address: a, .. } | Alarm::Duplicate { address: a, .. } => {
                    *a == address
                }
                _ => false,
            });
        }
        for (address, id, owner) in strays {
            if !self.takeovers.strays.contains(&address) {
                self.alarm(Alarm::Stray { address, id, owner });
            }
        }
        self.takeovers.strays = now;
    }

    /// Asks the owners of addresses that are in use here for them.
    pub(super) fn claim_strays(&mut self) {
        let us = self.state.us();
        let strays: Vec<(Address, String)> = self
            .state
            .strays()
            .map(|(address, holding)| (address, holding.id.clone()))
            .collect();
        for (address, id) in strays {
            let Some(owner) = self.state.ring().owner(address).filter(|o| *o != us) else {
                continue;
            };
            let asked = self.ask_for_space(owner, Range::single(address));
            if asked == super::pending::Asked::Denied {
                self.alarm(Alarm::Duplicate { address, id, owner });
            }
        }
    }
}
