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

use super::api::{Alarm, Channel, Event, Output};
use super::cx::Cx;
use super::progress::MESSAGE_LIFETIME;
use crate::leases::wire::Message;
use crate::messages::Unicast;
use crate::persist::{Known, Takeover};
use crate::range::{Address, Range};

/// When a takeover can go on that waits for messages to have arrived.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    wake: Option<Time>,
}

impl Reclaim {
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.wake
    }

    /// Whether a takeover can go on now.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        self.wake.take_if(|at| *at <= now).is_some()
    }

    /// Notes when a takeover can go on, at the end of a step.
    pub(super) fn settle(&mut self, cx: &Cx) {
        self.wake = cx.takeover_wake();
    }
}

/// Begins to take over what a peer owns that never comes back.
pub(super) fn remove(cx: &mut Cx, peer: PeerName) {
    peer_gone(cx, peer);
    cx.announce_gone(peer);
    intend(cx, peer);
}

/// Notes that the peer is to be taken over when everyone was heard.
fn intend(cx: &mut Cx, peer: PeerName) {
    let before = cx.durable.takeovers().get(&peer).cloned();
    let takeover = Takeover {
        since: cx.clock.wall,
        intended: true,
        waiting: cx.everyone_but(peer),
        ..before.unwrap_or_default()
    };
    cx.durable.set_takeover(peer, Some(takeover));
    progress(cx);
}

/// Makes everything that a lost peer owns ours: everyone was heard.
fn take_over(cx: &mut Cx, peer: PeerName) {
    let us = cx.durable.us();
    let count = cx.durable.ring().owned(peer).len();
    let moved = cx.durable.change_ring(|ring| ring.transfer(peer, us));
    let done = Takeover {
        since: cx.clock.wall,
        ..Takeover::default()
    };
    cx.durable.set_takeover(peer, Some(done));
    inherit_leases(cx, peer);
    if count > 0 {
        cx.event(Event::TakenOver {
            peer,
            addresses: count,
        });
        cx.ring_changed(&moved);
        cx.emit(Output::BroadcastState);
    }
    cx.try_again();
}

/// Becomes the holder of the leases of a lost peer.
fn inherit_leases(cx: &mut Cx, lost: PeerName) {
    let leases = cx.durable.leases().iter();
    let held = leases.filter(|(_, lease)| lease.holder == lost && lease.is_live());
    let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
    for (key, lease) in held {
        cx.seize(&key, &lease);
    }
}

/// After the ring changed: a removed peer may turn out to own more than was known.
pub(super) fn take_over_again(cx: &mut Cx) {
    let us = cx.durable.us();
    let again: Vec<PeerName> = cx
        .durable
        .takeovers()
        .iter()
        .filter(|(peer, t)| **peer != us && !t.is_active() && cx.durable.ring().has_owner(**peer))
        .map(|(peer, _)| *peer)
        .filter(|peer| !cx.members.is_reachable(*peer))
        .collect();
    for peer in again {
        intend(cx, peer);
    }
}

/// A peer that was removed, or is about to be, can be reached.
pub(super) fn came_back(cx: &mut Cx, peer: PeerName) {
    if let Some(takeover) = cx.durable.takeovers().get(&peer) {
        if !takeover.is_active() {
            cx.alarm(Alarm::RemovedPeerBack(peer));
        }
        cx.durable.set_takeover(peer, None);
        cx.try_again();
    }
}

/// Asks those who have not been heard, and takes over what can be.
pub(super) fn progress(cx: &mut Cx) {
    let mut ask = BTreeSet::new();
    let mut taking = Vec::new();
    for (lost, takeover) in cx.durable.takeovers() {
        if takeover.is_active() && cx.quiet_since(*lost) <= cx.clock.now {
            ask.extend(takeover.waiting.iter().copied());
            // Those that were heard may know that one who was not is gone.
            ask.extend(cx.members.weft_in_reach());
            taking.push(*lost);
        }
    }
    for peer in ask {
        if !cx.members.is_reachable(peer) || cx.members.is_silent(peer) {
            continue;
        }
        if cx.members.is_weft(peer) {
            let message = Message::RingQuery {
                nonce: cx.clock.now.as_micros(),
                taking: taking.clone(),
            };
            cx.unicast(Channel::Leases, peer, message.encode());
        } else {
            // A wish for an address that nobody has is answered with the ring.
            let nowhere = nowhere(cx);
            let payload = Unicast::SpaceRequest(nowhere).encode();
            cx.unicast(Channel::Ring, peer, payload);
        }
    }
    end_takeovers(cx);
}

/// An address outside the universe.
fn nowhere(cx: &Cx) -> Range {
    let universe = cx.durable.ring().universe();
    let below = Range::single(Address::new(1));
    let above = Range::single(Address::new(0xf000_0001));
    if universe.overlaps(&above) {
        below
    } else {
        above
    }
}

fn end_takeovers(cx: &mut Cx) {
    let now = cx.clock.now;
    let ready: Vec<PeerName> = cx
        .durable
        .takeovers()
        .iter()
        .filter(|(_, takeover)| takeover.is_active() && takeover.waiting.is_empty())
        .map(|(peer, _)| *peer)
        .filter(|peer| cx.quiet_since(*peer) <= now)
        .collect();
    for peer in ready {
        if peer == cx.durable.us() {
            cx.durable.set_takeover(peer, None);
            cx.try_again();
        } else {
            take_over(cx, peer);
        }
        cx.event(Event::TakeoverDone(peer));
    }
}

/// A router asks for our ring, as it is about to take over some peers.
pub(super) fn asked(cx: &mut Cx, from: PeerName, nonce: u64, taking: &[PeerName]) {
    for lost in taking {
        noted_taker(cx, from, *lost);
    }
    let answer = Message::RingAnswer {
        nonce,
        gone: cx.gone_peers(),
        taking: cx.taking(),
        state: cx.ring_payload(),
    };
    cx.unicast(Channel::Leases, from, answer.encode());
}

/// Another router is about to take over a lost peer.
fn noted_taker(cx: &mut Cx, taker: PeerName, lost: PeerName) {
    let us = cx.durable.us();
    if lost == us || lost == taker || cx.members.is_reachable(lost) {
        return;
    }
    let ours = cx
        .durable
        .takeovers()
        .get(&lost)
        .is_some_and(Takeover::is_active);
    if ours && us < taker {
        return;
    }
    if ours {
        cx.durable.set_takeover(lost, None);
        cx.try_again();
    }
    let known = cx.durable.known().get(&lost).copied().unwrap_or_default();
    if known.taker != taker {
        cx.durable.set_known(lost, Some(Known { taker, ..known }));
    }
}

/// Takes what else the answer says: who is gone, and what its sender takes over itself.
pub(super) fn told(cx: &mut Cx, from: PeerName, gone: &[PeerName], taking: &[PeerName]) {
    for lost in taking {
        noted_taker(cx, from, *lost);
    }
    for peer in gone {
        peer_gone(cx, *peer);
    }
}

/// A ring came. One that came so late was also made late enough.
///
/// A weft router may take the same peer over, which its ring does not say: only its answer
/// to our question counts.
pub(super) fn heard_ring(cx: &mut Cx, peer: PeerName) {
    let now = cx.clock.now;
    if cx.members.is_weft(peer) || !cx.members.is_reachable_for(peer, MESSAGE_LIFETIME, now) {
        return;
    }
    let at = cx.clock.now.as_micros();
    let lifetime = MESSAGE_LIFETIME.as_micros() as u64;
    if let Some(at) = at.checked_sub(lifetime) {
        heard(cx, peer, Time::from_micros(at));
    }
}

/// A peer's ring was merged that it made after `at`.
pub(super) fn heard(cx: &mut Cx, peer: PeerName, at: Time) {
    stop_waiting(cx, peer, |cx, lost| cx.quiet_since(lost) <= at);
}

fn stop_waiting(cx: &mut Cx, peer: PeerName, of: impl Fn(&Cx, PeerName) -> bool) {
    let waiting: Vec<(PeerName, Takeover)> = cx
        .durable
        .takeovers()
        .iter()
        .filter(|(lost, takeover)| takeover.waiting.contains(&peer) && of(cx, **lost))
        .map(|(lost, takeover)| (*lost, takeover.clone()))
        .collect();
    if waiting.is_empty() {
        return;
    }
    for (lost, mut takeover) in waiting {
        takeover.waiting.remove(&peer);
        cx.durable.set_takeover(lost, Some(takeover));
    }
    end_takeovers(cx);
}

/// This peer is gone for ever, somebody says: nobody waits for it any more.
pub(super) fn peer_gone(cx: &mut Cx, peer: PeerName) {
    if peer == cx.durable.us() {
        return;
    }
    if cx.members.is_reachable(peer) {
        cx.members.leaving.insert(peer);
        return;
    }
    let mut known = cx.durable.known().get(&peer).copied().unwrap_or_default();
    if !known.gone {
        known.seen = cx.clock.wall;
        known.gone = true;
        cx.durable.set_known(peer, Some(known));
    }
    stop_waiting(cx, peer, |_, _| true);
    cx.try_again();
}
