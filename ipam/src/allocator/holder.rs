//! Holding leases: asking the holder of one, and being asked as the holder.

use std::sync::Arc;

use proto::types::{PeerName, Time};

use super::api::{RequestError, Response, Waiting};
use super::progress::{ASK_AGAIN, Progress};
use super::questions::lease::LeaseAsked;
use super::ring::channel::Source;
use super::{Alarm, Allocator, Channel, Event, Output};
use crate::leases::wire::{Answer, Ask, AskKind, Message, Outcome};
use crate::leases::{Lease, LeaseEntry, LeaseKey, LeaseState};
use crate::persist::Holding;
use crate::range::{Address, Range};
use crate::ring::TAKEOVER_STEP;

/// What somebody who is not the holder adds to the version of a lease when he changes it, so
/// that it outdoes what the lost holder may have changed unseen.
const SEIZE_STEP: u64 = TAKEOVER_STEP as u64;

/// Whether an identity can have its address here.
pub(super) enum Obtain {
    /// It has none: this would be the version of a new lease.
    New(u64),
    /// We hold its lease, and nobody uses it.
    Ours(Lease),
    /// It is up, on this host or another one.
    InUse { here: bool, error: RequestError },
    /// That is not known yet.
    Wait(Waiting, Time),
}

/// A request to pin or end a lease.
#[derive(Debug)]
pub(super) struct LeaseChange {
    pub(super) key: LeaseKey,
    pub(super) kind: AskKind,
    pub(super) force: bool,
}

impl Allocator {
    /// Finds out whether an identity can have its address here, and becomes the holder of its
    /// lease if so.
    pub(super) fn obtain(&mut self, key: &Arc<LeaseKey>) -> Obtain {
        let Some(lease) = self.durable.leases().live(key).cloned() else {
            if let Some(wake) = self.questions.leases_unknown_until(self.clock.now) {
                return Obtain::Wait(Waiting::Leases, wake);
            }
            let before = self.durable.leases().get(key);
            return Obtain::New(before.map_or(1, |lease| lease.version.saturating_add(1)));
        };
        if lease.holder == self.durable.us() {
            return match &lease.state {
                LeaseState::Used(_) => Obtain::InUse {
                    here: true,
                    error: self.in_use_error(key, &lease),
                },
                LeaseState::Unused | LeaseState::Gone => Obtain::Ours(lease),
            };
        }
        let mut why = "cannot be reached";
        let mut wake = self.clock.now + ASK_AGAIN;
        let entry = (Arc::clone(key), lease.clone());
        match self.ask_lease(lease.holder, AskKind::Take, entry) {
            LeaseAsked::Answered(Outcome::InUse, _) => {
                let lease = self.durable.leases().live(key).cloned().unwrap_or(lease);
                let error = self.in_use_error(key, &lease);
                return Obtain::InUse { here: false, error };
            }
            LeaseAsked::Answered(_, at) => (why, wake) = ("cannot hand it over at the moment", at),
            LeaseAsked::Waiting(at) => (why, wake) = ("does not answer", at),
            LeaseAsked::Unreachable => {
                // A holder that owns nothing any more has been removed, or has left.
                let gone = !self.durable.ring().has_owner(lease.holder);
                if gone && !self.members.is_known(lease.holder) {
                    let lease = self.seize(key, &lease);
                    return Obtain::Ours(lease);
                }
            }
        }
        Obtain::Wait(self.waiting_for_holder(key, &lease, why), wake)
    }

    /// Becomes the holder of a lease whose holder is gone for ever.
    pub(super) fn seize(&mut self, key: &Arc<LeaseKey>, lease: &Lease) -> Lease {
        let seized = Lease {
            version: lease.version.saturating_add(SEIZE_STEP),
            holder: self.durable.us(),
            state: LeaseState::Unused,
            since: self.clock.wall,
            ..lease.clone()
        };
        self.write_lease(key, seized.clone());
        seized
    }

    fn in_use_error(&self, key: &LeaseKey, lease: &Lease) -> RequestError {
        let container = match &lease.state {
            LeaseState::Used(container) => container.clone(),
            LeaseState::Unused | LeaseState::Gone => "unknown".to_owned(),
        };
        RequestError::IdentityInUse {
            identity: key.name.clone(),
            address: lease.address,
            host: self.members.describe(lease.holder),
            container,
        }
    }

    pub(super) fn waiting_for_holder(
        &self,
        key: &LeaseKey,
        lease: &Lease,
        why: &'static str,
    ) -> Waiting {
        Waiting::Holder {
            identity: key.name.clone(),
            address: lease.address,
            holder: self.members.describe(lease.holder),
            name: lease.holder,
            why,
        }
    }

    /// Asks a peer about a lease, unless that was done just now.
    pub(super) fn ask_lease(
        &mut self,
        peer: PeerName,
        kind: AskKind,
        entry: LeaseEntry,
    ) -> LeaseAsked {
        if !self.members.is_reachable(peer) {
            return LeaseAsked::Unreachable;
        }
        let now = self.clock.now;
        let key = (peer, kind as u8, Arc::clone(&entry.0), entry.1.version);
        if let Some(asked) = self.questions.leases.state(&key, now) {
            return asked;
        }
        let nonce = self.rng.u64(1..);
        let message = Message::Ask(Ask { nonce, kind, entry });
        self.unicast(Channel::Leases, peer, message.encode());
        self.questions.leases.sent(key, nonce, now)
    }

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

    fn pin(&mut self, key: &Arc<LeaseKey>, lease: &Lease, pinned: bool) -> Outcome {
        if lease.pinned != pinned {
            let changed = Lease {
                version: lease.version.saturating_add(1),
                pinned,
                ..lease.clone()
            };
            self.write_lease(key, changed);
        }
        Outcome::Done
    }

    /// Changes a lease, and tells the others.
    pub(super) fn write_lease(&mut self, key: &Arc<LeaseKey>, lease: Lease) {
        self.durable.set_lease(key, Some(lease));
        self.leases.changed(key, self.clock.now);
        self.try_again();
    }

    /// Ends a lease.
    pub(super) fn end_lease(&mut self, key: &Arc<LeaseKey>, lease: &Lease, why: &'static str) {
        let ours = lease.holder == self.durable.us();
        let step = if ours { 1 } else { SEIZE_STEP };
        let gone = Lease {
            version: lease.version.saturating_add(step),
            holder: self.durable.us(),
            state: LeaseState::Gone,
            pinned: false,
            since: self.clock.wall,
            ..lease.clone()
        };
        self.write_lease(key, gone);
        self.event(Event::LeaseEnded {
            identity: key.to_string(),
            address: lease.address,
            why,
        });
    }

    /// Takes another router's copy of a lease, if it is newer than ours.
    pub(super) fn accept_lease(&mut self, key: Arc<LeaseKey>, lease: Lease) {
        let leases = self.durable.leases();
        let known = leases.get(&key);
        let news = match known {
            Some(known) => lease.beats(known),
            None => !leases.is_full(),
        };
        if !news {
            return;
        }
        let key = leases.shared(&key);
        let Some((address, holding)) = self.user_of(&key) else {
            return self.accept_unused(&key, lease);
        };
        let us = self.durable.us();
        if lease.is_live() && lease.address == address && self.durable.owns(address) {
            // The address is ours and in use by this identity: whoever says otherwise has not
            // heard of that.
            let refuted = Lease {
                version: lease.version.saturating_add(1),
                holder: us,
                state: LeaseState::Used(super::operations::allocate::container_name(&holding.id)),
                ..lease
            };
            return self.write_lease(&key, refuted);
        }
        if lease.is_live() {
            self.alarm(Alarm::LeaseLost {
                identity: key.to_string(),
                here: address,
                address: lease.address,
                holder: lease.holder,
            });
        }
        // The container keeps its address until it stops, but nothing keeps it after that.
        let detached = Holding {
            lease: None,
            ..holding
        };
        self.durable.set_holding(address, Some(detached));
        self.accept_unused(&key, lease);
    }

    fn accept_unused(&mut self, key: &Arc<LeaseKey>, lease: Lease) {
        let mistaken =
            lease.holder == self.durable.us() && matches!(lease.state, LeaseState::Used(_));
        if mistaken {
            // Only we would know of a container of ours.
            let corrected = Lease {
                version: lease.version.saturating_add(1),
                state: LeaseState::Unused,
                ..lease
            };
            return self.write_lease(key, corrected);
        }
        self.durable.set_lease(key, Some(lease));
        self.try_again();
    }

    /// The address that a container of ours has by this lease.
    fn user_of(&self, key: &LeaseKey) -> Option<(Address, Holding)> {
        let lease = self.durable.leases().get(key)?;
        let by_lease = |holding: &&Holding| holding.lease.as_deref() == Some(key);
        let holding = self.durable.holding(lease.address).filter(by_lease);
        holding.map(|holding| (lease.address, holding.clone()))
    }

    /// Takes an address from whoever has it; it stays with the identity that it is of, if any.
    pub(super) fn release(&mut self, address: Address) {
        let holding = self.durable.holding(address).cloned();
        self.durable.set_holding(address, None);
        self.watch_strays();
        self.try_again();
        let Some(key) = holding.and_then(|holding| holding.lease) else {
            return;
        };
        let lease = self.durable.leases().live(&key).cloned();
        if let Some(lease) = lease
            && lease.holder == self.durable.us()
            && lease.address == address
        {
            let unused = Lease {
                version: lease.version.saturating_add(1),
                state: LeaseState::Unused,
                since: self.clock.wall,
                ..lease
            };
            self.write_lease(&key, unused);
        }
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
