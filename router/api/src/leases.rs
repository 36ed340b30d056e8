//! Leases over HTTP: what identities have which addresses, and keeping them so.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use ipam::allocator::{LeaseInfo, Request as Wish, Response as Gift};
use ipam::leases::{Identity, IdentityKind, LeaseKey, LeaseState, Scope};
use ipam::range::{Address, Cidr, ParseAddressError};
use serde_json::{Value, json};

use super::addresses::{ask, done, kind, refuse};
use super::answer::{Answer, JSON, Refusal, text, typed};
use super::form::Form;
use super::services::Services;

/// Maximum time for reserving an address: it may have to be asked of another peer.
const RESERVE_TIME_MAX: Duration = Duration::from_secs(30);

/// Returns the routes of leases.
pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/leases", get(leases).post(import))
        .route(
            "/leases/{identity}",
            get(lease).put(reserve).delete(release),
        )
        .route("/leases/{identity}/pin", post(pin).delete(unpin))
}

/// Which lease a request is about.
struct Which {
    identity: Identity,
    subnet: Option<Cidr>,
    address: Option<Address>,
    force: bool,
    pinned: bool,
}

impl Which {
    async fn read(name: &str, request: Request) -> Result<Which, Refusal> {
        let form = Form::read(request).await?;
        let kind = kind(&form)?;
        let subnet = match form.first("subnet") {
            "" => None,
            text => Some(Cidr::parse_subnet(text).map_err(Refusal::bad)?),
        };
        let address = match form.first("address") {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|e: ParseAddressError| Refusal::bad(e))?,
            ),
        };
        Ok(Which {
            identity: Identity::new(kind, name).map_err(Refusal::bad)?,
            subnet,
            address,
            force: form.bool("force").map_err(Refusal::bad)?,
            pinned: form.bool("pin").map_err(Refusal::bad)?,
        })
    }
}

async fn all_leases(services: &Services) -> Result<Vec<LeaseInfo>, Refusal> {
    match ask(services, Wish::Leases, None).await? {
        Ok(Gift::Leases(leases)) => Ok(leases),
        Ok(_) => Err(Refusal::failed("unexpected answer")),
        Err(error) => Err(Refusal::bad(error)),
    }
}

fn lease_json(info: &LeaseInfo) -> Value {
    let (scope, host) = match info.key.scope {
        Scope::Explicit => ("explicit", None),
        Scope::Derived => ("derived", None),
        Scope::Host(host) => ("host", Some(host.to_string())),
    };
    let (state, container) = match &info.lease.state {
        LeaseState::Used(container) => ("up", Some(container.clone())),
        LeaseState::Unused => ("unused", None),
        LeaseState::Gone => ("gone", None),
    };
    json!({
        "identity": info.key.name,
        "kind": scope,
        "host": host,
        "subnet": info.key.subnet.to_string(),
        "address": info.lease.address.to_string(),
        "mac": info.mac.to_string(),
        "state": state,
        "container": container,
        "pinned": info.lease.pinned,
        "holder": info.lease.holder.to_string(),
        "holder_nickname": info.holder_nickname,
        "holder_reachable": info.holder_reachable,
        "since": info.lease.since,
        "version": info.lease.version,
    })
}

async fn leases(State(services): State<Services>) -> Answer {
    let leases = all_leases(&services).await?;
    let value = Value::from(leases.iter().map(lease_json).collect::<Vec<_>>());
    Ok(typed(StatusCode::OK, JSON, format!("{value:#}\n")))
}

async fn lease(State(services): State<Services>, UrlPath(identity): UrlPath<String>) -> Answer {
    let leases = all_leases(&services).await?;
    let named: Vec<Value> = leases
        .iter()
        .filter(|info| info.key.name == identity)
        .map(lease_json)
        .collect();
    if named.is_empty() {
        return Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("no lease for {identity}"),
        ));
    }
    Ok(typed(
        StatusCode::OK,
        JSON,
        format!("{:#}\n", Value::from(named)),
    ))
}

async fn reserve(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
    request: Request,
) -> Answer {
    let Which {
        identity,
        subnet,
        address,
        pinned,
        ..
    } = Which::read(&name, request).await?;
    give(
        &services,
        Wish::LeaseReserve {
            identity,
            subnet,
            address,
            pinned,
        },
    )
    .await
}

async fn give(services: &Services, wish: Wish) -> Answer {
    match ask(services, wish, Some(RESERVE_TIME_MAX)).await? {
        Ok(Gift::Address { cidr, .. }) => Ok(text(StatusCode::OK, cidr.to_string())),
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => refuse(&error, ""),
    }
}

/// Returns the key of the lease that is meant: the only one of that name, if no subnet is given.
async fn find(
    services: &Services,
    name: &str,
    request: Request,
) -> Result<(LeaseKey, bool), Refusal> {
    let by_kind = request.uri().query().unwrap_or_default().contains("kind=");
    let which = Which::read(name, request).await?;
    let leases = all_leases(services).await?;
    let wanted = |info: &&LeaseInfo| {
        let kind = match info.key.scope {
            Scope::Explicit => which.identity.kind == IdentityKind::Explicit,
            Scope::Derived | Scope::Host(_) => which.identity.kind == IdentityKind::Derived,
        };
        info.key.name == name
            && (kind || !by_kind)
            && which.subnet.is_none_or(|subnet| subnet == info.key.subnet)
    };
    let found: Vec<&LeaseInfo> = leases.iter().filter(wanted).collect();
    match found.as_slice() {
        [one] => Ok((one.key.clone(), which.force)),
        [] => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("no lease for {name}"),
        )),
        _ => Err(Refusal::bad(format!(
            "{} leases have the name {name}: say which with subnet= and kind=",
            found.len()
        ))),
    }
}

async fn pin(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
    request: Request,
) -> Answer {
    let (key, _) = find(&services, &name, request).await?;
    done(&services, Wish::LeasePin { key, pinned: true }, "").await
}

async fn unpin(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
    request: Request,
) -> Answer {
    let (key, _) = find(&services, &name, request).await?;
    done(&services, Wish::LeasePin { key, pinned: false }, "").await
}

async fn release(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
    request: Request,
) -> Answer {
    let (key, force) = find(&services, &name, request).await?;
    done(&services, Wish::LeaseRelease { key, force }, "").await
}

/// Reserves everything that a list of leases names, as `GET /leases` gave it out.
async fn import(State(services): State<Services>, body: axum::body::Bytes) -> Answer {
    let entries: Vec<Value> = serde_json::from_slice(&body)
        .map_err(|e| Refusal::bad(format!("no list of leases: {e}")))?;
    let (mut done, mut errors) = (0, Vec::new());
    for entry in entries {
        let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = match field("kind") {
            "explicit" => IdentityKind::Explicit,
            _ => IdentityKind::Derived,
        };
        let wish = (|| {
            Ok::<_, String>(Wish::LeaseReserve {
                identity: Identity::new(kind, field("identity")).map_err(|e| e.to_string())?,
                subnet: Some(Cidr::parse_subnet(field("subnet")).map_err(|e| e.to_string())?),
                address: Some(
                    field("address")
                        .parse()
                        .map_err(|e: ParseAddressError| e.to_string())?,
                ),
                pinned: entry
                    .get("pinned")
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            })
        })();
        let result = match wish {
            Ok(wish) => ask(&services, wish, Some(RESERVE_TIME_MAX))
                .await?
                .map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => done += 1,
            Err(error) => errors.push(format!("{}: {error}", field("identity"))),
        }
    }
    if errors.is_empty() {
        return Ok(text(StatusCode::OK, format!("{done} leases reserved\n")));
    }
    Err(Refusal::bad(format!(
        "{done} leases reserved, {} not:\n{}",
        errors.len(),
        errors.join("\n")
    )))
}
