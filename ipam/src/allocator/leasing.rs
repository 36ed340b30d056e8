//! Operations on leases.

use std::sync::Arc;

use proto::types::{PeerName, Time};

use super::api::{Alarm, Channel, Event, Proof, RequestError, Response, Waiting};
use super::cx::Cx;
use super::effects::Effect;
use super::ids::container_name;
use super::progress::{ASK_AGAIN, NotYet};
use super::questions::dispute::Refutal;
use super::questions::lease::LeaseAsked;
use super::questions::space::Asked;
use crate::leases::wire::{Ask, AskKind, Message, Outcome};
use crate::leases::{LEASE_VERSION_MAX, Lease, LeaseEntry, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr, Range};
use crate::ring::TAKEOVER_STEP;

/// Added to the version of a lease that is changed by another router than its holder, so that it
/// exceeds unseen changes of the lost holder.
///
/// Rule: `docs/protocol/ipam.md#9-3-order`.
const SEIZE_STEP: u64 = TAKEOVER_STEP as u64;

/// Result of requesting an identity's lease.
pub(super) enum Obtain {
    /// The identity has no lease; a new one would have this version.
    New(u64),
    /// We hold its lease, which is unused.
    Ours(Lease),
    /// The identity is up, on this host or on another one.
    InUse { here: bool, error: RequestError },
    /// Unknown yet; wait.
    Wait(Waiting, Time),
}

impl Cx {
    /// Requests the lease of an identity, and becomes its holder if possible.
    ///
    /// Rule: `docs/protocol/ipam.md#9-6-moving`.
    pub(super) fn obtain(&mut self, key: &Arc<LeaseKey>) -> Obtain {
        let Some(lease) = self.durable.leases().live(key).cloned() else {
            if let Some(wake) = self.questions.leases_unknown_until(self.clock.now) {
                return Obtain::Wait(Waiting::Leases, wake);
            }
            let before = self.durable.leases().get(key);
            return Obtain::New(before.map_or(1, |lease| lease.version.saturating_add(1)));
        };
        if lease.holder == self.durable.us() {
            self.leave_if_dead(key);
            let Some(lease) = self.durable.leases().live(key).cloned() else {
                return Obtain::Wait(Waiting::Leases, self.clock.now + ASK_AGAIN);
            };
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
                // A holder that owns nothing any more was removed, or has left.
                let gone = !self.durable.ring().has_owner(lease.holder);
                if gone && !self.members.is_known(lease.holder) {
                    let lease = self.seize(key, &lease);
                    return Obtain::Ours(lease);
                }
            }
        }
        Obtain::Wait(self.waiting_for_holder(key, &lease, why), wake)
    }

    /// Becomes the holder of a lease whose holder is gone forever.
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

    pub(super) fn in_use_error(&self, key: &LeaseKey, lease: &Lease) -> RequestError {
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

    /// Asks a peer about a lease, unless it was just asked.
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

    pub(super) fn pin(&mut self, key: &Arc<LeaseKey>, lease: &Lease, pinned: bool) -> Outcome {
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

    /// Changes a lease and sends it to the others.
    pub(super) fn write_lease(&mut self, key: &Arc<LeaseKey>, lease: Lease) {
        self.durable.set_lease(key, Some(lease));
        self.effect(Effect::LeaseChanged(Arc::clone(key)));
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

    /// Accepts another router's copy of a lease, if it is newer than ours.
    ///
    /// Rule: `docs/protocol/ipam.md#9-3-order`.
    pub(super) fn accept_lease(&mut self, key: Arc<LeaseKey>, lease: Lease) {
        if lease.version > LEASE_VERSION_MAX {
            let error = format!("version {} of the lease of {key}", lease.version);
            return self.refuse(lease.holder, error);
        }
        let leases = self.durable.leases();
        let news = match leases.get(&key) {
            Some(known) => lease.beats(known),
            None => leases.has_room_for(lease.holder, self.is_met(lease.holder)),
        };
        if !news {
            return;
        }
        let key = leases.shared(&key);
        if self.is_untrue(&key, &lease) {
            return self.refute(&key, lease);
        }
        let Some((address, holding)) = self.user_of(&key) else {
            return self.accept_unused(&key, lease);
        };
        if lease.is_live() {
            self.alarm(Alarm::LeaseLost {
                identity: key.to_string(),
                here: address,
                address: lease.address,
                holder: lease.holder,
            });
        }
        // The container keeps its address until it stops, but the address is not kept after that.
        let detached = Holding {
            lease: None,
            ..holding
        };
        self.durable.set_holding(address, detached);
        self.accept_unused(&key, lease);
    }

    /// Returns true if the peer is, or was, a router of the mesh.
    fn is_met(&self, peer: PeerName) -> bool {
        self.members.is_known(peer)
            || self.durable.known().contains_key(&peer)
            || self.durable.ring().has_owner(peer)
    }

    /// Returns true if a newer copy of a lease says what only we can know, and know better.
    ///
    /// Rule: `docs/protocol/ipam.md#11-3-disputes`.
    fn is_untrue(&self, key: &LeaseKey, theirs: &Lease) -> bool {
        if let Some((address, _)) = self.user_of(key) {
            // The identity is in use here with an address that is ours: it could have no other, and
            // no other router can end it.
            return self.durable.owns(address) && (!theirs.is_live() || theirs.address == address);
        }
        // Only the holder changes a lease, unless the holder is lost; whoever changes it then takes
        // a larger step.
        let us = self.durable.us();
        self.durable.leases().live(key).is_some_and(|ours| {
            let step = theirs.version.saturating_sub(ours.version);
            ours.holder == us && (theirs.holder == us || !theirs.is_live()) && step < SEIZE_STEP
        })
    }

    /// Outdoes a statement on a lease of ours that is not true.
    ///
    /// Rule: `docs/protocol/ipam.md#11-3-disputes`.
    fn refute(&mut self, key: &Arc<LeaseKey>, theirs: Lease) {
        let Some(ours) = self.durable.leases().get(key).cloned() else {
            return;
        };
        let before = match self.questions.disputes.refutal(key, self.clock.now) {
            Refutal::Now(before) => before,
            Refutal::Not => return,
        };
        // A statement of another router in its own name may be a matter of time: it has not heard
        // of ours, or both were up apart. A statement that only we can have made, and have not
        // made, is not.
        if theirs.holder == self.us() || before > 1 {
            self.alarm(Alarm::LeaseDisputed {
                identity: key.to_string(),
                address: ours.address,
                by: theirs.holder,
            });
        }
        let state = match self.user_of(key) {
            Some((_, holding)) => LeaseState::Used(container_name(&holding.id)),
            None => ours.state.clone(),
        };
        let refuted = Lease {
            version: theirs.version.saturating_add(1),
            holder: self.durable.us(),
            state,
            ..ours
        };
        self.write_lease(key, refuted);
    }

    fn accept_unused(&mut self, key: &Arc<LeaseKey>, lease: Lease) {
        let used_by = match &lease.state {
            LeaseState::Used(container) if lease.holder == self.durable.us() => Some(container),
            _ => None,
        };
        // We may have forgotten the lease of a container that still runs; or we do not know yet
        // what runs here.
        let holding = self.durable.holding(lease.address).cloned();
        let adopted = holding.filter(|holding| {
            let same = used_by.is_some_and(|container| *container == container_name(&holding.id));
            same && holding.lease.is_none()
        });
        let mistaken = used_by.is_some() && adopted.is_none() && self.hosted.found;
        if let Some(holding) = adopted {
            let holding = Holding {
                lease: Some(Arc::clone(key)),
                ..holding
            };
            self.durable.set_holding(lease.address, holding);
        }
        if mistaken {
            // Nobody else can know of a container of ours.
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

    /// Frees the address of a lease whose container is known to have ended: its identity need not
    /// wait until the container has been dead for long enough not to be started again.
    pub(super) fn leave_if_dead(&mut self, key: &LeaseKey) {
        if let Some((address, holding)) = self.user_of(key)
            && let Some(proof) = self.hosted.end_of(&holding.id)
        {
            self.release(address, proof);
        }
    }

    /// Returns the address that a local container has by this lease.
    fn user_of(&self, key: &LeaseKey) -> Option<(Address, Holding)> {
        let lease = self.durable.leases().get(key)?;
        let by_lease = |holding: &&Holding| holding.lease.as_deref() == Some(key);
        let holding = self.durable.holding(lease.address).filter(by_lease);
        holding.map(|holding| (lease.address, holding.clone()))
    }

    /// Takes an address from whoever had it and is gone; it stays with the identity that it is
    /// of, if any.
    pub(super) fn release(&mut self, address: Address, proof: Proof) {
        let holding = self.durable.holding(address).cloned();
        self.durable.vacate(address, proof);
        self.effect(Effect::HoldingsChanged);
        self.try_again();
        if let Some(key) = holding.and_then(|holding| holding.lease) {
            self.leave_unused(&key, address);
        }
    }

    /// Notes that nobody uses the address of a lease of ours any more.
    pub(super) fn leave_unused(&mut self, key: &Arc<LeaseKey>, address: Address) {
        let lease = self.durable.leases().live(key).cloned();
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
            self.write_lease(key, unused);
        }
    }

    /// Requests the address of a lease that we hold from its owner in the ring. Returns `None` if
    /// it is ours to use, or else who keeps it.
    pub(super) fn lease_address(
        &mut self,
        key: &Arc<LeaseKey>,
        lease: &Lease,
        subnet: Cidr,
    ) -> Result<Option<String>, NotYet> {
        let address = lease.address;
        if !subnet.host_range().contains(address) {
            return Ok(Some("nobody in this subnet".to_owned()));
        }
        let Some(owner) = self.durable.ring().owner(address) else {
            return Ok(Some("nobody in this range".to_owned()));
        };
        if owner == self.durable.us() {
            if let Some(holding) = self.durable.holding(address) {
                return Ok(Some(format!("this host for {}", holding.id)));
            }
            if self.durable.is_held_back(address) {
                return Err(self.held_back(address));
            }
            return Ok(None);
        }
        let now = self.clock.now;
        let mut why = "does not answer";
        let mut again = now + ASK_AGAIN;
        let denied = if self.members.is_weft(owner) {
            let entry = (Arc::clone(key), lease.clone());
            match self.ask_lease(owner, AskKind::Grant, entry) {
                LeaseAsked::Waiting(at) => {
                    again = at;
                    false
                }
                LeaseAsked::Answered(Outcome::Refused | Outcome::InUse, _) => true,
                LeaseAsked::Answered(_, at) => {
                    (why, again) = ("cannot give it at the moment", at);
                    false
                }
                LeaseAsked::Unreachable => {
                    why = "cannot be reached";
                    false
                }
            }
        } else {
            match self.ask_for_space(owner, Range::single(address)) {
                Asked::Waiting(at) => {
                    again = at;
                    false
                }
                Asked::Denied => true,
                Asked::Unreachable => {
                    why = "cannot be reached";
                    false
                }
            }
        };
        let name = self.members.describe(owner);
        if denied {
            return Ok(Some(format!("peer {name}")));
        }
        let waiting = Waiting::Owner {
            address,
            owner: name,
            why,
        };
        Err((waiting, again))
    }

    /// Returns why an address that is held back is not available yet.
    pub(super) fn held_back(&self, address: Address) -> NotYet {
        let waited_for = self
            .durable
            .takeovers()
            .values()
            .find(|takeover| takeover.ranges.contains(address))
            .map(|takeover| self.members.describe_all(&takeover.waiting));
        let waiting = Waiting::HeldBack {
            address,
            waiting: waited_for.unwrap_or_default(),
        };
        (waiting, self.clock.now + ASK_AGAIN)
    }

    /// Returns the answer with an address, and its MAC address if it belongs to a lease.
    pub(super) fn address_response(&self, address: Address, subnet: Cidr) -> Response {
        let lease = self.durable.holding(address).and_then(|h| h.lease.as_ref());
        Response::Address {
            cidr: subnet.with_address(address),
            mac: lease.map(|key| mac(key, address)),
        }
    }

    /// Returns our leases that are marked as used but are not.
    pub(super) fn correct_leases(&mut self) {
        let us = self.durable.us();
        let mistaken: Vec<_> = self
            .durable
            .leases()
            .iter()
            .filter(|(_, l)| l.holder == us && matches!(l.state, LeaseState::Used(_)))
            .filter(|(key, lease)| {
                let holding = self.durable.holding(lease.address);
                holding.and_then(|h| h.lease.as_ref()) != Some(*key)
            })
            .map(|(key, lease)| (key.clone(), lease.clone()))
            .collect();
        for (key, lease) in mistaken {
            let corrected = crate::leases::Lease {
                version: lease.version.saturating_add(1),
                state: LeaseState::Unused,
                since: self.clock.wall,
                ..lease
            };
            self.write_lease(&key, corrected);
        }
    }
}
