//! Peers that are lost: taking over what they own, after everyone was heard.
//!
//! # Why a takeover waits
//!
//! A lost peer may have granted some of its ranges in its last moments, and we may not know of
//! it: the grant may be known only to its new owner, who may be cut off from us. A takeover that
//! does not know of it would take those addresses from their new owner. So before it changes the
//! ring, everyone we have ever met must be heard: whoever was given something shows it in its
//! ring, if that is made when no message of the lost peer can be under way to it any more. A
//! peer that never answers is either cut off, so it must be waited for, or lost as well, so it
//! can be removed in turn.
//!
//! Whoever is asked learns who takes over what, and does not do the same. Of two that begin at
//! the same time the one with the lower name goes on.

use std::collections::BTreeSet;

use proto::types::{PeerName, Time};

use super::api::{RequestError, Response, Waiting};
use super::progress::{ASK_AGAIN, MESSAGE_LIFETIME, Progress};
use super::ring::channel::Source;
use super::{Alarm, Allocator, Channel, Event, Output};
use crate::leases::wire::Message;
use crate::messages::Unicast;
use crate::persist::{Known, Takeover};
use crate::range::{Address, Range};

/// A takeover that is over is remembered for this long, in seconds, so that what the lost peer
/// owned and nobody knew of is taken over when it shows.
const REMEMBERED: u64 = 30 * 24 * 60 * 60;

/// A request to remove a peer.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) peer: PeerName,
    confirmed: bool,
    /// When others were asked who is gone, as somebody out of reach takes the peer over.
    asked: Option<Time>,
    /// Whether its takeover has begun, and how many addresses we owned at that time.
    begun: Option<u32>,
}

impl Removal {
    pub(super) fn new(peer: PeerName, confirmed: bool) -> Removal {
        Removal {
            peer,
            confirmed,
            asked: None,
            begun: None,
        }
    }
}

impl Allocator {
    pub(super) fn try_removal(&mut self, op: &mut Removal) -> Progress {
        let peer = op.peer;
        if peer == self.durable.us() {
            return Progress::Done(Ok(Response::TakenOver(0)));
        }
        if self.members.is_reachable(peer) {
            let name = self.members.describe(peer);
            return Progress::Done(Err(RequestError::Reachable(name)));
        }
        if op.begun.is_none() {
            if let Some(wait) = self.ask_of_taker(op) {
                return wait;
            }
            if let Some(result) = self.begin_removal(op) {
                return Progress::Done(result);
            }
            op.begun = Some(self.durable.owned_by_ring().len());
        }
        let takeover = self.durable.takeovers().get(&peer);
        let Some(takeover) = takeover.filter(|takeover| takeover.is_active()) else {
            if let Some(taker) = self.other_taker(peer) {
                let error = self.taken_by_other(peer, taker);
                return Progress::Done(Err(error));
            }
            let owned = self.durable.owned_by_ring().len();
            let gained = owned.saturating_sub(op.begun.unwrap_or(owned));
            return Progress::Done(Ok(Response::TakenOver(gained)));
        };
        let waiting = Waiting::Takeover {
            peer: self.members.describe(peer),
            waiting: if takeover.waiting.is_empty() {
                "its last messages".to_owned()
            } else {
                self.members.describe_all(&takeover.waiting)
            },
        };
        Progress::Wait(waiting, self.clock.now + ASK_AGAIN)
    }

    /// Whoever takes the peer over may be gone as well without our knowing: others are asked.
    /// `Some` while they may answer.
    fn ask_of_taker(&mut self, op: &mut Removal) -> Option<Progress> {
        let taker = self.other_taker(op.peer)?;
        if !op.confirmed || self.members.is_reachable(taker) {
            return None;
        }
        let now = self.clock.now;
        if op.asked.is_none() {
            let peers: Vec<PeerName> = self.members.weft_in_reach().collect();
            for peer in peers {
                let message = Message::RingQuery {
                    nonce: now.as_micros(),
                    taking: Vec::new(),
                };
                self.unicast(Channel::Leases, peer, message.encode());
            }
        }
        let until = *op.asked.get_or_insert(now) + ASK_AGAIN;
        let waiting = Waiting::Takeover {
            peer: self.members.describe(op.peer),
            waiting: self.members.describe(taker),
        };
        (now < until).then_some(Progress::Wait(waiting, until))
    }

    /// Begins a removal. `Some` if there is nothing to do, or it cannot be done.
    fn begin_removal(&mut self, op: &Removal) -> Option<Result<Response, RequestError>> {
        let peer = op.peer;
        let owned = self.durable.ring().owned(peer).len();
        let waited_for = self.is_waited_for(peer);
        let met = self.durable.known().contains_key(&peer);
        if owned == 0 && !waited_for && !(met && op.confirmed) {
            return Some(Ok(Response::TakenOver(0)));
        }
        if !op.confirmed {
            return Some(Err(RequestError::Unconfirmed {
                peer: self.members.describe(peer),
                addresses: owned,
            }));
        }
        if let Some(taker) = self.other_taker(peer)
            && owned > 0
        {
            return Some(Err(self.taken_by_other(peer, taker)));
        }
        self.peer_gone(peer);
        self.announce_gone(peer);
        self.intend(peer);
        None
    }

    /// Notes that the peer is to be taken over when everyone was heard.
    fn intend(&mut self, peer: PeerName) {
        let before = self.durable.takeovers().get(&peer).cloned();
        let takeover = Takeover {
            since: self.clock.wall,
            intended: true,
            waiting: self.everyone_but(peer),
            ..before.unwrap_or_default()
        };
        self.durable.set_takeover(peer, Some(takeover));
        self.progress_takeovers();
    }

    /// Makes everything that a lost peer owns ours: everyone was heard.
    fn take_over(&mut self, peer: PeerName) {
        let us = self.durable.us();
        let count = self.durable.ring().owned(peer).len();
        let moved = self.durable.change_ring(|ring| ring.transfer(peer, us));
        let done = Takeover {
            since: self.clock.wall,
            ..Takeover::default()
        };
        self.durable.set_takeover(peer, Some(done));
        self.inherit_leases(peer);
        if count > 0 {
            self.event(Event::TakenOver {
                peer,
                addresses: count,
            });
            self.ring_updated(&moved);
            self.emit(Output::BroadcastState);
        }
        self.try_again();
    }

    /// Becomes the holder of the leases of a lost peer.
    fn inherit_leases(&mut self, lost: PeerName) {
        let leases = self.durable.leases().iter();
        let held = leases.filter(|(_, lease)| lease.holder == lost && lease.is_live());
        let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
        for (key, lease) in held {
            self.seize(&key, &lease);
        }
    }

    /// After the ring changed: a removed peer may turn out to own more than was known.
    pub(super) fn take_over_again(&mut self) {
        let us = self.durable.us();
        let again: Vec<PeerName> = self
            .durable
            .takeovers()
            .iter()
            .filter(|(peer, t)| {
                **peer != us && !t.is_active() && self.durable.ring().has_owner(**peer)
            })
            .map(|(peer, _)| *peer)
            .filter(|peer| !self.members.is_reachable(*peer))
            .collect();
        for peer in again {
            self.intend(peer);
        }
    }

    /// After a first ring was received: if it says that we own something although we took no
    /// part in its making, then we have lost our store, and with it what we granted. Nothing of
    /// it is used until everyone was heard.
    pub(super) fn forgotten_ranges(&mut self) {
        let us = self.durable.us();
        let owned = self.durable.owned_by_ring();
        if owned.is_empty() || self.durable.election().is_some() {
            return;
        }
        let takeover = Takeover {
            since: self.clock.wall,
            intended: true,
            ranges: owned,
            waiting: self.everyone_but(us),
        };
        self.durable.set_takeover(us, Some(takeover));
    }

    /// A peer that was removed, or is about to be, can be reached.
    pub(super) fn removed_peer_back(&mut self, peer: PeerName) {
        if let Some(takeover) = self.durable.takeovers().get(&peer) {
            if !takeover.is_active() {
                self.alarm(Alarm::RemovedPeerBack(peer));
            }
            self.durable.set_takeover(peer, None);
            self.try_again();
        }
    }

    /// When a takeover can go on that waits for messages to have arrived.
    pub(super) fn takeover_wake(&self) -> Option<Time> {
        let active = self
            .durable
            .takeovers()
            .iter()
            .filter(|(_, t)| t.is_active());
        active
            .map(|(lost, _)| self.quiet_since(*lost))
            .filter(|at| *at > self.clock.now)
            .min()
    }

    /// Asks those who have not been heard, and takes over what can be.
    pub(super) fn progress_takeovers(&mut self) {
        let mut ask = BTreeSet::new();
        let mut taking = Vec::new();
        for (lost, takeover) in self.durable.takeovers() {
            if takeover.is_active() && self.quiet_since(*lost) <= self.clock.now {
                ask.extend(takeover.waiting.iter().copied());
                // Those that were heard may know that one who was not is gone.
                ask.extend(self.members.weft_in_reach());
                taking.push(*lost);
            }
        }
        for peer in ask {
            if !self.members.is_reachable(peer) || self.members.is_silent(peer) {
                continue;
            }
            if self.members.is_weft(peer) {
                let message = Message::RingQuery {
                    nonce: self.clock.now.as_micros(),
                    taking: taking.clone(),
                };
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
        let universe = self.durable.ring().universe();
        let below = Range::single(Address::new(1));
        let above = Range::single(Address::new(0xf000_0001));
        if universe.overlaps(&above) {
            below
        } else {
            above
        }
    }

    fn end_takeovers(&mut self) {
        let now = self.clock.now;
        let ready: Vec<PeerName> = self
            .durable
            .takeovers()
            .iter()
            .filter(|(_, takeover)| takeover.is_active() && takeover.waiting.is_empty())
            .map(|(peer, _)| *peer)
            .filter(|peer| self.quiet_since(*peer) <= now)
            .collect();
        for peer in ready {
            if peer == self.durable.us() {
                self.durable.set_takeover(peer, None);
                self.try_again();
            } else {
                self.take_over(peer);
            }
            self.event(Event::TakeoverDone(peer));
        }
    }

    /// Forgets takeovers that were long ago.
    pub(super) fn forget_takeovers(&mut self) {
        let wall = self.clock.wall;
        let old: Vec<PeerName> = self
            .durable
            .takeovers()
            .iter()
            .filter(|(_, t)| !t.is_active() && wall.saturating_sub(t.since) > REMEMBERED)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in old {
            self.durable.set_takeover(peer, None);
        }
    }

    /// A router asks for our ring, as it is about to take over some peers.
    pub(super) fn on_ring_query(&mut self, from: PeerName, nonce: u64, taking: &[PeerName]) {
        for lost in taking {
            self.noted_taker(from, *lost);
        }
        let answer = Message::RingAnswer {
            nonce,
            gone: self.gone_peers(),
            taking: self.taking(),
            state: self.ring_payload(),
        };
        self.unicast(Channel::Leases, from, answer.encode());
    }

    /// Another router is about to take over a lost peer.
    fn noted_taker(&mut self, taker: PeerName, lost: PeerName) {
        let us = self.durable.us();
        if lost == us || lost == taker || self.members.is_reachable(lost) {
            return;
        }
        let ours = self
            .durable
            .takeovers()
            .get(&lost)
            .is_some_and(Takeover::is_active);
        if ours && us < taker {
            return;
        }
        if ours {
            self.durable.set_takeover(lost, None);
            self.try_again();
        }
        let known = self.durable.known().get(&lost).copied().unwrap_or_default();
        if known.taker != taker {
            self.durable.set_known(lost, Some(Known { taker, ..known }));
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

    /// Takes what else the answer says: who is gone, and what its sender takes over itself.
    pub(super) fn on_ring_gossip(
        &mut self,
        from: PeerName,
        gone: &[PeerName],
        taking: &[PeerName],
    ) {
        for lost in taking {
            self.noted_taker(from, *lost);
        }
        for peer in gone {
            self.peer_gone(*peer);
        }
    }

    /// A ring came. One that came so late was also made late enough.
    ///
    /// A weft router may take the same peer over, which its ring does not say: only its answer
    /// to our question counts.
    pub(super) fn heard_ring(&mut self, source: Source) {
        let (peer, now) = (source.via, self.clock.now);
        if self.members.is_weft(peer) || !self.members.is_reachable_for(peer, MESSAGE_LIFETIME, now)
        {
            return;
        }
        let at = self.clock.now.as_micros();
        let lifetime = MESSAGE_LIFETIME.as_micros() as u64;
        if let Some(at) = at.checked_sub(lifetime) {
            self.heard(source.via, Time::from_micros(at));
        }
    }

    /// A peer's ring was merged that it made after `at`.
    fn heard(&mut self, peer: PeerName, at: Time) {
        self.stop_waiting(peer, |this, lost| this.quiet_since(lost) <= at);
    }

    fn stop_waiting(&mut self, peer: PeerName, of: impl Fn(&Allocator, PeerName) -> bool) {
        let waiting: Vec<(PeerName, Takeover)> = self
            .durable
            .takeovers()
            .iter()
            .filter(|(lost, takeover)| takeover.waiting.contains(&peer) && of(self, **lost))
            .map(|(lost, takeover)| (*lost, takeover.clone()))
            .collect();
        if waiting.is_empty() {
            return;
        }
        for (lost, mut takeover) in waiting {
            takeover.waiting.remove(&peer);
            self.durable.set_takeover(lost, Some(takeover));
        }
        self.end_takeovers();
    }

    /// Forgets peers that were not met for a long time and own nothing.
    pub(super) fn forget_known(&mut self) {
        let wall = self.clock.wall;
        let (ring, known) = (self.durable.ring(), self.durable.known());
        let old: Vec<PeerName> = known
            .iter()
            .filter(|(peer, known)| {
                let old = wall.saturating_sub(known.seen) > REMEMBERED;
                old && !ring.has_owner(**peer)
            })
            .map(|(peer, _)| *peer)
            .filter(|peer| !self.members.is_known(*peer))
            .collect();
        for peer in old {
            self.durable.set_known(peer, None);
        }
    }

    /// This peer is gone for ever, somebody says: nobody waits for it any more.
    pub(super) fn peer_gone(&mut self, peer: PeerName) {
        if peer == self.durable.us() {
            return;
        }
        if self.members.is_reachable(peer) {
            self.members.leaving.insert(peer);
            return;
        }
        let mut known = self.durable.known().get(&peer).copied().unwrap_or_default();
        if !known.gone {
            known.seen = self.clock.wall;
            known.gone = true;
            self.durable.set_known(peer, Some(known));
        }
        self.stop_waiting(peer, |_, _| true);
        self.try_again();
    }
}
