//! Taking over what lost peers own, after every known router was heard.
//!
//! # Why a takeover waits
//!
//! A lost peer may have granted some of its ranges in its last moments without our knowledge: the
//! grant may be known only to its new owner, which may be cut off from us. A takeover that ignores
//! the grant would take those addresses from their new owner. So before the ring is changed, every
//! router that we have ever met must be heard: a router that was given something shows it in its
//! ring, if that was made when no message of the lost peer could be under way any more. A peer that
//! never answers is either cut off, so it must be waited for, or lost as well, so it can be removed
//! in turn.
//!
//! Every router that is asked learns who takes over what, and does not do the same. If two begin at
//! the same time, the one with the lower name continues.

use std::collections::BTreeSet;

use proto::types::{PeerName, Time};

use super::api::{Alarm, Channel, Event, Output};
use super::cx::Cx;
use super::progress::MESSAGE_LIFETIME;
use crate::leases::wire::Message;
use crate::messages::Unicast;
use crate::persist::{Known, Takeover};

/// Returns when a takeover that waits for messages to arrive can continue.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    wake: Option<Time>,
}

impl Reclaim {
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.wake
    }

    /// Returns true if a takeover can go on now.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        self.wake.take_if(|at| *at <= now).is_some()
    }

    /// Records when a takeover can continue, at the end of a step.
    pub(super) fn settle(&mut self, cx: &Cx) {
        self.wake = cx.takeover_wake();
    }
}

/// Begins to take over what a lost peer owns.
///
/// Rule: `docs/protocol/ipam.md#8-2-removing-a-peer`.
pub(super) fn remove(cx: &mut Cx, peer: PeerName) {
    peer_gone(cx, peer);
    cx.announce_gone(peer);
    intend(cx, peer);
}

/// Records that a peer is to be taken over once every router was heard.
fn intend(cx: &mut Cx, peer: PeerName) {
    let before = cx.durable.takeovers().get(&peer).cloned();
    let takeover = Takeover {
        since: cx.durable.time(),
        intended: true,
        waiting: cx.everyone_but(peer),
        ..before.unwrap_or_default()
    };
    cx.durable.set_takeover(peer, Some(takeover));
    progress(cx);
}

/// Transfers everything that a lost peer owns to us, after every router was heard.
///
/// Rule: `docs/protocol/ipam.md#8-2-removing-a-peer`.
fn take_over(cx: &mut Cx, peer: PeerName) {
    let us = cx.durable.us();
    let count = cx.durable.ring().owned(peer).len();
    let moved = cx.durable.change_ring(|ring| ring.transfer(peer, us));
    let done = Takeover {
        since: cx.durable.time(),
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

/// Handles a change of the ring: a removed peer may own more than was known.
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

/// Handles that a peer which was removed, or is being removed, can be reached.
pub(super) fn came_back(cx: &mut Cx, peer: PeerName) {
    if let Some(takeover) = cx.durable.takeovers().get(&peer) {
        if !takeover.is_active() {
            cx.alarm(Alarm::RemovedPeerBack(peer));
        }
        cx.durable.set_takeover(peer, None);
        cx.try_again();
    }
}

/// Asks the routers that were not heard yet, and completes takeovers where possible.
pub(super) fn progress(cx: &mut Cx) {
    let mut ask = BTreeSet::new();
    let mut taking = Vec::new();
    for (lost, takeover) in cx.durable.takeovers() {
        if takeover.is_active() && cx.quiet_since(*lost) <= cx.clock.now {
            ask.extend(takeover.waiting.iter().copied());
            // Routers that were heard may know that one which was not heard is gone.
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
            // A space request for an address that nobody has is answered with the ring.
            let nowhere = cx.nowhere();
            let payload = Unicast::SpaceRequest(nowhere).encode();
            cx.unicast(Channel::Ring, peer, payload);
        }
    }
    end_takeovers(cx);
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

/// Handles a request for our ring by a router that is taking over some peers.
pub(super) fn asked(cx: &mut Cx, from: PeerName, nonce: u64, taking: &[PeerName]) {
    for lost in taking {
        noted_taker(cx, from, *lost);
    }
    // A peer that has used up its ration asks again later.
    let Some(state) = cx.ring_for(from) else {
        return;
    };
    let answer = Message::RingAnswer {
        nonce,
        gone: cx.gone_peers(),
        taking: cx.taking(),
        state,
    };
    cx.unicast(Channel::Leases, from, answer.encode());
}

/// Records that another router is taking over a lost peer.
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

/// Handles the rest of the answer: which peers are gone, and which ones its sender takes over.
pub(super) fn told(cx: &mut Cx, from: PeerName, gone: &[PeerName], taking: &[PeerName]) {
    for lost in taking {
        noted_taker(cx, from, *lost);
    }
    for peer in gone {
        peer_gone(cx, *peer);
    }
}

/// Handles a received ring. One that arrives so late was also made late enough.
///
/// A weft router may be taking the same peer over, which its ring does not show: only its answer to
/// our query counts.
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

/// Records that a ring was merged which a peer made after `at`.
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

/// A user says that this peer is gone for good: nothing waits for it any more.
///
/// Rule: `docs/protocol/ipam.md#8-2-removing-a-peer`.
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
        known.seen = cx.durable.time();
        known.gone = true;
        cx.durable.set_known(peer, Some(known));
    }
    stop_waiting(cx, peer, |_, _| true);
    cx.try_again();
}
