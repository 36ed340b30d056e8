//! Holding leases: asking the holder of one, and being asked as the holder.

use std::sync::Arc;

use proto::types::PeerName;

use super::api::{RequestError, Response};
use super::progress::{ASK_AGAIN, Progress};
use super::questions::lease::LeaseAsked;
use super::ring::channel::Source;
use super::{Allocator, Channel, Event, Output};
use crate::leases::wire::{Answer, Ask, AskKind, Message, Outcome};
use crate::leases::{Lease, LeaseKey};
use crate::range::Range;

/// A request to pin or end a lease.
#[derive(Debug)]
pub(super) struct LeaseChange {
    pub(super) key: LeaseKey,
    pub(super) kind: AskKind,
    pub(super) force: bool,
}

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

    pub(super) fn try_lease_change(&mut self, op: &mut LeaseChange) -> Progress {
        let key = self.durable.leases().shared(&op.key);
        let Some(lease) = self.durable.leases().live(&key).cloned() else {
            // Somebody else may just have ended it, which is what was wanted.
            let ended = op.kind == AskKind::Release && self.durable.leases().get(&key).is_some();
            let error = RequestError::NoLease(key.to_string());
            return Progress::Done(if ended {
                Ok(Response::Done)
            } else {
                Err(error)
            });
        };
        if lease.holder == self.durable.us() {
            return Progress::Done(self.change_own_lease(op, &key, &lease));
        }
        let entry = (Arc::clone(&key), lease.clone());
        let (why, wake) = match self.ask_lease(lease.holder, op.kind, entry) {
            LeaseAsked::Answered(Outcome::Done, _) => {
                return Progress::Done(Ok(Response::Done));
            }
            LeaseAsked::Answered(Outcome::InUse, _) => {
                return Progress::Done(Err(self.in_use_error(&key, &lease)));
            }
            LeaseAsked::Answered(_, at) => ("cannot do it at the moment", at),
            LeaseAsked::Waiting(at) => ("does not answer", at),
            LeaseAsked::Unreachable if op.force && op.kind == AskKind::Release => {
                self.end_lease(&key, &lease, "it was released by force");
                return Progress::Done(Ok(Response::Done));
            }
            LeaseAsked::Unreachable => ("cannot be reached", self.clock.now + ASK_AGAIN),
        };
        Progress::Wait(self.waiting_for_holder(&key, &lease, why), wake)
    }

    fn change_own_lease(
        &mut self,
        op: &LeaseChange,
        key: &Arc<LeaseKey>,
        lease: &Lease,
    ) -> Result<Response, RequestError> {
        match op.kind {
            AskKind::Pin | AskKind::Unpin => {
                self.pin(key, lease, op.kind == AskKind::Pin);
            }
            _ if lease.is_unused() => self.end_lease(key, lease, "it was released"),
            _ => return Err(self.in_use_error(key, lease)),
        }
        Ok(Response::Done)
    }
}
