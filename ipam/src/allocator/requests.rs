//! Requests of users, which become operations or are answered at once.

use super::api::{LeaseInfo, Proof, Request, RequestError, Response};
use super::containers;
use super::cx::Cx;
use super::ids::bad_id;
use super::operations::Operation;
use super::operations::allocate::Allocate;
use super::operations::claim::Claim;
use super::operations::lease_change::LeaseChange;
use super::operations::removal::Removal;
use crate::leases::wire::AskKind;
use crate::leases::{Identity, mac};
use crate::range::{Address, Cidr};

/// The operation that a request begins.
pub(super) enum Begun {
    /// An operation that may have to wait.
    Operation(Operation),
    /// Nothing more: this is the answer.
    Answer(Result<Response, RequestError>),
}

/// Begins what a request asks for.
pub(super) fn begin(cx: &mut Cx, request: Request) -> Begun {
    let op = match request {
        Request::Prime => Operation::Prime,
        Request::Allocate {
            id: owner,
            subnet,
            identity,
            container,
        } => {
            if let Some(error) = bad_id(&owner) {
                return Begun::Answer(Err(error));
            }
            let subnet = subnet.unwrap_or(cx.default_subnet());
            Operation::Allocate(Allocate::new(owner, subnet, identity, container))
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
                return Begun::Answer(Err(error));
            }
            Operation::Claim(Claim {
                id: owner,
                cidr,
                subnet: cidr.network(),
                identity,
                container,
                no_error_on_unknown,
                force,
                pinned: false,
                away_since: None,
                from: None,
            })
        }
        Request::Move {
            from,
            to,
            cidr,
            identity,
            container,
        } => {
            if let Some(error) = bad_id(&to) {
                return Begun::Answer(Err(error));
            }
            if cx
                .durable
                .holding(cidr.address)
                .is_none_or(|h| h.id != from)
            {
                let address = cidr.address;
                return Begun::Answer(Err(RequestError::NotFound { id: from, address }));
            }
            Operation::Claim(Claim {
                id: to,
                cidr,
                subnet: cidr.network(),
                identity,
                container,
                no_error_on_unknown: false,
                force: false,
                pinned: false,
                away_since: None,
                from: Some(from),
            })
        }
        Request::LeaseReserve {
            identity,
            subnet,
            address,
            pinned,
        } => {
            let subnet = subnet.unwrap_or(cx.default_subnet());
            match address {
                None => Operation::Allocate(Allocate::reserve(identity, subnet, pinned)),
                Some(address) => match reserve(cx, &identity, subnet, address, pinned) {
                    Ok(op) => op,
                    Err(result) => return Begun::Answer(*result),
                },
            }
        }
        Request::RemovePeer { peer, confirmed } => match cx.members.find(&peer) {
            Some(peer) => Operation::Removal(Removal::new(peer, confirmed)),
            None => return Begun::Answer(Ok(Response::TakenOver(0))),
        },
        Request::LeasePin { key, pinned } => Operation::LeaseChange(LeaseChange {
            key,
            kind: if pinned { AskKind::Pin } else { AskKind::Unpin },
            force: false,
        }),
        Request::LeaseRelease { key, force } => Operation::LeaseChange(LeaseChange {
            key,
            kind: AskKind::Release,
            force,
        }),
        other => {
            return Begun::Answer(answer(cx, other));
        }
    };
    Begun::Operation(op)
}

/// Answers a request that never waits.
fn answer(cx: &mut Cx, request: Request) -> Result<Response, RequestError> {
    match request {
        Request::Lookup { id, subnet } => Ok(lookup(cx, &id, subnet)),
        Request::List => Ok(list(cx)),
        Request::Free { id, address } => containers::free(cx, &id, address),
        Request::Delete { id } => containers::delete(cx, &id, Proof::GivenBack),
        Request::Release { id, proof } => containers::delete(cx, &id, proof),
        Request::Prune { running } => {
            containers::prune(cx, &running);
            Ok(Response::Done)
        }
        Request::Leases => Ok(Response::Leases(lease_infos(cx))),
        Request::Prime
        | Request::Shutdown
        | Request::Found { .. }
        | Request::Status
        | Request::Allocate { .. }
        | Request::Claim { .. }
        | Request::Move { .. }
        | Request::RemovePeer { .. }
        | Request::LeaseReserve { .. }
        | Request::LeasePin { .. }
        | Request::LeaseRelease { .. } => Ok(Response::Done),
    }
}

/// Reserving a given address means claiming it for the identity without a container.
fn reserve(
    cx: &Cx,
    identity: &Identity,
    subnet: Cidr,
    address: Address,
    pinned: bool,
) -> Result<Operation, Box<Result<Response, RequestError>>> {
    let invalid = |text: String| Box::new(Err(RequestError::Invalid(text)));
    if !subnet.host_range().contains(address) {
        return Err(invalid(format!(
            "{address} is no host's address in {subnet}"
        )));
    }
    let universe = cx.durable.meta().universe;
    if !universe.range().contains(address) {
        return Err(Box::new(Err(RequestError::OutOfBounds {
            subnet,
            universe,
        })));
    }
    let key = identity.key(subnet);
    if let Some(lease) = cx.durable.leases().live(&key) {
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
                host: cx.members.describe(lease.holder),
            })
        }));
    }
    Ok(Operation::Claim(Claim {
        id: String::new(),
        cidr: subnet.with_address(address),
        subnet,
        identity: Some(identity.clone()),
        container: false,
        no_error_on_unknown: false,
        force: false,
        pinned,
        away_since: None,
        from: None,
    }))
}

fn lookup(cx: &Cx, id: &str, subnet: Option<Cidr>) -> Response {
    let range = subnet.unwrap_or(cx.default_subnet()).host_range();
    let addresses = cx.durable.addresses_of(id);
    Response::Addresses(
        addresses
            .filter(|address| range.contains(*address))
            .filter_map(|address| cidr_of(cx, address))
            .collect(),
    )
}

fn cidr_of(cx: &Cx, address: Address) -> Option<Cidr> {
    let holding = cx.durable.holding(address)?;
    Some(Cidr {
        address,
        len: holding.len,
    })
}

fn list(cx: &Cx) -> Response {
    let ids = cx.durable.ids();
    Response::Owned(
        ids.map(|(id, addresses)| {
            let cidrs = addresses.iter().filter_map(|a| cidr_of(cx, *a));
            (id.to_owned(), cidrs.collect())
        })
        .collect(),
    )
}

fn lease_infos(cx: &Cx) -> Vec<LeaseInfo> {
    let us = cx.durable.us();
    let live = cx.durable.leases().iter().filter(|(_, l)| l.is_live());
    live.map(|(key, lease)| LeaseInfo {
        key: (**key).clone(),
        lease: lease.clone(),
        mac: mac(key, lease.address),
        holder_nickname: cx.members.nickname(lease.holder).map(str::to_owned),
        holder_reachable: lease.holder == us || cx.members.is_reachable(lease.holder),
    })
    .collect()
}
