//! Questions of other routers about leases: to us as holder, and as owner of their addresses.

use std::sync::Arc;

use proto::types::PeerName;

use super::api::{Channel, Event, Output};
use super::cx::Cx;
use crate::leases::wire::{Answer, Ask, AskKind, Message, Outcome};
use crate::leases::{Lease, LeaseKey, Scope};
use crate::range::Range;

/// Takes the answer of another router to a question of ours.
pub(super) fn answered(cx: &mut Cx, from: PeerName, answer: Answer) {
    if let Some((key, lease)) = answer.entry {
        cx.accept_lease(key, lease);
    }
    let now = cx.clock.now;
    let questions = &mut cx.questions.leases;
    questions.answered(from, answer.nonce, answer.outcome, now);
    cx.try_again();
}

/// Answers a question about a lease.
///
/// Rule: `docs/protocol/ipam.md#9-6-moving`.
pub(super) fn asked(cx: &mut Cx, from: PeerName, ask: Ask) {
    let (key, theirs) = ask.entry;
    let version = theirs.version;
    let before = cx.durable.leases().get(&key);
    let known = before.map_or(0, |lease| lease.version);
    cx.accept_lease(Arc::clone(&key), theirs);
    if ask.kind == AskKind::Take && key.scope == Scope::Explicit {
        // What a user named moves as soon as it does not run here.
        cx.leave_if_dead(&key);
    }
    let mut ring = false;
    let lease = cx.durable.leases().get(&key).cloned();
    let outcome = match lease {
        Some(lease) if lease.is_live() && cx.hosted.found => match ask.kind {
            AskKind::Grant => grant_lease(cx, from, &key, &lease, &mut ring),
            _ if lease.holder != cx.durable.us() || version < known => {
                ring = lease.holder == from;
                Outcome::Elsewhere
            }
            AskKind::Take => hand_over(cx, from, &key, &lease, &mut ring),
            AskKind::Pin => cx.pin(&key, &lease, true),
            AskKind::Unpin => cx.pin(&key, &lease, false),
            AskKind::Release if !lease.is_unused() => Outcome::InUse,
            AskKind::Release => {
                cx.end_lease(&key, &lease, "it was released");
                Outcome::Done
            }
        },
        Some(_) if !cx.hosted.found => Outcome::Busy,
        _ => Outcome::Elsewhere,
    };
    let lease = cx.durable.leases().get(&key).cloned();
    let ring = if ring { cx.ring_for(from) } else { None };
    let answer = Answer {
        nonce: ask.nonce,
        outcome,
        entry: lease.map(|lease| (key, lease)),
        ring,
    };
    cx.unicast(Channel::Leases, from, Message::Answer(answer).encode());
}

/// Hands a lease over, together with its address if that is ours.
///
/// Rule: `docs/protocol/ipam.md#9-6-moving`.
fn hand_over(
    cx: &mut Cx,
    to: PeerName,
    key: &Arc<LeaseKey>,
    lease: &Lease,
    ring: &mut bool,
) -> Outcome {
    if !lease.is_unused() {
        return Outcome::InUse;
    }
    let address = lease.address;
    let ours = cx.durable.owns(address);
    if ours && cx.durable.is_held_back(address) {
        return Outcome::Busy;
    }
    if ours && cx.durable.holding(address).is_none() {
        cx.durable.grant(Range::single(address), to);
        *ring = true;
        cx.emit(Output::BroadcastState);
    }
    let handed = Lease {
        version: lease.version.saturating_add(1),
        holder: to,
        since: cx.clock.wall,
        ..lease.clone()
    };
    cx.write_lease(key, handed);
    cx.event(Event::LeaseGiven {
        identity: key.to_string(),
        address,
        to,
    });
    Outcome::Done
}

/// Grants the address of a lease to its holder, as the owner of the address.
///
/// Rule: `docs/protocol/ipam.md#9-6-moving`.
fn grant_lease(
    cx: &mut Cx,
    to: PeerName,
    key: &LeaseKey,
    lease: &Lease,
    ring: &mut bool,
) -> Outcome {
    let address = lease.address;
    if lease.holder != to {
        return Outcome::Elsewhere;
    }
    if !cx.durable.owns(address) {
        *ring = true;
        return Outcome::Busy;
    }
    let us = cx.durable.us();
    let wanted_here = {
        let mut others = cx.durable.leases().at(address);
        others.any(|(other, l)| **other != *key && l.holder == us)
    };
    if cx.durable.holding(address).is_some() || wanted_here {
        return Outcome::Refused;
    }
    if cx.durable.is_held_back(address) {
        return Outcome::Busy;
    }
    cx.durable.grant(Range::single(address), to);
    *ring = true;
    cx.emit(Output::BroadcastState);
    Outcome::Done
}
