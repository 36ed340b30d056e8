//! Allocating: an address for a container, new or that of its identity.

use std::sync::Arc;

use super::super::api::{RequestError, Response, Waiting};
use super::super::ids::{NO_ID, container_name};
use super::super::leasing::Obtain;
use super::super::progress::{ASK_AGAIN, Progress};
use super::super::{Alarm, Allocator, Event};
use crate::leases::{Identity, IdentityKind, Lease, LeaseKey, LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr};

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
        if self.hosted.found {
            self.establish();
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
}
