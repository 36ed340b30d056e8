//! Pages, metrics and templates are made from a view, on threads that wait for nobody.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::AGE;
use control::view::View;
use tokio::sync::Semaphore;

use super::answer::{Answer, Refusal};
use super::services::Services;
use super::sources::Sources;

/// A view that is older than this says so.
const AGE_SHOWN: Duration = Duration::from_secs(1);

/// Draws a page or metrics.
pub(super) async fn page(
    services: Services,
    draw: impl FnOnce(&Sources<'_>) -> Answer + Send + 'static,
) -> Answer {
    let turn = Arc::clone(&services.drawing.pages);
    draw_in(turn, services, draw).await
}

/// Executes a template.
pub(super) async fn template(
    services: Services,
    draw: impl FnOnce(&Sources<'_>) -> Answer + Send + 'static,
) -> Answer {
    let turn = Arc::clone(&services.drawing.templates);
    draw_in(turn, services, draw).await
}

async fn draw_in(
    turns: Arc<Semaphore>,
    services: Services,
    draw: impl FnOnce(&Sources<'_>) -> Answer + Send + 'static,
) -> Answer {
    let turn = turns.acquire_owned().await.map_err(Refusal::failed)?;
    let view = services.client.view().await?;
    let drawn = tokio::task::spawn_blocking(move || {
        // Held although whoever asked goes away: the thread is busy all the same.
        let _turn = turn;
        aged(draw(&Sources::of(&services, &view)), &view)
    });
    drawn.await.map_err(Refusal::failed)?
}

/// Says how old what is shown is, if the loop was too busy to say how things are now.
pub(super) fn aged(answer: Answer, view: &View) -> Answer {
    let mut response = answer?;
    let age = view.wall.elapsed().unwrap_or_default();
    if age > AGE_SHOWN {
        let seconds = HeaderValue::from(age.as_secs());
        response.headers_mut().insert(AGE, seconds);
    }
    Ok(response)
}
