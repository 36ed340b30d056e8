//! Names over HTTP, as the original takes and gives them.

use std::net::Ipv4Addr;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{delete, get, put};
use proto::names::{AddError, Filter, Key, State as EntryState};
use serde::Serialize;
use serde_json::json;

use super::server::{Answer, Form, JSON, Refusal, escape_html, not_found, text, typed};
use crate::control::{Handle, NamesError};

/// The routes of everything that has to do with names.
pub(super) fn routes() -> Router<Handle> {
    Router::new()
        .route("/domain", get(domain))
        .route("/dns-address", get(dns_address))
        .route("/dns-address-port", get(dns_address_port))
        .route("/dns-resolvers", get(resolvers))
        .route("/name", get(list).delete(remove_any))
        .route("/name/{container}", delete(remove_of_container))
        .route("/name/{container}/{ip}", put(add).delete(remove))
}

/// The answer of a service that is off.
fn off() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

fn address(text: &str) -> Result<Ipv4Addr, Refusal> {
    text.parse()
        .map_err(|_| Refusal::bad(format!("invalid IP Address: {text}")))
}

async fn domain(State(handle): State<Handle>) -> Answer {
    let dns = handle.call(|control| control.config.dns.clone()).await?;
    match dns {
        Some(dns) => Ok(text(StatusCode::OK, dns.domain)),
        None => Ok(not_found().await),
    }
}

async fn dns_address(State(handle): State<Handle>) -> Answer {
    let address = handle.call(|control| control.dns_address()).await?;
    let mut ip = address.ok_or_else(off)?.ip();
    if ip.is_unspecified() {
        // Every container of Docker's reaches Docker's bridge, which comes last.
        let resolvers = handle.dns_resolvers().await.map_err(refuse)?;
        let last = resolvers.last().ok_or_else(|| {
            let why = "this host has no address that containers reach (weft expose gives it one)";
            Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        })?;
        ip = (*last).into();
    }
    Ok(text(StatusCode::OK, ip.to_string()))
}

async fn dns_address_port(State(handle): State<Handle>) -> Answer {
    let address = handle.call(|control| control.dns_address()).await?;
    let address = address.ok_or_else(off)?;
    Ok(text(StatusCode::OK, address.to_string()))
}

/// At which addresses of this host containers can ask for names.
async fn resolvers(State(handle): State<Handle>) -> Answer {
    let domain = handle
        .call(|control| control.config.dns.as_ref().map(|dns| dns.domain.clone()))
        .await?
        .ok_or_else(off)?;
    let addresses = handle.dns_resolvers().await.map_err(refuse)?;
    let value = json!({ "domain": domain, "addresses": addresses });
    Ok(typed(StatusCode::OK, JSON, format!("{value}\n")))
}

fn refuse(error: NamesError) -> Refusal {
    match error {
        NamesError::Off => off(),
        NamesError::Stopped(stopped) => stopped.into(),
        NamesError::Refused(_) => Refusal::bad(error),
        NamesError::Unknown(error) => Refusal::failed(error),
    }
}

async fn add(
    State(handle): State<Handle>,
    UrlPath((container, ip)): UrlPath<(String, String)>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    let check_alive = form.bool("check-alive").unwrap_or(false);
    let address = address(&ip)?;
    let mut names: Vec<String> = form.all("name").map(str::to_owned).collect();
    // What the original knows only in its full form is not relative to the domain.
    let full = |name: &str| format!("{}.", name.strip_suffix('.').unwrap_or(name));
    names.extend(form.all("fqdn").filter(|name| !name.is_empty()).map(full));
    let outside = |name: &str| form.all("fqdn").any(|fqdn| full(fqdn) == name);
    match handle.register_names(&container, address, names).await {
        Ok(()) => {}
        Err(NamesError::Refused(mut refused)) => {
            // The original takes these without a word, and does nothing with them.
            refused.retain(|(name, why)| *why != AddError::OutsideDomain || !outside(name));
            if !refused.is_empty() {
                return Err(refuse(NamesError::Refused(refused)));
            }
            tracing::warn!(container, "a name outside the domain was not registered");
        }
        Err(error) => return Err(refuse(error)),
    }
    // After the registration: a container that ends now is told of by an event.
    if check_alive && has_ended(&handle, &container).await? {
        let removed = handle.unregister_names(&container, Some(address)).await;
        removed.map_err(refuse)?;
        tracing::info!(
            container,
            "removed the names of a container that does not run"
        );
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether Docker says that a container does not run.
pub(super) async fn has_ended(handle: &Handle, container: &str) -> Result<bool, Refusal> {
    match handle.call(|control| control.docker.clone()).await? {
        Some(docker) => Ok(docker.has_ended(container).await),
        None => Ok(false),
    }
}

async fn remove_any(State(handle): State<Handle>, request: Request) -> Answer {
    remove_matching(&handle, None, None, request).await
}

async fn remove_of_container(
    State(handle): State<Handle>,
    UrlPath(container): UrlPath<String>,
    request: Request,
) -> Answer {
    remove_matching(&handle, Some(container), None, request).await
}

async fn remove(
    State(handle): State<Handle>,
    UrlPath((container, ip)): UrlPath<(String, String)>,
    request: Request,
) -> Answer {
    remove_matching(&handle, Some(container), Some(&ip), request).await
}

async fn remove_matching(
    handle: &Handle,
    container: Option<String>,
    ip: Option<&str>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    let addr = ip.map(address).transpose()?;
    let mut names: Vec<Option<String>> = Vec::new();
    names.extend(
        form.all("fqdn")
            .filter(|n| !n.is_empty())
            .map(|n| Some(n.to_owned())),
    );
    let relative: Vec<String> = form.all("name").map(str::to_owned).collect();
    let removed = handle.call(move |control| {
        let domain = control.domain();
        let relative = relative.iter();
        names.extend(relative.filter_map(|name| Some(Some(domain?.qualify(name)))));
        if names.is_empty() {
            names.push(None);
        }
        for name in &names {
            control.remove_names(&Filter {
                hostname: name.as_deref(),
                container: container.as_deref(),
                addr,
            })?;
        }
        Ok(())
    });
    removed.await?.map_err(refuse)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An entry as the original lists it.
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
    fn of((key, state): &'e (Key, EntryState)) -> EntryJson<'e> {
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

async fn list(State(handle): State<Handle>, headers: HeaderMap) -> Answer {
    let entries = handle.call(|control| control.name_entries()).await?;
    let entries = entries.ok_or_else(off)?;
    if headers.get(ACCEPT).is_none_or(|accept| accept != JSON) {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let entries: Vec<EntryJson<'_>> = entries.iter().map(EntryJson::of).collect();
    let body = if entries.is_empty() {
        "null".to_owned()
    } else {
        serde_json::to_string(&entries).map_err(Refusal::failed)?
    };
    Ok(text(StatusCode::OK, format!("{}\n", escape_html(&body))))
}
