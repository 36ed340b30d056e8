//! What users ask for.

use std::collections::BTreeSet;

use super::api::{Found, LeaseInfo, Request, RequestError, RequestId, Response};
use super::holder::LeaseChange;
use super::ids::{NO_ID, bad_id, container_name};
use super::operations::allocate::Allocate;
use super::operations::claim::Claim;
use super::queue::Op;
use super::reclaim::Removal;
use super::{Allocator, Event, Output};
use crate::leases::wire::AskKind;
use crate::leases::{LeaseState, mac};
use crate::persist::Holding;
use crate::range::{Address, Cidr};
use proto::types::Time;

impl Allocator {
    pub(super) fn on_request(&mut self, id: RequestId, deadline: Option<Time>, request: Request) {
        let op = match request {
            Request::Prime => Op::Prime,
            Request::Allocate {
                id: owner,
                subnet,
                identity,
                container,
            } => {
                if let Some(error) = bad_id(&owner) {
                    return self.reply(id, Err(error));
                }
                let subnet = subnet.unwrap_or(self.default_subnet());
                Op::Allocate(Allocate::new(owner, subnet, identity, container))
            }
            Request::Claim {
                id: owner,
                cidr,
                identity,
                container,
                no_error_on_unknown,
                force,
            } => {
                if let Some(error) = bad_id(&owner) {
                    return self.reply(id, Err(error));
                }
                Op::Claim(Claim {
                    id: owner,
                    cidr,
                    subnet: cidr.network(),
                    identity,
                    container,
                    no_error_on_unknown,
                    force,
                    pinned: false,
                    away_since: None,
                })
            }
            Request::LeaseReserve {
                identity,
                subnet,
                address,
                pinned,
            } => {
                let subnet = subnet.unwrap_or(self.default_subnet());
                match address {
                    None => Op::Allocate(Allocate::reserve(identity, subnet, pinned)),
                    Some(address) => match self.reserve(&identity, subnet, address, pinned) {
                        Ok(op) => op,
                        Err(result) => return self.reply(id, *result),
                    },
                }
            }
            Request::RemovePeer { peer, confirmed } => match self.members.find(&peer) {
                Some(peer) => Op::Remove(Removal::new(peer, confirmed)),
                None => return self.reply(id, Ok(Response::TakenOver(0))),
            },
            Request::LeasePin { key, pinned } => Op::Lease(LeaseChange {
                key,
                kind: if pinned { AskKind::Pin } else { AskKind::Unpin },
                force: false,
            }),
            Request::LeaseRelease { key, force } => Op::Lease(LeaseChange {
                key,
                kind: AskKind::Release,
                force,
            }),
            other => {
                let result = self.answer(other);
                self.drain();
                return self.reply(id, result);
            }
        };
        self.begin(id, deadline, op);
    }

    /// Answers a request that never waits.
    fn answer(&mut self, request: Request) -> Result<Response, RequestError> {
        match request {
            Request::Lookup { id, subnet } => Ok(self.lookup(&id, subnet)),
            Request::List => Ok(self.list()),
            Request::Free { id, address } => self.free(&id, address),
            Request::Delete { id } => self.delete(&id),
            Request::Shutdown => {
                self.shut_down();
                Ok(Response::Done)
            }
            Request::Found { addresses } => {
                self.on_found(addresses);
                Ok(Response::Done)
            }
            Request::Prune { running } => {
                self.prune_containers(&running);
                Ok(Response::Done)
            }
            Request::Leases => Ok(Response::Leases(self.lease_infos())),
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Prime
            | Request::Allocate { .. }
            | Request::Claim { .. }
            | Request::RemovePeer { .. }
            | Request::LeaseReserve { .. }
            | Request::LeasePin { .. }
            | Request::LeaseRelease { .. } => Ok(Response::Done),
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<Response, RequestError>) {
        self.emit(Output::Reply { request, result });
    }

    /// Reserving a certain address is claiming it for the identity without a container.
    fn reserve(
        &self,
        identity: &crate::leases::Identity,
        subnet: Cidr,
        address: Address,
        pinned: bool,
    ) -> Result<Op, Box<Result<Response, RequestError>>> {
        let invalid = |text: String| Box::new(Err(RequestError::Invalid(text)));
        if !subnet.host_range().contains(address) {
            return Err(invalid(format!(
                "{address} is no host's address in {subnet}"
            )));
        }
        let universe = self.durable.meta().universe;
        if !universe.range().contains(address) {
            return Err(Box::new(Err(RequestError::OutOfBounds {
                subnet,
                universe,
            })));
        }
        let key = identity.key(subnet);
        if let Some(lease) = self.durable.leases().live(&key) {
            let same = lease.address == address;
            return Err(Box::new(if same {
                Ok(Response::Address {
                    cidr: subnet.with_address(address),
                    mac: Some(mac(&key, address)),
                })
            } else {
                Err(RequestError::HasAddress {
                    identity: key.name.clone(),
                    address: lease.address,
                    host: self.members.describe(lease.holder),
                })
            }));
        }
        Ok(Op::Claim(Claim {
            id: String::new(),
            cidr: subnet.with_address(address),
            subnet,
            identity: Some(identity.clone()),
            container: false,
            no_error_on_unknown: false,
            force: false,
            pinned,
            away_since: None,
        }))
    }

    fn lookup(&self, id: &str, subnet: Option<Cidr>) -> Response {
        let range = subnet.unwrap_or(self.default_subnet()).host_range();
        let addresses = self.durable.addresses_of(id);
        Response::Addresses(
            addresses
                .filter(|address| range.contains(*address))
                .filter_map(|address| self.cidr_of(address))
                .collect(),
        )
    }

    fn cidr_of(&self, address: Address) -> Option<Cidr> {
        let holding = self.durable.holding(address)?;
        Some(Cidr {
            address,
            len: holding.len,
        })
    }

    fn list(&self) -> Response {
        let ids = self.durable.ids();
        Response::Owned(
            ids.map(|(id, addresses)| {
                let cidrs = addresses.iter().filter_map(|a| self.cidr_of(*a));
                (id.to_owned(), cidrs.collect())
            })
            .collect(),
        )
    }

    fn free(&mut self, id: &str, address: Address) -> Result<Response, RequestError> {
        let holding = self.durable.holding(address);
        if holding.is_none_or(|holding| holding.id != id) {
            let id = id.to_owned();
            return Err(RequestError::NotFound { id, address });
        }
        self.release(address);
        Ok(Response::Done)
    }

    fn delete(&mut self, id: &str) -> Result<Response, RequestError> {
        let addresses: Vec<Address> = self.durable.addresses_of(id).collect();
        if addresses.is_empty() {
            return Err(RequestError::NoAddresses(id.to_owned()));
        }
        self.hosted.not_dead(id);
        for address in addresses {
            self.release(address);
        }
        Ok(Response::Done)
    }

    fn is_container(&self, id: &str) -> bool {
        let mut addresses = self.durable.addresses_of(id);
        addresses.any(|address| self.durable.holding(address).is_some_and(|h| h.container))
    }

    pub(super) fn container_died(&mut self, id: &str) {
        if self.is_container(id) {
            let now = self.clock.now;
            self.hosted.died(id, now);
        }
        self.cancel_for(id);
    }

    pub(super) fn container_destroyed(&mut self, id: &str) {
        self.cancel_for(id);
        if self.is_container(id) {
            let _ = self.delete(id);
            self.event(Event::Released(id.to_owned()));
        }
    }

    /// Releases the addresses of containers that have been dead for long enough.
    pub(super) fn release_dead(&mut self) {
        let now = self.clock.now;
        for id in self.hosted.dead_for_long(now) {
            self.hosted.not_dead(&id);
            if self.delete(&id).is_ok() {
                self.event(Event::Released(id));
            }
        }
    }

    fn prune_containers(&mut self, running: &BTreeSet<String>) {
        let ids = self.durable.ids();
        let over: Vec<String> = ids
            .filter(|(id, _)| !running.contains(*id) && self.is_container(id))
            .map(|(id, _)| id.to_owned())
            .collect();
        for id in over {
            if self.delete(&id).is_ok() {
                self.event(Event::Released(id));
            }
        }
    }

    /// Notes the addresses that are in use on this host already. From now on addresses are given
    /// out.
    fn on_found(&mut self, addresses: Vec<Found>) {
        for found in addresses {
            let address = found.cidr.address;
            if self.durable.holding(address).is_some() {
                continue;
            }
            let id = if found.id == NO_ID {
                address.to_string()
            } else {
                found.id
            };
            let mut leases = self.durable.leases().at(address);
            let by_lease = leases.find(|(_, lease)| {
                let container = container_name(&id);
                lease.holder == self.durable.us() && lease.state == LeaseState::Used(container)
            });
            let lease = by_lease.map(|(key, _)| key.clone());
            drop(leases);
            let holding = Holding {
                id,
                len: found.cidr.len,
                container: found.container,
                lease,
            };
            self.durable.set_holding(address, Some(holding));
        }
        self.hosted.found = true;
        self.correct_leases();
        self.watch_strays();
        self.claim_strays();
        self.try_again();
    }

    fn lease_infos(&self) -> Vec<LeaseInfo> {
        let us = self.durable.us();
        let live = self.durable.leases().iter().filter(|(_, l)| l.is_live());
        live.map(|(key, lease)| LeaseInfo {
            key: (**key).clone(),
            lease: lease.clone(),
            mac: mac(key, lease.address),
            holder_nickname: self.members.nickname(lease.holder).map(str::to_owned),
            holder_reachable: lease.holder == us || self.members.is_reachable(lease.holder),
        })
        .collect()
    }
}
