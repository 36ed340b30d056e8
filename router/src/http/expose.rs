//! Giving the host addresses of the network, and taking them, over HTTP.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, post};
use ipam::range::Cidr;
use ipnet::Ipv4Net;

use super::server::{Answer, Form, Refusal, text};
use crate::control::Handle;
use host::blocking::blocking;
use host::gateway::{Exposures, Gateway};

pub(super) fn routes() -> Router<Handle> {
    Router::new()
        .route("/expose/{ip}/{len}", post(expose))
        .route("/expose", delete(hide_all))
        .route("/expose/{ip}", delete(hide))
}

async fn gateway(handle: &Handle) -> Result<Arc<Gateway>, Refusal> {
    Ok(handle.call(|control| Arc::clone(&control.gateway)).await?)
}

/// Waits until what is exposed is on disk.
async fn save(handle: &Handle, exposures: Exposures) -> Result<(), Refusal> {
    let saved = handle
        .call(move |control| control.save_exposures(&exposures))
        .await?;
    match saved.await {
        Ok(Err(error)) => Err(Refusal::failed(format!(
            "it is exposed now, but would not be after a restart: {error}"
        ))),
        // A store that has ended is that of a router that stops.
        _ => Ok(()),
    }
}

async fn expose(
    State(handle): State<Handle>,
    UrlPath((ip, len)): UrlPath<(String, String)>,
    request: Request,
) -> Answer {
    let text = format!("{ip}/{len}");
    let address = Ipv4Net::from_str(&text).map_err(|_| {
        Refusal::bad(format!(
            "unable to parse ip addr: invalid CIDR address: {text}"
        ))
    })?;
    Cidr::parse_address(&text).map_err(Refusal::bad)?;
    let form = Form::read(request).await?;
    let skip_nat = form
        .bool("skipNAT")
        .map_err(|error| Refusal::bad(format!("unable to parse skipNAT option: {error}")))?;
    let gateway = gateway(&handle).await?;
    let (_, exposures) = blocking(move || gateway.expose(address, !skip_nat))
        .await
        .map_err(|error| Refusal::failed(format!("unable to expose: {error}")))?;
    save(&handle, exposures).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn hide_all(State(handle): State<Handle>) -> Answer {
    hide_address(&handle, None).await
}

async fn hide(State(handle): State<Handle>, UrlPath(ip): UrlPath<String>) -> Answer {
    let address = Ipv4Net::from_str(&format!("{ip}/32"))
        .map_err(|_| Refusal::bad(format!("invalid IP address: {ip}")))?;
    hide_address(&handle, Some(address)).await
}

/// Hides, and tells the addresses that were exposed, one a line.
async fn hide_address(handle: &Handle, address: Option<Ipv4Net>) -> Answer {
    let gateway = gateway(handle).await?;
    let (hidden, exposures) = blocking(move || gateway.hide(address))
        .await
        .map_err(|error| Refusal::failed(format!("unable to hide: {error}")))?;
    save(handle, exposures).await?;
    Ok(text(
        StatusCode::OK,
        hidden
            .iter()
            .map(|address| format!("{address}\n"))
            .collect(),
    ))
}
