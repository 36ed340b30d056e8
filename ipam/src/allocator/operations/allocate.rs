//! Allocating: an address for a container, new or that of its identity.

use std::sync::Arc;

use proto::types::{PeerName, Time};

use super::super::api::{RequestError, Response, Waiting};
use super::super::holder::Obtain;
use super::super::progress::{ASK_AGAIN, Progress};
use super::super::questions::lease::LeaseAsked;
use super::super::questions::space::Asked;
use super::super::{Alarm, Allocator, Event};
use crate::leases::wire::{AskKind, Outcome};
use crate::leases::{Identity, IdentityKind, Lease, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr, Range};

/// The id of requests that have none.
pub(in crate::allocator) const NO_ID: &str = "_";

/// A request for an address.
#[derive(Debug)]
pub(in crate::allocator) struct Allocate {
    /// For whom; `None` if the address is only to be reserved for the identity.
    id: Option<String>,
    subnet: Cidr,
    identity: Option<Identity>,
    container: bool,
    /// Whether the name is up on another host, so that ours gets a lease for this host.
    host_scoped: bool,
    /// Why the lease's address cannot be had: that address, and who has it.
    lost: Option<(Address, String)>,
    /// Whether a reserved lease is to be kept for ever.
    pinned: bool,
}

/// An address was not found yet: why, and when to look again.
type NotYet = (Waiting, Time);

impl Allocate {
    pub(in crate::allocator) fn new(
        id: String,
        subnet: Cidr,
        identity: Option<Identity>,
        container: bool,
    ) -> Allocate {
        Allocate {
            id: Some(id),
            subnet,
            identity,
            container,
            host_scoped: false,
            lost: None,
            pinned: false,
        }
    }

    /// A request for a lease that nobody uses yet.
    pub(in crate::allocator) fn reserve(
        identity: Identity,
        subnet: Cidr,
        pinned: bool,
    ) -> Allocate {
        Allocate {
            id: None,
            pinned,
            ..Allocate::new(String::new(), subnet, Some(identity), false)
        }
    }

    pub(in crate::allocator) fn title(&self) -> &str {
        let identity = self.identity.as_ref().map(Identity::name);
        self.id.as_deref().or(identity).unwrap_or(NO_ID)
    }

    pub(in crate::allocator) fn subnet(&self) -> Cidr {
        self.subnet
    }

    pub(in crate::allocator) fn is_for(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }
}

impl Allocator {
    pub(in crate::allocator) fn try_allocate(&mut self, op: &mut Allocate) -> Progress {
        if let Some(id) = &op.id {
            let range = op.subnet.range();
            let held = self.durable.addresses_of(id).filter(|a| range.contains(*a));
            // What it has without an identity, or as another one, is not what is asked for.
            let mut held = held.filter(|a| self.is_as_asked(op, *a));
            if let Some(address) = held.next() {
                drop(held);
                self.hosted.not_dead(id);
                return Progress::Done(Ok(self.address_response(address, op.subnet)));
            }
        }
        let universe = self.durable.meta().universe;
        if !universe.range().overlaps(&op.subnet.range()) {
            let subnet = op.subnet;
            return Progress::Done(Err(RequestError::OutOfBounds { subnet, universe }));
        }
        if let Some((waiting, wake)) = self.not_ready() {
            return Progress::Wait(waiting, wake);
        }
        match op.identity.clone() {
            None => self.allocate_plain(op),
            Some(identity) => self.allocate_leased(op, &identity),
        }
    }

    /// Whether an address that is held is of the request's identity, if that names one.
    fn is_as_asked(&self, op: &Allocate, address: Address) -> bool {
        let Some(identity) = &op.identity else {
            return true;
        };
        let lease = self
            .durable
            .holding(address)
            .and_then(|h| h.lease.as_deref());
        lease.is_some_and(|key| {
            let host_key = identity.host_key(op.subnet, self.durable.us());
            *key == identity.key(op.subnet) || *key == host_key
        })
    }

    /// Why nothing can be given out at all yet. Sees to it that there will be a ring.
    pub(in crate::allocator) fn not_ready(&mut self) -> Option<NotYet> {
        let wake = self.clock.now + ASK_AGAIN;
        if !self.hosted.found {
            return Some((Waiting::Found, wake));
        }
        self.establish();
        let no_ring = self.durable.ring().is_empty();
        no_ring.then(|| (self.waiting_for_ring(), wake))
    }

    fn allocate_plain(&mut self, op: &Allocate) -> Progress {
        match self.find_space(op.subnet) {
            Ok(address) => {
                self.hold(op, address, None);
                Progress::Done(Ok(self.address_response(address, op.subnet)))
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }

    /// Gives an address to the container of a request, if there is one.
    fn hold(&mut self, op: &Allocate, address: Address, lease: Option<Arc<LeaseKey>>) {
        let Some(id) = &op.id else {
            return;
        };
        let id = if id == NO_ID {
            address.to_string()
        } else {
            id.clone()
        };
        self.hosted.not_dead(&id);
        let holding = Holding {
            id,
            len: op.subnet.len,
            container: op.container,
            lease,
        };
        self.durable.set_holding(address, Some(holding));
    }

    /// The answer that names an address, with its MAC address if it is of a lease.
    pub(in crate::allocator) fn address_response(
        &self,
        address: Address,
        subnet: Cidr,
    ) -> Response {
        let lease = self.durable.holding(address).and_then(|h| h.lease.as_ref());
        Response::Address {
            cidr: subnet.with_address(address),
            mac: lease.map(|key| mac(key, address)),
        }
    }

    /// A free address of the subnet that hosts can have, after what it takes to get one: our own
    /// free space first, then that of others, then leases that nobody uses, oldest first.
    fn find_space(&mut self, subnet: Cidr) -> Result<Address, NotYet> {
        let hosts = subnet.host_range();
        let free = self.durable.space().free_ranges().first(hosts);
        if let Some(address) = free {
            return Ok(address);
        }
        // The original asks for the whole subnet. Two of that kind which both lack space can hand
        // the network's and the broadcast address to and fro for ever.
        let (wanted, now) = (hosts, self.clock.now);
        let unreachable = self.unreachable_owners(wanted);
        let waiting = Waiting::Space {
            subnet,
            unreachable,
        };
        if let Some(again) = self.questions.space.outstanding(wanted, now) {
            return Err((waiting, again));
        }
        for donor in self.choose_donors(wanted) {
            if let Asked::Waiting(again) = self.ask_for_space(donor, wanted) {
                return Err((waiting, again));
            }
        }
        if let Some(address) = self.reclaim(hosts) {
            return Ok(address);
        }
        for holder in self.holders_of_unused(hosts) {
            if let Asked::Waiting(again) = self.ask_for_space(holder, wanted) {
                return Err((waiting, again));
            }
        }
        Err((waiting, now + ASK_AGAIN))
    }

    /// Those who say that they have free space, those with more of it more likely first.
    fn choose_donors(&mut self, wanted: Range) -> Vec<PeerName> {
        let donors = self.durable.ring().donors(self.durable.us(), wanted);
        let mut weighted: Vec<(f64, PeerName)> = donors
            .into_iter()
            .map(|(peer, free)| (free as f64 * self.rng.f64(), peer))
            .collect();
        weighted.sort_by(|a, b| b.0.total_cmp(&a.0));
        weighted.into_iter().map(|(_, peer)| peer).collect()
    }

    /// For a message: who owns addresses of the range but cannot be asked.
    fn unreachable_owners(&self, wanted: Range) -> String {
        let us = self.durable.us();
        let mut away: Vec<PeerName> = self
            .durable
            .ring()
            .intervals()
            .filter(|(range, entry)| range.overlaps(&wanted) && entry.peer != us)
            .map(|(_, entry)| entry.peer)
            .filter(|peer| !self.members.is_reachable(*peer))
            .collect();
        away.sort_unstable();
        away.dedup();
        if away.is_empty() {
            return String::new();
        }
        let names = self.members.describe_all(&away);
        format!(
            "; {names} own some but cannot be reached ('weft rmpeer' if they are gone for ever)"
        )
    }

    fn allocate_leased(&mut self, op: &mut Allocate, identity: &Identity) -> Progress {
        let host_key = identity.host_key(op.subnet, self.durable.us());
        let derived = identity.kind == IdentityKind::Derived;
        let leases = self.durable.leases();
        let scoped = derived && (op.host_scoped || leases.live(&host_key).is_some());
        let key = if scoped {
            host_key
        } else {
            identity.key(op.subnet)
        };
        let key = leases.shared(&key);
        if op.id.is_none()
            && let Some(lease) = leases.live(&key)
        {
            // To reserve what is reserved is to do nothing, wherever it is.
            let cidr = op.subnet.with_address(lease.address);
            let mac = Some(mac(&key, lease.address));
            return Progress::Done(Ok(Response::Address { cidr, mac }));
        }
        match self.obtain(&key) {
            Obtain::New(version) => self.new_lease(op, &key, version),
            Obtain::Ours(lease) => self.use_lease(op, &key, &lease),
            Obtain::Wait(waiting, wake) => Progress::Wait(waiting, wake),
            Obtain::InUse { here, error } => match (derived, here) {
                (false, _) => Progress::Done(Err(error)),
                // A name that is up here belongs to another container, whose end we have not
                // been told: ours cannot be the same, so it gets an address without a lease.
                (true, true) => self.allocate_plain(op),
                (true, false) => {
                    op.host_scoped = true;
                    self.allocate_leased(op, identity)
                }
            },
        }
    }

    fn new_lease(&mut self, op: &Allocate, key: &Arc<LeaseKey>, version: u64) -> Progress {
        if self.durable.leases().is_full() && self.durable.leases().get(key).is_none() {
            return Progress::Done(Err(RequestError::TooMany("leases")));
        }
        match self.find_space(op.subnet) {
            Ok(address) => {
                self.take_lease(op, key, version, address, op.pinned);
                self.event(Event::LeaseMade {
                    identity: key.to_string(),
                    address,
                });
                self.leased_response(op, key, address)
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }

    fn leased_response(&self, op: &Allocate, key: &LeaseKey, address: Address) -> Progress {
        Progress::Done(Ok(Response::Address {
            cidr: op.subnet.with_address(address),
            mac: Some(mac(key, address)),
        }))
    }

    /// Makes an address the lease's and gives it to the request's container.
    fn take_lease(
        &mut self,
        op: &Allocate,
        key: &Arc<LeaseKey>,
        version: u64,
        address: Address,
        pinned: bool,
    ) {
        let state = match &op.id {
            Some(id) => LeaseState::Used(container_name(id)),
            None => LeaseState::Unused,
        };
        let lease = Lease {
            version,
            holder: self.durable.us(),
            address,
            state,
            pinned,
            since: self.clock.wall,
        };
        self.write_lease(key, lease);
        self.hold(op, address, Some(Arc::clone(key)));
    }

    /// Takes the address of a lease that we hold and nobody uses.
    fn use_lease(&mut self, op: &mut Allocate, key: &Arc<LeaseKey>, lease: &Lease) -> Progress {
        let address = lease.address;
        if op.lost.is_none() {
            match self.lease_address(key, lease, op.subnet) {
                Ok(None) => {
                    self.take_lease(
                        op,
                        key,
                        lease.version.saturating_add(1),
                        address,
                        lease.pinned,
                    );
                    return self.leased_response(op, key, address);
                }
                Ok(Some(owner)) => op.lost = Some((address, owner)),
                Err((waiting, wake)) => return Progress::Wait(waiting, wake),
            }
        }
        let Some((old, owner)) = op.lost.clone() else {
            return Progress::Wait(Waiting::Leases, self.clock.now + ASK_AGAIN);
        };
        match self.find_space(op.subnet) {
            Ok(fresh) => {
                self.take_lease(
                    op,
                    key,
                    lease.version.saturating_add(1),
                    fresh,
                    lease.pinned,
                );
                self.alarm(Alarm::LeaseMoved {
                    identity: key.to_string(),
                    address: old,
                    owner,
                    fresh,
                });
                self.leased_response(op, key, fresh)
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }

    /// Gets the address of a lease that we hold from whoever owns it in the ring. `None` if it
    /// is ours to use; else who has it for good.
    pub(in crate::allocator) fn lease_address(
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

    /// What someone who waits for an address that is held back is told.
    pub(in crate::allocator) fn held_back(&self, address: Address) -> NotYet {
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
}

/// The id of a container as other routers are told it.
pub(in crate::allocator) fn container_name(id: &str) -> String {
    let len = id.floor_char_boundary(crate::leases::CONTAINER_BYTES_MAX);
    id.get(..len).unwrap_or(id).to_owned()
}
