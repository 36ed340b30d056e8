//! The HTTP interface on TCP addresses and unix sockets.

use axum::Router;
use axum::extract::{Path as UrlPath, RawQuery, Request, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, delete, get, post};

use super::answer::{Answer, JSON, Refusal, indented, not_found, text, typed};
use super::drawing::{self, aged};
use super::form::Form;
use super::services::Services;
use super::sources::Sources;
use super::status_page::{self, Page};
use super::template;
use control::errors::ConnectError;
use report::metrics;
use report::model::Report;

/// The scope of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Control,
    /// What only reads.
    Status,
    /// Metrics alone.
    Metrics,
}

/// Returns what a listener of this scope serves.
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

/// For readiness as well: asked often, and cheap.
async fn get_status(State(services): State<Services>) -> Answer {
    let view = services.client.view().await?;
    let (report, summary) = Sources::of(&services, &view).summary();
    let page = status_page::overview(&report, &summary);
    aged(Ok(text(readiness(&report), page)), &view)
}

async fn get_status_page(
    State(services): State<Services>,
    UrlPath(name): UrlPath<String>,
) -> Answer {
    match Page::named(&name) {
        Some(found) if found != Page::Overview => {
            drawing::page(services, move |sources| {
                let report = sources.report();
                let page = status_page::render(found, &report);
                Ok(text(readiness(&report), page))
            })
            .await
        }
        _ => Ok(not_found().await),
    }
}

fn readiness(report: &Report) -> StatusCode {
    if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn get_weft(State(services): State<Services>, headers: HeaderMap) -> Answer {
    let wants_json = wants_json(&headers);
    drawing::page(services, move |sources| {
        let value = sources.weft_status();
        Ok(match wants_json {
            true => typed(StatusCode::OK, JSON, format!("{value:#}\n")),
            false => text(StatusCode::OK, super::weft_page::render(&value)),
        })
    })
    .await
}

async fn get_report(
    State(services): State<Services>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let value = |sources: &Sources<'_>| {
        let report = sources.report();
        serde_json::to_value(report).map_err(Refusal::failed)
    };
    if wants_json(&headers) {
        return drawing::page(services, move |sources| {
            let value = value(sources)?;
            Ok(typed(StatusCode::OK, JSON, indented(&value)))
        })
        .await;
    }
    let query = query.unwrap_or_default();
    let fields = form_urlencoded::parse(query.as_bytes());
    let formats: Vec<_> = fields.filter(|(name, _)| name == "format").collect();
    let [(_, format)] = formats.as_slice() else {
        return Err(Refusal::bad("error: must supply one format parameter"));
    };
    let format = format.clone().into_owned();
    drawing::template(services, move |sources| {
        let value = value(sources)?;
        let rendered = template::render(&format, &value).map_err(Refusal::bad)?;
        Ok(text(StatusCode::OK, rendered))
    })
    .await
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept == JSON)
}

async fn get_metrics(State(services): State<Services>) -> Answer {
    let sources = services.metrics.iter();
    let others: Vec<_> = sources.flat_map(|source| source.metrics()).collect();
    drawing::page(services, move |sources| {
        let mut all = metrics::compatible(&sources.report());
        all.extend(sources.metrics());
        all.extend(others);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        Ok(typed(StatusCode::OK, kind, metrics::render(all)))
    })
    .await
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
