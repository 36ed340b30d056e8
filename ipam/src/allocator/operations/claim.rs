//! Claiming: this very address, for a container or an identity.

use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::super::api::{RequestError, Response, Waiting};
use super::super::effects::Effect;
use super::super::ids::{NO_ID, container_name};
use super::super::leasing::Obtain;
use super::super::progress::{ASK_AGAIN, Progress};
use super::super::questions::lease::LeaseAsked;
use super::super::questions::space::Asked;
use super::super::{Allocator, Event};
use crate::leases::wire::AskKind;
use crate::leases::{Identity, Lease, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr, Range};

/// For so long an owner that cannot be reached is waited for.
const UNREACHABLE_MAX: Duration = Duration::from_secs(25);

/// A request for one address.
#[derive(Debug)]
pub(in crate::allocator) struct Claim {
    /// For whom; empty if the address is only to be reserved for the identity.
    pub(in crate::allocator) id: String,
    pub(in crate::allocator) cidr: Cidr,
    pub(in crate::allocator) subnet: Cidr,
    pub(in crate::allocator) identity: Option<Identity>,
    pub(in crate::allocator) container: bool,
    pub(in crate::allocator) no_error_on_unknown: bool,
    pub(in crate::allocator) force: bool,
    pub(in crate::allocator) pinned: bool,
    /// Since when the owner cannot be reached.
    pub(in crate::allocator) away_since: Option<Time>,
}

impl Claim {
    fn address(&self) -> Address {
        self.cidr.address
    }

    /// Under which id the address is filed.
    fn filed_under(&self) -> String {
        if self.id == NO_ID {
            self.address().to_string()
        } else {
            self.id.clone()
        }
    }

    fn reserves(&self) -> bool {
        self.id.is_empty()
    }
}

impl Allocator {
    pub(in crate::allocator) fn try_claim(&mut self, op: &mut Claim) -> Progress {
        let address = op.address();
        let universe = self.durable.ring().universe();
        if !universe.contains(address) {
            return Progress::Done(self.claim_outside(op));
        }
        self.hosted.not_dead(&op.id);
        if self.hosted.found {
            self.establish();
        }
        if let Some((waiting, wake)) = self.not_ready() {
            return self.claim_unknown(op, waiting, wake);
        }
        match self.durable.ring().owner(address) {
            Some(owner) if owner == self.durable.us() => self.claim_own(op),
            Some(owner) => self.claim_from(op, owner),
            None => self.claim_unknown(op, Waiting::Observer, self.clock.now + ASK_AGAIN),
        }
    }

    /// An address that the ring does not know: only this host can be asked about it.
    fn claim_outside(&mut self, op: &Claim) -> Result<Response, RequestError> {
        let previous = self.durable.holding(op.address());
        match previous.map(|holding| holding.id.clone()) {
            None => self.record(op, None),
            Some(id) if id == op.id || op.id == NO_ID => {}
            Some(id) if self.hosted.is_dead(&id) => self.record(op, None),
            Some(id) => return Err(RequestError::AlreadyInUseBy { cidr: op.cidr, id }),
        }
        Ok(Response::Done)
    }

    /// Nobody can say yet whose the address is, or its owner cannot be asked.
    fn claim_unknown(&mut self, op: &Claim, waiting: Waiting, wake: Time) -> Progress {
        let held = self.durable.holding(op.address()).is_some();
        if op.no_error_on_unknown && !op.reserves() && op.identity.is_none() && !held {
            // It is in use here, whoever owns it; the owner is asked for it until it gives it.
            self.record(op, None);
            return Progress::Done(Ok(Response::Done));
        }
        Progress::Wait(waiting, wake)
    }

    fn record(&mut self, op: &Claim, lease: Option<Arc<LeaseKey>>) {
        let holding = Holding {
            id: op.filed_under(),
            len: op.cidr.len,
            container: op.container,
            lease,
        };
        self.durable.set_holding(op.address(), Some(holding));
        self.effect(Effect::HoldingsChanged);
    }

    fn claim_own(&mut self, op: &mut Claim) -> Progress {
        let (address, cidr) = (op.address(), op.cidr);
        let existing = self.durable.holding(address);
        // What a container already has becomes that of its identity without being free meanwhile.
        let adopts = op.identity.is_some()
            && existing.is_some_and(|held| held.id == op.id && held.lease.is_none());
        let existing = existing.map(|holding| holding.id.clone());
        if let Some(existing) = existing.filter(|_| !adopts) {
            let text = address.to_string();
            let same = existing == op.id || (op.id == NO_ID && existing == text);
            return Progress::Done(match existing {
                // Without an id it may be the same container or another one; that cannot be
                // told, so it may have the address again.
                _ if same || op.id == NO_ID => Ok(Response::Done),
                existing if existing == text => Err(RequestError::AlreadyInUse(cidr)),
                id => Err(RequestError::AlreadyOwned { cidr, id }),
            });
        }
        if self.durable.is_held_back(address) {
            let (waiting, wake) = self.held_back(address);
            return self.claim_unknown(op, waiting, wake);
        }
        if let Some(progress) = self.clear_leases(op) {
            return progress;
        }
        match op.identity.clone() {
            None => {
                self.record(op, None);
                Progress::Done(Ok(Response::Done))
            }
            Some(identity) => self.claim_for_identity(op, &identity),
        }
    }

    /// The live lease of another identity that keeps the address.
    fn foreign_lease(&self, op: &Claim) -> Option<(Arc<LeaseKey>, Lease)> {
        let own = op.identity.as_ref().map(|identity| identity.key(op.subnet));
        let mut leases = self.durable.leases().at(op.address());
        leases
            .find(|(key, _)| Some(&***key) != own.as_ref())
            .map(|(key, lease)| (Arc::clone(key), lease.clone()))
    }

    /// Ends leases that keep the address for other identities, if the claim is forced.
    fn clear_leases(&mut self, op: &Claim) -> Option<Progress> {
        while let Some((key, lease)) = self.foreign_lease(op) {
            if !op.force {
                let (cidr, lease) = (op.cidr, key.to_string());
                return Some(Progress::Done(Err(RequestError::Leased { cidr, lease })));
            }
            if lease.holder == self.durable.us() || !self.members.is_weft(lease.holder) {
                self.end_lease(&key, &lease, "its address was claimed by force");
                continue;
            }
            let holder = lease.holder;
            let waiting = self.waiting_for_holder(&key, &lease, "does not answer");
            let entry = (Arc::clone(&key), lease.clone());
            return Some(match self.ask_lease(holder, AskKind::Release, entry) {
                LeaseAsked::Waiting(at) | LeaseAsked::Answered(_, at) => {
                    Progress::Wait(waiting, at)
                }
                LeaseAsked::Unreachable => {
                    self.end_lease(&key, &lease, "its address was claimed by force");
                    continue;
                }
            });
        }
        None
    }

    /// The address is ours and free, or kept for this identity: makes it the identity's.
    fn claim_for_identity(&mut self, op: &Claim, identity: &Identity) -> Progress {
        let key = self.durable.leases().shared(&identity.key(op.subnet));
        let version = match self.obtain(&key) {
            Obtain::New(version) => version,
            Obtain::Ours(lease) => lease.version.saturating_add(1),
            Obtain::InUse { error, .. } => return Progress::Done(Err(error)),
            Obtain::Wait(waiting, wake) => return Progress::Wait(waiting, wake),
        };
        let address = op.address();
        let state = if op.reserves() {
            LeaseState::Unused
        } else {
            LeaseState::Used(container_name(&op.filed_under()))
        };
        let lease = Lease {
            version,
            holder: self.durable.us(),
            address,
            state,
            pinned: op.pinned,
            since: self.clock.wall,
        };
        self.write_lease(&key, lease);
        self.event(Event::LeaseMade {
            identity: key.to_string(),
            address,
        });
        let (cidr, mac) = (op.cidr, Some(mac(&key, address)));
        if !op.reserves() {
            self.record(op, Some(key));
        }
        Progress::Done(Ok(Response::Address { cidr, mac }))
    }

    fn claim_from(&mut self, op: &mut Claim, owner: PeerName) -> Progress {
        let address = op.address();
        if let Some(holding) = self.durable.holding(address) {
            // In use here although another peer owns it: that is known and being dealt with.
            let same = holding.id == op.filed_under() || op.id == NO_ID;
            let (cidr, id) = (op.cidr, holding.id.clone());
            return Progress::Done(match same {
                true => Ok(Response::Done),
                false => Err(RequestError::AlreadyOwned { cidr, id }),
            });
        }
        if let Some(progress) = self.clear_leases(op) {
            return progress;
        }
        let name = self.members.describe(owner);
        let waiting = |why| Waiting::Owner {
            address,
            owner: name.clone(),
            why,
        };
        match self.ask_for_space(owner, Range::single(address)) {
            Asked::Waiting(again) => {
                op.away_since = None;
                Progress::Wait(waiting("does not answer"), again)
            }
            Asked::Denied => Progress::Done(Err(self.owned_by(op, owner, ""))),
            Asked::Unreachable => {
                let now = self.clock.now;
                let since = *op.away_since.get_or_insert(now);
                if now.since(since) > UNREACHABLE_MAX {
                    let error = self.owned_by(op, owner, " - cannot be reached");
                    return Progress::Done(Err(error));
                }
                self.claim_unknown(op, waiting("cannot be reached"), now + ASK_AGAIN)
            }
        }
    }

    fn owned_by(&self, op: &Claim, peer: PeerName, why: &str) -> RequestError {
        let nickname = self.members.nickname(peer);
        let nickname = nickname
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        RequestError::OwnedByPeer {
            cidr: op.cidr,
            peer,
            reason: format!("{nickname}{why}"),
        }
    }
}
