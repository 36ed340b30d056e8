//! Forms, as Go reads them.

use axum::extract::Request;
use axum::http::StatusCode;

use super::answer::Refusal;

/// Longest form that is read, in bytes.
const FORM_BYTES_MAX: usize = 1 << 20;

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

    /// Returns the first value of a field; empty if there is none.
    pub(super) fn first(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Returns a truth as Go reads it; an absent one is false.
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
