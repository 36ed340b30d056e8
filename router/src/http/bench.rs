//! Measurements towards other routers, over HTTP.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::json;

use super::server::{Answer, Form, JSON, Refusal, typed};
use crate::control::Handle;

/// For how long one figure is measured, if nobody says.
const SECONDS: u32 = 3;
/// Between looks whether the other router is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn routes() -> Router<Handle> {
    Router::new()
        .route("/weft/bench", get(step))
        .route("/weft/bench/{peer}", post(measure))
}

/// What is being measured; null if nothing is.
async fn step(State(handle): State<Handle>) -> Answer {
    let step = handle.call(|control| control.bench_step()).await?;
    Ok(typed(StatusCode::OK, JSON, json!(step).to_string()))
}

/// Measures, and answers with the figures.
async fn measure(
    State(handle): State<Handle>,
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
    let begin = {
        let handle = handle.clone();
        move |control: &mut crate::control::Control| control.begin_bench(&handle, &peer, seconds)
    };
    let mut outcome = handle.call(begin).await?.map_err(Refusal::bad)?;
    // Who asked may hang up; then this ends here, and the measurement with it.
    let figures = loop {
        tokio::select! {
            figures = &mut outcome => break figures,
            () = tokio::time::sleep(LOOK_INTERVAL) => {
                let obstacle = handle.call(|control| control.bench_obstacle()).await?;
                obstacle.map_or(Ok(()), |reason| Err(Refusal::failed(reason)))?;
            }
        }
    };
    let figures = match figures {
        Ok(figures) => figures.map_err(Refusal::failed)?,
        Err(_) => return Err(Refusal::failed("the measurement ended early")),
    };
    Ok(typed(StatusCode::OK, JSON, json!(figures).to_string()))
}
