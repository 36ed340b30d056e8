//! The containers of this host: releasing their addresses when they end, and the addresses that
//! they have at our start.

use std::collections::BTreeSet;

use super::api::{Event, Found, Proof, RequestError, Response};
use super::cx::Cx;
use super::effects::Effect;
use super::ids::{NO_ID, container_name};
use crate::leases::LeaseState;
use crate::persist::Holding;
use crate::range::Address;

pub(super) fn free(cx: &mut Cx, id: &str, address: Address) -> Result<Response, RequestError> {
    let holding = cx.durable.holding(address);
    if holding.is_none_or(|holding| holding.id != id) {
        let id = id.to_owned();
        return Err(RequestError::NotFound { id, address });
    }
    cx.release(address, Proof::GivenBack);
    Ok(Response::Done)
}

pub(super) fn delete(cx: &mut Cx, id: &str, proof: Proof) -> Result<Response, RequestError> {
    if !release_all(cx, id, proof) {
        return Err(RequestError::NoAddresses(id.to_owned()));
    }
    cx.hosted.not_dead(id);
    Ok(Response::Done)
}

/// Releases all addresses of an id. Returns true if it had any.
fn release_all(cx: &mut Cx, id: &str, proof: Proof) -> bool {
    let addresses: Vec<Address> = cx.durable.addresses_of(id).collect();
    for address in &addresses {
        cx.release(*address, proof);
    }
    !addresses.is_empty()
}

fn is_container(cx: &Cx, id: &str) -> bool {
    let mut addresses = cx.durable.addresses_of(id);
    addresses.any(|address| cx.durable.holding(address).is_some_and(|h| h.container))
}

/// Rule: `docs/protocol/ipam.md#7-3-containers`.
pub(super) fn died(cx: &mut Cx, id: &str) {
    if is_container(cx, id) {
        let now = cx.clock.now;
        cx.hosted.died(id, now);
    }
}

pub(super) fn destroyed(cx: &mut Cx, id: &str) {
    if is_container(cx, id) {
        ended(cx, id, Proof::ContainerDestroyed);
    }
}

/// Releases the addresses of a container that has ended for good.
fn ended(cx: &mut Cx, id: &str, proof: Proof) {
    cx.hosted.ended(id, proof, cx.clock.now);
    if release_all(cx, id, proof) {
        cx.event(Event::Released(id.to_owned()));
    }
}

/// Releases the addresses of containers that have been dead long enough.
///
/// Rule: `docs/protocol/ipam.md#7-3-containers`.
pub(super) fn release_dead(cx: &mut Cx) {
    let now = cx.clock.now;
    for (id, proof) in cx.hosted.due(now) {
        if release_all(cx, &id, proof) {
            cx.event(Event::Released(id));
        } else if cx.settled {
            cx.hosted.forget(&id);
        }
    }
}

/// Releases the addresses of containers that are not among those which run.
pub(super) fn prune(cx: &mut Cx, running: &BTreeSet<String>) {
    let ids = cx.durable.ids();
    let over: Vec<String> = ids
        .filter(|(id, _)| !running.contains(*id) && is_container(cx, id))
        .map(|(id, _)| id.to_owned())
        .collect();
    for id in over {
        ended(cx, &id, Proof::NamespaceEnded);
    }
}

/// Records the addresses that are already in use on this host. From now on addresses are given out.
pub(super) fn found(cx: &mut Cx, addresses: Vec<Found>) {
    for found in addresses {
        let address = found.cidr.address;
        if cx.durable.holding(address).is_some() {
            continue;
        }
        let id = if found.id == NO_ID {
            address.to_string()
        } else {
            found.id
        };
        let mut leases = cx.durable.leases().at(address);
        let by_lease = leases.find(|(_, lease)| {
            let container = container_name(&id);
            lease.holder == cx.durable.us() && lease.state == LeaseState::Used(container)
        });
        let lease = by_lease.map(|(key, _)| key.clone());
        drop(leases);
        let holding = Holding {
            id,
            len: found.cidr.len,
            container: found.container,
            lease,
        };
        cx.durable.set_holding(address, holding);
    }
    cx.hosted.found = true;
    cx.correct_leases();
    cx.effect(Effect::HoldingsChanged);
    cx.try_again();
}
