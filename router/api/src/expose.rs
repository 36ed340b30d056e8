//! Giving the host addresses of the network, and taking them, over HTTP.

use std::str::FromStr;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{delete, post};
use ipam::range::Cidr;
use ipnet::Ipv4Net;

use super::answer::{Answer, Refusal, text};
use super::form::Form;
use super::services::Services;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/expose/{ip}/{len}", post(expose))
        .route("/expose", delete(hide_all))
        .route("/expose/{ip}", delete(hide))
}

async fn expose(
    State(services): State<Services>,
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
    let exposed = services.gateway.expose(address, !skip_nat).await;
    exposed.map_err(Refusal::failed)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn hide_all(State(services): State<Services>) -> Answer {
    hide_address(&services, None).await
}

async fn hide(State(services): State<Services>, UrlPath(ip): UrlPath<String>) -> Answer {
    let address = Ipv4Net::from_str(&format!("{ip}/32"))
        .map_err(|_| Refusal::bad(format!("invalid IP address: {ip}")))?;
    hide_address(&services, Some(address)).await
}

/// Hides, and tells the addresses that were exposed, one a line.
async fn hide_address(services: &Services, address: Option<Ipv4Net>) -> Answer {
    let hidden = services.gateway.hide(address).await;
    let hidden = hidden.map_err(Refusal::failed)?;
    Ok(text(
        StatusCode::OK,
        hidden
            .iter()
            .map(|address| format!("{address}\n"))
            .collect(),
    ))
}
