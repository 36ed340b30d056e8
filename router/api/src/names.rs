//! Names over HTTP, as Weave Net takes and gives them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{delete, get, put};
use proto::names::{AddError, Key, State as EntryState};
use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, JSON, Refusal, escape_html, not_found, text, typed};
use super::form::Form;
use super::services::Services;
use control::errors::NamesError;
use control::request::NameFilter;

/// Returns the routes of everything that has to do with names.
pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/domain", get(domain))
        .route("/dns-address", get(dns_address))
        .route("/dns-address-port", get(dns_address_port))
        .route("/dns-resolvers", get(resolvers))
        .route("/name", get(list).delete(remove_any))
        .route("/name/{container}", delete(remove_of_container))
        .route("/name/{container}/{ip}", put(add).delete(remove))
}

/// Returns the answer of a service that is off.
fn off() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

fn address(text: &str) -> Result<Ipv4Addr, Refusal> {
    text.parse()
        .map_err(|_| Refusal::bad(format!("invalid IP Address: {text}")))
}

async fn domain(State(services): State<Services>) -> Answer {
    match &services.config.names {
        Some(dns) => Ok(text(StatusCode::OK, dns.domain.clone())),
        None => Ok(not_found().await),
    }
}

/// Returns where questions for names are taken.
fn listening(services: &Services) -> Result<SocketAddr, Refusal> {
    let server = services.name_server.as_ref().ok_or_else(off)?;
    Ok(server.status().address)
}

async fn dns_address(State(services): State<Services>) -> Answer {
    let mut ip = listening(&services)?.ip();
    if ip.is_unspecified() {
        let server = services.name_server.as_ref().ok_or_else(off)?;
        // Every container of Docker's reaches Docker's bridge, which comes last.
        let resolvers = server.resolvers().await.map_err(Refusal::failed)?;
        let last = resolvers.last().ok_or_else(|| {
            let why = "this host has no address that containers reach (weft expose gives it one)";
            Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        })?;
        ip = (*last).into();
    }
    Ok(text(StatusCode::OK, ip.to_string()))
}

async fn dns_address_port(State(services): State<Services>) -> Answer {
    let address = listening(&services)?;
    Ok(text(StatusCode::OK, address.to_string()))
}

/// At which addresses of this host containers can ask for names.
async fn resolvers(State(services): State<Services>) -> Answer {
    let dns = services.config.names.as_ref().ok_or_else(off)?;
    let server = services.name_server.as_ref().ok_or_else(off)?;
    let addresses = server.resolvers().await.map_err(Refusal::failed)?;
    let value = json!({ "domain": dns.domain, "addresses": addresses });
    Ok(typed(StatusCode::OK, JSON, format!("{value}\n")))
}

fn refuse(error: NamesError) -> Refusal {
    match error {
        NamesError::Off => off(),
        NamesError::Stopped(stopped) => stopped.into(),
        NamesError::Refused(_) => Refusal::bad(error),
    }
}

async fn add(
    State(services): State<Services>,
    UrlPath((container, ip)): UrlPath<(String, String)>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    let check_alive = form.bool("check-alive").unwrap_or(false);
    let address = address(&ip)?;
    let mut names: Vec<String> = form.all("name").map(str::to_owned).collect();
    // What Weave Net knows only in its full form is not relative to the domain.
    let full = |name: &str| format!("{}.", name.strip_suffix('.').unwrap_or(name));
    names.extend(form.all("fqdn").filter(|name| !name.is_empty()).map(full));
    let outside = |name: &str| form.all("fqdn").any(|fqdn| full(fqdn) == name);
    match services
        .client
        .register_names(&container, address, names)
        .await
    {
        Ok(()) => {}
        Err(NamesError::Refused(mut refused)) => {
            // Weave Net takes these without a word, and does nothing with them.
            refused.retain(|(name, why)| *why != AddError::OutsideDomain || !outside(name));
            if !refused.is_empty() {
                return Err(refuse(NamesError::Refused(refused)));
            }
            tracing::warn!(container, "a name outside the domain was not registered");
        }
        Err(error) => return Err(refuse(error)),
    }
    // After the registration: a container that ends now is told of by an event.
    if check_alive && services.docker.has_ended(&container).await {
        let removed = services
            .client
            .unregister_names(&container, Some(address))
            .await;
        removed.map_err(refuse)?;
        tracing::info!(
            container,
            "removed the names of a container that does not run"
        );
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn remove_any(State(services): State<Services>, request: Request) -> Answer {
    remove_matching(&services, None, None, request).await
}

async fn remove_of_container(
    State(services): State<Services>,
    UrlPath(container): UrlPath<String>,
    request: Request,
) -> Answer {
    remove_matching(&services, Some(container), None, request).await
}

async fn remove(
    State(services): State<Services>,
    UrlPath((container, ip)): UrlPath<(String, String)>,
    request: Request,
) -> Answer {
    remove_matching(&services, Some(container), Some(&ip), request).await
}

async fn remove_matching(
    services: &Services,
    container: Option<String>,
    ip: Option<&str>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    let texts = |field: &str| form.all(field).map(str::to_owned).collect::<Vec<_>>();
    let mut hostnames = texts("fqdn");
    hostnames.retain(|name| !name.is_empty());
    let removed = services.client.remove_names(NameFilter {
        container,
        address: ip.map(address).transpose()?,
        hostnames,
        relative: texts("name"),
    });
    removed.await.map_err(refuse)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An entry as Weave Net lists it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EntryJson<'e> {
    #[serde(rename = "ContainerID")]
    container: &'e str,
    /// A number of 64 bits, unlike everywhere else.
    origin: u64,
    addr: Ipv4Addr,
    hostname: &'e str,
    version: u32,
    tombstone: i64,
}

impl<'e> EntryJson<'e> {
    fn of((key, state): &'e (Arc<Key>, EntryState)) -> EntryJson<'e> {
        EntryJson {
            container: &key.container,
            origin: key.origin.as_u64(),
            addr: key.addr,
            hostname: &key.hostname,
            version: state.version,
            tombstone: state.tombstone.0,
        }
    }
}

async fn list(State(services): State<Services>, headers: HeaderMap) -> Answer {
    let view = services.client.view().await?;
    let names = view.names.as_ref().ok_or_else(off)?;
    if headers.get(ACCEPT).is_none_or(|accept| accept != JSON) {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let entries: Vec<EntryJson<'_>> = names.entries.iter().map(EntryJson::of).collect();
    let body = if entries.is_empty() {
        "null".to_owned()
    } else {
        serde_json::to_string(&entries).map_err(Refusal::failed)?
    };
    Ok(text(StatusCode::OK, format!("{}\n", escape_html(&body))))
}
