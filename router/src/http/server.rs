//! The HTTP interface on TCP addresses and unix sockets.

use axum::Router;
use axum::extract::{Path as UrlPath, RawQuery, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use proto::connector::Target;

use super::status::{self, Page};
use super::template;
use crate::control::{Handle, Stopped, resolve};
use report::metrics;

/// Longest form that is read, in bytes.
const FORM_BYTES_MAX: usize = 1 << 20;

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
pub fn router(scope: Scope, handle: Handle) -> Router {
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
        .merge(super::ip::routes())
        .merge(super::names::routes())
        .merge(super::leases::routes());
    let router = match scope {
        Scope::Metrics => metrics,
        Scope::Status => metrics.merge(status),
        Scope::Control => metrics.merge(status).merge(control),
    };
    router.fallback(any(not_found)).with_state(handle)
}

/// What a handler gives: a body, or a status with a text.
pub(super) type Answer = Result<Response, Refusal>;

/// A refused request: the status, and a line that says why.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl Refusal {
    /// The request is wrong.
    pub(super) fn bad(text: impl ToString) -> Refusal {
        Refusal(StatusCode::BAD_REQUEST, text.to_string())
    }

    /// The request is right and could not be met.
    pub(super) fn failed(text: impl ToString) -> Refusal {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, text.to_string())
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Refusal {
        Refusal(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        text(self.0, format!("{}\n", self.1))
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";

/// A body of text; an empty one has no type, as with the original.
pub(super) fn text(status: StatusCode, body: String) -> Response {
    typed(status, PLAIN, body)
}

pub(super) fn typed(status: StatusCode, kind: &'static str, body: String) -> Response {
    if body.is_empty() {
        return status.into_response();
    }
    (status, [(CONTENT_TYPE, kind)], body).into_response()
}

pub(super) async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

async fn get_status(State(handle): State<Handle>) -> Answer {
    page(&handle, Page::Overview).await
}

async fn get_status_page(State(handle): State<Handle>, UrlPath(name): UrlPath<String>) -> Answer {
    match Page::named(&name) {
        Some(found) if found != Page::Overview => page(&handle, found).await,
        _ => Ok(not_found().await),
    }
}

async fn page(handle: &Handle, page: Page) -> Answer {
    let report = handle.call(|control| control.report()).await?;
    let code = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(text(code, status::render(page, &report)))
}

async fn get_weft(State(handle): State<Handle>, headers: HeaderMap) -> Answer {
    let value = handle.call(|control| control.weft_status()).await?;
    if headers.get(ACCEPT).is_some_and(|accept| accept == JSON) {
        return Ok(typed(StatusCode::OK, JSON, format!("{value:#}\n")));
    }
    Ok(text(StatusCode::OK, super::weft_page::render(&value)))
}

async fn get_report(
    State(handle): State<Handle>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let report = handle.call(|control| control.report()).await?;
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

/// JSON with four blanks a level and Go's way of writing what HTML would read as markup.
fn indented(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing JSON to memory cannot fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    escape_html(&String::from_utf8_lossy(&out))
}

/// JSON as Go writes it: without characters that HTML would read as markup.
pub(super) fn escape_html(json: &str) -> String {
    json.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

async fn get_metrics(State(handle): State<Handle>) -> Answer {
    let (report, mut own) = handle
        .call(|control| (control.report(), control.metrics()))
        .await?;
    let mut all = metrics::compatible(&report);
    all.append(&mut own);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(typed(StatusCode::OK, kind, metrics::render(all)))
}

/// The fields of a form: those of the body, then those of the query.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) async fn read(request: Request) -> Result<Form, Refusal> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX).await;
        let body = body.map_err(|_| {
            Refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "http: request body too large".to_owned(),
            )
        })?;
        let fields = form_urlencoded::parse(&body).chain(form_urlencoded::parse(query.as_bytes()));
        Ok(Form(
            fields
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect(),
        ))
    }

    pub(super) fn all<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a field; empty if there is none.
    pub(super) fn first(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// A truth as Go reads it; an absent one is false.
    pub(super) fn bool(&self, name: &str) -> Result<bool, String> {
        match self.first(name) {
            "" => Ok(false),
            text => parse_bool(text),
        }
    }
}

/// Reads what Go's ParseBool reads.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

async fn connect(State(handle): State<Handle>, request: Request) -> Answer {
    let form = Form::read(request).await?;
    let replace = form
        .bool("replace")
        .map_err(|error| Refusal::bad(format!("unable to parse replace option: {error}")))?;
    let mut targets: Vec<Target> = Vec::new();
    let mut errors = Vec::new();
    for peer in form.all("peer") {
        match resolve(peer).await {
            Ok(target) => targets.push(target),
            Err(error) => errors.push(error),
        }
    }
    let connected = handle
        .call(move |control| control.connect(targets, replace))
        .await?;
    errors.extend(connected.err());
    if errors.is_empty() {
        Ok(StatusCode::OK.into_response())
    } else {
        Err(Refusal::bad(errors.join("\n")))
    }
}

async fn forget(State(handle): State<Handle>, request: Request) -> Answer {
    let form = Form::read(request).await?;
    let peers: Vec<String> = form.all("peer").map(str::to_owned).collect();
    handle.call(move |control| control.forget(&peers)).await?;
    Ok(StatusCode::OK.into_response())
}

/// Removes the networks that were made in Docker, and tells what became of them.
async fn remove_networks(State(handle): State<Handle>) -> Answer {
    let docker = handle.call(|control| control.docker.clone()).await?;
    let lines = match docker {
        Some(networks) => networks.remove().await,
        None => Vec::new(),
    };
    let body = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(text(StatusCode::OK, body))
}

async fn stop(State(handle): State<Handle>) -> Answer {
    handle.call(|control| control.stop()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
