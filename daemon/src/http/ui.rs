//! Airflow's own user interface.

use std::convert::Infallible;

use airflow_serverless_api::{environment::EnvironmentName, event::ServerSentEvent, routes, ui::UiList};
use axum::{
    Json,
    extract::State,
    response::sse::{self, Sse},
};
use futures::Stream;

use super::{
    Services, events,
    extract::Path,
    problem::{Answer, Failure},
};
use crate::airflow::UiEvent;

/// Start the Airflow UI; it stops when the client closes the connection
///
/// Server-sent events: `progress` with the JSON of a UiProgress, `ready` with that of a UiReady, whose URL lets in who
/// opens it, and, if the UI cannot start or go on, `failed` with that of a Problem.
#[utoipa::path(
    post, path = routes::UI.template, tag = "ui",
    params(("environment" = EnvironmentName, Path)),
    responses(
        (status = 200, body = ServerSentEvent, content_type = "text/event-stream"),
    )
)]
pub(super) async fn open_ui(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let mut ui = services.deployed(&environment).await?.open_ui().await?;
    let stream = async_stream::stream! {
        loop {
            let event = tokio::select! {
                () = services.stop.cancelled() => return,
                event = ui.next() => event,
            };
            let event = match event {
                Some(UiEvent::Progress(progress)) => events::message("progress", &progress),
                Some(UiEvent::Ready(ready)) => events::message("ready", &ready),
                Some(UiEvent::Failed(error)) => events::failed(Failure::from(error)),
                None => return,
            };
            yield Ok(event);
        }
    };
    Ok(Sse::new(stream).keep_alive(events::heartbeat()))
}

/// List UIs that run, start or stop, oldest first
#[utoipa::path(get, path = routes::UIS.template, tag = "ui", responses((status = 200, body = UiList)))]
pub(super) async fn list_uis(State(services): State<Services>) -> Json<UiList> {
    Json(services.airflow.list_uis())
}
