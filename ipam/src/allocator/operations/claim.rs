//! Claim of a given address, for a container or an identity.

use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::super::api::{Event, RequestError, Response, Waiting};
use super::super::cx::Cx;
use super::super::effects::Effect;
use super::super::ids::{NO_ID, container_name};
use super::super::leasing::Obtain;
use super::super::progress::{ASK_AGAIN, Progress};
use super::super::questions::lease::LeaseAsked;
use super::super::questions::space::Asked;
use crate::leases::wire::AskKind;
use crate::leases::{Identity, Lease, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr, Range};

/// Maximum time to wait for an unreachable owner.
const UNREACHABLE_MAX: Duration = Duration::from_secs(25);

/// A request for one address.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The owner; empty if the address is only reserved for the identity.
    pub(crate) id: String,
    pub(crate) cidr: Cidr,
    pub(crate) subnet: Cidr,
    pub(crate) identity: Option<Identity>,
    pub(crate) container: bool,
    pub(crate) no_error_on_unknown: bool,
    pub(crate) force: bool,
    pub(crate) pinned: bool,
    /// Who has the address and gives it up for this, if anybody does.
    pub(crate) from: Option<String>,
    /// Time since which the owner cannot be reached.
    pub(crate) away_since: Option<Time>,
}

impl Claim {
    fn address(&self) -> Address {
        self.cidr.address
    }

    /// Returns the id under which the address is recorded.
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

    /// Returns true if it needs a ring.
    pub(crate) fn wants_ring(&self, cx: &Cx) -> bool {
        cx.hosted.found && cx.durable.ring().universe().contains(self.address())
    }

    /// Rule: `docs/protocol/ipam.md#7-2-claim`.
    pub(crate) fn advance(&mut self, cx: &mut Cx) -> Progress {
        let address = self.address();
        let universe = cx.durable.ring().universe();
        if !universe.contains(address) {
            return Progress::Done(self.claim_outside(cx));
        }
        cx.hosted.not_dead(&self.id);
        if let Some((waiting, wake)) = cx.not_ready() {
            return self.claim_unknown(cx, waiting, wake);
        }
        match cx.durable.ring().owner(address) {
            Some(owner) if owner == cx.durable.us() => self.claim_own(cx),
            Some(owner) => self.claim_from(cx, owner),
            None => self.claim_unknown(cx, Waiting::Observer, cx.clock.now + ASK_AGAIN),
        }
    }

    /// Claims an address outside of the universe, about which only this host knows.
    fn claim_outside(&self, cx: &mut Cx) -> Result<Response, RequestError> {
        let previous = cx.durable.holding(self.address());
        match previous.map(|holding| holding.id.clone()) {
            None => self.record(cx, None),
            Some(id) if id == self.id || self.id == NO_ID => {}
            Some(id) if cx.hosted.end_of(&id).is_some() => self.record(cx, None),
            Some(id) if self.from.as_ref() == Some(&id) => self.record(cx, None),
            Some(id) => {
                return Err(RequestError::AlreadyInUseBy {
                    cidr: self.cidr,
                    id,
                });
            }
        }
        Ok(Response::Done)
    }

    /// Handles that the owner of the address is unknown or cannot be reached.
    fn claim_unknown(&self, cx: &mut Cx, waiting: Waiting, wake: Time) -> Progress {
        let held = cx.durable.holding(self.address()).is_some();
        if self.no_error_on_unknown && !self.reserves() && self.identity.is_none() && !held {
            // It is in use here, whoever owns it. The owner is asked until it gives it away.
            self.record(cx, None);
            return Progress::Done(Ok(Response::Done));
        }
        Progress::Wait(waiting, wake)
    }

    fn record(&self, cx: &mut Cx, lease: Option<Arc<LeaseKey>>) {
        let before = cx.durable.holding(self.address());
        let left = before.and_then(|before| before.lease.clone());
        if let Some(left) = left.filter(|left| lease.as_ref() != Some(left)) {
            cx.leave_unused(&left, self.address());
        }
        cx.hosted.not_dead(&self.id);
        let holding = Holding {
            id: self.filed_under(),
            len: self.cidr.len,
            container: self.container,
            lease,
        };
        cx.durable.set_holding(self.address(), holding);
        cx.effect(Effect::HoldingsChanged);
    }

    fn claim_own(&mut self, cx: &mut Cx) -> Progress {
        let (address, cidr) = (self.address(), self.cidr);
        let existing = cx.durable.holding(address);
        // What a container already has becomes that of its identity without being free meanwhile.
        let adopts = existing.is_some_and(|held| {
            let unleased = held.id == self.id && held.lease.is_none();
            self.from.as_ref() == Some(&held.id) || (self.identity.is_some() && unleased)
        });
        let existing = existing.map(|holding| holding.id.clone());
        if let Some(existing) = existing.filter(|_| !adopts) {
            let text = address.to_string();
            let same = existing == self.id || (self.id == NO_ID && existing == text);
            return Progress::Done(match existing {
                // Without an id it is unknown whether this is the same container, so it may have
                // the address again.
                _ if same || self.id == NO_ID => Ok(Response::Done),
                existing if existing == text => Err(RequestError::AlreadyInUse(cidr)),
                id => Err(RequestError::AlreadyOwned { cidr, id }),
            });
        }
        if cx.durable.is_held_back(address) {
            let (waiting, wake) = cx.held_back(address);
            return self.claim_unknown(cx, waiting, wake);
        }
        if let Some(progress) = self.clear_leases(cx) {
            return progress;
        }
        match self.identity.clone() {
            None => {
                self.record(cx, None);
                Progress::Done(Ok(Response::Done))
            }
            Some(identity) => self.claim_for_identity(cx, &identity),
        }
    }

    /// Returns the live lease of another identity that reserves the address.
    fn foreign_lease(&self, cx: &Cx) -> Option<(Arc<LeaseKey>, Lease)> {
        let own = self
            .identity
            .as_ref()
            .map(|identity| identity.key(self.subnet));
        let mut leases = cx.durable.leases().at(self.address());
        leases
            .find(|(key, _)| Some(&***key) != own.as_ref())
            .map(|(key, lease)| (Arc::clone(key), lease.clone()))
    }

    /// Ends leases that reserve the address for other identities, if the claim is forced.
    fn clear_leases(&self, cx: &mut Cx) -> Option<Progress> {
        while let Some((key, lease)) = self.foreign_lease(cx) {
            if !self.force {
                let (cidr, lease) = (self.cidr, key.to_string());
                return Some(Progress::Done(Err(RequestError::Leased { cidr, lease })));
            }
            if lease.holder == cx.durable.us() || !cx.members.is_weft(lease.holder) {
                cx.end_lease(&key, &lease, "its address was claimed by force");
                continue;
            }
            let holder = lease.holder;
            let waiting = cx.waiting_for_holder(&key, &lease, "does not answer");
            let entry = (Arc::clone(&key), lease.clone());
            return Some(match cx.ask_lease(holder, AskKind::Release, entry) {
                LeaseAsked::Waiting(at) | LeaseAsked::Answered(_, at) => {
                    Progress::Wait(waiting, at)
                }
                LeaseAsked::Unreachable => {
                    cx.end_lease(&key, &lease, "its address was claimed by force");
                    continue;
                }
            });
        }
        None
    }

    /// Assigns the address, which is ours and free or reserved for this identity, to the identity.
    fn claim_for_identity(&self, cx: &mut Cx, identity: &Identity) -> Progress {
        let key = cx.durable.leases().shared(&identity.key(self.subnet));
        let version = match cx.obtain(&key) {
            Obtain::New(version) => version,
            Obtain::Ours(lease) => lease.version.saturating_add(1),
            Obtain::InUse { error, .. } => return Progress::Done(Err(error)),
            Obtain::Wait(waiting, wake) => return Progress::Wait(waiting, wake),
        };
        let address = self.address();
        let state = if self.reserves() {
            LeaseState::Unused
        } else {
            LeaseState::Used(container_name(&self.filed_under()))
        };
        let lease = Lease {
            version,
            holder: cx.durable.us(),
            address,
            state,
            pinned: self.pinned,
            since: cx.clock.wall,
        };
        cx.write_lease(&key, lease);
        cx.event(Event::LeaseMade {
            identity: key.to_string(),
            address,
        });
        let (cidr, mac) = (self.cidr, Some(mac(&key, address)));
        if !self.reserves() {
            self.record(cx, Some(key));
        }
        Progress::Done(Ok(Response::Address { cidr, mac }))
    }

    fn claim_from(&mut self, cx: &mut Cx, owner: PeerName) -> Progress {
        let address = self.address();
        if let Some(holding) = cx.durable.holding(address) {
            // In use here although another peer owns it: that is known and being dealt with.
            if self.from.as_ref() == Some(&holding.id) && self.identity.is_none() {
                self.record(cx, None);
                return Progress::Done(Ok(Response::Done));
            }
            // The address is in use here although another peer owns it, which is known and being
            // handled.
            let same = holding.id == self.filed_under() || self.id == NO_ID;
            let (cidr, id) = (self.cidr, holding.id.clone());
            return Progress::Done(match same {
                true => Ok(Response::Done),
                false => Err(RequestError::AlreadyOwned { cidr, id }),
            });
        }
        if let Some(progress) = self.clear_leases(cx) {
            return progress;
        }
        let name = cx.members.describe(owner);
        let waiting = |why| Waiting::Owner {
            address,
            owner: name.clone(),
            why,
        };
        match cx.ask_for_space(owner, Range::single(address)) {
            Asked::Waiting(again) => {
                self.away_since = None;
                Progress::Wait(waiting("does not answer"), again)
            }
            Asked::Denied => Progress::Done(Err(self.owned_by(cx, owner, ""))),
            Asked::Unreachable => {
                let now = cx.clock.now;
                let since = *self.away_since.get_or_insert(now);
                if now.since(since) > UNREACHABLE_MAX {
                    let error = self.owned_by(cx, owner, " - cannot be reached");
                    return Progress::Done(Err(error));
                }
                self.claim_unknown(cx, waiting("cannot be reached"), now + ASK_AGAIN)
            }
        }
    }

    fn owned_by(&self, cx: &Cx, peer: PeerName, why: &str) -> RequestError {
        let nickname = cx.members.nickname(peer);
        let nickname = nickname
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        RequestError::OwnedByPeer {
            cidr: self.cidr,
            peer,
            reason: format!("{nickname}{why}"),
        }
    }
}
