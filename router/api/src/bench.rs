//! Measurements towards other routers, over HTTP.

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};

use super::answer::{Answer, JSON, Refusal, typed};
use super::form::Form;
use super::services::{MeasureError, Services};

/// Time for which one figure is measured by default.
const SECONDS: u32 = 3;

pub(super) fn routes() -> Router<Services> {
    Router::new()
        .route("/weft/bench", get(step))
        .route("/weft/bench/{peer}", post(measure))
}

/// Returns what is being measured; null if nothing is.
async fn step(State(services): State<Services>) -> Answer {
    let step = services.measure.step();
    Ok(typed(StatusCode::OK, JSON, step.to_string()))
}

/// Measures, and answers with the figures.
async fn measure(
    State(services): State<Services>,
    UrlPath(peer): UrlPath<String>,
    request: Request,
) -> Answer {
    let form = Form::read(request).await?;
    let seconds = match form.first("seconds") {
        "" => SECONDS,
        text => text
            .parse()
            .map_err(|_| Refusal::bad(format!("seconds: {text:?} is no number")))?,
    };
    // Who asked may hang up; then this ends here, and the measurement with it.
    let figures = services.measure.measure(peer, seconds).await;
    let figures = figures.map_err(|error| match error {
        MeasureError::Refused(reason) => Refusal::bad(reason),
        MeasureError::Failed(reason) => Refusal::failed(reason),
    })?;
    Ok(typed(StatusCode::OK, JSON, figures.to_string()))
}
