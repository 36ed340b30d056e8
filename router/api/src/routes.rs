//! The HTTP interface on TCP addresses and unix sockets.

use axum::Router;
use axum::extract::{Path as UrlPath, RawQuery, Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, delete, get, post};

use super::answer::{Answer, JSON, Refusal, indented, not_found, text, typed};
use super::form::Form;
use super::services::Services;
use super::sources::Sources;
use super::status_page::{self, Page};
use super::template;
use control::request::ConnectError;
use control::view::View;
use report::metrics;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Control,
    /// What only reads.
    Status,
    /// Metrics alone.
    Metrics,
}

/// What a listener of this scope serves.
pub fn router(scope: Scope, services: Services) -> Router {
    let metrics = Router::new().route("/metrics", get(get_metrics));
    let status = Router::new()
        .route("/status", get(get_status))
        .route("/status/weft", get(get_weft))
        .route("/status/{page}", get(get_status_page))
        .route("/report", get(get_report));
    let control = Router::new()
        .route("/connect", post(connect))
        .route("/forget", post(forget))
        .route("/docker/networks", delete(remove_networks))
        .route("/stop", post(stop))
        .merge(super::bench::routes())
        .merge(super::expose::routes())
        .merge(super::addresses::routes())
        .merge(super::names::routes())
        .merge(super::leases::routes());
    let router = match scope {
        Scope::Metrics => metrics,
        Scope::Status => metrics.merge(status),
        Scope::Control => metrics.merge(status).merge(control),
    };
    router.fallback(any(not_found)).with_state(services)
}

async fn get_status(State(services): State<Services>) -> Answer {
    page(&services, Page::Overview).await
}

async fn get_status_page(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
) -> Answer {
    match Page::named(&name) {
        Some(found) if found != Page::Overview => page(&services, found).await,
        _ => Ok(not_found().await),
    }
}

async fn page(services: &Services, page: Page) -> Answer {
    let view = services.client.view().await?;
    let report = sources(services, &view).report();
    let code = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(text(code, status_page::render(page, &report)))
}

/// What pages are made from.
fn sources<'a>(services: &'a Services, view: &'a View) -> Sources<'a> {
    Sources {
        view,
        config: &services.config,
        figures: &*services.figures,
        name_server: services.name_server.as_ref().map(|server| server.status()),
        docker: services.docker.latency(),
    }
}

async fn get_weft(State(services): State<Services>, headers: HeaderMap) -> Answer {
    let view = services.client.view().await?;
    let value = sources(&services, &view).weft_status();
    if headers.get(ACCEPT).is_some_and(|accept| accept == JSON) {
        return Ok(typed(StatusCode::OK, JSON, format!("{value:#}\n")));
    }
    Ok(text(StatusCode::OK, super::weft_page::render(&value)))
}

async fn get_report(
    State(services): State<Services>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let view = services.client.view().await?;
    let report = sources(&services, &view).report();
    let value = serde_json::to_value(report).map_err(Refusal::failed)?;
    if headers.get(ACCEPT).is_some_and(|accept| accept == JSON) {
        return Ok(typed(StatusCode::OK, JSON, indented(&value)));
    }
    let query = query.unwrap_or_default();
    let fields = form_urlencoded::parse(query.as_bytes());
    let formats: Vec<_> = fields.filter(|(name, _)| name == "format").collect();
    let [(_, format)] = formats.as_slice() else {
        return Err(Refusal::bad("error: must supply one format parameter"));
    };
    let rendered = template::render(format, &value).map_err(Refusal::bad)?;
    Ok(text(StatusCode::OK, rendered))
}

async fn get_metrics(State(services): State<Services>) -> Answer {
    let view = services.client.view().await?;
    let sources = sources(&services, &view);
    let mut all = metrics::compatible(&sources.report());
    all.extend(sources.metrics());
    all.extend(services.name_server.iter().flat_map(|s| s.metrics()));
    all.extend(services.docker.metrics());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(typed(StatusCode::OK, kind, metrics::render(all)))
}

async fn connect(State(services): State<Services>, request: Request) -> Answer {
    let form = Form::read(request).await?;
    let replace = form
        .bool("replace")
        .map_err(|error| Refusal::bad(format!("unable to parse replace option: {error}")))?;
    let peers: Vec<String> = form.all("peer").map(str::to_owned).collect();
    match services.client.connect(peers, replace).await {
        Ok(()) => Ok(StatusCode::OK.into_response()),
        Err(ConnectError::Stopped(stopped)) => Err(stopped.into()),
        Err(error @ ConnectError::Failed(_)) => Err(Refusal::bad(error)),
    }
}

async fn forget(State(services): State<Services>, request: Request) -> Answer {
    let form = Form::read(request).await?;
    let peers: Vec<String> = form.all("peer").map(str::to_owned).collect();
    services.client.forget(peers).await?;
    Ok(StatusCode::OK.into_response())
}

/// Removes the networks that were made in Docker, and tells what became of them.
async fn remove_networks(State(services): State<Services>) -> Answer {
    let lines = services.docker.remove().await;
    let body = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(text(StatusCode::OK, body))
}

async fn stop(State(services): State<Services>) -> Answer {
    services.client.stop().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
