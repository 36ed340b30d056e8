//! Responses of handlers.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use control::errors::Stopped;

const PLAIN: &str = "text/plain; charset=utf-8";
/// The type of JSON.
pub(super) const JSON: &str = "application/json";

/// Result of a handler: a body, or a status with a text.
pub(super) type Answer = Result<Response, Refusal>;

/// A refused request: the status, and a line that says why.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

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

/// Returns a body of text; an empty one has no type, as with Weave Net.
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

/// JSON with four blanks a level and Go's way of writing what HTML would read as markup.
pub(super) fn indented(value: &serde_json::Value) -> String {
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
