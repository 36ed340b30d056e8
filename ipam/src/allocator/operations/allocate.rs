//! Allocation of an address for a container, new or that of its identity.

use std::sync::Arc;

use super::super::api::{Alarm, Event, RequestError, Response, Waiting};
use super::super::cx::Cx;
use super::super::ids::{NO_ID, container_name};
use super::super::leasing::Obtain;
use super::super::progress::{ASK_AGAIN, Progress};
use crate::leases::{Identity, IdentityKind, Lease, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr};

/// A request for an address.
#[derive(Debug)]
pub(crate) struct Allocate {
    /// The owner; `None` if the address is only reserved for the identity.
    id: Option<String>,
    subnet: Cidr,
    identity: Option<Identity>,
    container: bool,
    /// Whether the name is up on another host, so that this one gets a lease for this host only.
    host_scoped: bool,
    /// The lease's address and who has it, if it cannot be obtained.
    lost: Option<(Address, String)>,
    /// Whether a reserved lease is to be kept forever.
    pinned: bool,
}

impl Allocate {
    pub(crate) fn new(
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

    /// Creates a request for an unused lease.
    pub(crate) fn reserve(identity: Identity, subnet: Cidr, pinned: bool) -> Allocate {
        Allocate {
            id: None,
            pinned,
            ..Allocate::new(String::new(), subnet, Some(identity), false)
        }
    }

    pub(crate) fn title(&self) -> &str {
        let identity = self.identity.as_ref().map(Identity::name);
        self.id.as_deref().or(identity).unwrap_or(NO_ID)
    }

    pub(crate) fn subnet(&self) -> Cidr {
        self.subnet
    }

    pub(crate) fn is_for(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    /// Forgets why it cannot have the address of its lease: that is found out again.
    pub(crate) fn rolled_back(&mut self) {
        self.host_scoped = false;
        self.lost = None;
    }

    /// Returns true if it needs a ring.
    pub(crate) fn wants_ring(&self, cx: &Cx) -> bool {
        let within = cx.universe().range().overlaps(&self.subnet.range());
        cx.hosted.found && within && self.held(cx).is_none()
    }

    /// Returns an address that the container already has and that matches the request.
    fn held(&self, cx: &Cx) -> Option<Address> {
        let id = self.id.as_ref()?;
        let range = self.subnet.range();
        let mut held = cx.durable.addresses_of(id).filter(|a| range.contains(*a));
        // An address that it has without an identity, or for another one, does not match.
        held.find(|a| self.is_as_asked(cx, *a))
    }

    /// Rule: `docs/protocol/ipam.md#7-1-allocate`.
    pub(crate) fn advance(&mut self, cx: &mut Cx) -> Progress {
        if let Some(address) = self.held(cx) {
            if let Some(id) = &self.id {
                cx.hosted.not_dead(id);
            }
            return Progress::Done(Ok(cx.address_response(address, self.subnet)));
        }
        let universe = cx.durable.meta().universe;
        if !universe.range().overlaps(&self.subnet.range()) {
            let subnet = self.subnet;
            return Progress::Done(Err(RequestError::OutOfBounds { subnet, universe }));
        }
        if let Some((waiting, wake)) = cx.not_ready() {
            return Progress::Wait(waiting, wake);
        }
        match self.identity.clone() {
            None => self.allocate_plain(cx),
            Some(identity) => self.allocate_leased(cx, &identity),
        }
    }

    /// Returns true if a held address belongs to the request's identity, if it has one.
    fn is_as_asked(&self, cx: &Cx, address: Address) -> bool {
        let Some(identity) = &self.identity else {
            return true;
        };
        let lease = cx.durable.holding(address).and_then(|h| h.lease.as_deref());
        lease.is_some_and(|key| {
            let host_key = identity.host_key(self.subnet, cx.durable.us());
            *key == identity.key(self.subnet) || *key == host_key
        })
    }

    fn allocate_plain(&self, cx: &mut Cx) -> Progress {
        match cx.find_space(self.subnet) {
            Ok(address) => {
                self.hold(cx, address, None);
                Progress::Done(Ok(cx.address_response(address, self.subnet)))
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }

    /// Assigns an address to the container of a request, if there is one.
    fn hold(&self, cx: &mut Cx, address: Address, lease: Option<Arc<LeaseKey>>) {
        let Some(id) = &self.id else {
            return;
        };
        let id = if id == NO_ID {
            address.to_string()
        } else {
            id.clone()
        };
        cx.hosted.not_dead(&id);
        let holding = Holding {
            id,
            len: self.subnet.len,
            container: self.container,
            lease,
        };
        cx.durable.set_holding(address, holding);
    }

    fn allocate_leased(&mut self, cx: &mut Cx, identity: &Identity) -> Progress {
        let host_key = identity.host_key(self.subnet, cx.durable.us());
        let derived = identity.kind == IdentityKind::Derived;
        let leases = cx.durable.leases();
        let scoped = derived && (self.host_scoped || leases.live(&host_key).is_some());
        let key = if scoped {
            host_key
        } else {
            identity.key(self.subnet)
        };
        let key = leases.shared(&key);
        if self.id.is_none()
            && let Some(lease) = leases.live(&key)
        {
            // Reserving an address that is already reserved does nothing, wherever it is.
            let cidr = self.subnet.with_address(lease.address);
            let mac = Some(mac(&key, lease.address));
            return Progress::Done(Ok(Response::Address { cidr, mac }));
        }
        match cx.obtain(&key) {
            Obtain::New(version) => self.new_lease(cx, &key, version),
            Obtain::Ours(lease) => self.use_lease(cx, &key, &lease),
            Obtain::Wait(waiting, wake) => Progress::Wait(waiting, wake),
            Obtain::InUse { here, error } => match (derived, here) {
                (false, _) => Progress::Done(Err(error)),
                // A name that is up here belongs to another container whose end was not reported.
                // The new one cannot be the same, so it gets an address without a lease.
                (true, true) => self.allocate_plain(cx),
                (true, false) => {
                    self.host_scoped = true;
                    self.allocate_leased(cx, identity)
                }
            },
        }
    }

    fn new_lease(&self, cx: &mut Cx, key: &Arc<LeaseKey>, version: u64) -> Progress {
        if !cx.durable.leases().has_room() && cx.durable.leases().get(key).is_none() {
            return Progress::Done(Err(RequestError::TooMany("leases")));
        }
        match cx.find_space(self.subnet) {
            Ok(address) => {
                self.take_lease(cx, key, version, address, self.pinned);
                cx.event(Event::LeaseMade {
                    identity: key.to_string(),
                    address,
                });
                self.leased_response(cx, key, address)
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }

    fn leased_response(&self, _cx: &Cx, key: &LeaseKey, address: Address) -> Progress {
        Progress::Done(Ok(Response::Address {
            cidr: self.subnet.with_address(address),
            mac: Some(mac(key, address)),
        }))
    }

    /// Assigns an address to the lease and to the request's container.
    fn take_lease(
        &self,
        cx: &mut Cx,
        key: &Arc<LeaseKey>,
        version: u64,
        address: Address,
        pinned: bool,
    ) {
        let state = match &self.id {
            Some(id) => LeaseState::Used(container_name(id)),
            None => LeaseState::Unused,
        };
        let lease = Lease {
            version,
            holder: cx.durable.us(),
            address,
            state,
            pinned,
            since: cx.clock.wall,
        };
        cx.write_lease(key, lease);
        self.hold(cx, address, Some(Arc::clone(key)));
    }

    /// Whether the container has this address already, without a lease.
    fn has_unleased(&self, cx: &Cx, address: Address) -> bool {
        let holding = cx.durable.holding(address);
        holding.is_some_and(|held| Some(&held.id) == self.id.as_ref() && held.lease.is_none())
            && cx.durable.owns(address)
    }

    /// Uses the address of an unused lease that we hold.
    fn use_lease(&mut self, cx: &mut Cx, key: &Arc<LeaseKey>, lease: &Lease) -> Progress {
        let address = lease.address;
        if self.has_unleased(cx, address) {
            // The container never lost it: only we forgot whose it is.
            self.take_lease(
                cx,
                key,
                lease.version.saturating_add(1),
                address,
                lease.pinned,
            );
            return self.leased_response(cx, key, address);
        }
        if self.lost.is_none() {
            match cx.lease_address(key, lease, self.subnet) {
                Ok(None) => {
                    self.take_lease(
                        cx,
                        key,
                        lease.version.saturating_add(1),
                        address,
                        lease.pinned,
                    );
                    return self.leased_response(cx, key, address);
                }
                Ok(Some(owner)) => self.lost = Some((address, owner)),
                Err((waiting, wake)) => return Progress::Wait(waiting, wake),
            }
        }
        let Some((old, owner)) = self.lost.clone() else {
            return Progress::Wait(Waiting::Leases, cx.clock.now + ASK_AGAIN);
        };
        match cx.find_space(self.subnet) {
            Ok(fresh) => {
                self.take_lease(
                    cx,
                    key,
                    lease.version.saturating_add(1),
                    fresh,
                    lease.pinned,
                );
                cx.alarm(Alarm::LeaseMoved {
                    identity: key.to_string(),
                    address: old,
                    owner,
                    fresh,
                });
                self.leased_response(cx, key, fresh)
            }
            Err((waiting, wake)) => Progress::Wait(waiting, wake),
        }
    }
}
