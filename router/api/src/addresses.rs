//! Addresses over HTTP, as Weave Net gives them out.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::ACCEPT;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ipam::allocator::{Request as Wish, RequestError, Response as Gift};
use ipam::leases::{Identity, IdentityKind};
use ipam::range::{Address, Cidr};
use serde_json::{Value, json};

use super::answer::{Answer, JSON, Refusal, not_found, text, typed};
use super::form::Form;
use super::services::Services;
use control::errors;
use report::time::duration;

/// Returns the routes of everything that has to do with addresses.
pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/ipinfo/defaultsubnet", get(default_subnet))
        .route("/ipinfo/tracker", get(tracker))
        .route("/ip", get(list))
        .route("/ip/{id}", get(lookup).post(allocate).delete(delete_all))
        .route("/ip/{id}/{ip}", axum::routing::delete(free))
        .route(
            "/ip/{id}/{ip}/{len}",
            get(lookup_in).post(allocate_in).put(claim),
        )
        .route("/ring", get(prime))
        .route("/peer", axum::routing::delete(leave))
        .route("/peer/{peer}", axum::routing::delete(remove_peer))
}

/// Asks the allocator and waits. The outer error is for callers whom it does not concern why.
pub(super) async fn ask(
    services: &Services,
    wish: Wish,
    time_max: Option<Duration>,
) -> Result<Result<Gift, RequestError>, Refusal> {
    match services.client.address(wish, time_max).await {
        Ok(gift) => Ok(Ok(gift)),
        Err(errors::RequestError::Refused(error)) => Ok(Err(error)),
        // As Weave Net: a router that stops cancels what waits, which is no error.
        Err(errors::RequestError::Stopped(_)) => Ok(Err(RequestError::Cancelled {
            kind: "",
            id: String::new(),
        })),
        Err(errors::RequestError::Off) => Err(Refusal(
            StatusCode::NOT_FOUND,
            "404 page not found".to_owned(),
        )),
    }
}

/// Returns a refusal in Weave Net's words; requests that were cancelled are no errors there.
pub(super) fn refuse(error: &RequestError, prefix: &str) -> Answer {
    match error {
        RequestError::Cancelled { .. } => Ok(cancelled()),
        RequestError::Deadline(_) => Err(Refusal(StatusCode::REQUEST_TIMEOUT, error.to_string())),
        RequestError::Store(_) => Err(Refusal::failed(error)),
        _ => Err(Refusal::bad(format!("{prefix}{error}"))),
    }
}

fn cancelled() -> Response {
    text(StatusCode::OK, "cancelled".to_owned())
}

/// Query parameters of a request for an address.
struct Wanted {
    time_max: Option<Duration>,
    identity: Option<Identity>,
    container: bool,
    no_error_on_unknown: bool,
    force: bool,
    json: bool,
}

impl Wanted {
    async fn read(request: Request) -> Result<Wanted, Refusal> {
        let json = request
            .headers()
            .get(ACCEPT)
            .is_some_and(|accept| accept == JSON);
        let form = Form::read(request).await?;
        let time_max = match form.first("timeout") {
            "" => None,
            text => Some(duration(text).map_err(Refusal::bad)?),
        };
        let identity = match form.first("identity") {
            "" => None,
            name => Some(Identity::new(kind(&form)?, name).map_err(Refusal::bad)?),
        };
        Ok(Wanted {
            time_max,
            identity,
            container: form.bool("check-alive").map_err(Refusal::bad)?,
            no_error_on_unknown: form.bool("noErrorOnUnknown").map_err(Refusal::bad)?,
            force: form.bool("force").map_err(Refusal::bad)?,
            json,
        })
    }
}

/// Returns the kind of identity that a form names.
pub(super) fn kind(form: &Form) -> Result<IdentityKind, Refusal> {
    match form.first("kind") {
        "" | "explicit" => Ok(IdentityKind::Explicit),
        "derived" => Ok(IdentityKind::Derived),
        other => Err(Refusal::bad(format!(
            "{other:?} is no kind of identity: explicit or derived"
        ))),
    }
}

fn cidr(ip: &str, len: &str) -> Result<Cidr, Refusal> {
    Cidr::parse_address(&format!("{ip}/{len}")).map_err(Refusal::bad)
}

fn subnet(ip: &str, len: &str) -> Result<Cidr, Refusal> {
    Cidr::parse_subnet(&format!("{ip}/{len}")).map_err(Refusal::bad)
}

async fn default_subnet(State(services): State<Services>) -> Answer {
    let view = services.client.view().await?;
    match &view.addresses {
        Some(addresses) => {
            let subnet = addresses.status.default_subnet;
            Ok(text(StatusCode::OK, subnet.to_string()))
        }
        None => Ok(not_found().await),
    }
}

async fn tracker(State(services): State<Services>) -> Answer {
    if services.config.allocates {
        Ok(text(StatusCode::OK, "\n".to_owned()))
    } else {
        Ok(not_found().await)
    }
}

async fn allocate(
    State(services): State<Services>,
    UrlPath(id): UrlPath<String>,
    request: Request,
) -> Answer {
    get_address(&services, id, None, Wanted::read(request).await?).await
}

async fn allocate_in(
    State(services): State<Services>,
    UrlPath((id, ip, len)): UrlPath<(String, String, String)>,
    request: Request,
) -> Answer {
    let subnet = subnet(&ip, &len)?;
    get_address(&services, id, Some(subnet), Wanted::read(request).await?).await
}

async fn get_address(
    services: &Services,
    id: String,
    subnet: Option<Cidr>,
    wanted: Wanted,
) -> Answer {
    if wanted.container && services.docker.has_ended(&id).await {
        return Ok(cancelled());
    }
    let Wanted {
        time_max,
        identity,
        container,
        json,
        ..
    } = wanted;
    match ask(
        services,
        Wish::Allocate {
            id,
            subnet,
            identity,
            container,
        },
        time_max,
    )
    .await?
    {
        Ok(Gift::Address { cidr, mac }) if json => {
            let value = json!({ "address": cidr.to_string(), "mac": mac.map(|m| m.to_string()) });
            Ok(typed(StatusCode::OK, JSON, format!("{value}\n")))
        }
        Ok(Gift::Address { cidr, .. }) => Ok(text(StatusCode::OK, cidr.to_string())),
        Ok(_) => Err(Refusal::failed("unexpected answer")),
        Err(error) => refuse(&error, ""),
    }
}

async fn claim(
    State(services): State<Services>,
    UrlPath((id, ip, len)): UrlPath<(String, String, String)>,
    request: Request,
) -> Answer {
    let cidr = cidr(&ip, &len)?;
    let wanted = Wanted::read(request).await?;
    if wanted.container && services.docker.has_ended(&id).await {
        return Ok(cancelled());
    }
    let wish = Wish::Claim {
        id,
        cidr,
        identity: wanted.identity,
        container: wanted.container,
        no_error_on_unknown: wanted.no_error_on_unknown,
        force: wanted.force,
    };
    match ask(&services, wish, wanted.time_max).await? {
        Ok(gift) if wanted.json => {
            let mac = match gift {
                Gift::Address { mac, .. } => mac,
                _ => None,
            };
            let value = json!({ "address": cidr.to_string(), "mac": mac.map(|m| m.to_string()) });
            Ok(typed(StatusCode::OK, JSON, format!("{value}\n")))
        }
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => refuse(&error, "Unable to claim: "),
    }
}

async fn lookup(State(services): State<Services>, UrlPath(id): UrlPath<String>) -> Answer {
    addresses_of(&services, Wish::Lookup { id, subnet: None }).await
}

async fn lookup_in(
    State(services): State<Services>,
    UrlPath((id, ip, len)): UrlPath<(String, String, String)>,
) -> Answer {
    let subnet = Some(subnet(&ip, &len)?);
    addresses_of(&services, Wish::Lookup { id, subnet }).await
}

async fn addresses_of(services: &Services, wish: Wish) -> Answer {
    match ask(services, wish, None).await? {
        Ok(Gift::Addresses(addresses)) => {
            let words: Vec<String> = addresses.iter().map(Cidr::to_string).collect();
            Ok(text(StatusCode::OK, words.join(" ")))
        }
        Ok(_) => Err(Refusal::failed("unexpected answer")),
        Err(error) => refuse(&error, ""),
    }
}

async fn list(State(services): State<Services>) -> Answer {
    match ask(&services, Wish::List, None).await? {
        Ok(Gift::Owned(owned)) => {
            let owned: Vec<Value> = owned
                .iter()
                .map(|(id, addresses)| {
                    let addrs: Vec<String> = addresses.iter().map(Cidr::to_string).collect();
                    json!({ "containerid": id, "addrs": addrs })
                })
                .collect();
            let owned = if owned.is_empty() {
                Value::Null
            } else {
                Value::from(owned)
            };
            Ok(typed(
                StatusCode::OK,
                JSON,
                format!("{}\n", json!({ "owned": owned })),
            ))
        }
        Ok(_) => Err(Refusal::failed("unexpected answer")),
        Err(error) => refuse(&error, ""),
    }
}

async fn free(
    State(services): State<Services>,
    UrlPath((id, ip)): UrlPath<(String, String)>,
) -> Answer {
    let address: Address = ip
        .parse()
        .map_err(|error: ipam::range::ParseAddressError| Refusal::bad(error))?;
    done(&services, Wish::Free { id, address }, "Unable to free: ").await
}

async fn delete_all(State(services): State<Services>, UrlPath(id): UrlPath<String>) -> Answer {
    done(&services, Wish::Delete { id }, "").await
}

pub(super) async fn done(services: &Services, wish: Wish, prefix: &str) -> Answer {
    match ask(services, wish, None).await? {
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => refuse(&error, prefix),
    }
}

async fn prime(State(services): State<Services>, request: Request) -> Answer {
    let time_max = Wanted::read(request).await?.time_max;
    match ask(&services, Wish::Prime, time_max).await? {
        Ok(_) => Ok(StatusCode::OK.into_response()),
        Err(error) => refuse(&error, ""),
    }
}

async fn leave(State(services): State<Services>) -> Answer {
    match ask(&services, Wish::Shutdown, None).await {
        // The route exists also without allocator.
        Err(Refusal(StatusCode::NOT_FOUND, _)) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(refusal) => Err(refusal),
        Ok(Ok(_)) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Err(error)) => refuse(&error, ""),
    }
}

async fn remove_peer(
    State(services): State<Services>,
    UrlPath(peer): UrlPath<String>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    // Scripts for Weave Net know no confirmation: their call is one.
    let confirmed =
        form.first("confirm").is_empty() || form.bool("confirm").map_err(Refusal::bad)?;
    let wish = Wish::RemovePeer {
        peer: peer.clone(),
        confirmed,
    };
    let time_max = match form.first("timeout") {
        "" => None,
        text => Some(duration(text).map_err(Refusal::bad)?),
    };
    match ask(&services, wish, time_max).await? {
        Ok(Gift::TakenOver(count)) => Ok(text(
            StatusCode::OK,
            format!("{count} IPs taken over from {peer}\n"),
        )),
        Ok(_) => Err(Refusal::failed("unexpected answer")),
        Err(error @ RequestError::Unconfirmed { .. }) => {
            Err(Refusal(StatusCode::CONFLICT, error.to_string()))
        }
        Err(error) => refuse(&error, ""),
    }
}
