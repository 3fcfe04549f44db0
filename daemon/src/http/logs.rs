//! The output of an environment's containers.

use std::convert::Infallible;

use airflow_serverless_api::{
    environment::EnvironmentName,
    event::ServerSentEvent,
    log::{ContainerLogs, ReadContainerLogs},
    routes,
};
use axum::{
    Json,
    extract::State,
    response::sse::{self, Sse},
};
use futures::Stream;

use super::{
    Services, events,
    extract::{Path, Query},
    problem::{Answer, Failure},
};

/// Get the last lines of the output of containers
#[utoipa::path(
    get, path = routes::LOGS.template, tag = "environments",
    params(("environment" = EnvironmentName, Path), ReadContainerLogs),
    responses((status = 200, body = ContainerLogs))
)]
pub(super) async fn get_container_logs(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ReadContainerLogs>,
) -> Answer<Json<ContainerLogs>> {
    Ok(Json(services.deployed(&environment).await?.container_logs(query).await?))
}

/// Stream the output of containers as server-sent events: `line` with the JSON of a ContainerLine, `failed` with a
/// Problem if no more can be read; ends with the environment
#[utoipa::path(
    get, path = routes::LOG_STREAM.template, tag = "environments",
    params(("environment" = EnvironmentName, Path), ReadContainerLogs),
    responses(
        (status = 200, body = ServerSentEvent, content_type = "text/event-stream"),
    )
)]
pub(super) async fn follow_container_logs(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ReadContainerLogs>,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let mut output = services.deployed(&environment).await?.follow_container_logs(query).await?;
    let stream = async_stream::stream! {
        loop {
            let lines = tokio::select! {
                () = services.stop.cancelled() => return,
                lines = output.next() => lines,
            };
            match lines {
                Ok(Some(lines)) => for line in lines {
                    if let Ok(event) = sse::Event::default().event("line").json_data(&line) {
                        yield Ok(event);
                    }
                },
                Ok(None) => return,
                Err(error) => {
                    yield Ok(events::failed(Failure::from(error)));
                    return;
                }
            }
        }
    };
    Ok(Sse::new(stream).keep_alive(events::heartbeat()))
}
