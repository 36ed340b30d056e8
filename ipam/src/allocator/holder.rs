//! Holding leases: asking the holder of one, and being asked as the holder.

use std::sync::Arc;

use proto::types::PeerName;

use super::ring::channel::Source;
use super::{Allocator, Channel, Event, Output};
use crate::leases::wire::{Answer, Ask, AskKind, Message, Outcome};
use crate::leases::{Lease, LeaseKey};
use crate::range::Range;

impl Allocator {
    pub(super) fn on_answer(&mut self, from: PeerName, answer: Answer) {
        if let Some(ring) = &answer.ring {
            let source = Source {
                sender: Some(from),
                via: from,
            };
            self.on_state(source, ring);
        }
        if let Some((key, lease)) = answer.entry {
            self.accept_lease(key, lease);
        }
        let now = self.clock.now;
        let questions = &mut self.questions.leases;
        questions.answered(from, answer.nonce, answer.outcome, now);
        self.try_again();
    }

    pub(super) fn on_ask(&mut self, from: PeerName, ask: Ask) {
        let (key, asked) = ask.entry;
        let version = asked.version;
        self.accept_lease(Arc::clone(&key), asked);
        let mut ring = false;
        let lease = self.durable.leases().get(&key).cloned();
        let outcome = match lease {
            Some(lease) if lease.is_live() && self.hosted.found => match ask.kind {
                AskKind::Grant => self.grant_lease(from, &key, &lease, &mut ring),
                _ if lease.holder != self.durable.us() || version < lease.version => {
                    ring = lease.holder == from;
                    Outcome::Elsewhere
                }
                AskKind::Take => self.hand_over(from, &key, &lease, &mut ring),
                AskKind::Pin => self.pin(&key, &lease, true),
                AskKind::Unpin => self.pin(&key, &lease, false),
                AskKind::Release if !lease.is_unused() => Outcome::InUse,
                AskKind::Release => {
                    self.end_lease(&key, &lease, "it was released");
                    Outcome::Done
                }
            },
            Some(_) if !self.hosted.found => Outcome::Busy,
            _ => Outcome::Elsewhere,
        };
        let lease = self.durable.leases().get(&key).cloned();
        let answer = Answer {
            nonce: ask.nonce,
            outcome,
            entry: lease.map(|lease| (key, lease)),
            ring: ring.then(|| self.ring_payload()),
        };
        self.unicast(Channel::Leases, from, Message::Answer(answer).encode());
    }

    /// Hands a lease over, and its address with it, if it is ours to give.
    fn hand_over(
        &mut self,
        to: PeerName,
        key: &Arc<LeaseKey>,
        lease: &Lease,
        ring: &mut bool,
    ) -> Outcome {
        if !lease.is_unused() {
            return Outcome::InUse;
        }
        let address = lease.address;
        let ours = self.durable.owns(address);
        if ours && self.durable.is_held_back(address) {
            return Outcome::Busy;
        }
        if ours && self.durable.holding(address).is_none() {
            self.durable.grant(Range::single(address), to);
            *ring = true;
            self.emit(Output::BroadcastState);
        }
        let handed = Lease {
            version: lease.version.saturating_add(1),
            holder: to,
            since: self.clock.wall,
            ..lease.clone()
        };
        self.write_lease(key, handed);
        self.event(Event::LeaseGiven {
            identity: key.to_string(),
            address,
            to,
        });
        Outcome::Done
    }

    /// As the owner of a lease's address: grants it to the holder.
    fn grant_lease(
        &mut self,
        to: PeerName,
        key: &LeaseKey,
        lease: &Lease,
        ring: &mut bool,
    ) -> Outcome {
        let address = lease.address;
        if lease.holder != to {
            return Outcome::Elsewhere;
        }
        if !self.durable.owns(address) {
            *ring = true;
            return Outcome::Busy;
        }
        let us = self.durable.us();
        let wanted_here = {
            let mut others = self.durable.leases().at(address);
            others.any(|(other, l)| **other != *key && l.holder == us)
        };
        if self.durable.holding(address).is_some() || wanted_here {
            return Outcome::Refused;
        }
        if self.durable.is_held_back(address) {
            return Outcome::Busy;
        }
        self.durable.grant(Range::single(address), to);
        *ring = true;
        self.emit(Output::BroadcastState);
        Outcome::Done
    }
}
